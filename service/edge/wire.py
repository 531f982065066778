"""A connection's transport, watched: an answer that nobody reads ends, and so does a body that nobody wants."""

import asyncio
import contextlib
import ipaddress
import select
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from service.edge.budget import ByteBudget
from service.edge.places import Place, Places

PROBES: Final = frozenset({"/livez", "/readyz", "/healthz"})
"""Paths that are answered whoever asks, for whatever host, and however many connections are open."""

_LINGER_S: Final = 5.0
"""Seconds in which a client that still sends gets to read why it should not."""

_BEGINNING: Final = b"HTTP/1.1 "
"""Of every answer."""

_MOST_LINGERING: Final = 128
"""Connections that may be in that state; of more the oldest is ended, since each holds a file descriptor."""

_READ_WITHIN_S: Final = 600.0
"""Seconds in which what is held for a client has to be read, once it reads more slowly than is written."""

MOST_READ: Final = 256 << 10
"""Bytes that are read at once from a connection where they take no parsing."""

_GRACE_PIECES: Final = 500


@dataclass
class Wire:
    """What all connections of a listener share.

    Attributes:
        places: of connections.
        trusted: addresses of proxies, each of which has the connections of all its clients.
        header_timeout_s: seconds in which a request's head has to come.
        body_timeout_s, send_timeout_s: seconds of each span in which `min_rate` has to be kept, in and out.
        min_rate: bytes a second.
        budget: of the bytes that WebSockets hold of messages that are not whole yet.
        on_refusal: told the last part of the problem's type of what is refused outside of any request.
        draining: whether the service ends soon, so that no connection is worth keeping.
        lingering: connections that are told no more and only wait to be closed, the oldest first.
        buffer: what is read from a connection, until it is parsed a moment later.
    """

    places: Places
    trusted: Collection[ipaddress.IPv4Network | ipaddress.IPv6Network]
    header_timeout_s: float
    body_timeout_s: float
    send_timeout_s: float
    min_rate: int
    budget: ByteBudget
    on_refusal: Callable[[str], None] = lambda _: None
    draining: Callable[[], bool] = lambda: False
    lingering: dict["WatchedTransport", None] = field(default_factory=dict)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(MOST_READ)))

    def trusts(self, address: str) -> bool:
        """Whether an address is a trusted proxy's."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.trusted)


class Pieces:
    """Judges whether chunks or frames are worth their parsing: each takes some 10 µs, however few bytes it has. Pure.

    An average is asked for, with a grace of as many pieces as take some milliseconds: a form's parts begin with small
    ones, and a client may send what it has at the moment. Go's server ends chunked bodies by the bytes that they
    add (net/http/internal/chunked.go), of which it allows 16 a chunk: one-byte chunks add 5.
    """

    def __init__(self, least_bytes: int, a_second: float = 0.0, now: float = 0.0) -> None:
        """Begin with the grace.

        Args:
            least_bytes: that pieces have to have on average.
            a_second: pieces that may come whatever they hold.
            now: the clock.
        """
        self._least_bytes = least_bytes
        self._a_second = a_second
        self._now = now
        self._allowed: float = _GRACE_PIECES

    def add(self, pieces: int, bytes_: int, now: float = 0.0) -> bool:
        """Count pieces with so many bytes together; return False where there are too many."""
        earned = bytes_ / self._least_bytes + (now - self._now) * self._a_second
        self._allowed = min(self._allowed + earned, _GRACE_PIECES) - pieces
        self._now = now
        return self._allowed >= 0


class InPieces(asyncio.BufferedProtocol):
    """A protocol that is given no more bytes at once than it can parse in some milliseconds.

    asyncio reads up to 256 kB, in which there are 40 000 chunks or frames of a byte. What is not read waits in the
    kernel, and the loop has all others' events before it comes back to this connection.
    """

    _wire: Wire
    _least_read: int
    """Bytes that may be parsed at once."""

    def plain_bytes(self) -> int:
        """Return how many of the next bytes belong to something large, which takes no parsing."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        raise NotImplementedError

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return where to read to. It is the same for all: asyncio reads and calls `buffer_updated` in one step."""
        return self._wire.buffer[: max(self._least_read, self.plain_bytes())]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self.data_received(bytes(self._wire.buffer[:nbytes]))


class WatchedTransport:
    """An asyncio transport, but for three things.

    It is aborted once the other side takes in too little of what was written: what is written lies in memory, and
    closing would wait for it too. The more is held for it the faster it has to read. And closed while a request's body
    still comes, it first lets the client read the answer: to close at once would reset the connection, and the answer
    would be lost with it. And of the next answer its beginning may be written before it is known.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        wire: Wire,
        still_comes: Callable[[], bool],
        held: Callable[[], int],
    ) -> None:
        """Watch a transport.

        Args:
            transport: the real one.
            loop: its event loop.
            wire: the listener's.
            still_comes: whether the client is in the middle of sending what nobody will read.
            held: bytes that stay in memory until the other side has read, beside those that are written.
        """
        self._transport = transport
        self._loop = loop
        self._wire = wire
        self.still_comes = still_comes
        self.held = held
        self.place: Place | None = None
        self._written = 0
        self._read = 0  # by the other side, when the span began
        self._rate = 0.0  # bytes a second that it has to read
        self._span_ends = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ahead = 0  # bytes of the next answer that are written already
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, and watch until it is gone; after the end it is dropped."""
        if self.lingers:
            return
        if self._ahead:  # an answer's head, which comes in one piece
            data, self._ahead = data[self._ahead :], 0
        had_read_all = not self._transport.get_write_buffer_size()
        self._written += len(data)
        self._transport.write(data)
        if had_read_all and self._transport.get_write_buffer_size():
            self._rate = self._wire.min_rate
            self._begin_span()

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
        else:
            if len(self._wire.lingering) >= _MOST_LINGERING:
                next(iter(self._wire.lingering)).end()
            self.lingers = True
            self._wire.lingering[self] = None
            # one that is gone already has no connection to half-close
            with contextlib.suppress(OSError):
                if self._transport.can_write_eof():
                    self._transport.write_eof()
            self._transport.resume_reading()  # what comes is dropped
            self._loop.call_later(_LINGER_S, self.end)

    def gone(self) -> None:
        """The connection is lost: stop watching, and give its place back."""
        self._wire.lingering.pop(self, None)
        if self.place is not None:
            self._wire.places.leave(self.place)
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        """End the connection now."""
        self._wire.lingering.pop(self, None)
        self._transport.abort()

    def _begin_span(self) -> None:
        waiting = self._transport.get_write_buffer_size()
        self._read = self._written - waiting
        self._rate = max(self._rate, (waiting + self.held()) / _READ_WITHIN_S)
        self._span_ends = self._loop.time() + self._wire.send_timeout_s
        if self._timer is None:
            self._timer = self._loop.call_at(self._span_ends, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            return
        if self._loop.time() < self._span_ends:  # it had read all in between
            self._timer = self._loop.call_at(self._span_ends, self._look)
        elif self._written - waiting - self._read < max(1, self._rate * self._wire.send_timeout_s):
            self._transport.abort()
        else:
            self._begin_span()
