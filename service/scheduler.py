"""Tiles of many requests -> batches for one or several devices.

Each device has a few lanes, threads that each run one batch at a time; all take from one bounded queue whose unit is
the tile. Who goes next is decided in `turns`, who may join in `admission`, what follows a failure in `retries`, all
pure; threads, futures and time are the scheduler's alone.

On a CPU there is a lane a core, and the session has one thread: two lanes took 2.9 ms a tile on two cores, one batch
on two threads 3.1 to 3.2, since threads of one batch wait for each other at every layer. On a GPU a second lane brings
and fetches one batch while the first computes another. Whichever lane is free takes what is next, so that devices of
different speed all stay busy; what a failing device holds goes to another.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from service.admission import OVERDUE, Admission, whole_seconds
from service.generator import Generator
from service.jobs import (
    Closed,
    Cut,
    DeadlineExceeded,
    DeviceFailed,
    Ended,
    Enhanced,
    InferenceFailed,
    Item,
    Job,
    QueueFull,
    Row,
)
from service.lanes import Device, Lane
from service.retries import Cap, Outage
from service.turns import Turns, choose_batch

__all__ = [
    "BatchDone",
    "Closed",
    "Cut",
    "DeadlineExceeded",
    "DeviceFailed",
    "Enhanced",
    "InferenceFailed",
    "Job",
    "QueueFull",
    "Scheduler",
    "Trouble",
]

Trouble = Literal["ended", "failed", "hangs"]
"""A lane's thread has ended; the device fails whatever it is given; a batch does not come back."""


@dataclass(frozen=True)
class BatchDone:
    """What is told about each batch: its size, the seconds that the device took, and which it was, from 0."""

    tiles: int
    seconds: float
    device: int


class Scheduler:
    """Runs tiles of many pictures on one or several devices."""

    def __init__(
        self,
        devices: Sequence[Callable[[str], Generator]],
        batch_sizes: Sequence[int] = (1, 2, 4, 8),
        max_tiles: int = 16_384,
        on_batch: Callable[[BatchDone], None] = lambda _: None,
        lanes: int = 1,
        on_failure: Callable[[int, int], None] = lambda *_: None,
        batch_timeout_s: float = 30.0,
    ) -> None:
        """Start the lanes.

        Args:
            devices: each gives the generator of a camera as it is loaded there, callable from several threads.
            batch_sizes: ascending, from 1; no batch has another size.
            max_tiles: how many tiles may be admitted at once. A picture with more is admitted when nothing waits.
            on_batch: called after each batch, from the lane that ran it.
            lanes: how many batches run at a time on each device.
            on_failure: called with the device and the number of tiles of each batch that failed, likewise.
            batch_timeout_s: seconds that any batch may take; one that takes longer, and 50 times what it should,
                hangs.
        """
        self._sizes = tuple(batch_sizes)
        self._max_tiles = max_tiles
        self._on_batch = on_batch
        self._turns: Turns[Job, Item] = Turns()
        self._admission: Admission[Job] = Admission(max_tiles, self._sizes[-1], lanes * len(devices))
        self._lanes_each = lanes
        self._changed = threading.Condition()
        self._idle = 0
        self._devices = [
            Device(
                number,
                generators,
                self._sizes,
                self._admission.cost.batch,
                batch_timeout_s,
                partial(on_failure, number),
                Cap(self._sizes),
                Outage(),
                threading.Event(),
            )
            for number, generators in enumerate(devices)
        ]
        self.ended: Ended | None = None
        self._lanes = [Lane(number, self, device, self._changed) for number in range(lanes) for device in self._devices]
        for lane in self._lanes:
            lane.start()

    @property
    def alive(self) -> bool:
        """Whether every lane runs, and the device works as far as is known."""
        return self.trouble is None

    @property
    def trouble(self) -> Trouble | None:
        """Why only a new process would help; None where this one works."""
        if self.ended is DeviceFailed:
            return "failed"
        if any(lane.missing for lane in self._lanes):
            return "ended"
        return "hangs" if any(lane.hangs for lane in self._lanes) else None

    @property
    def working(self) -> tuple[bool, ...]:
        """Of each device, whether it has not been given up."""
        return tuple(not device.lost for device in self._devices)

    @property
    def drain_s(self) -> float:
        """Seconds that what waits will take, by what past batches took; 0 before any was seen."""
        return self._admission.waiting * self._admission.seconds_per_tile

    @property
    def largest_batch(self) -> int:
        """The largest batch that is run."""
        return self._sizes[-1]

    @property
    def tiles_ahead(self) -> int:
        """How many tiles a picture should have submitted for no lane to wait for it."""
        return 3 * self._sizes[-1] * len(self._lanes)

    @property
    def waiting(self) -> int:
        """How many admitted tiles are not yet enhanced."""
        return self._admission.waiting

    def admit(self, tiles: int, camera: str, seconds: float, client: str = "") -> Job:
        """Give a picture its place.

        Args:
            tiles: how many tiles it has; with none it needs no room in the queue.
            camera: which generator enhances it.
            seconds: how long it may take from now.
            client: whose it is, as `Caller.client`.

        Raises:
            QueueFull: too many tiles wait already, or it would not be done in time.
            Closed: the scheduler is closing.
            DeviceFailed: the device does nothing any more.
        """
        now = time.monotonic()
        job = Job(self, tiles, camera, now + seconds, seconds, client)
        with self._changed:
            if self.ended is not None:
                raise self.ended()
            if tiles:
                wait = self._admission.wait(tiles, seconds, now, client)
                if wait is not None:
                    raise QueueFull(tiles, self._max_tiles, whole_seconds(wait))
                self._admission.join(job, tiles, now + OVERDUE * seconds, client)
        return job

    def close(self) -> None:
        """Stop each lane after its batch; whoever still waits gets `Closed`. A batch that hangs is not waited for."""
        self.end(Closed)
        for lane in self._lanes:
            lane.join()

    def submit(self, row: Row) -> None:
        """Queue a row's tiles; as `Queue.submit`, for `Job` alone."""
        with self._changed:
            if self.ended is not None:
                raise self.ended()
            job = row.job
            self._turns.add(job, job.camera, [(row, i) for i in range(row.missing)], job.client)
            self._changed.notify(min(row.missing, self._idle))

    def drop(self, job: Job, reason: Exception) -> None:
        """Take a job's waiting tiles out; as `Queue.drop`, for `Job` alone."""
        with self._changed:
            dropped = self._turns.drop(job)
        for row, _ in dropped:
            row.settle(reason)

    def leave(self, job: Job) -> None:
        """Forget a job; as `Queue.leave`, for `Job` alone."""
        with self._changed:
            self._admission.leave(job)

    def turn_away(self, tiles: int) -> QueueFull:
        """Say when to come again; as `Queue.turn_away`, for `Job` alone."""
        with self._changed:
            seconds = self.drain_s
        return QueueFull(tiles, self._max_tiles, whole_seconds(seconds / 2))

    def end(self, reason: Ended) -> None:
        """Take no more work, and tell all who wait why; the first reason stays. As `Batches.end`."""
        with self._changed:
            self.ended = self.ended or reason
            left: list[Item] = []
            while len(self._turns):
                left += self._turns.take(len(self._turns))
            for device in self._devices:
                device.stopped.set()
            self._changed.notify_all()
        for row, _ in left:
            row.settle(reason())

    def lane_ended(self) -> None:
        """Tell all who wait where no lane is left; as `Batches.lane_ended`."""
        if not any(lane.alive and not lane.current for lane in self._lanes):
            self.end(DeviceFailed)

    def lose(self, device: Device) -> None:
        """Go on without a device, or end where it was the last; as `Batches.lose`."""
        with self._changed:
            device.lost = True
            left = sum(self.working)
            if left:
                self._admission.lanes = self._lanes_each * left
                self._changed.notify_all()
        if not left:
            self.end(DeviceFailed)

    def take_back(self, device: Device, items: Sequence[Item]) -> bool:
        """Queue a failing device's tiles again where another device works; as `Batches.take_back`."""
        others = (each for each in self._devices if each is not device)
        if self.ended is not None or all(each.lost or each.outage.since is not None for each in others):
            return False
        now = time.monotonic()
        by_job: dict[Job, list[Item]] = {}
        for row, i in sorted(items, key=lambda item: (item[0].submitted, item[1])):
            row.job.return_tile(row.submitted, now)
            by_job.setdefault(row.job, []).append((row, i))
        for job, again in by_job.items():
            self._turns.give_back(job, job.camera, again, job.client)
        self._changed.notify_all()
        return True

    def next_batch(self, device: Device) -> list[Item] | None:
        """Wait for tiles and take them; as `Batches.next_batch`."""
        with self._changed:
            self._idle += 1
            while not len(self._turns) and self.ended is None and not device.lost:
                self._changed.wait()
            sizes = [size for size in self._sizes if size <= device.cap.most]
            start = time.monotonic()
            overdue = self._admission.overdue(start)
            count = choose_batch(self._turns.waiting_with_next(overdue), sizes, self._idle)
            self._idle -= 1
            if self.ended is not None or device.lost:
                return None
            batch = self._turns.take(count, overdue)
            for row, _ in batch:
                row.job.begin_tile(start - row.submitted, start)
            return batch

    def count_done(self, item: Item, now: float) -> None:
        """Count a tile that left the device; as `Batches.count_done`."""
        job = item[0].job
        job.end_tile(now)
        self._admission.done(job, 1)

    def keep(self, device: Device, items: Sequence[Item], enhanced: Enhanced, seconds: float) -> None:
        """Take the answers of a batch; as `Batches.keep`."""
        complete = []
        with self._changed:
            device.outage.succeeded()
            device.cap.succeeded(len(items))
            self._admission.cost.observe(len(items), seconds)
            for (row, i), tile in zip(items, enhanced, strict=True):
                row.enhanced[i] = tile  # a view: the batch lives until the last of its rows is blended
                row.missing -= 1
                if not row.missing:
                    complete.append(row)
        try:
            self._on_batch(BatchDone(len(items), seconds, device.number))
        finally:
            for row in complete:
                row.settle([tile for tile in row.enhanced if tile is not None])
