"""Which connections a listener has at once. Pure; for one event loop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_LEAST_SHARE: Final = 8
"""Connections that one address may have however few there are in all: a browser opens six, and a WebSocket."""

_MOST_SPARE: Final = 64
"""Connections beyond the limit, in which only probes are answered."""

_SPARE_OF_ONE: Final = 4
"""Of those, for one address."""


@dataclass(eq=False)
class Place:
    """A connection's place.

    Attributes:
        address: whose it is.
        end: ends the connection, because another one needs its place.
        spare: whether it is beyond the limit, for a probe alone.
    """

    address: str
    end: Callable[[], None]
    spare: bool = False


class Places:
    """The places of a listener.

    One address has an eighth of them at most. Where a place is missing, the connection that has been idle for longest
    ends: of that address where it has its share already, else of all. Where none is idle the new one gets a spare
    place, so that a probe is answered whatever else is open; of those the oldest ends where they run out.
    """

    def __init__(self, most: int) -> None:
        """Begin with none taken.

        Args:
            most: how many there are, without the spare ones.
        """
        self._most = most
        self._share = max(1, most // 8, min(_LEAST_SHARE, most // 2))
        self._taken = 0
        # in the order of their last rest, so that of those that are idle the first has been so for longest
        self._of: dict[str, dict[Place, None]] = {}
        self._idle: dict[Place, None] = {}
        self._spare: dict[Place, None] = {}

    def take(self, address: str, end: Callable[[], None], shares: bool = True) -> Place:
        """Return a place for a new connection, which is idle until it wakes.

        Args:
            address: where it comes from.
            end: as in `Place`.
            shares: whether the address has a share only; a trusted proxy has all its clients' connections.
        """
        place = Place(address, end)
        own = self._of.get(address, {})
        too_many = shares and len(own) >= self._share
        if too_many or self._taken >= self._most:
            oldest = next((each for each in (own if too_many else self._idle) if each in self._idle), None)
            if oldest is None:
                return self._take_spare(place)
            self._end(oldest)
        self._taken += 1
        self._of.setdefault(address, {})[place] = self._idle[place] = None
        return place

    def rest(self, place: Place) -> None:
        """Note that a connection waits for its client's next request."""
        own = self._of.get(place.address, {})
        if place in own:
            del own[place]
            own[place] = self._idle[place] = None

    def wake(self, place: Place) -> None:
        """Note that a request comes."""
        self._idle.pop(place, None)

    def leave(self, place: Place) -> None:
        """Give a place back; may be called again."""
        self._spare.pop(place, None)
        self._idle.pop(place, None)
        own = self._of.get(place.address, {})
        if place in own:
            del own[place]
            self._taken -= 1
            if not own:
                del self._of[place.address]

    def _take_spare(self, place: Place) -> Place:
        own = [each for each in self._spare if each.address == place.address]
        if len(own) >= _SPARE_OF_ONE or len(self._spare) >= _MOST_SPARE:
            self._end(next(iter(own if len(own) >= _SPARE_OF_ONE else self._spare)))
        place.spare = True
        self._spare[place] = None
        return place

    def _end(self, place: Place) -> None:
        self.leave(place)
        place.end()
