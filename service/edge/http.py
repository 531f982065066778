"""uvicorn's HTTP/1.1 on h11, with what a public network asks for: deadlines, bounds, an end for unwanted bodies."""

import asyncio
import logging
import uuid
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from service import telemetry
from service.edge.clients import network_of
from service.edge.errors import TooManyConnections, TooSlow
from service.edge.headers import SECURITY_HEADERS
from service.edge.places import Place
from service.edge.requests import Connection
from service.edge.rooms import ABORT, HELD
from service.edge.wire import MOST_READ, PROBES, InPieces, WatchedTransport, Wire
from service.problems import MalformedRequest, response_to

log = logging.getLogger(__name__)

_MOST_HEAD_BYTES: Final = 16 << 10
"""Of a request's head; h11's own bound."""

_LEAST_READ: Final = 16 << 10
"""Bytes of heads that are parsed at once: the fields of a trailer in them take up to 10 ms, then others have a turn."""

_LISTS_OF_UPGRADE: Final = frozenset(
    {b"connection", b"upgrade", b"sec-websocket-protocol", b"sec-websocket-extensions"}
)
_MOST_OF_LISTS: Final = 2000
"""Bytes of those headers together. The library parses them in Python, 16 kB in 40 ms; a key takes up to 360."""

_MOST_OF_CHUNKS: Final = 64 << 10
"""Bytes of a chunked body that are parsed at once: 5 ms where its chunks are as small as they may be."""

_LOOK_EVERY_S: Final = 0.25

_HEAD_IS_WRONG: Final = "It is no HTTP/1.1 request."


class GuardedHttp(H11Protocol, InPieces):
    """One connection.

    What it adds to its base: a stricter look at each request, as `requests` has it; a deadline for its head, which
    uvicorn has none for; a bound on connections, as `places` has it; `Connection: close` on an answer that comes before
    the body has, after which the rest is not drained for ever, and on all while the service drains, so that nobody
    sends the next request to where nothing listens any more; answers for who sends no more but reads on; an end for who
    does not read; and problems where uvicorn answers in plain text.
    """

    _least_read = _LEAST_READ
    conn: Connection

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        wire: Wire,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = Connection(h11.SERVER, config.h11_max_incomplete_event_size or _MOST_HEAD_BYTES)
        self._wire = wire
        self._app = self.app
        self.app = self._answer
        self._watched: WatchedTransport | None = None
        self._place: Place | None = None
        self._owed = 0  # bytes of the answer that are still to be written
        self._head_timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._sends_no_more = False
        self._looks = 0
        self._look_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; where there are too many, only a probe is answered on it."""
        self._watched = WatchedTransport(transport, self.loop, self._wire, self._body_still_comes, self._held)
        super().connection_made(cast(asyncio.Transport, self._watched))
        peer = self.client[0] if self.client else ""
        self._place = self._wire.places.take(network_of(peer), self._make_room, not self._wire.trusts(peer))
        self._watched.place = self._place
        if self._place.spare:
            self.conn.only = PROBES
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_expecting()
        if self._look_timer is not None:
            self._look_timer.cancel()
        if self._watched is not None:
            self._watched.gone()
        super().connection_lost(exc)

    def plain_bytes(self) -> int:
        """Return how many of the next bytes are of a body that h11 passes on as it is, or are dropped."""
        if self._watched is not None and self._watched.lingers:
            return MOST_READ
        if self.conn.their_state is not h11.SEND_BODY:
            return 0
        return self.conn.left or _MOST_OF_CHUNKS

    def data_received(self, data: bytes) -> None:
        """Take what came; what comes after an answer that needed it not is dropped."""
        if self._watched is not None and self._watched.lingers:
            return
        if self._place is not None:
            self._wire.places.wake(self._place)
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._expect_head()  # it has begun and is not all here
        else:
            self._stop_expecting()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the answer to a request that is whole: the client may only have closed its half.

        One that has hung up looks the same at first (RFC 9112, 9.6), until something is written: `_look` does.
        """
        if not self._answer_is_due():
            return False
        if not self._sends_no_more:
            self._sends_no_more = True
            self._look()
        return True

    def on_response_complete(self) -> None:
        """Go on with what came behind the request, or close where nothing did and nothing can."""
        super().on_response_complete()
        if self._answer_is_due():
            return
        if self._sends_no_more:
            self.transport.close()
        elif self._place is not None and self.conn.their_state is h11.IDLE:
            self._wire.places.rest(self._place)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over."""
        self._stop_expecting()
        listed = sum(len(value) for name, value in self.headers if name in _LISTS_OF_UPGRADE)
        if listed > _MOST_OF_LISTS:
            self._refuse(MalformedRequest(f"Its headers of WebSockets have more than {_MOST_OF_LISTS} bytes."))
        else:
            super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, or one that is not taken."""
        del msg  # uvicorn's words
        self._refuse(TooManyConnections() if self.conn.unwanted else MalformedRequest(self.conn.why or _HEAD_IS_WRONG))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = self.cycle
        scope[ABORT] = self.transport.abort

        async def send_and_end(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                self._owed = next((int(value) for name, value in headers if name == b"content-length"), 0)
                if self._is_last(cycle.more_body):
                    message = {**message, "headers": [*headers, CLOSE_HEADER]}
            else:
                self._owed = max(0, self._owed - len(message.get("body", b"")))
            await send(message)

        await self._app(scope, receive, send_and_end)

    def _is_last(self, body_comes: bool) -> bool:
        """Whether the answer that begins ends the connection."""
        if body_comes or self._wire.draining() or (self._place is not None and self._place.spare):
            return True
        return self._sends_no_more and not self.conn.trailing_data[0]

    def _held(self) -> int:
        held = None if self.cycle is None else cast(Scope, self.cycle.scope).get(HELD)
        return max(self.conn.came + self._owed, 0 if held is None else held.bytes)

    def _make_room(self) -> None:
        """End the connection, whose place another one gets."""
        if self._place is not None and self._place.spare:
            self._refuse(TooManyConnections())
        else:
            self.timeout_keep_alive_handler()

    def _answer_is_due(self) -> bool:
        return self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body)

    def _look(self) -> None:
        """See every now and then whether a client that sends no more is still there.

        One that has closed the connection resets it for the next byte that comes, and its work ends. So the first bytes
        of the answer, which are the same whatever it will be, are written one by one ahead of it, after 0 s, 0.25, 0.5,
        1, 2 and so on.
        """
        self._look_timer = None
        if self._watched is None or self.transport.is_closing():
            return
        if self._watched.is_reset():
            self.transport.abort()
            return
        if not self.cycle.response_started and not self._looks & (self._looks - 1):
            self._watched.write_ahead()
        self._looks += 1
        self._look_timer = self.loop.call_later(_LOOK_EVERY_S, self._look)

    def _body_still_comes(self) -> bool:
        return self._refused or (self.cycle is not None and self.cycle.more_body)

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._wire.header_timeout_s, self._head_is_late)

    def _stop_expecting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            return
        if self.conn.trailing_data[0]:
            self._refuse(TooSlow(self._wire.header_timeout_s))
        else:  # it never said anything: nobody waits for an answer
            self.transport.abort()

    def _refuse(self, error: Exception) -> None:
        """Answer outside of any request, and end the connection."""
        self._stop_expecting()
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # whoever reads the body is told
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        identity = uuid.uuid4().hex
        token = telemetry.request_id.set(identity)
        try:
            response = response_to(error)
            told = {"status": response.status_code, "problem": response.problem.type}
            log.debug("refused before there was a request", extra=told)
        finally:
            telemetry.request_id.reset(token)
        self._wire.on_refusal(response.problem.type)
        for name, value in {**SECURITY_HEADERS, "X-Request-ID": identity}.items():
            response.headers.setdefault(name, value)
        head = [f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}".encode("ascii")]
        head += [name + b": " + value for name, value in (*response.raw_headers, CLOSE_HEADER)]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()
