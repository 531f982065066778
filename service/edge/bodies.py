"""How many bytes a request's body may have, how much room bodies take together, and how slowly one may come."""

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.edge.budget import ByteBudget
from service.edge.clients import client_of
from service.edge.errors import NoRoom, TooSlow
from service.problems import BodyTooLarge, response_to


class Pace:
    """Judges whether bytes come fast enough: in each span of seconds so many. Pure; the caller has the clock."""

    def __init__(self, span_s: float, min_rate: int, now: float) -> None:
        """Begin the first span.

        Args:
            span_s: length of a span.
            min_rate: bytes a second that have to come on average over each.
            now: the clock.
        """
        self._span_s = span_s
        self._needed = span_s * min_rate
        self._came = 0
        self.ends = now + span_s

    def add(self, count: int, now: float) -> bool:
        """Count bytes; return False where a span ended with too few."""
        self._came += count
        if now < self.ends:
            return True
        enough = self._came >= max(1, self._needed)
        self._came = 0
        self.ends = now + self._span_s
        return enough


class Bodies:
    """Guards a request's body while it is read.

    It answers 413 to one of too many bytes, by its Content-Length, so before the client was told to go on, or as soon
    as what came exceeds it; 503 where all bodies together would take too much memory; 408 to one that comes too slowly.
    The room is given back when the request is answered.
    """

    def __init__(self, app: ASGIApp, budget: ByteBudget, max_bytes: int, timeout_s: float, min_rate: int) -> None:
        self.app = app
        self.budget = budget
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.min_rate = min_rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        room = self.budget.open(client_of(scope))
        refused: Exception | None = None
        came = 0
        complete = False
        pace: Pace | None = None

        async def receive_more() -> Message:
            nonlocal came, complete, pace
            if complete:
                return await receive()
            pace = pace or Pace(self.timeout_s, self.min_rate, anyio.current_time())
            while True:
                with anyio.move_on_at(pace.ends):
                    message = await receive()
                    break
                if not pace.add(0, anyio.current_time()):
                    raise TooSlow(self.timeout_s)
            more = len(message.get("body", b""))
            came += more
            if came > self.max_bytes:
                raise BodyTooLarge(self.max_bytes)
            room.need(came)
            complete = not message.get("more_body", False)
            if not complete and not pace.add(more, anyio.current_time()):
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
                room.need(self._allowed(claimed))
            await self.app(scope, receive_guarded, send_unless_refused)
        except (BodyTooLarge, NoRoom, TooSlow) as error:
            refused = refused or error
        finally:
            room.close()
        if refused is not None:
            await response_to(refused)(scope, receive, send)

    def _allowed(self, claimed: str) -> int:
        if int(claimed) > self.max_bytes:  # h11 takes no more than 20 digits
            raise BodyTooLarge(self.max_bytes)
        return int(claimed)
