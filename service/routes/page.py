"""GET /: the web page, and its files under /page. Plain files: nothing is built, and nothing comes from elsewhere."""

import os
import re
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.state import state_of

router = APIRouter()

PAGE: Final = Path(__file__).parents[1] / "page"

_LONGEST_PATH: Final = 200

_LINK_TO_DOCS: Final = re.compile(r'<a [^>]*href="docs">[^<]*</a>')

_HEADERS: Final = {
    # 'self' in connect-src covers ws: and wss: of the same host (CSP 3)
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # asked for each time and answered by 304: a new release shows at once, and never half
    "Cache-Control": "no-cache",
}


class _PageFiles(StaticFiles):
    def get_path(self, scope: Scope) -> str:
        # of 16 kB every part would be looked for on the disk, which takes 50 ms
        return "" if len(scope["path"]) > _LONGEST_PATH else super().get_path(scope)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_HEADERS)
        return response


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def page(request: Request) -> Response:
    """Answer the page."""
    if not state_of(request).settings.docs:
        html = _LINK_TO_DOCS.sub("", (PAGE / "index.html").read_text())
        return Response(html, media_type="text/html", headers=_HEADERS)
    return FileResponse(PAGE / "index.html", media_type="text/html", headers=_HEADERS)


def mount_files(app: FastAPI) -> None:
    """Serve the page's files."""
    app.mount("/page", _PageFiles(directory=PAGE), name="page")
