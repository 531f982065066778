"""uvicorn's WebSockets, with an end for messages that come too slowly or take too much memory."""

import asyncio
import contextlib
import logging
from asyncio.transports import BaseTransport
from collections import deque
from collections.abc import Generator, Mapping
from http import HTTPStatus
from typing import Any, Final, cast

from starlette.types import Scope
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from service.edge.bodies import Pace
from service.edge.budget import Reservation
from service.edge.clients import client_of
from service.edge.errors import NoRoom
from service.edge.wire import MOST_READ, InPieces, Pieces, WatchedTransport, Wire

_LEAST_READ: Final = 4 << 10
"""Bytes that are parsed at once: frames of them take up to 6 ms, then others have their turn."""

_LEAST_FRAGMENT: Final = 1000
"""Bytes that a message's pieces have on average. Browsers send some 100 kB in each."""

_SMALL_A_SECOND: Final = 20.0
"""Pings, pongs and small pieces that may come; who keeps a connection alive sends one in some seconds."""

_MOST_TEXT: Final = 40_000
"""Bytes of a text message: the 10 000 characters that are read, of up to 4 bytes."""

_MOST_WRITTEN: Final = 1 << 20
"""Bytes of a message that are written at once: they are copied three times."""

_MOST_KEPT: Final = 5
"""Pictures of a connection that are in memory: one under way, and those that may wait."""

_NO_TEXT: Final = 1007
_POLICY_VIOLATION: Final = 1008
_TOO_BIG: Final = 1009
_TRY_AGAIN_LATER: Final = 1013
_SLOW: Final = "The message comes too slowly."


class _Reader(StreamReader):
    """The library's buffer of what came, which knows how many bytes it waits for."""

    needed = 0

    def read_exact(self, n: int) -> Generator[None, None, bytearray]:
        self.needed = n
        while len(self.buffer) < n and not self.eof:
            yield
        if len(self.buffer) == n:  # nothing behind it was read, where it is large: 60 MB need no copy
            whole, self.buffer = self.buffer, bytearray()
            return whole
        return (yield from super().read_exact(n))


class _Conversation(ServerProtocol):
    """The library's protocol, on such a reader."""

    reader: _Reader

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size=max_size, logger=logging.getLogger("uvicorn.error"))
        self.reader = _Reader()
        self.parser = self.parse()  # as the base does, with the reader that it has then
        next(self.parser)


class GuardedWebSocket(WebSocketsSansIOProtocol, InPieces):
    """One connection. Between messages it may be silent for as long as it answers pings."""

    _least_read = _LEAST_READ
    conn: _Conversation

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
        self._pace: Pace | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self.conn = _Conversation(config.ws_max_size)
        self._room: Reservation | None = None
        self._queued = 0  # bytes of messages that the app has not taken yet
        self._recent: deque[int] = deque(maxlen=_MOST_KEPT)  # bytes of the last messages
        self._small = 0  # frames of the last read that end no message
        self._pieces = Pieces(_LEAST_FRAGMENT, _SMALL_A_SECOND, self.loop.time())
        self._pong = b""  # the last one that is not written yet
        self._owed = 0  # bytes of the message that are still to be written

    def connection_made(self, transport: BaseTransport) -> None:
        """Take over a connection."""
        super().connection_made(transport)
        if isinstance(transport, WatchedTransport):
            transport.still_comes = self._message_still_comes
            transport.held = self._held

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_watching()
        self._give_room_back()
        if isinstance(self.transport, WatchedTransport):
            self.transport.gone()
        super().connection_lost(exc)

    def plain_bytes(self) -> int:
        """Return how many of the next bytes are the rest of a frame, or are dropped."""
        if isinstance(self.transport, WatchedTransport) and self.transport.lingers:
            return MOST_READ
        return self.conn.reader.needed - len(self.conn.reader.buffer)

    def data_received(self, data: bytes) -> None:
        """Take what came; after the end of the conversation it is dropped."""
        if isinstance(self.transport, WatchedTransport) and self.transport.lingers:
            return
        super().data_received(data)
        if not self.handshake_initiated:  # the library refuses the head, which the base doesn't look at
            self._wire.on_refusal("malformed-request")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            return
        self._count_broken()
        if self.transport.is_closing():
            self._stop_watching()
            self._give_room_back()
            return
        now = self.loop.time()
        # first, since empty pieces have no bytes that wait
        small, self._small = self._small, 0
        if not self._pieces.add(small, len(data), now):
            self._fail(_POLICY_VIOLATION, "The message is in too many pieces.", "malformed-request")
            return
        waiting = self._fragments + len(self.conn.reader.buffer)
        try:
            self._need(self._queued + waiting)
        except NoRoom:
            self._give_way()
            return
        if not waiting:
            self._stop_watching()
        elif self._pace is None:
            self._pace = Pace(self._wire.body_timeout_s, self._wire.min_rate, now)
            self._timer = self.loop.call_at(self._pace.ends, self._look)
        elif not self._pace.add(len(data), now) and not self.read_paused:
            self._fail(_POLICY_VIOLATION, _SLOW)

    async def receive(self) -> ASGIReceiveEvent:
        """Give the app the next message, with whose bytes it may do as it likes: they are no longer counted here."""
        message = await super().receive()
        if message["type"] == "websocket.receive":
            self._queued -= _size(message)
            self._give_room_back()
            with contextlib.suppress(NoRoom):  # less than before; else what comes next ends it
                self._need(self._queued + self._fragments + len(self.conn.reader.buffer))
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Send for the app; a large message in pieces, each once the one before is written.

        It ends once the client has read most of it: whoever holds an answer holds it until then.
        """
        if self._failed:
            raise ClientDisconnected
        data = message.get("bytes") if message["type"] == "websocket.send" else None
        if not isinstance(data, bytes) or len(data) <= _MOST_WRITTEN:
            await super().send(message)
            await self.writable.wait()
            return
        self._owed = len(data)
        for start in range(0, len(data), _MOST_WRITTEN):
            await self.writable.wait()
            if self.disconnected or self.transport.is_closing() or self.conn.state is not State.OPEN:
                raise ClientDisconnected
            piece = data[start : start + _MOST_WRITTEN]
            self._owed -= len(piece)
            send = self.conn.send_continuation if start else self.conn.send_binary
            send(piece, fin=not self._owed)
            self.transport.write(b"".join(self.conn.data_to_send()))
        await self.writable.wait()

    def resume_writing(self) -> None:
        """Go on writing, with the answer to the last ping that came meanwhile."""
        super().resume_writing()
        if self._pong and not self.transport.is_closing():
            self.transport.write(self._pong)
        self._pong = b""

    def handle_ping(self) -> None:
        """Answer a ping; where the client does not read, only the last one (RFC 6455, 5.5.3)."""
        self._small += 1
        if self.writable.is_set() or self.conn.state is not State.OPEN:
            super().handle_ping()
        else:
            self._pong = (self.conn.data_to_send() or [self._pong])[-1]

    def handle_pong(self, event: Frame) -> None:
        """Take the answer to a ping."""
        self._small += 1
        super().handle_pong(event)

    def handle_connect(self, event: Request) -> None:
        """Take a handshake; one that is none is answered by the library."""
        super().handle_connect(event)
        if self.response is not None and self.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._wire.on_refusal("malformed-request")

    def handle_cont(self, event: Frame) -> None:
        """Count a message's bytes."""
        if self._takes(event):
            super().handle_cont(event)

    def handle_text(self, event: Frame) -> None:
        """Count a message's bytes."""
        self.curr_msg_data_type = "text"
        if self._takes(event):
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Count a message's bytes."""
        self.curr_msg_data_type = "bytes"
        if self._takes(event):
            super().handle_bytes(event)

    def _takes(self, event: Frame) -> bool:
        """Count a frame of a message; return False where it ends the conversation."""
        if self._failed:
            return False
        self._fragments += len(event.data)
        self._small += not event.fin
        if self.curr_msg_data_type == "text" and self._fragments > _MOST_TEXT:
            self.frames = []
            self._fail(_TOO_BIG, f"A text message has at most {_MOST_TEXT} bytes.", "body-too-large")
            return False
        return True

    def send_receive_event_to_app(self) -> None:
        """Pass a whole message on."""
        self._recent.append(self._fragments)
        self._queued += 0 if self.close_sent else self._fragments  # the base drops it then
        self._fragments = 0
        self._stop_watching()
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            # the base ends it too, and writes an error with a traceback into the log, as often as a client likes
            self._fail(_NO_TEXT, "The message is no UTF-8.", "malformed-request")
            return
        super().send_receive_event_to_app()

    def _held(self) -> int:
        return sum(self._recent) + self._owed

    def _need(self, together: int) -> None:
        """Count what is in memory here as the client's, which is known once the app has accepted it.

        Raises:
            NoRoom: there is none.
        """
        if not together:
            self._give_room_back()
            return
        if self._room is None:
            self._room = self._wire.budget.open(client_of(cast(Scope, self.scope)), self._give_way)
        self._room.need(together)

    def _give_way(self) -> None:
        self._fail(_TRY_AGAIN_LATER, "There is no room for the message now: try again.", "no-room")

    def _give_room_back(self) -> None:
        if self._room is not None:
            self._room.close()
            self._room = None

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
        self._give_room_back()
        self._failed = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        self.transport.close()


def _size(message: Mapping[str, Any]) -> int:
    data, text = message.get("bytes"), message.get("text")
    return len(data) if data is not None else len(str(text).encode())


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
