"""Tiles of many requests -> batches for one device.

One inference thread takes batches from one bounded queue whose unit is the tile. Who goes next is decided in `turns`,
which is pure; threads, futures and time are the scheduler's alone.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from service.generator import Generator
from service.spec import CONTEXT, TILE
from service.turns import Turns, choose_batch

log = logging.getLogger(__name__)

Enhanced = npt.NDArray[np.float32] | npt.NDArray[np.float16]

_LONGEST_RETRY: Final = 3600


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
    tiles: npt.NDArray[np.uint8]
    submitted: float
    future: Future[Enhanced] = field(default_factory=Future)
    enhanced: Enhanced | None = None
    missing: int = 0


class Job:
    """One picture's place in the queue, from admission to `close`; made by `Scheduler.admit`.

    Attributes:
        tiles: how many tiles were admitted.
        queue_s: seconds that its tiles waited for their batch, the average over them.
        inference_s: its share of the device's time in seconds.
    """

    def __init__(self, scheduler: "Scheduler", tiles: int, camera: str, deadline: float, seconds: float) -> None:
        self.tiles = tiles
        self.camera = camera
        self.queue_s = 0.0
        self.inference_s = 0.0
        self._scheduler = scheduler
        self._deadline = deadline
        self._seconds = seconds
        self._left = tiles  # admitted, not yet enhanced
        self._context: npt.NDArray[np.uint8] | None = None
        self._cancelled = threading.Event()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_context(self, context: npt.NDArray[np.uint8]) -> None:
        """Give the whole picture's context, uint8 (32, 32, 3), before the first tiles."""
        self._context = context

    def submit(self, tiles: npt.NDArray[np.uint8]) -> Future[Enhanced]:
        """Queue tiles, uint8 (n, 128, 128, 3); the future gives float (n, 128, 128, 3) in 0..1.

        Raises:
            Cancelled, DeadlineExceeded, Closed: nothing more is done for this picture.
        """
        self.check()
        return self._scheduler._submit(self, tiles)

    def wait(self, future: Future[Enhanced]) -> Enhanced:
        """Wait for a row's answer, no longer than the deadline.

        Raises:
            Cancelled, DeadlineExceeded, InferenceFailed, Closed: there will be no answer.
        """
        if self._cancelled.is_set():
            raise Cancelled
        try:
            return future.result(max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            raise DeadlineExceeded(self._seconds) from None

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
    ) -> None:
        """Start the inference thread.

        Args:
            generators: gives the loaded generator of a camera.
            batch_sizes: ascending, from 1; no batch has another size.
            max_tiles: how many tiles may be admitted at once. A picture with more is admitted when nothing waits.
            on_batch: called from the inference thread after each batch.
        """
        self._generators = generators
        self._sizes = tuple(batch_sizes)
        self._max_tiles = max_tiles
        self._on_batch = on_batch
        self._turns: Turns[Job, tuple[_Row, int]] = Turns()
        self._changed = threading.Condition()
        self._admitted = 0
        self._closed = False
        self._seconds_per_tile = 0.0
        largest = self._sizes[-1]
        self._tiles = np.empty((largest, TILE, TILE, 3), np.uint8)
        self._contexts = np.empty((largest, CONTEXT, CONTEXT, 3), np.uint8)
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the inference thread runs."""
        return self._thread.is_alive()

    @property
    def largest_batch(self) -> int:
        """The largest batch that is run."""
        return self._sizes[-1]

    @property
    def waiting(self) -> int:
        """How many admitted tiles are not yet enhanced."""
        return self._admitted

    def admit(self, tiles: int, camera: str, seconds: float) -> Job:
        """Give a picture its place.

        Args:
            tiles: how many tiles it has.
            camera: which generator enhances it.
            seconds: how long it may take from now.

        Raises:
            QueueFull: too many tiles wait already.
            Closed: the scheduler is closing.
        """
        with self._changed:
            if self._closed:
                raise Closed
            too_many = self._admitted + tiles - self._max_tiles
            if self._admitted and too_many > 0:
                wait = math.ceil(min(too_many, self._admitted) * self._seconds_per_tile)
                raise QueueFull(tiles, self._max_tiles, min(max(wait, 1), _LONGEST_RETRY))
            self._admitted += tiles
        return Job(self, tiles, camera, time.monotonic() + seconds, seconds)

    def close(self) -> None:
        """Stop the inference thread after its batch; whoever still waits gets `Closed`."""
        with self._changed:
            self._closed = True
            left: list[tuple[_Row, int]] = []
            while len(self._turns):
                left += self._turns.take(len(self._turns))
            self._changed.notify_all()
        for row, _ in left:
            _settle(row, Closed())
        self._thread.join()

    def _submit(self, job: Job, tiles: npt.NDArray[np.uint8]) -> Future[Enhanced]:
        row = _Row(job, tiles, time.monotonic(), missing=len(tiles))
        with self._changed:
            if self._closed:
                raise Closed
            self._turns.add(job, job.camera, [(row, i) for i in range(len(tiles))])
            self._changed.notify()
        return row.future

    def _drop(self, job: Job, reason: Exception) -> None:
        with self._changed:
            dropped = self._turns.drop(job)
        for row, _ in dropped:
            _settle(row, reason)

    def _leave(self, job: Job) -> None:
        with self._changed:
            self._admitted -= job._left
            job._left = 0

    def _run(self) -> None:
        while True:
            with self._changed:
                while not len(self._turns) and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                batch = self._turns.take(choose_batch(self._turns.waiting_with_next(), self._sizes))
            try:
                self._infer(batch)
            except Exception:  # the thread outlives whatever a device does
                log.exception("a batch of %d tiles failed", len(batch))
                for row, _ in batch:
                    _settle(row, InferenceFailed())

    def _infer(self, batch: list[tuple[_Row, int]]) -> None:
        count = len(batch)
        for place, (row, i) in enumerate(batch):
            self._tiles[place] = row.tiles[i]
            self._contexts[place] = 0 if row.job._context is None else row.job._context
        start = time.monotonic()
        enhanced = self._generators(batch[0][0].job.camera)(self._tiles[:count], self._contexts[:count])
        seconds = time.monotonic() - start
        for place, (row, i) in enumerate(batch):
            if row.enhanced is None:
                row.enhanced = np.empty(row.tiles.shape, enhanced.dtype)
            row.enhanced[i] = enhanced[place]
            row.missing -= 1
            row.job.queue_s += (start - row.submitted) / row.job.tiles
            row.job.inference_s += seconds / count
        with self._changed:
            for row, _ in batch:
                if row.job._left:
                    row.job._left -= 1
                    self._admitted -= 1
        per_tile = seconds / count
        self._seconds_per_tile += (per_tile - self._seconds_per_tile) * (0.1 if self._seconds_per_tile else 1.0)
        self._on_batch(BatchDone(count, seconds))
        for row in {id(row): row for row, _ in batch}.values():
            if not row.missing and row.enhanced is not None:
                _settle(row, row.enhanced)


def _settle(row: _Row, outcome: Enhanced | Exception) -> None:
    # whoever comes first settles a row: the inference thread, a client that hangs up, or closing
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, Exception):
            row.future.set_exception(outcome)
        else:
            row.future.set_result(outcome)
