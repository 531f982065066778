"""What runs after a batch has failed, how large batches may be, when a device is lost. Pure: no threads, no clock.

A batch that fails for want of memory is run again in halves. One that fails otherwise is run once more as it is, then
in halves, down to the tile that the device fails on: one picture costs the others of its batch nothing but time. A tile
that fails alone is at fault where the device still does a black one, and else the device is, which gets a while.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

ALONE: Final = 3
"""How often a tile is tried alone."""

LOST_AFTER_S: Final = 5.0
"""Seconds of failing only after which a device is lost: memory that others hold comes back within that or is not ours
to wait for, and a CUDA device whose context broke never does in the same process."""

_LOST_AFTER_FAILURES: Final = 5
"""And no sooner than so many failures, or one slow batch that fails would be enough."""

_PATIENCE: Final = 100
_MOST_PATIENCE: Final = 3200
"""Good batches, first and at most, until a larger one is tried again after memory ran out."""

_HANGS: Final = 50
"""A batch that takes so many times what it should hangs, unless it is a short one."""

_NO_MEMORY: Final = (
    "failed to allocate memory",  # ONNX Runtime's arena, of the CPU and of CUDA
    "smaller than requested bytes",  # the same, with a limit
    "bad_alloc",
    "bad allocation",
    "out of memory",  # CUDA failure 2, and the system's words
    "cannot allocate memory",
    "cudaerrormemoryallocation",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "device_allocation_failed",  # cuDNN 9
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a batch says that memory ran out; ONNX Runtime tells it in its text alone."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)


@dataclass(frozen=True)
class Attempt(Generic[Item]):
    """A batch that is to be run.

    Attributes:
        items: its tiles.
        failures: how often just these failed.
        part: whether they are a part of a batch that failed.
        revived: whether the device failed meanwhile, and came back.
    """

    items: tuple[Item, ...]
    failures: int = 0
    part: bool = False
    revived: bool = False


def in_sizes(attempt: Attempt[Item], sizes: Sequence[int], most: int | None = None) -> list[Attempt[Item]]:
    """Split an attempt where no batch may have its size.

    Args:
        attempt: of any number of items.
        sizes: those that batches may have, ascending from 1.
        most: largest size of a part; None allows all.

    Returns:
        Attempts that hold all its items in order; itself alone, where it may be.
    """
    if len(attempt.items) in sizes and (most is None or len(attempt.items) <= most):
        return [attempt]
    return [Attempt(items, part=True, revived=attempt.revived) for items in _chunks(attempt.items, sizes, most)]


def _chunks(items: Sequence[Item], sizes: Sequence[int], most: int | None) -> Iterator[tuple[Item, ...]]:
    start = 0
    while start < len(items):
        room = len(items) - start if most is None else min(most, len(items) - start)
        size = max(size for size in sizes if size <= room)
        yield tuple(items[start : start + size])
        start += size


def after_failure(attempt: Attempt[Item], out_of_memory: bool, sizes: Sequence[int]) -> list[Attempt[Item]]:
    """Say what to run after an attempt has failed.

    Args:
        attempt: what failed.
        out_of_memory: whether memory ran out: a smaller batch may do, the same one would fail again.
        sizes: those that batches may have, ascending from 1.

    Returns:
        Attempts at all its items, in the order to run them; empty where its one tile was tried often enough.
    """
    failed = replace(attempt, failures=attempt.failures + 1)
    if len(failed.items) == 1:
        return [failed] if failed.failures < ALONE else []
    if not (out_of_memory or failed.part or failed.failures > 1):
        return [failed]
    return in_sizes(failed, sizes, len(failed.items) // 2)


class Cap:
    """How large batches may be, after what memory allowed.

    Halved when memory runs out; doubled after a hundred good batches of that size, and each time that this fails after
    twice as many as before.

    Attributes:
        most: tiles in a batch at most, one of the sizes.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        """Begin with the largest of the sizes, ascending from 1."""
        self._sizes = tuple(sizes)
        self.most = self._sizes[-1]
        self._patience = _PATIENCE
        self._good = 0
        self._raised = False

    def failed(self, tiles: int) -> None:
        """Learn that memory ran out on a batch of `tiles`."""
        self._good = 0
        allowed = max((size for size in self._sizes if size <= tiles // 2), default=1)
        if allowed >= self.most:  # it was begun before the last time
            return
        self.most = allowed
        if self._raised:
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self._raised = False

    def succeeded(self, tiles: int) -> None:
        """Learn that a batch of `tiles` was done."""
        if tiles < self.most:
            return
        self._good += 1
        if self._good < self._patience:
            return
        self._good = 0
        if self.most == self._sizes[-1]:
            self._patience, self._raised = _PATIENCE, False
        else:
            self.most = min(size for size in self._sizes if size > self.most)
            self._raised = True


class Outage:
    """Since when a device has done nothing but fail.

    Attributes:
        since: seconds, on the clock of `failed`, of the first failure since the last success; None where there is none.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self._failures = 0

    def failed(self, now: float) -> None:
        """Count a failure at the time `now`."""
        if self.since is None:
            self.since = now
        self._failures += 1

    def succeeded(self) -> None:
        """Forget all failures."""
        self.since = None
        self._failures = 0

    def lost(self, now: float) -> bool:
        """Whether the device is to be given up at the time `now`."""
        return self.since is not None and self._failures >= _LOST_AFTER_FAILURES and now - self.since >= LOST_AFTER_S


def pause_s(probes: int) -> float:
    """Seconds to wait after so many probes in a row have failed, at least 1."""
    return float(min(0.1 * 2 ** (probes - 1), 1.0))


def longest_s(expected: float, least: float) -> float:
    """Seconds after which a batch hangs.

    Args:
        expected: seconds that it should take; 0 where that is not known.
        least: no batch hangs sooner.
    """
    return max(least, _HANGS * expected)
