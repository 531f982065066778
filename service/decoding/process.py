"""One decode worker, seen from the service: a process that is started, asked, watched and ended."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from service.caller import Cancellation, Cancelled
from service.decoding.messages import Answer, Decoded, Ready, Task, receive, receive_into, send
from service.picture import Format, Header, Pixels

_START_WITHIN_S: Final = 60
_SETTLE_WITHIN_S: Final = 5
"""Returning memory took 20 ms at most."""
_LOOK_EVERY_S: Final = 0.02
"""What a process can take between two looks, some 100 MB, comes on top of what it may take."""
_GROWN: Final = 128 << 20
"""Bytes that a worker may keep of what it took for files; up to 6 MB were kept of pictures of 24 megapixels."""
_FINISH_WITHIN_S: Final = 0.05
"""What a file may take once its client is gone: a new worker costs half a second of CPU."""
_LIFE: Final = 1000
"""Tasks, two a picture, after which a worker is worn, give or take a fifth, so that not all are at once."""
_PACKAGE: Final = Path(__file__).parents[2]
_VARIABLES: Final = ("PATH", "TZ", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "GLIBC_TUNABLES")
_KINDS_OF_VARIABLES: Final = ("LC_", "PYTHON", "MALLOC_", "OMP_")
"""How the names begin of further ones that a worker gets."""


class Spent(TimeoutError):
    """A file took its seconds of CPU, however busy the machine is."""


class Worker:
    """One process.

    Attributes:
        lacks: what bounds it does without, as `containment.contain` says; known once it is ready.
        retired: whether another one has taken its place, so that it ends with the file that it has.
    """

    def __init__(self, threads: int) -> None:
        """Start it; raises OSError.

        Args:
            threads: how many a decoder may use.
        """
        self.lacks: tuple[str, ...] = ()
        self.retired = False
        self._settled = False
        self._kept = 0
        self._left = int(random.uniform(0.8, 1.2) * _LIFE)  # noqa: S311  no secret
        self._connection, other = socket.socketpair()
        with other:
            try:
                self._process = subprocess.Popen(  # noqa: S603  a module of our own
                    # -P: no module of the folder that the service was started in
                    [sys.executable, "-P", "-m", f"{__package__}.worker", str(other.fileno()), str(threads)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # libraries' words about a client's file
                    env=_environment(),
                    pass_fds=(other.fileno(),),
                    process_group=0,  # a terminal's Ctrl-C is for the service alone
                )
            except OSError:
                self._connection.close()
                raise

    def wait_until_ready(self) -> frozenset[Format]:
        """Wait for its first message.

        Returns:
            the formats of whose known good files it decodes.

        Raises:
            Disconnected, TimeoutError: it does not start.
        """
        ready = self._receive_ready(_START_WITHIN_S)
        self.lacks = ready.lacks
        self._kept = self.resident
        return ready.formats

    def settle(self) -> None:
        """Wait until it has returned the memory of its last task; raises Disconnected and TimeoutError."""
        if not self._settled:
            self._receive_ready(_SETTLE_WITHIN_S)

    def _receive_ready(self, seconds: float) -> Ready:
        until = time.monotonic() + seconds

        def look() -> None:
            if time.monotonic() > until:
                raise TimeoutError

        self._connection.settimeout(seconds)
        ready = receive(self._connection, Ready, look)
        self._settled = True
        return ready

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def resident(self) -> int:
        """Bytes of its resident memory."""
        return self._used()[0]

    def _used(self) -> tuple[int, float]:
        """Its resident memory in bytes and its seconds of CPU; 0 once it has ended, or if no file can be opened."""
        try:
            process = psutil.Process(self._process.pid)
            times = process.cpu_times()
            return int(process.memory_info().rss), float(times.user + times.system)
        except (psutil.Error, OSError):
            return 0, 0.0

    @property
    def worn(self) -> bool:
        """Whether it has done so many tasks that another one should take its place: it may have been taken over."""
        return self._left <= 0

    @property
    def grown(self) -> bool:
        """Whether it keeps much more memory than it had when it started; asked for once it has settled."""
        return self.resident > self._kept + _GROWN

    def ask(self, task: Task, data: bytes, cancellation: Cancellation) -> tuple[Answer, list[Pixels]]:
        """Let it do a task with a file, once it has settled.

        Args:
            task: what to do.
            data: the whole file.
            cancellation: says whether anybody still waits for it.

        Raises:
            Disconnected, Spent, TimeoutError, MemoryError: it died, takes too much CPU, too long by the clock, or too
                much memory; it is of no use then.
            Cancelled: nobody waits for it any more, and it is in the middle of it; likewise.
        """
        self._settled = False
        self._left -= 1
        look = self._watch(task, cancellation)
        self._connection.settimeout(min(_LOOK_EVERY_S, task.seconds))
        send(self._connection, task, data, on_wait=look)
        answer = receive(self._connection, Answer, look)
        samples: list[Pixels] = []
        if answer.decoded is not None and task.header is not None:
            samples = _rooms(answer.decoded, task.header)
            for part in samples:
                receive_into(self._connection, part.data.cast("B"), look)
        return answer, samples

    def _watch(self, task: Task, cancellation: Cancellation) -> Callable[[], None]:
        """Return what is to be called over and over while it does a task, and raises as `ask`."""
        now = time.monotonic()
        stalled, next_ = now + task.until_stalled, now + _LOOK_EVERY_S
        resident, used = self._used()
        most, spent, left = resident + task.memory, used + task.seconds, float("inf")

        def look() -> None:
            nonlocal next_, left
            now = time.monotonic()
            if now < next_:
                return
            next_ = now + _LOOK_EVERY_S
            if cancellation.cancelled:
                left = min(left, now + _FINISH_WITHIN_S)
            if now > left:
                raise Cancelled
            resident, used = self._used()
            if used > spent:
                raise Spent
            if now > stalled:
                raise TimeoutError
            if resident > most:
                raise MemoryError

        return look

    @property
    def was_killed(self) -> bool:
        """Whether it has ended by SIGKILL, which no decoder sends: the kernel for want of memory, or an operator."""
        try:
            return self._process.wait(_LOOK_EVERY_S) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False

    def end(self) -> None:
        """Kill it, and what it may have begun."""
        self._connection.close()
        if self._process.poll() is None:  # else the number may be another's by now
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def _environment() -> dict[str, str]:
    """What a process that may be taken over gets of the service's variables: none of its keys, nor of others'."""
    kept = {
        name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith(_KINDS_OF_VARIABLES)
    }
    if _PACKAGE.name not in ("site-packages", "dist-packages"):  # a checkout, which may be the folder of the start
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_PACKAGE), kept.get("PYTHONPATH"))))
    return kept | {"OPENBLAS_NUM_THREADS": "1"}


def _rooms(decoded: Decoded, header: Header) -> list[Pixels]:
    """Make room for a picture's pixels, and for its alpha where it has any."""
    dtype, size = np.uint8 if decoded.bits == 8 else np.uint16, (header.height, header.width)
    shapes = [(*size, 3), size] if decoded.alpha else [(*size, 3)]
    return [np.empty(shape, dtype) for shape in shapes]
