"""Memory that two processes share by a file descriptor, and that is gone once both have let go of it."""

import mmap
import os
import tempfile

try:
    import fcntl
except ImportError:  # Windows, where nothing is shared
    fcntl = None  # type: ignore[assignment]


def shared(size: int) -> int:
    """Make room for `size` bytes, all zero, and return its file descriptor; pages are taken as they are written.

    It lies in no file system where the system can do that: a container's /dev/shm has 64 MB unless told otherwise. It
    can't be made shorter, whoever has it: reading behind the end of what shrank would kill the reader.

    Raises:
        OSError: there is no memory, or no descriptor left.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pix2dslr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)  # noqa: PTH108  it has no name from here on
    try:
        os.ftruncate(descriptor, size)
        if hasattr(fcntl, "F_ADD_SEALS"):
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def holding(data: bytes) -> int:
    """Return a file descriptor of shared memory that holds `data`; raises OSError as `shared`."""
    descriptor = shared(len(data))
    try:
        left = memoryview(data)
        while left:
            left = left[os.pwrite(descriptor, left, len(data) - len(left)) :]
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def content(descriptor: int) -> bytes:
    """Return a copy of all that shared memory holds; raises OSError."""
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        return data[:]


def mapped(descriptor: int, size: int) -> mmap.mmap:
    """Map the first `size` bytes, at least 1, to read and write; the map outlives the descriptor. Raises OSError."""
    return mmap.mmap(descriptor, size)
