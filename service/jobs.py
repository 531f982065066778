"""A picture's place in the queue, what it waits for, and why it may wait in vain."""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.caller import Cancelled

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


class DeviceFailed(Exception):
    """The device does nothing any more: not even a tile that it did before."""


Ended = type[Closed] | type[DeviceFailed]
"""Why a scheduler does no more work. The type: one exception that many raise would hold on to all their frames."""


class DeadlineExceeded(Exception):
    """The picture was not done in time.

    Attributes:
        seconds: how long it was given.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not done within {seconds:g} s")
        self.seconds = seconds


class InferenceFailed(Exception):
    """The device failed on a tile, though it does others."""


Over = type[Cancelled] | type[InferenceFailed]
"""Why a picture gets no more done, likewise."""


@dataclass(eq=False)
class Row:
    """Tiles that were submitted together, and their answers as they come.

    Attributes:
        job: their picture.
        cut: writes tile number i of them.
        submitted: when, on the monotonic clock.
        enhanced: the answers so far, and how many are `missing`.
        future: gets them all.
        moved: tiles that a device failed on alone before it failed on everything, and that went to another.
    """

    job: "Job"
    cut: Cut
    submitted: float
    enhanced: list[Enhanced | None]
    missing: int
    future: Future[list[Enhanced]] = field(default_factory=Future)
    moved: set[int] = field(default_factory=set)

    def settle(self, outcome: list[Enhanced] | Exception) -> None:
        """Answer; whoever comes first does: a lane, a client that hangs up, or closing."""
        with contextlib.suppress(InvalidStateError):
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

    def vain(self, now: float) -> Exception | None:
        """Why nothing more is to be done for it at the time `now` of the monotonic clock; None where something is."""
        if self.future.done():
            return Cancelled()
        return self.job.vain(now)


Item = tuple[Row, int]
"""Tile number i of a row."""


class Queue(Protocol):
    """What a job needs of its scheduler."""

    def submit(self, row: Row) -> None:
        """Queue a row's tiles; raises `Closed` or `DeviceFailed`."""

    def drop(self, job: "Job", reason: Exception) -> None:
        """Take a job's waiting tiles out, and settle their rows with the reason."""

    def leave(self, job: "Job") -> None:
        """Forget a job."""

    def turn_away(self, tiles: int) -> QueueFull:
        """Say when a picture of so many tiles should come again: once half of what waits is done."""


class Job:
    """One picture's place in the queue, from admission to `close`; made by `Scheduler.admit`.

    Attributes:
        tiles: how many tiles were admitted.
        camera: whose generator enhances them.
        client: whose picture it is.
        context: the whole picture as the generator sees it, uint8 (32, 32, 3); None is black.
        queue_s: seconds that its tiles waited for their batch, the average over them.
        inference_s: seconds in which at least one of its tiles was on the device.
        queue_span, inference_span: the first and the last moment of either, as `time.monotonic()` says them; 0 before
            there is one.
    """

    def __init__(
        self, queue: Queue, tiles: int, camera: str, deadline: float, seconds: float, client: str = ""
    ) -> None:
        self.tiles = tiles
        self.camera = camera
        self.client = client
        self.context: npt.NDArray[np.uint8] | None = None
        self.queue_s = 0.0
        self.inference_s = 0.0
        self.queue_span = self.inference_span = (0.0, 0.0)
        self._queue = queue
        self._deadline = deadline
        self._seconds = seconds
        self._running = 0  # its tiles on the device
        self._running_since = 0.0
        self._over: Over | None = None
        self._cancelled = threading.Event()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_context(self, context: npt.NDArray[np.uint8]) -> None:
        """Give the whole picture's context, uint8 (32, 32, 3), before the first tiles."""
        self.context = context

    def submit(self, tiles: int, cut: Cut) -> Future[list[Enhanced]]:
        """Queue tiles.

        Args:
            tiles: how many, at least 1.
            cut: writes a tile into its batch, at the time when that batch is made, and again where the batch failed;
                called from another thread.

        Returns:
            A future of the answers in order, each float (128, 128, 3) in 0..1.

        Raises:
            Cancelled, DeadlineExceeded, InferenceFailed, DeviceFailed, Closed: nothing more is done for this picture.
        """
        self.check()
        row = Row(self, cut, time.monotonic(), [None] * tiles, tiles)
        if not self.queue_span[0]:
            self.queue_span = row.submitted, row.submitted
        self._queue.submit(row)
        return row.future

    def wait(self, future: Future[list[Enhanced]]) -> list[Enhanced]:
        """Wait for a row's answer, no longer than the deadline.

        Raises:
            Cancelled, DeadlineExceeded, InferenceFailed, DeviceFailed, Closed: there will be no answer.
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
            raise _like(failure)
        return future.result()

    def turned_away(self) -> QueueFull:
        """What to tell whoever has a place and finds nobody to work on the picture."""
        return self._queue.turn_away(self.tiles)

    def check(self) -> None:
        """Raise where the work is in vain.

        Raises:
            Cancelled: the client gave up.
            DeadlineExceeded: the time is over.
            InferenceFailed: the device failed on a tile of the picture.
        """
        reason = self.vain(time.monotonic())
        if reason is not None:
            raise reason

    def vain(self, now: float) -> Exception | None:
        """Why nothing more is to be done for the picture at the time `now` of the monotonic clock, None if nothing."""
        if self._cancelled.is_set():
            return Cancelled()
        if self._over is not None:
            return self._over()
        return DeadlineExceeded(self._seconds) if now > self._deadline else None

    def cancel(self) -> None:
        """Give up: what waits is dropped before the next batch. Safe from any thread."""
        self._cancelled.set()
        self._queue.drop(self, Cancelled())

    def close(self) -> None:
        """Leave the queue; what still waits is dropped."""
        self.end(Cancelled)
        self._queue.leave(self)

    def end(self, reason: Over) -> None:
        """Do nothing more for the picture: what waits is dropped, and whoever waits for it gets the reason."""
        if self._over is None:
            self._over = reason
        self._queue.drop(self, reason())

    def begin_tile(self, waited: float, now: float) -> None:
        """Count a tile that goes to the device after `waited` seconds; under the scheduler's lock."""
        self.queue_s += waited / self.tiles
        self.queue_span = self.queue_span[0], now
        if not self.inference_span[0]:
            self.inference_span = now, now
        if not self._running:
            self._running_since = now
        self._running += 1

    def return_tile(self, submitted: float, now: float) -> None:
        """Count a tile, submitted at that time, that waits once more; under the scheduler's lock."""
        self.end_tile(now)
        self.queue_s -= (now - submitted) / self.tiles  # which `begin_tile` will count again

    def end_tile(self, now: float) -> None:
        """Count a tile that comes back, or never will; under the scheduler's lock."""
        self._running -= 1
        self.inference_span = self.inference_span[0], now
        if not self._running:
            self.inference_s += now - self._running_since


def _like(error: BaseException) -> BaseException:
    """Make another exception that says the same; its class may take other arguments than it keeps."""
    other = type(error).__new__(type(error), *error.args)
    other.__dict__.update(vars(error))
    return other
