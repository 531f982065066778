"""Lets in only who brings an API key, where there are keys."""

import base64
import binascii
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.edge.clients import name_client
from service.edge.errors import Unauthorized
from service.edge.refusal import refuse
from service.keys import ApiKey, KeyRing

KEY_SUBPROTOCOL: Final = "pix2dslr.key."
"""Before the key in base64url: how a page's WebSocket brings it, which can set no header and has no place in a URL."""

_KEY: Final = "pix2dslr.key"


class Authenticate:
    """Answers 401 to whoever brings no valid key, before a byte of the body is read.

    Every path needs one but those that are named as open, so that a new route is closed until somebody opens it.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, open_paths: frozenset[str], open_folders: tuple[str, ...]) -> None:
        self.app = app
        self.keys = keys
        self.open_paths = open_paths
        self.open_folders = open_folders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self.keys.needed or self._is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        key = next((key for sent in sent_keys(scope) if (key := self.keys.find(sent)) is not None), None)
        if key is None:
            await refuse(Unauthorized(), scope, receive, send)
            return
        scope[_KEY] = key
        name_client(scope, key.name)
        await self.app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self.open_paths or path.startswith(self.open_folders)


def key_of(scope: Scope) -> ApiKey | None:
    """Return the key that a request was let in with, None where it needs none."""
    return scope.get(_KEY)


def sent_keys(scope: Scope) -> list[str]:
    """Return the keys that a request brings, whether they are valid or not: at most one of each place."""
    headers = Headers(scope=scope)
    sent = []
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        sent.append(credentials.strip())
    if "x-api-key" in headers:
        sent.append(headers["x-api-key"].strip())
    offered = (each for each in scope.get("subprotocols", ()) if each.startswith(KEY_SUBPROTOCOL))
    if (one := next(offered, None)) is not None:
        encoded = one.removeprefix(KEY_SUBPROTOCOL)
        try:
            sent.append(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode())
        except (binascii.Error, UnicodeDecodeError):
            pass
    return sent
