"""GET /docs and /openapi.json: the API reference, Swagger UI from an installed package; nothing is from elsewhere."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.responses import FileResponse, Response

from service.negotiation import entity_tag, is_known
from service.routes.page import PAGE

_ASSETS: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}

_HEADERS: Final = {
    # Swagger UI's own style sheet has its icons as data; what it styles it does from scripts, which needs no leave
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Cache-Control": "no-cache",
}


def mount(app: FastAPI) -> None:
    """Serve the reference, the OpenAPI document, and what the page is made of."""
    folder = Path(str(files("fastapi_swagger.resources")))

    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html", media_type="text/html", headers=_HEADERS)

    def serve(name: str) -> None:
        async def asset() -> FileResponse:
            return FileResponse(folder / name, media_type=_ASSETS[name], headers={"Cache-Control": "no-cache"})

        app.add_api_route(f"/page/{name}", asset, include_in_schema=False)

    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_api_route("/openapi.json", _Document(app).answer, include_in_schema=False)
    for name in _ASSETS:
        serve(name)


class _Document:
    """The OpenAPI document in bytes, made once: it takes tens of milliseconds, and anybody may ask for it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._making = anyio.Lock()
        self._made: dict[str, tuple[bytes, str]] = {}

    async def answer(self, request: Request) -> Response:
        """Answer it."""
        prefix = request.scope.get("root_path", "").rstrip("/")  # the server's own word, no client's
        async with self._making:
            if prefix not in self._made:
                self._made[prefix] = await anyio.to_thread.run_sync(self._make, prefix)
        data, tag = self._made[prefix]
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if is_known(request.headers.getlist("if-none-match"), tag):
            return Response(status_code=304, headers=headers)
        return Response(data, 200, headers, "application/json")

    def _make(self, prefix: str) -> tuple[bytes, str]:
        document = self._app.openapi()
        if prefix:
            document = {**document, "servers": [{"url": prefix}]}
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        return data, entity_tag(data)
