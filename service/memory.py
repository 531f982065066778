"""How the C library keeps memory, and how much processes have."""

import ctypes
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 1 << 20


_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_C: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def return_large_blocks() -> None:
    """Let blocks of a megabyte or more go back to the system as they are freed; for glibc, before threads begin.

    Left alone, glibc raises its threshold to 32 MB by what it sees freed, and holes that pictures leave between small
    blocks stay: after an overload of ten minutes 2.2 GB, with nothing in flight.
    """
    if _C is not None and hasattr(_C, "mallopt"):
        _C.mallopt(_MMAP_THRESHOLD, _LARGE)
        _C.mallopt(_TRIM_THRESHOLD, _LARGE)


def return_free_pages() -> None:
    """Return what is free between blocks that are in use to the system; for glibc, in some milliseconds.

    Each thread allocates from one of several arenas, and a free block inside an arena stays with the process else.
    """
    if _C is not None and hasattr(_C, "malloc_trim"):
        _C.malloc_trim(0)


def usable_bytes() -> int:
    """Return how many bytes of memory this process and its children may use: the container's limit, or the machine's.

    The limit is that of the innermost group that is seen, of cgroups v2 or v1.
    """
    there = int(psutil.virtual_memory().total)
    for file in _LIMITS:
        try:
            return min(there, int(file.read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return there


def resident_bytes(processes: Iterable[int]) -> int:
    """Return the resident memory of processes, by their ids; one that has ended has none."""
    bytes_ = 0
    for process in processes:
        try:
            bytes_ += psutil.Process(process).memory_info().rss
        except psutil.Error:
            continue
    return bytes_
