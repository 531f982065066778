"""What a batch costs, who may join the queue, and when to come back. Pure: no threads, no clock of its own."""

import math
from collections.abc import Hashable
from dataclasses import dataclass
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


class Admission(Generic[Key]):
    """Who may join the queue. Not thread-safe.

    The queue is served by round robin, so that what lies before a newcomer's end is its own tiles and as many of
    everyone else's, not the whole queue: a thumbnail is not refused because a large photo is under way.

    Attributes:
        cost: of a batch. Where devices of different speed work, a faster one's batches are seen more often, by just so
            much that `seconds_per_tile` is right for all of them together.
        lanes: how many batches run at a time; above 0.
    """

    def __init__(self, max_tiles: int, largest_batch: int, lanes: int) -> None:
        """Begin with an empty queue.

        Args:
            max_tiles: how many tiles may be admitted at once. A picture with more is admitted when nothing waits.
            largest_batch: tiles in the batches of a full queue.
            lanes: how many batches run at a time.
        """
        self.cost = Cost()
        self.lanes = lanes
        self._max_tiles = max_tiles
        self._largest_batch = largest_batch
        self._left: dict[Key, int] = {}
        self._overdue_at: dict[Key, float] = {}
        self._waiting = 0
        self._promises: list[_Promise] = []

    @property
    def waiting(self) -> int:
        """How many admitted tiles are not yet enhanced."""
        return self._waiting

    @property
    def seconds_per_tile(self) -> float:
        """How long a full queue takes for a tile."""
        return self.cost.batch(self._largest_batch) / self._largest_batch / self.lanes

    def wait(self, tiles: int, seconds: float, now: float) -> float | None:
        """Say when a picture could join.

        Whoever is told to wait is expected back, and finds room unless the device has slowed down: others are sent
        behind them, but for small pictures, which hardly delay anyone and would else wait for what they don't need.

        Args:
            tiles: how many it has.
            seconds: how long it may take once it is admitted.
            now: seconds on any clock that goes on evenly.

        Returns:
            None where it may join now, else the seconds until there should be room, and time, for it.
        """
        if not self._left:
            return None
        self._promises = [promise for promise in self._promises if now < promise.until]
        kept = next((p for p in self._promises if p.tiles == tiles and p.due <= now), None)
        if kept is not None:  # whoever it is: one of that size was told to come now
            self._promises.remove(kept)
        behind = self._waiting + tiles + sum(promise.tiles for promise in self._promises) - self._max_tiles
        lacking = self._waiting + tiles - self._max_tiles
        # those who come once this one is done find its room free again: it may use it, or a device would idle for them
        done_at = now + (self._waiting + tiles) * self.seconds_per_tile
        in_the_way = self._waiting + tiles - self._max_tiles
        in_the_way += sum(promise.tiles for promise in self._promises if promise.due <= done_at)
        late = self._tiles_until_in_time(tiles, seconds)
        passes = kept is not None or tiles <= self._max_tiles * _SMALL
        if late <= 0 and (lacking if passes else in_the_way) <= 0:
            return None
        wait = max(min(behind, behind + self._max_tiles - tiles), late, 1) * self.seconds_per_tile
        if wait > LONGEST_S:  # no place is kept so far ahead
            return LONGEST_S
        due = now + wait
        self._promises.append(_Promise(tiles, due, due + max(wait * _GRACE, 2.0)))
        return wait

    def join(self, key: Key, tiles: int, overdue_at: float = math.inf) -> None:
        """Take a picture in, which is overdue from a time on."""
        self._left[key] = tiles
        self._overdue_at[key] = overdue_at
        self._waiting += tiles

    def overdue(self, now: float) -> list[Key]:
        """Those that are overdue at the time `now`, the first that joined first.

        It looks no further than to the first that is not: all pictures of a service get the same time.
        """
        return list(takewhile(lambda key: self._overdue_at[key] <= now, self._overdue_at))

    def done(self, key: Key, tiles: int) -> None:
        """Count tiles of a picture as enhanced; one that has left already is passed over."""
        if key in self._left:
            self._left[key] -= tiles
            self._waiting -= tiles

    def leave(self, key: Key) -> None:
        """Forget a picture and what is left of it."""
        self._waiting -= self._left.pop(key, 0)
        self._overdue_at.pop(key, None)

    def _tiles_until_in_time(self, tiles: int, seconds: float) -> int:
        """How many tiles must be done before a newcomer with `tiles` would be done within `seconds`."""
        per_tile = self.seconds_per_tile
        if (self._waiting + tiles) * per_tile <= seconds:  # the usual case, without a look at each
            return 0
        affordable = seconds / per_tile
        left = self._left.values()

        def before_its_end(served: int) -> int:
            return tiles + sum(min(max(each - served, 0), tiles) for each in left)

        low, high = 0, max(left)
        while low < high:  # the least number of rounds, one tile each, after which it fits
            middle = (low + high) // 2
            if before_its_end(middle) <= affordable:
                high = middle
            else:
                low = middle + 1
        return sum(min(each, low) for each in left)


def whole_seconds(wait: float, longest: int = 3600) -> int:
    """Round a wait up to whole seconds for `Retry-After`, 1 to `longest`."""
    return min(max(math.ceil(wait), 1), longest)
