"""create_app(settings): wires the parts."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.to_thread
from fastapi import FastAPI
from pydantic.json_schema import models_json_schema
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service import problems
from service.edge.bodies import Bodies
from service.edge.clients import LimitClients
from service.edge.headers import SecurityHeaders, TrustedHosts, hosts_at
from service.edge.house import House
from service.edge.keys import Authenticate
from service.edge.wire import PROBES
from service.memory import return_free_pages
from service.metrics import Metrics
from service.middleware import AnswerErrors, Drain, FewParameters, Methods, RequestId, SameOrigin, TrailingSlash
from service.observation import Observe
from service.routes import catalogue, docs, enhance, evaluate, health, live, page
from service.routes.threads import Threads
from service.schemas import BatchErrors, EnhanceOptions, EvaluateOptions, ProblemDetails
from service.settings import Settings
from service.state import State
from service.tracing import Tracing
from service.versions import package_version
from service.watchdog import watched_steps

WORK_PATHS: Final = frozenset({"/enhance", "/evaluate", "/cameras", "/live"})
"""Paths that answer 503 while the service is not ready."""

OPEN_PATHS: Final = PROBES | {"/", "/docs", "/openapi.json"}
"""Paths that need no API key. The page has to be there to ask for one, and it and the reference say nothing that the
source does not; metrics tell how busy the house is, and need one."""

KNOWN_PATHS: Final = WORK_PATHS | OPEN_PATHS | {"/metrics"}
"""Paths that there is something at, beside the page's files."""

OPEN_FOLDERS: Final = ("/page/",)
"""Likewise all below these."""

_KEYS_LOOK_EVERY_S: Final = 1.0
_MEMORY_RETURNED_EVERY_S: Final = 10.0
_IDLE_LOOKED_FOR_EVERY_S: Final = 0.2


EXPOSED_HEADERS: Final = (
    *enhance.HEADERS,
    "Content-Disposition",
    "Retry-After",
)
"""What a page of another origin may read of an answer, beyond what browsers always show."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the app; its generators are loaded once its event loop runs, while /livez and /readyz already answer.

    Args:
        settings: None reads the environment.

    Raises:
        BrokenKeys: the file of API keys can't be read.
        TracingUnavailable: traces are asked for, and the extra `otel` is not there.
    """
    state = State(settings or Settings())
    house = House.of(state.settings)
    state.tracing = Tracing() if state.settings.traces == "otlp" else None
    _count(state.metrics, house)
    state.metrics.expect_rejections(*(problem.type for problem in problems.all_problems()))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.threads = Threads(state.settings.workers, house.limits, house.rooms)
        state.start_in_thread()
        with watched_steps(state.settings.slow_step_s):
            async with anyio.create_task_group() as group:
                group.start_soon(_watch_keys, house)
                group.start_soon(_return_memory, state)
                yield
                group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(state.stop)
        if state.tracing is not None:
            await anyio.to_thread.run_sync(state.tracing.close)

    app = FastAPI(
        title="pix2dslr",
        summary="Enhances photos from cheap cameras towards a DSLR's.",
        version=package_version(),
        lifespan=lifespan,
        # routes/docs.py serves them, from no other host
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(RequestId),
            _observe(state),
            Middleware(SecurityHeaders),
            Middleware(TrailingSlash, known=KNOWN_PATHS, redirected=frozenset({"/docs"})),
            *_cross_origin(state.settings),
            Middleware(AnswerErrors),
            *_edge(state, house),
        ],
    )
    app.state.parts = state
    app.state.house = house
    for routes in (enhance, evaluate, live, catalogue, health, page):
        app.include_router(routes.router)
    if state.settings.metrics_port is None:
        app.include_router(health.metrics_router)
    if state.settings.docs:
        docs.mount(app)
    page.mount_files(app)
    problems.install(app)
    _document_the_rest(app)
    return app


def create_probes_app(app: FastAPI) -> FastAPI:
    """Build the app of the second port: metrics and health of another app, without keys and limits."""
    settings: Settings = app.state.parts.settings
    own = () if settings.trusted_proxies else hosts_at(settings.metrics_host or settings.host)
    observed = _observe(app.state.parts)
    probes = FastAPI(
        openapi_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(RequestId),
            Middleware(TrailingSlash, known=KNOWN_PATHS),
            observed,
            Middleware(SecurityHeaders),
            Middleware(TrustedHosts, allowed={*own, *settings.trusted_hosts} if own else (), exempt=PROBES),
            Middleware(Methods),
        ],
    )
    probes.state.parts = app.state.parts
    probes.include_router(health.router)
    probes.include_router(health.metrics_router)
    problems.install(probes)
    return probes


def _edge(state: State, house: House) -> list[Middleware]:
    """The order of defence: host, origin, method, query, key, client limits, readiness; size, room, pace of bodies."""
    settings = state.settings
    return [
        Middleware(TrustedHosts, allowed=settings.trusted_hosts, exempt=PROBES),
        Middleware(SameOrigin, allowed=settings.cors_origins),
        Middleware(Methods),
        Middleware(FewParameters),
        Middleware(Authenticate, keys=house.keys, open_paths=OPEN_PATHS, open_folders=OPEN_FOLDERS),
        Middleware(LimitClients, limits=house.limits, paths=WORK_PATHS),
        Middleware(Drain, reasons=lambda: state.not_ready, paths=WORK_PATHS),
        Middleware(
            Bodies,
            rooms=house.rooms,
            max_bytes=settings.max_body_bytes,
            timeout_s=settings.body_timeout_s,
            min_rate=settings.min_rate,
        ),
    ]


def _count(metrics: Metrics, house: House) -> None:
    rooms = house.rooms
    metrics.body_bytes.set_function(lambda: rooms.bodies.counted)
    metrics.picture_bytes.set_function(lambda: rooms.picture_bytes)
    metrics.picture_limit.set(rooms.most_pictures)
    metrics.waiting_for_room.set_function(lambda: rooms.waiting)


def _observe(state: State) -> Middleware:
    return Middleware(Observe, state=state, known=KNOWN_PATHS, folders=OPEN_FOLDERS)


async def _return_memory(state: State) -> None:
    """Return free memory to the system every now and then, once no request is under way: it can take 0.5 s of 1.5 GB.

    The event loop may have to wait for that, in the C library.
    """
    returned = time.monotonic()
    while True:
        await anyio.sleep(_IDLE_LOOKED_FOR_EVERY_S)
        if state.running <= state.live and time.monotonic() - returned >= _MEMORY_RETURNED_EVERY_S:
            await anyio.to_thread.run_sync(return_free_pages)
            returned = time.monotonic()


async def _watch_keys(house: House) -> None:
    alone = anyio.CapacityLimiter(1)  # the default one may be full of zips that are read
    while house.keys.needed:
        await anyio.sleep(_KEYS_LOOK_EVERY_S)
        await anyio.to_thread.run_sync(house.keys.look_again, limiter=alone)


def _cross_origin(settings: Settings) -> list[Middleware]:
    """Let pages of the configured origins use the service; without any, browsers keep all of them out."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "OPTIONS"],
            allow_headers=["Authorization", "If-None-Match", "X-API-Key", "X-Request-ID"],
            expose_headers=EXPOSED_HEADERS,
        )
    ]


def _document_the_rest(app: FastAPI) -> None:
    """Add the schemas that no route has as its own model to the OpenAPI document: options, problems, errors.json."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        models = (EnhanceOptions, EvaluateOptions, ProblemDetails, BatchErrors)
        _, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
        )
        schemas.update(definitions["$defs"])
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, operations in document["paths"].items():
            if path not in OPEN_PATHS:  # {}: nor here, unless the operator set keys
                for operation in operations.values():
                    operation["security"] = [{}, {"bearer": []}, {"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
