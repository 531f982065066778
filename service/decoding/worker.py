"""`python -m service.decoding.worker DESCRIPTOR`: reads and decodes files for the service until it hangs up.

Its own limits hold even where the service is gone: a timer of the system's ends it, whatever it hangs in.
"""

import signal
import socket
import sys
from pathlib import Path
from typing import Final

import numpy as np

from service import codec
from service.colour import space_of
from service.decoding.memory import content, mapped
from service.decoding.messages import (
    Answer,
    Decoded,
    Disconnected,
    Task,
    close,
    failure_of,
    parsed,
    receive,
    send,
)
from service.picture import Picture

try:
    import resource
except ImportError:  # Windows, where there are no such processes
    resource = None  # type: ignore[assignment]


_GRACE_S: Final = 5
"""It ends itself this much later than the service, where that still is there, ends it."""


def work(connection: socket.socket) -> None:
    """Say that it is ready, then answer task after task until the other side hangs up."""
    base = _address_space()
    try:
        send(connection, Answer())
        while True:
            received = receive(connection)
            try:
                task = parsed(Task, received.text)
                _limit(base + task.memory if base else 0)
                # by default the signal kills
                signal.setitimer(signal.ITIMER_REAL, task.seconds + _GRACE_S)
                answer = _answer(task, received.descriptors)
                signal.setitimer(signal.ITIMER_REAL, 0)
                _limit(0)
            finally:
                close(received.descriptors)
            send(connection, answer)
    except Disconnected:
        pass


def _answer(task: Task, descriptors: list[int]) -> Answer:
    try:
        data = content(descriptors[0])
        if task.limits is not None:
            header = codec.read_header(data, task.limits)
            # the service itself converts colours: what a profile does to Little CMS, it does here first
            space_of(header.icc_profile, grey=header.grey)
            return Answer(header=header)
        assert task.header is not None
        picture = codec.decode(data, task.header)
        return Answer(decoded=_hand_over(picture, task.header, descriptors[1]))
    except Exception as error:  # noqa: BLE001  whatever it is, it is the file's
        return Answer(failure=failure_of(error))


def _hand_over(picture: Picture, header: codec.Header, descriptor: int) -> Decoded:
    pixels, alpha = picture.pixels, picture.alpha
    parts = [pixels] if alpha is None else [pixels, alpha]
    with mapped(descriptor, sum(part.nbytes for part in parts)) as room:
        start = 0
        for part in parts:
            np.copyto(np.frombuffer(room, part.dtype, part.size, start).reshape(part.shape), part)
            start += part.nbytes
    converted = header.icc_profile is not None and picture.header.icc_profile is None
    return Decoded(bits=8 if pixels.dtype == np.uint8 else 16, alpha=alpha is not None, converted=converted)


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
