"""Which frame of a live connection is next: photos in their order, of live frames only the latest. Pure."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


class TooManyWait(Exception):
    """A connection sent more photos than may wait on it.

    Attributes:
        limit: how many may.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} photos wait already")
        self.limit = limit


@dataclass(frozen=True)
class Frame(Generic[Item]):
    """One picture that a client sent.

    Attributes:
        number: counted from 1 on its connection.
        live: whether a newer frame takes its place.
        item: what is to be done.
    """

    number: int
    live: bool
    item: Item


class Frames(Generic[Item]):
    """The frames of one connection that are not begun yet."""

    def __init__(self, limit: int) -> None:
        """Begin with none.

        Args:
            limit: how many photos may wait.
        """
        self._limit = limit
        self._waiting: list[Frame[Item]] = []

    def add(self, frame: Frame[Item]) -> list[int]:
        """Let a frame wait.

        Returns:
            The numbers of the late live frames whose place it takes.

        Raises:
            TooManyWait: it is a photo, and as many as may wait already do.
        """
        late: list[int] = []
        if frame.live:
            late = [each.number for each in self._waiting if each.live]
            self._waiting = [each for each in self._waiting if not each.live]
        elif sum(not each.live for each in self._waiting) >= self._limit:
            raise TooManyWait(self._limit)
        self._waiting.append(frame)
        return late

    def take(self) -> Frame[Item] | None:
        """Take the next frame, None where none waits."""
        return self._waiting.pop(0) if self._waiting else None

    def remove(self, number: int | None = None) -> list[int]:
        """Forget a frame, or with None all of them; return the numbers of those that waited."""
        removed = [each.number for each in self._waiting if number in (None, each.number)]
        self._waiting = [each for each in self._waiting if each.number not in removed]
        return removed
