"""GET /docs: the API reference, Swagger UI from an installed package; nothing comes from elsewhere."""

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.responses import FileResponse

from service.routes.page import PAGE

_ASSETS: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}

_HEADERS: Final = {
    # Swagger UI's own style sheet has its icons as data; what it styles it does from scripts, which needs no leave
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Cache-Control": "no-cache",
}


def mount(app: FastAPI) -> None:
    """Serve the reference and what it is made of."""
    folder = Path(str(files("fastapi_swagger.resources")))

    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html", media_type="text/html", headers=_HEADERS)

    def serve(name: str) -> None:
        async def asset() -> FileResponse:
            return FileResponse(folder / name, media_type=_ASSETS[name], headers={"Cache-Control": "no-cache"})

        app.add_api_route(f"/page/{name}", asset, include_in_schema=False)

    app.add_api_route("/docs", docs, include_in_schema=False)
    for name in _ASSETS:
        serve(name)
