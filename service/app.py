"""create_app(settings): wires the parts."""

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
from service.middleware import BodyLimit, CountRequests, Drain, Methods, RequestId, SameOrigin
from service.routes import catalogue, enhance, evaluate, health, live, page
from service.routes.threads import Threads
from service.schemas import BatchErrors, EnhanceOptions, EvaluateOptions, ProblemDetails
from service.settings import Settings
from service.state import State
from service.versions import package_version

WORK_PATHS: Final = frozenset({"/enhance", "/evaluate", "/cameras", "/live"})
"""Paths that answer 503 while the service is not ready."""


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
    """
    state = State(settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.threads = Threads(state.settings.workers)
        state.start_in_thread()
        yield
        await anyio.to_thread.run_sync(state.stop)

    app = FastAPI(
        title="pix2dslr",
        summary="Enhances photos from cheap cameras towards a DSLR's.",
        version=package_version(),
        lifespan=lifespan,
        middleware=[
            Middleware(RequestId),
            *_cross_origin(state.settings),
            Middleware(CountRequests, state=state),
            Middleware(SameOrigin, allowed=state.settings.cors_origins),
            Middleware(Methods),
            Middleware(Drain, reasons=lambda: state.not_ready, paths=WORK_PATHS),
            Middleware(BodyLimit, max_bytes=state.settings.max_body_bytes),
        ],
    )
    app.state.parts = state
    for routes in (enhance, evaluate, live, catalogue, health, page):
        app.include_router(routes.router)
    page.mount_files(app)
    problems.install(app)
    _document_the_rest(app)
    return app


def _cross_origin(settings: Settings) -> list[Middleware]:
    """Let pages of the configured origins use the service; without any, browsers keep all of them out."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "OPTIONS"],
            allow_headers=["If-None-Match", "X-Request-ID"],
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
        return document

    app.openapi = openapi  # type: ignore[method-assign]
