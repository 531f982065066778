"""How many bytes a request's body may have, how much room bodies take together, and how slowly one may come."""

from typing import Final

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.edge.clients import client_of
from service.edge.errors import NoRoom, TooSlow
from service.edge.rooms import ABORT, HELD, Rooms
from service.problems import BodyTooLarge, response_to

_WHOLE_WITHIN_S: Final = 600.0
"""Seconds in which any body has to be complete: what is large has to come faster than the least rate."""


class Pace:
    """Judges whether bytes come fast enough: in each span of seconds so many, and all within a last one.

    Pure; the caller has the clock.
    """

    def __init__(self, span_s: float, min_rate: int, now: float, length: int = 0) -> None:
        """Begin the first span.

        Args:
            span_s: length of a span.
            min_rate: bytes a second that have to come on average over each. Of what is so long, or has become so, that
                it would not be complete in time, as many more.
            now: the clock.
            length: bytes that will come, as far as is known.
        """
        self._span_s = span_s
        self._min_rate = min_rate
        self._last = now + _WHOLE_WITHIN_S
        self._length = length
        self._came = self._together = 0
        self._begin(now)

    def add(self, count: int, now: float) -> bool:
        """Count bytes; return False where a span ended with too few, or the last one."""
        self._came += count
        self._together += count
        if now < self.ends:
            return True
        rate = max(self._min_rate, max(self._length, self._together) / _WHOLE_WITHIN_S)
        enough = self._came >= max(1, rate * self._long_s) and now < self._last
        self._begin(now)
        return enough

    def _begin(self, now: float) -> None:
        self._came = 0
        self.ends = min(now + self._span_s, self._last)
        self._long_s = self.ends - now


class Bodies:
    """Guards a request's body while it is read, and counts what is held for the request until it is answered.

    It answers 413 to one of too many bytes, by its Content-Length, so before the client was told to go on, or as soon
    as what came exceeds it; 503 where all bodies together would take too much memory, before where that is certain;
    408 to one that comes too slowly.
    """

    def __init__(self, app: ASGIApp, rooms: Rooms, max_bytes: int, timeout_s: float, min_rate: int) -> None:
        self.app = app
        self.rooms = rooms
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.min_rate = min_rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        receiving: anyio.CancelScope | None = None

        def give_way() -> None:
            if receiving is not None:
                receiving.cancel()

        held = scope[HELD] = self.rooms.open(client_of(scope), give_way, scope.get(ABORT))
        refused: Exception | None = None
        length = came = 0
        complete = False
        pace: Pace | None = None

        async def receive_more() -> Message:
            nonlocal came, complete, pace, receiving
            if complete:
                return await receive()
            pace = pace or Pace(self.timeout_s, self.min_rate, anyio.current_time(), length)
            while True:
                held.body.need(0)  # raises where it had to give way
                with anyio.move_on_at(pace.ends) as receiving:
                    message = await receive()
                    break
                if not pace.add(0, anyio.current_time()):
                    raise TooSlow(self.timeout_s)
            more = len(message.get("body", b""))
            came += more
            if came > self.max_bytes:
                raise BodyTooLarge(self.max_bytes)
            held.body.need(came)
            complete = not message.get("more_body", False)
            if complete:
                held.body.finish()
            elif not pace.add(more, anyio.current_time()):
                raise TooSlow(self.timeout_s)
            return message

        async def receive_guarded() -> Message:
            nonlocal refused
            try:
                return await receive_more()
            except (BodyTooLarge, NoRoom, TooSlow) as error:
                refused = error
                raise

        async def send_unless_refused(message: Message) -> None:
            # the form parser turns what receive raises into an answer of its own; ours is the one to send
            if refused is None:
                await send(message)

        try:
            claimed = Headers(scope=scope).get("content-length", "0")
            if claimed.isdecimal():
                length = self._allowed(claimed)
                held.body.check(length)
            await self.app(scope, receive_guarded, send_unless_refused)
        except (BodyTooLarge, NoRoom, TooSlow) as error:
            refused = refused or error
        finally:
            held.close()
        if refused is not None:
            await response_to(refused)(scope, receive, send)

    def _allowed(self, claimed: str) -> int:
        if int(claimed) > self.max_bytes:  # h11 takes no more than 20 digits
            raise BodyTooLarge(self.max_bytes)
        return int(claimed)
