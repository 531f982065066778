"""A day of the service in simulated time: `service.admission` and `service.turns` decide, as they do in the scheduler.

What is simulated is the rest: arrivals, how long a batch takes on a device, and cores that decode and encode.
"""

import heapq
import itertools
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from service.admission import OVERDUE, Admission, whole_seconds
from service.turns import Turns, choose_batch

Arrival = tuple[float, int] | tuple[float, int, float]
"""When a picture comes, its tiles, and the seconds of a core that decoding and encoding take each."""


@dataclass(frozen=True)
class Device:
    """What runs batches.

    Attributes:
        fixed_s, per_tile_s: a batch of n tiles takes a lane `fixed_s` + n * `per_tile_s` seconds while all lanes work.
        lanes: how many batches run at a time.
    """

    fixed_s: float
    per_tile_s: float
    lanes: int = 1

    def rate(self, size: int) -> float:
        """Tiles a second in batches of a size."""
        return self.lanes * size / (self.fixed_s + size * self.per_tile_s)


@dataclass(frozen=True)
class Machine:
    """One replica of the service.

    Attributes:
        devices: what runs batches, all from one queue.
        sizes: of batches in tiles, ascending from 1.
        codec_cores: cores that decode and encode; None is as many as are asked for.
        max_tiles: as the setting `max_queued_tiles`.
        timeout_s: as `request_timeout_s`.
    """

    devices: tuple[Device, ...]
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    codec_cores: int | None = None
    max_tiles: int = 16_384
    timeout_s: float = 300.0

    @property
    def rate(self) -> float:
        """Tiles a second of all devices with full batches."""
        return sum(device.rate(self.sizes[-1]) for device in self.devices)


@dataclass
class Client:
    """One picture.

    Attributes:
        name: its number.
        tiles: how many it has.
        arrived: when it came, in seconds.
        codec_s: seconds of a core that decoding takes, and as many that encoding does.
        owner: whose it is, as the scheduler's clients are named.
        then: called once it is answered or refused, with the time.
        submitted, enhanced: tiles so far.
        finished: when it was answered; None where it was refused.
        told: when it was refused, and for how many seconds.
    """

    name: int
    tiles: int
    arrived: float
    codec_s: float = 0.0
    owner: str = ""
    then: Callable[["Client", float], None] = lambda *_: None
    submitted: int = 0
    enhanced: int = 0
    finished: float | None = None
    told: list[tuple[float, float]] = field(default_factory=list)


class Simulation:
    """Arrivals -> admission -> decoding -> turns -> lanes -> encoding.

    Attributes:
        clients: every picture that came.
        batches: when each began, and its tiles.
        queue: the admission.
        most_waiting: tiles that waited at most.
    """

    def __init__(self, machine: Machine, seed: int, *, comes_back: bool = False, noise: float = 0.1) -> None:
        """Begin with an idle machine.

        Args:
            machine: what works.
            seed: of all chance.
            comes_back: whether who is refused comes again when told to.
            noise: batches take up to this part less or more than they should.
        """
        self.machine = machine
        self.clients: list[Client] = []
        self.batches: list[tuple[float, int]] = []
        self.most_waiting = 0
        lanes = sum(device.lanes for device in machine.devices)
        self.queue: Admission[int] = Admission(machine.max_tiles, machine.sizes[-1], lanes)
        for device in machine.devices:  # as the first batches at the start
            self.queue.cost.observe(machine.sizes[-1], device.fixed_s + machine.sizes[-1] * device.per_tile_s)
        self._dice = random.Random(seed)
        self._comes_back, self._noise, self._lanes = comes_back, noise, lanes
        self._turns: Turns[int, int] = Turns()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._under_way = 0
        self._present: set[int] = set()
        self._idle = [device for device in machine.devices for _ in range(device.lanes)]
        self._codec_free = machine.codec_cores
        self._codec_queue: deque[tuple[float, Callable[[float], None]]] = deque()

    @property
    def under_way(self) -> int:
        """Pictures that were taken and are not answered yet."""
        return self._under_way

    @property
    def refused(self) -> list[Client]:
        """Those that were refused at least once."""
        return [client for client in self.clients if client.told]

    def run(self, arrivals: Iterable[Arrival]) -> None:
        """Let pictures come, and work until nothing is left."""
        for arrival in arrivals:
            self.add(arrival)
        self.advance()

    def add(self, arrival: Arrival, owner: str = "", then: Callable[[Client, float], None] = lambda *_: None) -> Client:
        """Let a picture of somebody's come, at a time that is not over yet; `then` as `Client` has it."""
        codec_s = arrival[2] if len(arrival) > 2 else 0.0
        client = Client(len(self.clients), arrival[1], arrival[0], codec_s, owner, then)
        self.clients.append(client)
        self.come_back(client, client.arrived)
        return client

    def come_back(self, client: Client, when: float) -> None:
        """Let a picture that was refused come again."""
        self.at(when, partial(self._arrive, client))

    def give_up(self, client: Client) -> None:
        """Let the one that sent a picture hang up."""
        if client.name in self._present:
            self._present.remove(client.name)
            self._under_way -= 1
            self._turns.drop(client.name)
            self.queue.leave(client.name)

    def advance(self, until: float = math.inf) -> None:
        """Work until that time, or until nothing is left."""
        while self._events and self._events[0][0] <= until:
            now, _, happens = heapq.heappop(self._events)
            happens(now)
            self._start(now)
            assert not (self._idle and len(self._turns)), "a lane idles while tiles wait"

    def at(self, when: float, happens: Callable[[float], None]) -> None:
        """Let something happen then."""
        heapq.heappush(self._events, (when, next(self._order), happens))

    def _arrive(self, client: Client, now: float) -> None:
        wait = self.queue.wait(client.tiles, self.machine.timeout_s, now, client.owner)
        if wait is not None:
            assert self.queue.waiting, "an idle service refuses nobody"
            client.told.append((now, wait))
            if self._comes_back:
                self.come_back(client, now + whole_seconds(wait))
            client.then(client, now)
            return
        self._under_way += 1
        self._present.add(client.name)
        self.queue.join(client.name, client.tiles, now + OVERDUE * self.machine.timeout_s, client.owner)
        self.most_waiting = max(self.most_waiting, self.queue.waiting)
        self._on_codec(client.codec_s, partial(self._submit, client), now)

    def _on_codec(self, seconds: float, then: Callable[[float], None], now: float) -> None:
        """Do what a core is needed for; who comes first is served first."""
        if seconds == 0:
            then(now)
        elif self._codec_free == 0:
            self._codec_queue.append((seconds, then))
        else:
            if self._codec_free is not None:
                self._codec_free -= 1
            self.at(now + seconds, partial(self._codec_done, then))

    def _codec_done(self, then: Callable[[float], None], now: float) -> None:
        if self._codec_free is not None:
            self._codec_free += 1
            if self._codec_queue:
                self._on_codec(*self._codec_queue.popleft(), now)
        then(now)

    def _submit(self, client: Client, _: float) -> None:
        """As a picture does: a few rows ahead of what has come back."""
        if client.name not in self._present:
            return
        ahead = client.enhanced + 3 * self.machine.sizes[-1] * self._lanes
        more = min(client.tiles, ahead) - client.submitted
        if more > 0:
            client.submitted += more
            self._turns.add(client.name, "camera", [client.name] * more, client.owner)

    def _start(self, now: float) -> None:
        while self._idle and len(self._turns):
            overdue = self.queue.overdue(now)
            count = choose_batch(self._turns.waiting_with_next(overdue), self.machine.sizes, len(self._idle))
            batch = self._turns.take(count, overdue)
            device = self._idle.pop(0)
            self.batches.append((now, len(batch)))
            seconds = device.fixed_s + device.per_tile_s * len(batch)
            seconds *= self._dice.uniform(1 - self._noise, 1 + self._noise)
            self.queue.cost.observe(len(batch), seconds)
            self.at(now + seconds, partial(self._complete, device, batch))

    def _complete(self, device: Device, batch: Sequence[int], now: float) -> None:
        self._idle.append(device)
        for name, tiles in Counter(batch).items():
            client = self.clients[name]
            client.enhanced += tiles
            self.queue.done(name, tiles)
            if client.enhanced < client.tiles:
                self._submit(client, now)
            elif name in self._present:
                self.queue.leave(name)
                self._on_codec(client.codec_s, partial(self._finish, client), now)

    def _finish(self, client: Client, now: float) -> None:
        if client.name in self._present:
            self._present.remove(client.name)
            self._under_way -= 1
            client.finished = now
            client.then(client, now)


def least_connections(replicas: Sequence[Simulation], arrivals: Iterable[Arrival]) -> None:
    """Let pictures come to several replicas, each to the one with the fewest under way, as a load balancer does."""
    for arrival in arrivals:
        for replica in replicas:
            replica.advance(arrival[0])
        min(replicas, key=lambda replica: replica.under_way).add(arrival)
    for replica in replicas:
        replica.advance()
