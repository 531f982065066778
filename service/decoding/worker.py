"""`python -m service.decoding.worker DESCRIPTOR`: reads and decodes files for the service until it hangs up.

Its own limits hold even where the service is gone: a timer of the system's ends it, whatever it hangs in.
"""

import ctypes
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import numpy as np

from service import codec
from service.colour import space_of
from service.decoding.messages import Answer, Decoded, Disconnected, Task, failure_of, receive, receive_bytes, send

try:
    import resource
except ImportError:  # Windows, where there are no such processes
    resource = None  # type: ignore[assignment]


_C: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
_GRACE_S: Final = 5
"""It ends itself this much later than the service, where that still is there, ends it."""


def work(connection: socket.socket) -> None:
    """Say that it is ready, then answer task after task until the other side hangs up."""
    base = _address_space()
    try:
        send(connection, Answer())
        while True:
            task = receive(connection, Task)
            data = receive_bytes(connection, task.length)
            _limit(base + task.memory if base else 0)
            # by default the signal kills
            signal.setitimer(signal.ITIMER_REAL, task.seconds + _GRACE_S)
            answer, samples = _answer(task, data)
            send(connection, answer, *samples)
            del data, samples, answer
            signal.setitimer(signal.ITIMER_REAL, 0)
            _limit(0)
            _give_back()
    except Disconnected:
        pass


def _answer(task: Task, data: bytes) -> tuple[Answer, list[memoryview]]:
    try:
        if task.limits is not None:
            header = codec.read_header(data, task.limits)
            # the service itself converts colours: what a profile does to Little CMS, it does here first
            space_of(header.icc_profile, grey=header.grey)
            return Answer(header=header), []
        assert task.header is not None
        picture = codec.decode(data, task.header)
        parts = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha]
        decoded = Decoded(
            bits=8 if picture.pixels.dtype == np.uint8 else 16,
            alpha=picture.alpha is not None,
            converted=task.header.icc_profile is not None and picture.header.icc_profile is None,
        )
        return Answer(decoded=decoded), [np.ascontiguousarray(part).data.cast("B") for part in parts]
    except Exception as error:  # noqa: BLE001  whatever it is, it is the file's
        return Answer(failure=failure_of(error)), []


def _give_back() -> None:
    """Return freed memory to the system, which the C library keeps else: a few dozen megabytes for each worker."""
    if _C is not None and hasattr(_C, "malloc_trim"):
        _C.malloc_trim(0)


def _limit(address_space: int) -> None:
    """Let the process have no more bytes of address space than this; 0 lifts the limit."""
    if resource is not None and sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (address_space or most, most))


def _address_space() -> int:
    """Bytes of address space that the process has, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


if __name__ == "__main__":
    # what ends the service, from a terminal or an init system, may reach the workers too: it lets its requests finish,
    # and they are needed for that
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold somebody's picture
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        work(connection)
