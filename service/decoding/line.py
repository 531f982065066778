"""Who gets the next worker: clients in turns, and none of them all workers. Pure: no threads, no time."""

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar


class Place:
    """One file that waits for a worker, or has one.

    Attributes:
        client: whose it is; a place of no client, "", is one of its own.
        pixels: whether pixels are decoded, which takes longer than to read a header.
    """

    def __init__(self, client: str = "", *, pixels: bool = False) -> None:
        self.client: Final[Hashable] = client or object()
        self.pixels: Final = pixels


Waiting = TypeVar("Waiting", bound=Place)


class Line(Generic[Waiting]):
    """Places that wait, and who has how many workers. Not thread-safe.

    One worker is never used for pixels, so that headers are read while large pictures are decoded. A client that has
    a worker gets no further one where that is the last that is free, and of three workers or more one besides is not
    for its pixels, so that its own headers are read meanwhile.
    """

    def __init__(self, workers: int) -> None:
        """Begin with an empty line for so many workers, at least 2."""
        self._most_pixels = workers - 1
        self._most_pixels_each = max(1, workers - 2)
        self._waiting: OrderedDict[Hashable, deque[Waiting]] = OrderedDict()
        self._served: Counter[tuple[Hashable, bool]] = Counter()  # by client, and whether they decode pixels
        self._pixels = 0

    def __iter__(self) -> Iterator[Waiting]:
        """Go through all that wait."""
        for places in self._waiting.values():
            yield from places

    def add(self, place: Waiting) -> None:
        """Let a place wait behind its client's others."""
        self._waiting.setdefault(place.client, deque()).append(place)

    def drop(self, place: Waiting) -> None:
        """Forget a place that waits."""
        places = self._waiting[place.client]
        places.remove(place)
        if not places:
            del self._waiting[place.client]

    def next(self, free: int) -> Waiting | None:
        """Take the place out of the line that gets a worker now; None where nobody may.

        Args:
            free: workers that are free, at least 1.
        """
        for client, places in self._waiting.items():
            place = next((each for each in places if self._may(each, free)), None)
            if place is not None:
                self.drop(place)
                if client in self._waiting:
                    self._waiting.move_to_end(client)
                self._served[client, place.pixels] += 1
                self._pixels += place.pixels
                return place
        return None

    def done(self, place: Waiting) -> None:
        """Note that a place that had a worker needs it no longer."""
        self._pixels -= place.pixels
        self._served[place.client, place.pixels] -= 1
        if not self._served[place.client, place.pixels]:
            del self._served[place.client, place.pixels]

    def _may(self, place: Waiting, free: int) -> bool:
        pixels, headers = (self._served[place.client, each] for each in (True, False))
        if place.pixels and (self._pixels >= self._most_pixels or pixels >= self._most_pixels_each):
            return False
        return free > 1 or not pixels + headers
