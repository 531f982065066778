"""How the C library keeps memory, and how much processes have."""

import ctypes
import sys
from collections.abc import Iterable
from typing import Final

import psutil

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 1 << 20


def return_large_blocks() -> None:
    """Let blocks of a megabyte or more go back to the system as they are freed; for glibc, before threads begin.

    Left alone, glibc raises its threshold to 32 MB by what it sees freed, and holes that pictures leave between small
    blocks stay: after an overload of ten minutes 2.2 GB, with nothing in flight.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _LARGE)


def resident_bytes(processes: Iterable[int]) -> int:
    """Return the resident memory of processes, by their ids; one that has ended has none."""
    bytes_ = 0
    for process in processes:
        try:
            bytes_ += psutil.Process(process).memory_info().rss
        except psutil.Error:
            continue
    return bytes_
