"""A thread that runs one batch at a time on its device, and what it does where that fails."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from service.generator import Generator
from service.jobs import Closed, Ended, Enhanced, InferenceFailed, Item
from service.retries import Attempt, Cap, Outage, after_failure, in_sizes, is_out_of_memory, longest_s, pause_s
from service.spec import CONTEXT, TILE

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.1


@dataclass
class Device:
    """What a device's lanes know of it.

    Attributes:
        number: which of the scheduler's devices it is, from 0.
        generators: gives the loaded generator of a camera.
        sizes: of batches in tiles, ascending from 1.
        expected_s: seconds that a batch of n tiles should take.
        batch_timeout_s: seconds that any batch may take.
        on_failure: told the number of tiles of each batch that failed.
        cap: how large batches may be now.
        outage: since when there are only failures.
        stopped: set once no more work is done, on any device.
        lost: whether it was given up, since it failed whatever it was given.
    """

    number: int
    generators: Callable[[str], Generator]
    sizes: tuple[int, ...]
    expected_s: Callable[[int], float]
    batch_timeout_s: float
    on_failure: Callable[[int], None]
    cap: Cap
    outage: Outage
    stopped: threading.Event
    lost: bool = False


class Batches(Protocol):
    """What a lane needs of its scheduler."""

    @property
    def ended(self) -> Ended | None:
        """Why no more work is done; None where it is."""

    def next_batch(self, device: Device) -> list[Item] | None:
        """Wait for tiles for a device and take them; None where it does no more work."""

    def take_back(self, device: Device, items: Sequence[Item]) -> bool:
        """Queue tiles again that a device failed on, where another one works; called under the lock."""

    def lose(self, device: Device) -> None:
        """Give a device up."""

    def count_done(self, item: Item, now: float) -> None:
        """Count a tile that left the device; called under the lock."""

    def keep(self, device: Device, items: Sequence[Item], enhanced: Enhanced, seconds: float) -> None:
        """Take the answers of a batch, which took a device so many seconds."""

    def lane_ended(self) -> None:
        """Learn that a lane is about to end."""


@dataclass(frozen=True)
class _Run:
    """A batch on the device: when it began, on the monotonic clock, and how long it may take."""

    since: float
    longest_s: float


class Lane:
    """One thread, and the tiles that it has to answer for."""

    def __init__(self, number: int, batches: Batches, device: Device, lock: threading.Condition) -> None:
        """Prepare; `start` begins.

        Args:
            number: for the thread's name.
            batches: where tiles come from.
            device: what is known of its own; changed under the lock alone.
            lock: the scheduler's.
        """
        self._batches = batches
        self._device = device
        self._lock = lock
        self._tiles: npt.NDArray[np.uint8] = np.empty((device.sizes[-1], TILE, TILE, 3), np.uint8)
        self._contexts: npt.NDArray[np.uint8] = np.empty((device.sizes[-1], CONTEXT, CONTEXT, 3), np.uint8)
        self._items: set[Item] = set()
        self._run: _Run | None = None
        self._thread = threading.Thread(target=self._work, name=f"inference-{device.number}-{number}", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def missing(self) -> bool:
        """Whether its thread has ended though its device was not given up."""
        return not self.alive and not self._device.lost

    @property
    def current(self) -> bool:
        """Whether its thread is the one that asks."""
        return self._thread is threading.current_thread()

    @property
    def hangs(self) -> bool:
        """Whether its batch takes longer than any should."""
        run = self._run
        return run is not None and time.monotonic() - run.since > run.longest_s

    def join(self) -> None:
        """Wait for the thread's end, but for no batch that hangs; its tiles are answered `Closed`."""
        while self.alive and not self.hangs:
            self._thread.join(_LOOK_EVERY_S)
        self._give_up(Closed())

    def _work(self) -> None:
        try:
            while self._run_batch():
                pass
        finally:
            # nothing but a bug ends a thread before its time: `alive` shows it, and nobody waits for it
            self._give_up(InferenceFailed())
            self._batches.lane_ended()

    def _run_batch(self) -> bool:
        # a call of its own: what a lane holds of a batch, and with it of a picture, is gone before it waits again
        batch = self._batches.next_batch(self._device)
        if batch is None:
            return False
        self._items = set(batch)
        todo = [Attempt(tuple(batch))]
        try:
            while todo:
                wanted = self._still_wanted(todo.pop())
                todo += reversed(wanted[1:])
                if wanted:
                    todo += reversed(self._try(wanted[0]))
        except Exception:  # a lane outlives whatever happens to a batch
            log.exception("a batch of %d tiles was lost", len(batch))
            self._give_up(InferenceFailed())
        return True

    def _still_wanted(self, attempt: Attempt[Item]) -> list[Attempt[Item]]:
        """Leave out what nobody waits for any more; what is left is split where no batch may be that large."""
        now = time.monotonic()
        kept = []
        for item in attempt.items:
            if item not in self._items:  # another device has it
                continue
            ended = self._batches.ended
            reason = item[0].vain(now) if ended is None else ended()
            if reason is None:
                kept.append(item)
            else:
                self._finish([item])
                item[0].settle(reason)
        return in_sizes(replace(attempt, items=tuple(kept)), self._device.sizes, self._device.cap.most)

    def _try(self, attempt: Attempt[Item]) -> list[Attempt[Item]]:
        """Run a batch once, and return what is to be run after it."""
        broken = self._cut(attempt.items)
        if broken:
            self._fail(broken)
            return [replace(attempt, items=tuple(item for item in attempt.items if item not in broken))]
        count = len(attempt.items)
        camera = attempt.items[0][0].job.camera
        try:
            enhanced, seconds = self._infer(camera, count)
        except Exception as error:  # noqa: BLE001  ONNX Runtime raises types of its own C++ layer
            memory = is_out_of_memory(error)
            with self._lock:
                self._device.outage.failed(time.monotonic())
                if memory:
                    self._device.cap.failed(count)
            why = " for want of memory" if memory else ""
            log.warning("a batch of %d tiles failed%s: %s", count, why, _in_one_line(error))
            self._device.on_failure(count)
            return after_failure(attempt, memory, self._device.sizes) or self._blame(attempt, camera)
        self._finish(attempt.items)
        self._batches.keep(self._device, attempt.items, enhanced, seconds)
        return []

    def _cut(self, items: Sequence[Item]) -> list[Item]:
        """Fill the lane's batch; return what can't be cut, which is no fault of the device."""
        broken = []
        for place, (row, i) in enumerate(items):
            try:
                row.cut(i, self._tiles[place])
            except Exception:
                log.exception("a tile can't be cut")
                broken.append((row, i))
            self._contexts[place] = 0 if row.job.context is None else row.job.context
        return broken

    def _infer(self, camera: str, count: int) -> tuple[Enhanced, float]:
        """Run the lane's first `count` tiles; return the answer and the seconds that the device took."""
        generator = self._device.generators(camera)
        start = time.monotonic()
        self._run = _Run(start, longest_s(self._device.expected_s(count), self._device.batch_timeout_s))
        try:
            return generator(self._tiles[:count], self._contexts[:count]), time.monotonic() - start
        finally:
            self._run = None

    def _blame(self, attempt: Attempt[Item], camera: str) -> list[Attempt[Item]]:
        """Find out whether a tile that fails alone is at fault or the device, and return what is to be run then."""
        probes = 0
        while not self._answers(camera):
            probes += 1
            with self._lock:
                now = time.monotonic()
                if self._device.outage.since is None:  # for another lane it works meanwhile
                    break
                self._device.outage.failed(now)
                lost = self._device.outage.lost(now)
            self._hand_over(attempt)
            if lost and not self._device.lost:
                log.error("device %d fails whatever it is given: only a new process may help", self._device.number)
                self._batches.lose(self._device)
            held = self._items or not self._device.lost
            if self._device.stopped.wait(pause_s(probes)) or not held:
                return [attempt]  # which is told why, or is with another device
        if probes and not attempt.revived:
            log.warning("device %d works again", self._device.number)
            return [Attempt(attempt.items, revived=True)]
        log.error("device %d fails on a tile, though it does others", self._device.number)
        self._fail(attempt.items)
        return []

    def _hand_over(self, suspect: Attempt[Item]) -> None:
        """Leave all that the lane holds to other devices, where one works.

        But for a tile that was suspected before: it may be what breaks them, one after the other.
        """
        self._fail((row, i) for row, i in suspect.items if i in row.moved)
        with self._lock:
            items = list(self._items)
            if not items or not self._batches.take_back(self._device, items):
                return
            for row, i in suspect.items:
                if (row, i) in self._items:
                    row.moved.add(i)
            self._items.clear()

    def _answers(self, camera: str) -> bool:
        """Whether the device does a black tile, as it did before the service was ready."""
        self._tiles[0], self._contexts[0] = 0, 0
        try:
            self._infer(camera, 1)
        except Exception as error:  # noqa: BLE001  as above
            log.warning("device %d fails on a black tile too: %s", self._device.number, _in_one_line(error))
            return False
        with self._lock:
            self._device.outage.succeeded()
        return True

    def _fail(self, items: Iterable[Item]) -> None:
        """Give up on those tiles that the lane still holds, and on all that is left of their pictures."""
        items = [item for item in items if item in self._items]
        self._finish(items)
        for row, _ in items:
            row.settle(InferenceFailed())
            row.job.end(InferenceFailed)

    def _give_up(self, reason: Exception) -> None:
        """Answer for whatever a lane still holds."""
        with self._lock:
            left = list(self._items)
        self._finish(left)
        for row, _ in left:
            row.settle(reason)

    def _finish(self, items: Iterable[Item]) -> None:
        """Count tiles as done, whatever became of them; each once."""
        now = time.monotonic()
        with self._lock:
            for item in items:
                if item in self._items:
                    self._items.remove(item)
                    self._batches.count_done(item, now)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
