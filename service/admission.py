"""What a batch costs, who may join the queue, and when to come back. Pure: no threads, no clock of its own."""

import math
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_FORGET: Final = 0.98
"""Weight of a batch against the next one: the last 50 count, so that a slower spell is seen within a second."""

_SMALL: Final = 0.01
"""Pictures of up to this part of the queue pass those that were told to come back."""

LONGEST_S: Final = 300.0
"""Nobody is told to wait longer: clients that come back at once, again and again, each time get in line anew, and would
put off everyone by the hour."""

_MOST_PROMISES: Final = 256
"""Of a client: more of its pictures are told when to come back, and get in line anew."""

_GRACE: Final = 0.3
"""How much later than told someone may come back, as a part of the wait; at least 2 s."""


OVERDUE: Final = 0.5
"""The part of its time after which a picture goes before others, in half of each batch. Under three times the load that
can be done, with ever new small pictures, some large ones missed their deadline by turns alone."""


class Cost:
    """Seconds that a device takes for a batch of n tiles, fitted online as `fixed` + n * `per_tile`.

    Least squares over past batches, older ones weighing less. Where all were of one size the line goes through zero.

    Attributes:
        fixed: seconds of a batch whatever its size, at least 0.
        per_tile: seconds more with each tile, above 0 once a batch was seen.
    """

    def __init__(self) -> None:
        self.fixed = 0.0
        self.per_tile = 0.0
        self._weight = self._n = self._nn = self._s = self._ns = 0.0

    def observe(self, tiles: int, seconds: float) -> None:
        """Learn from a batch of `tiles` that took `seconds`."""
        keep = _FORGET
        self._weight = keep * self._weight + 1
        self._n = keep * self._n + tiles
        self._nn = keep * self._nn + tiles * tiles
        self._s = keep * self._s + seconds
        self._ns = keep * self._ns + tiles * seconds
        spread = self._nn - self._n * self._n / self._weight
        slope = (self._ns - self._n * self._s / self._weight) / spread if spread > 1e-6 * self._nn else 0.0
        fixed = (self._s - slope * self._n) / self._weight
        if slope > 0 and fixed >= 0:
            self.per_tile, self.fixed = slope, fixed
        else:  # one size only, or noise: a line with a negative part is no cost
            self.per_tile, self.fixed = self._ns / self._nn, 0.0

    def batch(self, tiles: int) -> float:
        """Seconds of a batch of `tiles`; 0 before any was seen."""
        return self.fixed + tiles * self.per_tile


@dataclass(frozen=True)
class _Promise:
    """Room for a picture of `tiles` at the time `due`, kept `until` a while later."""

    tiles: int
    due: float
    until: float


@dataclass(eq=False)
class _Client(Generic[Key]):
    """What is known of a client.

    Attributes:
        left: the tiles of each of its pictures that are not yet enhanced, and of all together: `waiting`.
        promises: what it was told, the earliest first.
    """

    left: dict[Key, int] = field(default_factory=dict)
    waiting: int = 0
    promises: list[_Promise] = field(default_factory=list)

    def expected(self, now: float) -> int:
        """How many tiles others have to expect of it: those that wait, or else those of the first that may come."""
        return self.waiting or next((promise.tiles for promise in self.promises if now < promise.until), 0)


class Admission(Generic[Key]):
    """Who may join the queue. Not thread-safe.

    The queue is served by round robin over clients, and for each over its pictures, so that what lies before a
    newcomer's end is its own tiles and as many of every other client's, not the whole queue: a thumbnail is not refused
    because a large photo is under way.

    A client may have what the others leave of the queue, and always an equal part: what they hold beyond theirs does
    not count against it. One alone may fill the queue, and the next one finds room all the same.

    Attributes:
        cost: of a batch. Where devices of different speed work, a faster one's batches are seen more often, by just so
            much that `seconds_per_tile` is right for all of them together.
        lanes: how many batches run at a time; above 0.
    """

    def __init__(self, max_tiles: int, largest_batch: int, lanes: int) -> None:
        """Begin with an empty queue.

        Args:
            max_tiles: how many tiles may be admitted at once, where one client has them all. A picture with more is
                admitted when nothing waits, or of its client nothing and it comes back when it was told to.
            largest_batch: tiles in the batches of a full queue.
            lanes: how many batches run at a time.
        """
        self.cost = Cost()
        self.lanes = lanes
        self._max_tiles = max_tiles
        self._largest_batch = largest_batch
        self._clients: dict[str, _Client[Key]] = {}
        self._owners: dict[Key, str] = {}
        self._overdue_at: dict[Key, float] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many admitted tiles are not yet enhanced."""
        return self._waiting

    @property
    def seconds_per_tile(self) -> float:
        """How long a full queue takes for a tile."""
        return self.cost.batch(self._largest_batch) / self._largest_batch / self.lanes

    def wait(self, tiles: int, seconds: float, now: float, client: str = "") -> float | None:
        """Say when a picture could join.

        Who is told to wait is expected back, and is let in then unless the device has slowed down. Other pictures of
        the same client are sent behind it, but for small ones, which hardly delay any and would else wait for what
        they don't need. Other clients never are: their part of the queue is theirs.

        Args:
            tiles: how many it has.
            seconds: how long it may take once it is admitted.
            now: seconds on any clock that goes on evenly.
            client: whose it is.

        Returns:
            None where it may join now, else the seconds until there should be room, and time, for it.
        """
        if not self._owners:
            return None
        own = self._clients.get(client) or _Client()
        own.promises = [promise for promise in own.promises if now < promise.until]
        kept = next((p for p in own.promises if p.tiles == tiles and p.due <= now), None)
        if kept is not None:  # whichever it is: one of that size was told to come now
            own.promises.remove(kept)
        others = sorted(each.waiting for each in self._clients.values() if each is not own and each.waiting)
        lacking = own.waiting + tiles - self._room(others)
        late = self._tiles_until_in_time(own, others, tiles, seconds)
        if kept is not None and not own.waiting:
            lacking = self._waiting - self._max_tiles
        elif kept is None and tiles > self._max_tiles * _SMALL:
            # those that come once this one is done find its room free again: it may use it, or a device would idle
            done_at = now + _with_others(others, own.waiting + tiles) * self.seconds_per_tile
            lacking += sum(promise.tiles for promise in own.promises if promise.due <= done_at)
        if late <= 0 and lacking <= 0:
            return None
        wait = max(self._tiles_until_room(own, tiles, now), late, 1) * self.seconds_per_tile
        if wait > LONGEST_S:  # no place is kept so far ahead
            return LONGEST_S
        if len(own.promises) < _MOST_PROMISES:
            self._clients = {name: each for name, each in self._clients.items() if each.left or each.expected(now)}
            self._clients[client] = own
            due = now + wait
            own.promises.append(_Promise(tiles, due, due + max(wait * _GRACE, 2.0)))
        return wait

    def join(self, key: Key, tiles: int, overdue_at: float = math.inf, client: str = "") -> None:
        """Take a client's picture in, which is overdue from a time on."""
        own = self._clients.setdefault(client, _Client())
        own.left[key] = tiles
        own.waiting += tiles
        self._owners[key] = client
        self._overdue_at[key] = overdue_at
        self._waiting += tiles

    def overdue(self, now: float) -> list[Key]:
        """Those that are overdue at the time `now`, the first that joined first.

        It looks no further than to the first that is not: all pictures of a service get the same time.
        """
        return list(takewhile(lambda key: self._overdue_at[key] <= now, self._overdue_at))

    def done(self, key: Key, tiles: int) -> None:
        """Count tiles of a picture as enhanced; one that has left already is passed over."""
        if key in self._owners:
            own = self._clients[self._owners[key]]
            own.left[key] -= tiles
            own.waiting -= tiles
            self._waiting -= tiles

    def leave(self, key: Key) -> None:
        """Forget a picture and what is left of it."""
        if key in self._owners:
            name = self._owners.pop(key)
            own = self._clients[name]
            left = own.left.pop(key)
            own.waiting -= left
            self._waiting -= left
            del self._overdue_at[key]
            if not own.left and not own.promises:
                del self._clients[name]

    def _room(self, others: Sequence[int]) -> int:
        """How many tiles a client may have where others have so many, ascending: what they leave, or an equal part."""
        room = self._max_tiles
        for place, held in enumerate(others):
            equal = room // (len(others) - place + 1)
            if held >= equal:
                return equal
            room -= held
        return room

    def _tiles_until_room(self, own: _Client[Key], tiles: int, now: float) -> int:
        """How many tiles must be done before there is room for a newcomer with `tiles` behind all that were told.

        Of another client that is one at most, where none of its pictures waits.
        """
        all_of_them = [each.expected(now) for each in self._clients.values() if each is not own]
        all_of_them.append(own.waiting + sum(promise.tiles for promise in own.promises))
        room = self._max_tiles - min(tiles, self._max_tiles)

        def fits(rounds: int) -> bool:
            return sum(max(each - rounds, 0) for each in all_of_them) <= room

        rounds = bisect_left(range(max(all_of_them)), True, key=fits)
        return sum(min(each, rounds) for each in all_of_them)

    def _tiles_until_in_time(self, own: _Client[Key], others: Sequence[int], tiles: int, seconds: float) -> int:
        """How many tiles must be done before a newcomer with `tiles` would be done within `seconds`."""
        per_tile = self.seconds_per_tile
        if (self._waiting + tiles) * per_tile <= seconds:  # the usual case, without a look at each
            return 0
        left = own.left.values()

        def served(rounds: int) -> tuple[int, int]:
            """Tiles of its own client after so many of each of that one's pictures, and rounds over the clients."""
            done = sum(min(each, rounds) for each in left)
            return done, max(done, rounds)

        def fits(rounds: int) -> bool:
            before = tiles + sum(min(max(each - rounds, 0), tiles) for each in left)
            turns = served(rounds)[1]
            return _with_others([max(each - turns, 0) for each in others], before) * per_tile <= seconds

        done, turns = served(bisect_left(range(max([*left, *others], default=0)), True, key=fits))
        return done + sum(min(each, turns) for each in others)


def _with_others(others: Sequence[int], tiles: int) -> int:
    """How many tiles are done until a client has had `tiles`, where others have so many."""
    return tiles + sum(min(each, tiles) for each in others)


def whole_seconds(wait: float, longest: int = 3600) -> int:
    """Round a wait up to whole seconds for `Retry-After`, 1 to `longest`."""
    return min(max(math.ceil(wait), 1), longest)
