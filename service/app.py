"""create_app(settings): wires the parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import anyio
import anyio.to_thread
from fastapi import FastAPI
from starlette.middleware import Middleware

from service import problems
from service.middleware import BodyLimit, CountRequests, Drain, RequestId, SameOrigin
from service.routes import catalogue, enhance, evaluate, health, live, page
from service.schemas import ProblemDetails
from service.settings import Settings
from service.state import State

WORK_PATHS: Final = frozenset({"/enhance", "/evaluate", "/cameras", "/live"})
"""Paths that answer 503 while the service is not ready."""


def package_version() -> str:
    """Return the installed package's version, `0` where it runs from a bare checkout."""
    try:
        return version("pix2dslr")
    except PackageNotFoundError:
        return "0"


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the app; its generators are loaded once its event loop runs, while /livez and /readyz already answer.

    Args:
        settings: None reads the environment.
    """
    state = State(settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.workers = anyio.CapacityLimiter(state.settings.workers)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, state.start)
            yield
        await anyio.to_thread.run_sync(state.stop)

    app = FastAPI(
        title="pix2dslr",
        summary="Enhances photos from cheap cameras towards a DSLR's.",
        version=package_version(),
        lifespan=lifespan,
        middleware=[
            Middleware(RequestId),
            Middleware(CountRequests, state=state),
            Middleware(SameOrigin),
            Middleware(Drain, reasons=lambda: state.not_ready, paths=WORK_PATHS),
            Middleware(BodyLimit, max_bytes=state.settings.max_body_bytes),
        ],
    )
    app.state.parts = state
    for routes in (enhance, evaluate, live, catalogue, health, page):
        app.include_router(routes.router)
    page.mount_files(app)
    problems.install(app)
    _document_problems(app)
    return app


def _document_problems(app: FastAPI) -> None:
    """Add the problems' schema, which no route answers as its own model, to the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]
