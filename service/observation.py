"""What is told of each request once it is over: metrics, its span and a line of the log, all from the same figures."""

import logging
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import telemetry
from service.caller import Cancelled
from service.edge.keys import key_of
from service.problems import PROBLEM, name_of
from service.state import State
from service.telemetry import Stopwatch
from service.tracing import RequestSpan, attributes_of, trace_of

log = logging.getLogger("service.access")

_RECORD: Final = "pix2dslr.record"
_HUNG_UP: Final = 499
"""Status of a request whose client hung up before there was an answer; nginx's number."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET: Final = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""Routes that are asked for every few seconds, whoever uses the service."""

_OTHER: Final = "other"
"""What a route or a method is called that there is none for: clients shall not choose labels."""


class RequestRecord:
    """What is gathered of one request until it is over.

    Attributes:
        facts: of its pictures: `camera` and `device` of the last one, `pictures`, `tiles` and `pixels` of all.
        problem: the last part of the type of the problem that it was answered; None where there was none.
        bytes_in, bytes_out: of its body, or of a WebSocket's messages.
    """

    def __init__(self, span: RequestSpan | None) -> None:
        self.facts: dict[str, str | int] = {}
        self.problem: str | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self._span = span

    def picture(self, name: str | None = None) -> "PictureRecord":
        """Return a context in which a picture is worked on, and the stopwatch for it.

        Args:
            name: of a span of its own, where the request may hold several.
        """
        return PictureRecord(self, name)

    def picture_done(self, watch: Stopwatch, name: str | None, error: BaseException | None) -> None:
        """Add what was told of a picture, which an error may have ended."""
        if not watch.facts:  # it never had a place
            return
        for key in ("camera", "device"):
            self.facts[key] = watch.facts[key]
        for key, more in (("pictures", 1), ("tiles", watch.facts["tiles"]), ("pixels", watch.facts["pixels"])):
            self.facts[key] = int(self.facts.get(key, 0)) + int(more)
        if self._span is not None:
            problem = (
                name_of(error) if isinstance(error, Exception) else None if error is None else name_of(Cancelled())
            )
            self._span.picture_done(watch, name, problem)


class PictureRecord:
    """One picture of a request, as a context."""

    def __init__(self, record: RequestRecord, name: str | None) -> None:
        self._record = record
        self._name = name
        self._watch = Stopwatch()

    def __enter__(self) -> Stopwatch:
        return self._watch

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._watch.stop()
        self._record.picture_done(self._watch, self._name, error)


def record_of(connection: HTTPConnection) -> RequestRecord:
    """Return the record of a request, or of a WebSocket."""
    record: RequestRecord = connection.scope[_RECORD]
    return record


class Observe:
    """Tells of each request once it is over; an open WebSocket is one, with status 101.

    Args:
        state: whose metrics and spans.
        known: paths whose name may be told before they are routed: of what the edge refuses.
        folders: likewise all below these, as one.
    """

    def __init__(self, app: ASGIApp, state: State, known: frozenset[str], folders: tuple[str, ...] = ()) -> None:
        self.app = app
        self.state = state
        self.known = known
        self.folders = folders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        start = time.monotonic()
        span = None if self.state.tracing is None else self.state.tracing.begin(scope["type"], headers, start)
        trace = trace_of(headers) if span is None else span.trace_id
        record = scope[_RECORD] = RequestRecord(span)
        status = _HUNG_UP  # stays so where the client hangs up before there is an answer

        async def receive_and_count() -> Message:
            message = await receive()
            record.bytes_in += _bytes_in(message)
            return message

        async def send_and_look(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif kind == "websocket.accept":
                status = 101
            elif kind == "websocket.close" and status == _HUNG_UP:
                status = 403  # what the server makes of a refused handshake
            record.problem = message.get(PROBLEM, record.problem)
            record.bytes_out += _bytes_in(message)
            await send(message)

        token = telemetry.trace_id.set(trace)
        self.state.running += 1
        try:
            await self.app(scope, receive_and_count, send_and_look)
        finally:
            self.state.running -= 1
            self._tell(scope, record, span, status, start)
            telemetry.trace_id.reset(token)

    def _tell(self, scope: Scope, record: RequestRecord, span: RequestSpan | None, status: int, start: float) -> None:
        end = time.monotonic()
        route = self._route(scope)
        method = scope.get("method", "GET")  # a WebSocket begins as one
        if method not in _METHODS:
            method = _OTHER
        if status == _HUNG_UP:
            record.problem = name_of(ClientDisconnect())  # answered to nobody
        elif record.problem is not None:
            self.state.metrics.rejected(record.problem)
        works = scope["type"] == "http"
        trace = span.trace_id if span is not None and span.recorded else None
        self.state.metrics.request_done(route, status, end - start if works else None, trace)
        if span is not None:
            span.end(method, route, status, end, _about(record))
        key = key_of(scope)
        log.log(
            logging.DEBUG if route in _QUIET else logging.INFO,
            "%s %s %d",
            *(method, route, status),
            extra={
                "method": method,
                "route": route,
                "status": status,
                "seconds": round(end - start, 6),
                "bytes_in": record.bytes_in,
                "bytes_out": record.bytes_out,
                **record.facts,
                **({} if key is None else {"client_key": key.name}),
                **({} if record.problem is None else {"problem": record.problem}),
            },
        )

    def _route(self, scope: Scope) -> str:
        """The route's pattern, never the path that was asked for: labels must stay few."""
        routed = getattr(scope.get("route"), "path", None)
        if routed is not None:
            return str(routed)
        path: str = scope["path"]
        if path in self.known:
            return path
        return next((folder for folder in self.folders if path.startswith(folder)), _OTHER)


def _bytes_in(message: Message) -> int:
    """How many bytes of a body, or of a WebSocket's message, an ASGI message holds."""
    text = message.get("text")
    if text is None:
        return len(message.get("body") or message.get("bytes") or b"")
    return len(text) if text.isascii() else len(text.encode())


def _about(record: RequestRecord) -> Mapping[str, str | int | float]:
    told = {"pix2dslr.request_id": telemetry.request_id.get(), **attributes_of(record.facts)}
    if record.problem is not None:
        told["error.type"] = record.problem
    return told
