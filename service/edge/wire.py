"""A connection's transport, watched: an answer that nobody reads ends, and so does a body that nobody wants."""

import asyncio
import contextlib
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from service.edge.budget import ByteBudget

_LINGER_S: Final = 5.0
"""Seconds in which a client that still sends gets to read why it should not."""

_BEGINNING: Final = b"HTTP/1.1 "
"""Of every answer."""

_MOST_LINGERING: Final = 128
"""Connections that may be in that state; more are ended at once, since each holds a file descriptor."""


@dataclass
class Wire:
    """What all connections of a listener share.

    Attributes:
        max_connections: how many may be open.
        header_timeout_s: seconds in which a request's head has to come.
        body_timeout_s, send_timeout_s: seconds of each span in which `min_rate` has to be kept, in and out.
        min_rate: bytes a second.
        budget: of the bytes that WebSockets hold of messages that are not whole yet.
        on_refusal: told the last part of the problem's type of what is refused outside of any request.
        draining: whether the service ends soon, so that no connection is worth keeping.
        lingering: connections that are told no more and only wait to be closed.
    """

    max_connections: int
    header_timeout_s: float
    body_timeout_s: float
    send_timeout_s: float
    min_rate: int
    budget: ByteBudget
    on_refusal: Callable[[str], None] = lambda _: None
    draining: Callable[[], bool] = lambda: False
    lingering: set["WatchedTransport"] = field(default_factory=set)


class WatchedTransport:
    """An asyncio transport, but for three things.

    It is aborted once the other side takes in too little of what was written, however much that was: what is written
    lies in memory, and closing would wait for it too. And closed while a request's body still comes, it first lets the
    client read the answer: to close at once would reset the connection, and the answer would be lost with it.
    And of the next answer its beginning may be written before it is known.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, wire: Wire, still_comes: Callable[[], bool]
    ) -> None:
        """Watch a transport.

        Args:
            transport: the real one.
            loop: its event loop.
            wire: the listener's.
            still_comes: whether the client is in the middle of sending what nobody will read.
        """
        self._transport = transport
        self._loop = loop
        self._wire = wire
        self.still_comes = still_comes
        self._written = 0
        self._read = 0  # by the other side, when it was looked at last
        self._timer: asyncio.TimerHandle | None = None
        self._ahead = 0  # bytes of the next answer that are written already
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, and watch until it is gone."""
        if self._ahead:  # an answer's head, which comes in one piece
            data, self._ahead = data[self._ahead :], 0
        self._written += len(data)
        self._transport.write(data)
        if self._timer is None and self._transport.get_write_buffer_size():
            self._read = self._written - self._transport.get_write_buffer_size()
            self._timer = self._loop.call_later(self._wire.send_timeout_s, self._look)

    def write_ahead(self) -> None:
        """Write one more byte of the next answer, as long as it is one that all have."""
        if self._ahead < len(_BEGINNING):
            self._transport.write(_BEGINNING[self._ahead : self._ahead + 1])
            self._written += 1
            self._ahead += 1

    def is_reset(self) -> bool:
        """Whether the other side has said that it has no such connection any more."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), 0)  # 0: resets alone, which are always told
        return bool(poll.poll(0))

    def is_closing(self) -> bool:
        """Whether it takes no more."""
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        """Close once everything is written, and where a body still comes once the client had time to read."""
        if self.lingers:
            return
        if self._transport.is_closing() or not self.still_comes():
            self._transport.close()
        elif len(self._wire.lingering) >= _MOST_LINGERING:
            self._transport.abort()
        else:
            self.lingers = True
            self._wire.lingering.add(self)
            # one that is gone already has no connection to half-close
            with contextlib.suppress(OSError):
                if self._transport.can_write_eof():
                    self._transport.write_eof()
            self._transport.resume_reading()  # what comes is dropped
            self._loop.call_later(_LINGER_S, self._end)

    def gone(self) -> None:
        """The connection is lost: stop watching."""
        self._wire.lingering.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._wire.lingering.discard(self)
        self._transport.abort()

    def _look(self) -> None:
        waiting = self._transport.get_write_buffer_size()
        self._timer = None
        if not waiting:
            return
        read = self._written - waiting
        if read - self._read < max(1, self._wire.min_rate * self._wire.send_timeout_s):
            self._transport.abort()
            return
        self._read = read
        self._timer = self._loop.call_later(self._wire.send_timeout_s, self._look)
