"""`python -m service.decoding.worker DESCRIPTOR THREADS`: reads and decodes files for the service until it hangs up.

The service watches its memory and its time. Its own timers, two of the system's, hold even where the service is gone,
and end it whatever it hangs in.

A file may take it over. So it opens nothing and reaches nobody once it is ready: what is imported late, plugins and
tables of codecs, is there by then, since it has decoded a file of each format.
"""

import encodings.ascii
import encodings.utf_16_be
import gc
import mmap
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pillow_heif
from PIL import AvifImagePlugin, ImagePalette, MpoImagePlugin, TiffImagePlugin

from service import codec
from service.colour import space_of
from service.decoding import known
from service.decoding.containment import contain
from service.decoding.messages import (
    Answer,
    Decoded,
    Disconnected,
    Ready,
    Task,
    failure_of,
    receive,
    receive_bytes,
    send,
)
from service.headers import format_of
from service.memory import return_free_pages
from service.picture import Format, MalformedPicture

_IMPORTED_LATE: Final = (encodings.ascii, encodings.utf_16_be, ImagePalette, MpoImagePlugin, TiffImagePlugin)
"""What some files need, and nothing can be imported any more once a file may have taken this process over."""
_GRACE_S: Final = 5
"""It ends itself this much later than the service, where that still is there, ends it."""


def work(connection: socket.socket, threads: int) -> None:
    """Say that it is ready, then answer task after task until the other side hangs up."""
    _use_threads(1)  # what `contain` gives up is a thread's own, and decoders keep theirs
    known.decodable()
    lacks = contain()
    _use_threads(threads)
    formats = known.decodable()
    ready = Ready(formats=formats, lacks=tuple(lacks))
    gc.freeze()  # what is there now stays, and need not be looked through
    try:
        while True:
            send(connection, ready)
            task = receive(connection, Task)
            data = receive_bytes(connection, task.length)
            # by default the signal kills
            signal.setitimer(signal.ITIMER_REAL, task.until_stalled + _GRACE_S)
            signal.setitimer(signal.ITIMER_PROF, task.seconds + _GRACE_S)
            answer, samples = _answer(task, data, formats)
            send(connection, answer, *samples)
            del data, samples, answer
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            gc.collect()  # errors of libraries lead to frames that hold the file, in circles
            return_free_pages()
            ready = Ready()
    except Disconnected:
        pass


def _answer(task: Task, data: bytes, formats: frozenset[Format]) -> tuple[Answer, list[memoryview]]:
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
        failure = failure_of(error)
    # a decoder that lacks memory or threads says of a good file what it says of a damaged one
    unfit = failure.kind == MalformedPicture.__name__ and not _is_fit(format_of(data), formats, task.memory)
    return Answer(failure=failure, unfit=unfit), []


def _is_fit(format_: Format, formats: frozenset[Format], memory: int) -> bool:
    """Whether this process still decodes the known good file of a format, and can have a quarter of so many bytes."""
    try:
        mmap.mmap(-1, memory // 4, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, ValueError):
        return False
    return format_ not in formats or known.decodes(format_)


def _use_threads(count: int) -> None:
    """Set how many threads a decoder may use."""
    pillow_heif.options.DECODE_THREADS = AvifImagePlugin.DEFAULT_MAX_THREADS = count
    cv2.setNumThreads(count)


def _end_first() -> None:
    """Let the kernel, where the system runs out of memory, end this process before the service."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


if __name__ == "__main__":
    # what ends the service, from a terminal or an init system, may reach the workers too: it lets its requests finish,
    # and they are needed for that
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    _end_first()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        work(connection, int(sys.argv[2]))
