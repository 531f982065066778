"""How many bytes clients may hold at once, and who gives way or waits where there are too many.

Nobody may hold more than is then left for others: a client alone half of all, two a third each, and so on (Choudhury,
Hahne: "Dynamic queue length thresholds for shared-memory packet switches", 1998). For one event loop.
"""

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Final

import anyio

from service.edge.errors import NoRoom

_SMALL: Final = 1 << 20
"""Bytes of a body for which the last eighth is kept, so that a few large ones don't shut everyone out."""

_PHOTO: Final = 8 << 20
"""Bytes up to which a client, with all that it holds, goes before who sends at less than half of its rate."""

_LONG_S: Final = 10.0
"""Seconds after which an answer that is not read gives way to pictures that wait."""

_LOOK_EVERY_S: Final = 0.25
"""Seconds after which who waits looks whether there still is a reason to."""


class ByteBudget:
    """Bytes that clients may take together."""

    def __init__(self, most: int, small: int = _SMALL, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none taken.

        Args:
            most: bytes that may be taken at once.
            small: the last eighth is kept for reservations of up to so many bytes; 0 keeps nothing.
            clock: seconds that only grow.
        """
        self.most = most
        self._small = small
        self._limit = most - most // 8 if small else most
        self.clock = clock
        self._taken = 0
        self._besides = 0
        self._by_client: Counter[str] = Counter()
        self._unfinished: set[Reservation] = set()
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()

    @property
    def taken(self) -> int:
        """Bytes that are taken now."""
        return self._taken

    @property
    def counted(self) -> int:
        """Bytes that are taken, and those that only count for their clients."""
        return self._taken + self._besides

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return sum(map(len, self._waiting.values()))

    def open(self, client: str, give_way: Callable[[], None] | None = None) -> "Reservation":
        """Return an empty reservation of a client's; it has to be closed.

        Args:
            client: whose.
            give_way: called where the reservation is ended in favour of others; None where it can't be.
        """
        return Reservation(self, client, give_way)

    def lacking(self, room: "Reservation", more: int) -> int:
        """Return how many bytes others would have to give back for a reservation to take `more`; 0 where it may."""
        together, total, own = room.bytes + more, self._taken + more, self._by_client[room.client] + more
        if total == own == together:  # it is alone
            return 0
        over = total - (self.most if together <= self._small else self._limit)
        # the only thing that a client holds is bounded by what there is alone
        return max(0, over if own == together else max(over, own + total - self.most))

    def check(self, room: "Reservation", more: int) -> None:
        """See whether a reservation could take `more`; raises as `take`."""
        lacks = self.lacking(room, more)
        if lacks and sum(other.bytes for other in self._unfinished if self._gives_way(other, room, more)) < lacks:
            raise NoRoom

    def take(self, room: "Reservation", more: int) -> None:
        """Take `more` bytes for a reservation, and end others that are unfinished where they have to give way.

        Raises:
            NoRoom: there is none; nothing is taken.
        """
        if self.lacking(room, more):
            self.check(room, more)
            self._make_way(room, more)
        self.add(room, more)

    def _make_way(self, room: "Reservation", more: int) -> None:
        while self.lacking(room, more):
            giving = [other for other in self._unfinished if self._gives_way(other, room, more)]
            if not giving:
                raise NoRoom
            min(giving, key=lambda other: other.rate).end()

    def _gives_way(self, other: "Reservation", room: "Reservation", more: int) -> bool:
        """Whether an unfinished reservation ends for another client's that needs room.

        Where the other client holds more than this one would; and for a photo where it is much slower, or ever so many
        clients with a byte now and then would keep everybody out.
        """
        if other.client == room.client:
            return False
        own = self._by_client[room.client] + more
        return self._by_client[other.client] > own or (own <= _PHOTO and other.rate < room.rate / 2)

    def add(self, room: "Reservation", more: int) -> None:
        """Take bytes whether there is room or not."""
        if room.gives_way:
            self._unfinished.add(room)
        room.bytes += more
        self._taken += more
        self._by_client[room.client] += more

    def count(self, room: "Reservation", more: int) -> None:
        """Count bytes for a client that nobody else has the less for."""
        room.besides += more
        self._besides += more
        self._by_client[room.client] += more

    def give(self, room: "Reservation", less: int, besides: int = 0) -> None:
        """Give bytes back, and let in who waited for them."""
        room.bytes -= less
        room.besides -= besides
        self._taken -= less
        self._besides -= besides
        self._by_client[room.client] -= less + besides
        if not self._by_client[room.client]:
            del self._by_client[room.client]
        self._let_in()

    def finished(self, room: "Reservation") -> None:
        """A reservation gives way no more."""
        self._unfinished.discard(room)

    def join(self, waiter: "_Waiter") -> None:
        """Wait in turn: clients one after the other, and of each the first that came."""
        self._waiting.setdefault(waiter.room.client, deque()).append(waiter)
        self._let_in()

    def press(self, waiter: "_Waiter") -> None:
        """End what has been unfinished for long where it has to give way to who waits: an answer that nobody reads."""
        if self.lacking(waiter.room, waiter.more):
            old = [
                other
                for other in self._unfinished
                if other.age >= _LONG_S and self._gives_way(other, waiter.room, waiter.more)
            ]
            if old:
                min(old, key=lambda other: other.rate).end()

    def leave(self, waiter: "_Waiter") -> None:
        """Wait no more."""
        queue = self._waiting[waiter.room.client]
        queue.remove(waiter)
        if not queue:
            del self._waiting[waiter.room.client]
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (waiter := self._next()) is not None:
            client = waiter.room.client
            self._waiting[client].popleft()
            if self._waiting[client]:
                self._waiting.move_to_end(client)
            else:
                del self._waiting[client]
            self.add(waiter.room, waiter.more)
            waiter.let_in()

    def _next(self) -> "_Waiter | None":
        """Return who may go in; one for whom there is no room keeps out all behind it but small ones: it is next."""
        kept = False
        for queue in self._waiting.values():
            waiter = queue[0]
            if kept and waiter.room.bytes + waiter.more > self._small:
                continue
            if not self.lacking(waiter.room, waiter.more):
                return waiter
            kept = kept or self._taken + waiter.more > self._limit
        return None


class _Waiter:
    """Who waits for `more` bytes of a reservation."""

    def __init__(self, room: "Reservation", more: int) -> None:
        self.room = room
        self.more = more
        self.inside = False
        self._event = anyio.Event()

    def let_in(self) -> None:
        self.inside = True
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


class Reservation:
    """What one request, or one part of it, takes of a budget.

    Attributes:
        client: whose it is.
        bytes: taken.
        besides: counted for its client alone.
    """

    def __init__(self, budget: ByteBudget, client: str, give_way: Callable[[], None] | None = None) -> None:
        self.client = client
        self.bytes = 0
        self.besides = 0
        self._budget = budget
        self._give_way = give_way
        self._began = budget.clock()
        self._ended = False

    @property
    def gives_way(self) -> bool:
        """Whether it may be ended in favour of others."""
        return self._give_way is not None

    @property
    def rate(self) -> float:
        """Bytes a second that it grew by since its first one; without end in the first second."""
        return self.bytes / self.age if self.age >= 1 else float("inf")

    @property
    def age(self) -> float:
        """Seconds since its first byte."""
        return self._budget.clock() - self._began

    def check(self, together: int) -> None:
        """See whether it could take as much as makes it `together` bytes; raises `NoRoom` where it can't."""
        if together > self.bytes:
            self._budget.check(self, together - self.bytes)

    def need(self, together: int) -> None:
        """Take as much as makes it `together` bytes; what it has already is no news.

        Raises:
            NoRoom: there is too little left, and it keeps what it has; or it had to give way.
        """
        if self._ended:
            raise NoRoom
        if together > self.bytes:
            self._begin()
            self._budget.take(self, together - self.bytes)

    async def wait(self, more: int, check: Callable[[], None] = lambda: None) -> None:
        """Take bytes as soon as there is room for them, in turn with who else waits; one alone is always let in.

        Args:
            more: how many.
            check: called now and then while it waits; what it raises ends the waiting.
        """
        waiter = _Waiter(self, more)
        self._budget.join(waiter)
        try:
            while not waiter.inside:
                check()
                with anyio.move_on_after(_LOOK_EVERY_S):
                    await waiter.wait()
                if not waiter.inside:
                    self._budget.press(waiter)
        finally:
            if not waiter.inside:
                self._budget.leave(waiter)

    def add(self, more: int) -> None:
        """Take bytes that are there already, whether there is room or not."""
        self._begin()
        self._budget.add(self, more)

    def count(self, more: int) -> None:
        """Count bytes for the client alone, whose next requests have the less room."""
        self._budget.count(self, more)

    def give(self, less: int) -> None:
        """Give some bytes back."""
        self._budget.give(self, min(less, self.bytes))

    def uncount(self, less: int) -> None:
        """Count some bytes no more."""
        self._budget.give(self, 0, min(less, self.besides))

    def finish(self) -> None:
        """All of it is there: it gives way to nobody any more."""
        self._give_way = None
        self._budget.finished(self)

    def _begin(self) -> None:
        if not self.bytes:
            self._began = self._budget.clock()

    def end(self) -> None:
        """Give way: everything is given back at once, and no more is taken."""
        give_way = self._give_way
        self._ended = True
        self.close()
        if give_way is not None:
            give_way()

    def close(self) -> None:
        """Give everything back; may be called again."""
        self._budget.finished(self)
        if self.bytes or self.besides:
            self._budget.give(self, self.bytes, self.besides)
