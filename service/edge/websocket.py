"""uvicorn's WebSockets, with an end for messages that come too slowly or take too much memory."""

import asyncio
from asyncio.transports import BaseTransport
from http import HTTPStatus
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame
from websockets.http11 import Request

from service.edge.bodies import Pace
from service.edge.errors import NoRoom
from service.edge.wire import WatchedTransport, Wire

_MOST_FRAGMENTS: Final = 10_000
"""Of one message: each takes memory however few bytes it has, and browsers send pieces of some 100 kB."""

_NO_TEXT: Final = 1007
_POLICY_VIOLATION: Final = 1008
_TRY_AGAIN_LATER: Final = 1013
_SLOW: Final = "The message comes too slowly."


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """One connection. Between messages it may be silent for as long as it answers pings."""

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
        self._fragments = 0  # bytes of the message's frames that are whole
        self._passed = 0  # bytes of a whole message that the app has not taken yet
        self._pace: Pace | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._room = wire.budget.open("websockets", self._give_way)

    def connection_made(self, transport: BaseTransport) -> None:
        """Take over a connection."""
        super().connection_made(transport)
        if isinstance(transport, WatchedTransport):
            transport.still_comes = self._message_still_comes

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_watching()
        self._room.close()
        if isinstance(self.transport, WatchedTransport):
            self.transport.gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; after the end of the conversation it is dropped."""
        if isinstance(self.transport, WatchedTransport) and self.transport.lingers:
            return
        super().data_received(data)
        self._count_broken()
        # first, since empty pieces have no bytes that wait
        if len(self.frames) > _MOST_FRAGMENTS and not self.transport.is_closing():
            self._fail(_POLICY_VIOLATION, "The message is in too many pieces.", "malformed-request")
            return
        waiting = self._fragments + len(self.conn.reader.buffer)
        if self.transport.is_closing():
            self._stop_watching()
            self._room.close()
            return
        try:
            self._room.need(waiting + self._passed)
        except NoRoom:
            self._give_way()
            return
        if not waiting:
            self._stop_watching()
            return
        now = self.loop.time()
        if self._pace is None:
            self._pace = Pace(self._wire.body_timeout_s, self._wire.min_rate, now)
            self._timer = self.loop.call_at(self._pace.ends, self._look)
        elif not self._pace.add(len(data), now) and not self.read_paused:
            self._fail(_POLICY_VIOLATION, _SLOW)

    def handle_connect(self, event: Request) -> None:
        """Take a handshake; one that is none is answered by the library."""
        super().handle_connect(event)
        if self.response is not None and self.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._wire.on_refusal("malformed-request")

    def handle_cont(self, event: Frame) -> None:
        """Count a message's bytes."""
        self._fragments += len(event.data)
        super().handle_cont(event)

    def handle_text(self, event: Frame) -> None:
        """Count a message's bytes."""
        self._fragments += len(event.data)
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Count a message's bytes."""
        self._fragments += len(event.data)
        super().handle_bytes(event)

    def send_receive_event_to_app(self) -> None:
        """Pass a whole message on."""
        self._passed += self._fragments
        self._fragments = 0
        self._stop_watching()
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            # the base ends it too, and writes an error with a traceback into the log, as often as a client likes
            self._fail(_NO_TEXT, "The message is no UTF-8.", "malformed-request")
            return
        super().send_receive_event_to_app()

    async def receive(self) -> Any:
        """Give the app a message, which then holds it."""
        message = await super().receive()
        if message["type"] == "websocket.receive":
            self._room.give(self._passed)
            self._passed = 0
        return message

    async def send(self, message: Any) -> None:
        """Send, and wait until the client has read most of it: who holds an answer holds it until then."""
        await super().send(message)
        await self.writable.wait()

    def _give_way(self) -> None:
        self._fail(_TRY_AGAIN_LATER, "There is no room for the message now: try again.", "no-room")

    def _look(self) -> None:
        self._timer = None
        if self._pace is None or self.transport.is_closing():
            return
        now = self.loop.time()
        # while the service reads no further, the client can't send
        if not self._pace.add(0, now) and not self.read_paused:
            self._fail(_POLICY_VIOLATION, _SLOW)
            return
        self._timer = self.loop.call_at(self._pace.ends, self._look)

    def _count_broken(self) -> None:
        """Count what the library ends the conversation for; who only goes away is not counted."""
        error = self.conn.parser_exc
        if self._failed or not isinstance(error, PayloadTooBig | ProtocolError):
            return
        self._failed = True
        self._wire.on_refusal("body-too-large" if isinstance(error, PayloadTooBig) else "malformed-request")

    def _stop_watching(self) -> None:
        self._pace = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _message_still_comes(self) -> bool:
        return self._failed or self.conn.parser_exc is not None

    def _fail(self, code: int, reason: str, problem: str = "too-slow") -> None:
        self._wire.on_refusal(problem)
        self._stop_watching()
        self._room.close()
        self._failed = True
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        self.transport.close()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
