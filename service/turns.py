"""Whose tiles go next, and how many at once. Pure: no threads, no time."""

import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


@dataclass(eq=False)
class _Queue(Generic[Key, Item]):
    """The items of one key.

    Attributes:
        client: whose key it is.
        group: of its items.
        served: when it had its last turn, or came, by a count that all share.
        items: those that wait.
    """

    client: "_Client[Key, Item]"
    group: Hashable
    served: int
    items: deque[Item] = field(default_factory=deque)


@dataclass(eq=False)
class _Client(Generic[Key, Item]):
    """A client with items that wait.

    Attributes:
        name: of the client.
        turn: the number of its next turn, 1 more with each item.
        served: as of a queue.
        queues: its keys by group, in each the one that had no turn for longest first.
        listed: the groups whose heap has an entry of it.
    """

    name: str
    turn: int
    served: int
    queues: dict[Hashable, OrderedDict[Key, _Queue[Key, Item]]] = field(default_factory=dict)
    listed: set[Hashable] = field(default_factory=set)


class Turns(Generic[Key, Item]):
    """Whose item goes next: round robin over clients, and for each over its keys, one item a turn. Not thread-safe.

    A key belongs to a group, and a batch holds items of one group only. Turns are numbered, whatever the group: a
    client that had more of them in one waits in the others. Who has nothing waiting is forgotten, and starts anew with
    the turn that is next.
    """

    def __init__(self) -> None:
        self._queues: dict[Key, _Queue[Key, Item]] = {}
        self._clients: dict[str, _Client[Key, Item]] = {}
        # who is next in each group; an entry that is older than its client's last turn is brought up to date when read
        self._heaps: dict[Hashable, list[tuple[int, int, _Client[Key, Item]]]] = {}
        self._waiting: Counter[Hashable] = Counter()
        self._turn = 0  # the highest that was taken, but for those of overdue keys
        self._count = itertools.count()
        self._overdue_first = True

    def __len__(self) -> int:
        return self._waiting.total()

    def add(self, key: Key, group: Hashable, items: Sequence[Item], client: str = "") -> None:
        """Queue items of a client's key behind those that it already has."""
        if items:
            self._queue(key, group, client).items.extend(items)
            self._waiting[group] += len(items)

    def give_back(self, key: Key, group: Hashable, items: Sequence[Item], client: str = "") -> None:
        """Queue items of a key that were taken before, ahead of those that it has, in their order."""
        if items:
            self._queue(key, group, client).items.extendleft(reversed(items))
            self._waiting[group] += len(items)

    def waiting_with_next(self, overdue: Sequence[Key] = ()) -> int:
        """How many items wait in the group that is next; `overdue` as for `take`."""
        return self._waiting[self._next_group(self._in_turn(overdue))]

    def take(self, most: int, overdue: Sequence[Key] = ()) -> list[Item]:
        """Take up to `most` items of the next group: one of each client in turn, then one of each again.

        Args:
            most: how many, at least 1.
            overdue: keys that get half of it before, the first one all that it has. With ever new clients a turn comes
                ever more seldom, and who has many items would never be done. What they get counts as their clients'
                turns, and the client that had the fewest goes first: one with many such keys leaves the other half to
                the others. Where they are of another group than who is next, every second batch is theirs.
        """
        taken: list[Item] = []
        first = self._in_turn(overdue)
        group = self._next_group(first)
        self._overdue_first = not first or self._queues[first[0]].group != group
        for key in first:
            queue = self._queues[key]
            while queue.group == group and queue.items and len(taken) < max(1, most // 2):
                taken.append(self._serve(key, queue))
        while len(taken) < most and (client := self._next_client(group)) is not None:
            self._turn = max(self._turn, client.turn)
            taken.append(self._serve(*next(iter(client.queues[group].items()))))
        return taken

    def drop(self, key: Key) -> list[Item]:
        """Remove and return what a key has waiting."""
        queue = self._queues.get(key)
        if queue is None:
            return []
        self._waiting[queue.group] -= len(queue.items)
        self._remove(key, queue)
        return list(queue.items)

    def _queue(self, key: Key, group: Hashable, client: str) -> _Queue[Key, Item]:
        if key in self._queues:
            return self._queues[key]
        owner = self._clients.get(client)
        if owner is None:
            owner = self._clients[client] = _Client(client, self._turn + 1, next(self._count))
        if group not in owner.listed:
            owner.listed.add(group)
            heapq.heappush(self._heaps.setdefault(group, []), (owner.turn, owner.served, owner))
        queue = _Queue(owner, group, next(self._count))
        self._queues[key] = owner.queues.setdefault(group, OrderedDict())[key] = queue
        return queue

    def _remove(self, key: Key, queue: _Queue[Key, Item]) -> None:
        del self._queues[key]
        client = queue.client
        del client.queues[queue.group][key]
        if not client.queues[queue.group]:
            del client.queues[queue.group]
        if not client.queues:
            del self._clients[client.name]

    def _serve(self, key: Key, queue: _Queue[Key, Item]) -> Item:
        item = queue.items.popleft()
        self._waiting[queue.group] -= 1
        client = queue.client
        client.turn += 1
        client.served = queue.served = next(self._count)
        if queue.items:
            client.queues[queue.group].move_to_end(key)
        else:
            self._remove(key, queue)
        return item

    def _next_client(self, group: Hashable) -> "_Client[Key, Item] | None":
        heap = self._heaps.get(group, [])
        while heap:
            turn, served, client = heap[0]
            if group not in client.queues:
                client.listed.remove(group)
                heapq.heappop(heap)
            elif (turn, served) != (client.turn, client.served):
                heapq.heapreplace(heap, (client.turn, client.served, client))
            else:
                return client
        return None

    def _next_group(self, overdue: Sequence[Key]) -> Hashable:
        """Return the group of the next batch, None where nothing waits; `overdue` in their order."""
        if overdue and self._overdue_first:
            return self._queues[overdue[0]].group
        heads = [client for group in self._heaps if (client := self._next_client(group)) is not None]
        if not heads:
            return None
        queues = min(heads, key=lambda client: (client.turn, client.served)).queues
        return min(queues, key=lambda group: next(iter(queues[group].values())).served)

    def _in_turn(self, overdue: Sequence[Key]) -> list[Key]:
        """Those with something waiting, of clients that had fewer turns first."""
        waiting = [key for key in overdue if key in self._queues]
        return sorted(waiting, key=lambda key: self._queues[key].client.turn)


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
