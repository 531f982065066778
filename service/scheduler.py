"""Tiles of many requests -> batches for one device.

A few lanes, threads that each run one batch at a time, take from one bounded queue whose unit is the tile. Who goes
next is decided in `turns`, who may join in `admission`, what follows a failure in `retries`, all pure; threads, futures
and time are the scheduler's alone.

On a CPU there is a lane a core, and the session has one thread: two lanes took 2.9 ms a tile on two cores, one batch
on two threads 3.1 to 3.2, since threads of one batch wait for each other at every layer. On a GPU a second lane brings
and fetches one batch while the first computes another.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from service.admission import Admission, whole_seconds
from service.generator import Generator
from service.jobs import (
    Cancelled,
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
    "Cancelled",
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
    """What is told about each batch: its size, and the seconds that the device took."""

    tiles: int
    seconds: float


class Scheduler:
    """Runs tiles of many pictures on one device."""

    def __init__(
        self,
        generators: Callable[[str], Generator],
        batch_sizes: Sequence[int] = (1, 2, 4, 8),
        max_tiles: int = 16_384,
        on_batch: Callable[[BatchDone], None] = lambda _: None,
        lanes: int = 1,
        on_failure: Callable[[int], None] = lambda _: None,
        batch_timeout_s: float = 30.0,
    ) -> None:
        """Start the lanes.

        Args:
            generators: gives the loaded generator of a camera, which has to be callable from several threads.
            batch_sizes: ascending, from 1; no batch has another size.
            max_tiles: how many tiles may be admitted at once. A picture with more is admitted when nothing waits.
            on_batch: called after each batch, from the lane that ran it.
            lanes: how many batches run at a time.
            on_failure: called with the number of tiles of each batch that failed, likewise.
            batch_timeout_s: seconds that any batch may take; one that takes longer, and 50 times what it should,
                hangs.
        """
        self._sizes = tuple(batch_sizes)
        self._max_tiles = max_tiles
        self._on_batch = on_batch
        self._turns: Turns[Job, Item] = Turns()
        self._admission: Admission[Job] = Admission(max_tiles, self._sizes[-1], lanes)
        self._changed = threading.Condition()
        self._idle = 0
        self._device = Device(
            generators,
            self._sizes,
            self._admission.cost.batch,
            batch_timeout_s,
            on_failure,
            Cap(self._sizes),
            Outage(),
            threading.Event(),
        )
        self.ended: Ended | None = None
        self._lanes = [Lane(number, self, self._device, self._changed) for number in range(lanes)]
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
        if not all(lane.alive for lane in self._lanes):
            return "ended"
        return "hangs" if any(lane.hangs for lane in self._lanes) else None

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

    def admit(self, tiles: int, camera: str, seconds: float) -> Job:
        """Give a picture its place.

        Args:
            tiles: how many tiles it has.
            camera: which generator enhances it.
            seconds: how long it may take from now.

        Raises:
            QueueFull: too many tiles wait already, or it would not be done in time.
            Closed: the scheduler is closing.
            DeviceFailed: the device does nothing any more.
        """
        now = time.monotonic()
        job = Job(self, tiles, camera, now + seconds, seconds)
        with self._changed:
            if self.ended is not None:
                raise self.ended()
            wait = self._admission.wait(tiles, seconds, now)
            if wait is not None:
                raise QueueFull(tiles, self._max_tiles, whole_seconds(wait))
            self._admission.join(job, tiles)
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
            self._turns.add(row.job, row.job.camera, [(row, i) for i in range(row.missing)])
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
            seconds = self._admission.waiting * self._admission.seconds_per_tile
        return QueueFull(tiles, self._max_tiles, whole_seconds(seconds / 2))

    def end(self, reason: Ended) -> None:
        """Take no more work, and tell all who wait why; the first reason stays. As `Batches.end`."""
        with self._changed:
            self.ended = self.ended or reason
            left: list[Item] = []
            while len(self._turns):
                left += self._turns.take(len(self._turns))
            self._device.stopped.set()
            self._changed.notify_all()
        for row, _ in left:
            row.settle(reason())

    def lane_ended(self) -> None:
        """Tell all who wait where no lane is left; as `Batches.lane_ended`."""
        if not any(lane.alive and not lane.current for lane in self._lanes):
            self.end(DeviceFailed)

    def next_batch(self) -> list[Item] | None:
        """Wait for tiles and take them; as `Batches.next_batch`."""
        with self._changed:
            self._idle += 1
            while not len(self._turns) and self.ended is None:
                self._changed.wait()
            sizes = [size for size in self._sizes if size <= self._device.cap.most]
            count = choose_batch(self._turns.waiting_with_next(), sizes, self._idle)
            self._idle -= 1
            if self.ended is not None:
                return None
            batch = self._turns.take(count)
            start = time.monotonic()
            for row, _ in batch:
                row.job.begin_tile(start - row.submitted, start)
            return batch

    def count_done(self, item: Item, now: float) -> None:
        """Count a tile that left the device; as `Batches.count_done`."""
        job = item[0].job
        job.end_tile(now)
        self._admission.done(job, 1)

    def keep(self, items: Sequence[Item], enhanced: Enhanced, seconds: float) -> None:
        """Take the answers of a batch; as `Batches.keep`."""
        complete = []
        with self._changed:
            self._device.outage.succeeded()
            self._device.cap.succeeded(len(items))
            self._admission.cost.observe(len(items), seconds)
            for (row, i), tile in zip(items, enhanced, strict=True):
                row.enhanced[i] = tile  # a view: the batch lives until the last of its rows is blended
                row.missing -= 1
                if not row.missing:
                    complete.append(row)
        try:
            self._on_batch(BatchDone(len(items), seconds))
        finally:
            for row in complete:
                row.settle([tile for tile in row.enhanced if tile is not None])
