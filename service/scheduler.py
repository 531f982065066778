"""Tiles of many requests -> batches for one device.

A few lanes, threads that each run one batch at a time, take from one bounded queue whose unit is the tile. Who goes
next is decided in `turns`, who may join in `admission`, both pure; threads, futures and time are the scheduler's alone.

On a CPU there is a lane a core, and the session has one thread: two lanes took 2.9 ms a tile on two cores, one batch
on two threads 3.1 to 3.2, since threads of one batch wait for each other at every layer. On a GPU a second lane brings
and fetches one batch while the first computes another.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.admission import Admission, whole_seconds
from service.generator import Generator
from service.spec import CONTEXT, TILE
from service.turns import Turns, choose_batch

log = logging.getLogger(__name__)

Enhanced = npt.NDArray[np.float32] | npt.NDArray[np.float16]
Cut = Callable[[int, npt.NDArray[np.uint8]], None]
"""Writes tile number i, from 0, to a uint8 (128, 128, 3)."""


class QueueFull(Exception):
    """What already waits leaves no room for this picture.

    Attributes:
        tiles: how many tiles the picture has.
        limit: how many tiles may wait at once.
        retry_after: seconds until there should be room.
    """

    def __init__(self, tiles: int, limit: int, retry_after: int) -> None:
        super().__init__(f"no room for {tiles} tiles; {limit} may wait at once")
        self.tiles = tiles
        self.limit = limit
        self.retry_after = retry_after


class Closed(Exception):
    """The scheduler takes no more work."""


class Cancelled(Exception):
    """The client gave up on the picture."""


class DeadlineExceeded(Exception):
    """The picture was not done in time.

    Attributes:
        seconds: how long it was given.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not done within {seconds:g} s")
        self.seconds = seconds


class InferenceFailed(Exception):
    """The device failed on a batch."""


@dataclass(eq=False)
class _Row:
    """Tiles that were submitted together, and their answers as they come."""

    job: "Job"
    cut: Cut
    submitted: float
    enhanced: list[Enhanced | None]
    missing: int
    future: Future[list[Enhanced]] = field(default_factory=Future)


class Job:
    """One picture's place in the queue, from admission to `close`; made by `Scheduler.admit`.

    Attributes:
        tiles: how many tiles were admitted.
        queue_s: seconds that its tiles waited for their batch, the average over them.
        inference_s: seconds in which at least one of its tiles was on the device.
    """

    def __init__(self, scheduler: "Scheduler", tiles: int, camera: str, deadline: float, seconds: float) -> None:
        self.tiles = tiles
        self.camera = camera
        self.queue_s = 0.0
        self.inference_s = 0.0
        self._scheduler = scheduler
        self._deadline = deadline
        self._seconds = seconds
        self._running = 0  # its tiles on the device
        self._running_since = 0.0
        self._context: npt.NDArray[np.uint8] | None = None
        self._cancelled = threading.Event()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_context(self, context: npt.NDArray[np.uint8]) -> None:
        """Give the whole picture's context, uint8 (32, 32, 3), before the first tiles."""
        self._context = context

    def submit(self, tiles: int, cut: Cut) -> Future[list[Enhanced]]:
        """Queue tiles.

        Args:
            tiles: how many, at least 1.
            cut: writes a tile into its batch, at the time when that batch is made; called from another thread.

        Returns:
            A future of the answers in order, each float (128, 128, 3) in 0..1.

        Raises:
            Cancelled, DeadlineExceeded, Closed: nothing more is done for this picture.
        """
        self.check()
        return self._scheduler._submit(self, tiles, cut)

    def wait(self, future: Future[list[Enhanced]]) -> list[Enhanced]:
        """Wait for a row's answer, no longer than the deadline.

        Raises:
            Cancelled, DeadlineExceeded, InferenceFailed, Closed: there will be no answer.
        """
        if self._cancelled.is_set():
            raise Cancelled
        try:
            failure = future.exception(max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            raise DeadlineExceeded(self._seconds) from None
        if failure is not None:
            # One of its own. The row's belongs to other rows too: raised, it would hold the frames of whoever waits
            # here, and they hold those rows; the picture would stay until the garbage collector finds the circle.
            raise type(failure)(*failure.args)
        return future.result()

    def check(self) -> None:
        """Raise where the work is in vain.

        Raises:
            Cancelled: the client gave up.
            DeadlineExceeded: the time is over.
        """
        if self._cancelled.is_set():
            raise Cancelled
        if time.monotonic() > self._deadline:
            raise DeadlineExceeded(self._seconds)

    def cancel(self) -> None:
        """Give up: what waits is dropped before the next batch. Safe from any thread."""
        self._cancelled.set()
        self._scheduler._drop(self, Cancelled())

    def close(self) -> None:
        """Leave the queue; what still waits is dropped."""
        self._scheduler._drop(self, Cancelled())
        self._scheduler._leave(self)


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
    ) -> None:
        """Start the lanes.

        Args:
            generators: gives the loaded generator of a camera, which has to be callable from several threads.
            batch_sizes: ascending, from 1; no batch has another size.
            max_tiles: how many tiles may be admitted at once. A picture with more is admitted when nothing waits.
            on_batch: called after each batch, from the lane that ran it.
            lanes: how many batches run at a time.
        """
        self._generators = generators
        self._sizes = tuple(batch_sizes)
        self._max_tiles = max_tiles
        self._on_batch = on_batch
        self._turns: Turns[Job, tuple[_Row, int]] = Turns()
        self._admission: Admission[Job] = Admission(max_tiles, self._sizes[-1], lanes)
        self._changed = threading.Condition()
        self._idle = 0
        self._closed = False
        self._lanes = [
            threading.Thread(target=self._run, name=f"inference-{number}", daemon=True) for number in range(lanes)
        ]
        for lane in self._lanes:
            lane.start()

    @property
    def alive(self) -> bool:
        """Whether every lane runs."""
        return all(lane.is_alive() for lane in self._lanes)

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
        """
        now = time.monotonic()
        job = Job(self, tiles, camera, now + seconds, seconds)
        with self._changed:
            if self._closed:
                raise Closed
            wait = self._admission.wait(tiles, seconds, now)
            if wait is not None:
                raise QueueFull(tiles, self._max_tiles, whole_seconds(wait))
            self._admission.join(job, tiles)
        return job

    def close(self) -> None:
        """Stop each lane after its batch; whoever still waits gets `Closed`."""
        with self._changed:
            self._closed = True
            left: list[tuple[_Row, int]] = []
            while len(self._turns):
                left += self._turns.take(len(self._turns))
            self._changed.notify_all()
        for row, _ in left:
            _settle(row, Closed())
        for lane in self._lanes:
            lane.join()

    def _submit(self, job: Job, tiles: int, cut: Cut) -> Future[list[Enhanced]]:
        row = _Row(job, cut, time.monotonic(), [None] * tiles, tiles)
        with self._changed:
            if self._closed:
                raise Closed
            self._turns.add(job, job.camera, [(row, i) for i in range(tiles)])
            self._changed.notify(min(tiles, self._idle))
        return row.future

    def _drop(self, job: Job, reason: Exception) -> None:
        with self._changed:
            dropped = self._turns.drop(job)
        for row, _ in dropped:
            _settle(row, reason)

    def _leave(self, job: Job) -> None:
        with self._changed:
            self._admission.leave(job)

    def _run(self) -> None:
        largest = self._sizes[-1]
        tiles = np.empty((largest, TILE, TILE, 3), np.uint8)
        contexts = np.empty((largest, CONTEXT, CONTEXT, 3), np.uint8)
        while self._run_batch(tiles, contexts):
            pass

    def _run_batch(self, tiles: npt.NDArray[np.uint8], contexts: npt.NDArray[np.uint8]) -> bool:
        # a call of its own: what a lane holds of a batch, and with it of a picture, is gone before it waits again
        batch = self._next_batch()
        if batch is None:
            return False
        try:
            self._infer(batch, tiles[: len(batch)], contexts[: len(batch)])
        except Exception:  # a lane outlives whatever a device does
            log.exception("a batch of %d tiles failed", len(batch))
            for row, _ in batch:
                _settle(row, InferenceFailed())
        return True

    def _next_batch(self) -> list[tuple[_Row, int]] | None:
        with self._changed:
            self._idle += 1
            while not len(self._turns) and not self._closed:
                self._changed.wait()
            count = choose_batch(self._turns.waiting_with_next(), self._sizes, self._idle)
            self._idle -= 1
            if self._closed:
                return None
            batch = self._turns.take(count)
            start = time.monotonic()
            for row, _ in batch:
                job = row.job
                job.queue_s += (start - row.submitted) / job.tiles
                if not job._running:
                    job._running_since = start
                job._running += 1
            return batch

    def _infer(
        self, batch: list[tuple[_Row, int]], tiles: npt.NDArray[np.uint8], contexts: npt.NDArray[np.uint8]
    ) -> None:
        try:
            for place, (row, i) in enumerate(batch):
                row.cut(i, tiles[place])
                contexts[place] = 0 if row.job._context is None else row.job._context
            start = time.monotonic()
            enhanced = self._generators(batch[0][0].job.camera)(tiles, contexts)
        finally:
            end = time.monotonic()
            with self._changed:
                for row, _ in batch:
                    job = row.job
                    job._running -= 1
                    if not job._running:
                        job.inference_s += end - job._running_since
                    self._admission.done(job, 1)
        complete = []
        with self._changed:
            self._admission.cost.observe(len(batch), end - start)
            for (row, i), tile in zip(batch, enhanced, strict=True):
                row.enhanced[i] = tile  # a view: the batch lives until the last of its rows is blended
                row.missing -= 1
                if not row.missing:
                    complete.append(row)
        self._on_batch(BatchDone(len(batch), end - start))
        for row in complete:
            _settle(row, [tile for tile in row.enhanced if tile is not None])


def _settle(row: _Row, outcome: list[Enhanced] | Exception) -> None:
    # whoever comes first settles a row: a lane, a client that hangs up, or closing
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, Exception):
            row.future.set_exception(outcome)
        else:
            row.future.set_result(outcome)
