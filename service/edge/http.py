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
from service.edge.errors import TooManyConnections, TooSlow
from service.edge.headers import SECURITY_HEADERS
from service.edge.wire import WatchedTransport, Wire
from service.problems import MalformedRequest, response_to

log = logging.getLogger(__name__)

_HEAD_IS_WRONG: Final = "It is no HTTP/1.1 request."


class GuardedHttp(H11Protocol):
    """One connection.

    What it adds to its base: a deadline for each request's head, which uvicorn has none for; a bound on connections;
    `Connection: close` on an answer that comes before the body has, after which the rest is not drained for ever, and
    on all while the service drains, so that nobody sends the next request to where nothing listens any more; an end for
    who does not read; and problems where uvicorn answers in plain text.
    """

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
        self._wire = wire
        self._app = self.app
        self.app = self._answer
        self._watched: WatchedTransport | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it where there are too many."""
        self._watched = WatchedTransport(transport, self.loop, self._wire, self._body_still_comes)
        super().connection_made(cast(asyncio.Transport, self._watched))
        if len(self.connections) > self._wire.max_connections:
            self.connections.discard(self)
            self._refuse(TooManyConnections())
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_expecting()
        if self._watched is not None:
            self._watched.gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; what comes after an answer that needed it not is dropped."""
        if self._watched is not None and self._watched.lingers:
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._expect_head()  # it has begun and is not all here
        else:
            self._stop_expecting()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over."""
        self._stop_expecting()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request."""
        del msg  # uvicorn's words
        self._refuse(MalformedRequest(_HEAD_IS_WRONG))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = self.cycle

        async def send_and_end(message: Message) -> None:
            if message["type"] == "http.response.start" and (cycle.more_body or self._wire.draining()):
                message = {**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]}
            await send(message)

        await self._app(scope, receive, send_and_end)

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
        identity = uuid.uuid4().hex
        token = telemetry.request_id.set(identity)
        try:
            response = response_to(error)
            told = {"status": response.status_code, "problem": response.problem.type}
            log.debug("refused before there was a request", extra=told)
        finally:
            telemetry.request_id.reset(token)
        self._wire.on_refusal(response.problem.type)
        body = bytes(response.body)
        named = {**SECURITY_HEADERS, "X-Request-ID": identity}
        headers = [*response.raw_headers, *((k.encode(), v.encode()) for k, v in named.items()), CLOSE_HEADER]
        head = [f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}".encode("ascii")]
        head += [name + b": " + value for name, value in headers]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()
