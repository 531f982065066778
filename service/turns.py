"""Whose tiles go next, and how many at once. Pure: no threads, no time."""

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Turns(Generic[Key, Item]):
    """Whose item goes next: round robin over the keys, one item a turn. Not thread-safe.

    A key belongs to a group, and a batch holds items of one group only.
    """

    def __init__(self) -> None:
        self._queues: OrderedDict[Key, tuple[Hashable, deque[Item]]] = OrderedDict()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, key: Key, group: Hashable, items: Sequence[Item]) -> None:
        """Queue items of a key behind those that it already has."""
        if not items:
            return
        self._queues.setdefault(key, (group, deque()))[1].extend(items)
        self._waiting += len(items)

    def give_back(self, key: Key, group: Hashable, items: Sequence[Item]) -> None:
        """Queue items of a key that were taken before, ahead of those that it has, in their order."""
        if not items:
            return
        self._queues.setdefault(key, (group, deque()))[1].extendleft(reversed(items))
        self._waiting += len(items)

    def waiting_with_next(self, overdue: Sequence[Key] = ()) -> int:
        """How many items wait in the group that is next; `overdue` as for `take`."""
        if not self._queues:
            return 0
        group = self._next_group(overdue)
        return sum(len(items) for other, items in self._queues.values() if other == group)

    def take(self, most: int, overdue: Sequence[Key] = ()) -> list[Item]:
        """Take up to `most` items of the next group: one of each key in turn, then one of each again.

        Args:
            most: how many, at least 1.
            overdue: keys that get half of it before, the first one all that it has. With ever new keys a turn comes
                ever more seldom, and who has many items would never be done.
        """
        taken: list[Item] = []
        if not self._queues:
            return taken
        group = self._next_group(overdue)
        for key in overdue:
            items = self._of(key, group)
            while items and len(taken) < max(1, most // 2):
                taken.append(items.popleft())
            if items is not None and not items:
                del self._queues[key]
        while len(taken) < most:
            turn = [key for key, (other, _) in self._queues.items() if other == group][: most - len(taken)]
            if not turn:
                break
            for key in turn:
                items = self._queues[key][1]
                taken.append(items.popleft())
                if items:
                    self._queues.move_to_end(key)
                else:
                    del self._queues[key]
        self._waiting -= len(taken)
        return taken

    def _next_group(self, overdue: Sequence[Key]) -> Hashable:
        key = next((key for key in overdue if key in self._queues), None)
        return (next(iter(self._queues.values())) if key is None else self._queues[key])[0]

    def _of(self, key: Key, group: Hashable) -> deque[Item] | None:
        its, items = self._queues.get(key, (None, None))
        return items if its == group else None

    def drop(self, key: Key) -> list[Item]:
        """Remove and return what a key has waiting."""
        _, items = self._queues.pop(key, (None, deque()))
        self._waiting -= len(items)
        return list(items)


def choose_batch(waiting: int, sizes: Sequence[int], idle: int = 1) -> int:
    """Choose how many tiles to run at once.

    Args:
        waiting: tiles that wait, at least 0.
        sizes: the sizes to choose from, ascending from 1.
        idle: how many lanes could run them, at least 1; what waits is shared among them.

    Returns:
        The largest size that this lane's share of the waiting fills; above 0 wherever a tile waits.
    """
    share = -(-waiting // idle)
    return max((size for size in sizes if size <= share), default=0)
