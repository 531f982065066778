"""Small pure-ASGI classes, each with one concern."""

import re
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import telemetry
from service.edge.errors import OtherOrigin
from service.edge.refusal import refuse
from service.problems import PROBLEM, MalformedRequest, NotReady, name_of, response_to

_CLIENTS_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_POLICY_VIOLATION: Final = 1008
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_MOST_PARAMETERS: Final = 32
"""Of a query; options are ten."""


class TrailingSlash:
    """Takes the slash from the end of a path that is known without it.

    To redirect, as the framework would, costs who sends a picture the whole body a second time, and the address that it
    made of Host lacked the prefix that a proxy had taken away.

    Args:
        known: paths.
        redirected: those of pages, whose links would lead elsewhere with the slash: answered 308, with an address that
            is relative.
    """

    def __init__(self, app: ASGIApp, known: frozenset[str], redirected: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.known = known
        self.redirected = redirected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"].endswith("/"):
            path = scope["path"][:-1]
            if path in self.redirected and scope["type"] == "http":
                query = scope["query_string"].decode("latin-1")
                location = f"..{path}{'?' if query else ''}{query}"
                await Response(status_code=308, headers={"Location": location})(scope, receive, send)
                return
            if path in self.known:
                scope.update(path=path, raw_path=path.encode())  # not in a copy: what observes the request is outside
        await self.app(scope, receive, send)


class RequestId:
    """Gives each request an id, the client's own where it sends a plain one, and answers it as X-Request-ID."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        identity = sent if _CLIENTS_ID.fullmatch(sent) else uuid.uuid4().hex
        token = telemetry.request_id.set(identity)

        async def send_with_id(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["X-Request-ID"] = identity
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            telemetry.request_id.reset(token)


class AnswerErrors:
    """Answers with its problem what no route has caught, as long as nothing of another answer was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        begun = False

        async def send_and_look(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_look)
        except ClientDisconnect:
            pass  # in the middle of its body: nobody is left to answer, and nothing is wrong here
        except Exception as error:
            if begun or scope["type"] == "websocket":
                raise
            await response_to(error)(scope, receive, send)


class Methods:
    """Answers HEAD wherever there is GET, OPTIONS with what there is, and 405 with all of it (RFC 9110, 9.3).

    The framework's routes know one method each: they refuse HEAD, and name only their own in Allow.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            allowed = allowed_methods(scope["app"].routes, scope)
            if allowed:
                await Response(status_code=204, headers={"Allow": ", ".join(allowed)})(scope, receive, send)
                return

        async def send_with_allow(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                allowed = allowed_methods(scope["app"].routes, scope)
                MutableHeaders(scope=message)["Allow"] = ", ".join(allowed)
            await send(message)

        if scope["method"] != "HEAD":
            await self.app(scope, receive, send_with_allow)
            return
        as_get = {**scope, "method": "GET"}

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send_with_allow(message)

        await self.app(as_get, receive, send_without_body)
        if "route" in as_get:
            scope["route"] = as_get["route"]  # for metrics, spans and the log


def allowed_methods(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """Return the methods that a request's path takes, empty where there is nothing."""

    def takes(method: str) -> bool:
        # a copy, since matching may leave notes in it
        matches = (route for route in routes if route.matches({**scope, "method": method})[0] == Match.FULL)
        return any(method == "GET" or not isinstance(route, Mount) for route in matches)

    allowed = [method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if takes(method)]
    if scope["path"] == "*":  # the server as a whole
        allowed = ["GET", "POST"]
    if "GET" in allowed:
        allowed.insert(1, "HEAD")
    return [*allowed, "OPTIONS"] if allowed else []


class FewParameters:
    """Answers 400 to a query of more parameters than any route takes: the framework reads them all for each route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope["query_string"].count(b"&") >= _MOST_PARAMETERS:
            await refuse(MalformedRequest("The query has too many parameters."), scope, receive, send)
            return
        await self.app(scope, receive, send)


class Drain:
    """Answers 503 to new work while the service is not ready for it; health, metrics and docs stay open."""

    def __init__(self, app: ASGIApp, reasons: Callable[[], list[str]], paths: frozenset[str]) -> None:
        self.app = app
        self.reasons = reasons
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope["path"] in self.paths and (reasons := self.reasons()):
            await refuse(NotReady(f"It is {', '.join(reasons)}; try again soon."), scope, receive, send)
            return
        await self.app(scope, receive, send)


class SameOrigin:
    """Refuses what a page of another site sends, which could else use a visitor's place in their network.

    That is a WebSocket, and every method that may change something: a form or a fetch without CORS sends a POST and
    only does not get to read its answer. As Go's CrossOriginProtection it goes by Sec-Fetch-Site, which browsers send
    to TLS and to the own machine, else by Origin; they let no page change either (RFC 6455, 10.2). They let none set
    X-Forwarded-Host either, with which a proxy that rewrites Host says what it was. Clients that are no browsers send
    neither, and pass.

    Args:
        allowed: further origins whose pages may send, such as `https://photos.example`; `*` lets any.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()) -> None:
        self.app = app
        self.allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("method") in _SAFE or self._may(Headers(scope=scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await refuse(OtherOrigin(), scope, receive, send)
        else:  # before it is accepted: browsers tell a page nothing of it
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, PROBLEM: name_of(OtherOrigin())})

    def _may(self, headers: Headers) -> bool:
        return bool(self.allowed & {headers.get("origin"), "*"}) or _same_origin(headers)


def _same_origin(headers: Headers) -> bool:
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    if "origin" not in headers:
        return True
    scheme, _, host = headers["origin"].lower().partition("://")
    standard = {"http": ":80", "https": ":443"}.get(scheme, "")

    def named(name: str) -> str:
        # a chain of proxies lists the client's own first
        return headers.get(name, "").partition(",")[0].strip().lower()

    # an origin leaves its scheme's own port out, a Host header may name it
    return bool(host) and any(named(name).removesuffix(standard) == host for name in ("host", "x-forwarded-host"))
