"""One decode worker, seen from the service: a process that is started, asked, watched and ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from typing import Final

import numpy as np
import psutil

from service.decoding.messages import Answer, Decoded, Ready, Task, receive, receive_into, send
from service.picture import Format, Header, Pixels

_START_WITHIN_S: Final = 60
_SETTLE_WITHIN_S: Final = 10
"""Returning memory took 20 ms at most."""
_LOOK_EVERY_S: Final = 0.02
"""What a process can take between two looks, some 100 MB, comes on top of what it may take."""
_GROWN: Final = 128 << 20
"""Bytes that a worker may keep of what it took for files; up to 6 MB were kept of pictures of 24 megapixels."""


class Worker:
    """One process."""

    def __init__(self, threads: int) -> None:
        """Start it; raises OSError.

        Args:
            threads: how many a decoder may use.
        """
        self._settled = False
        self._kept = 0
        self._connection, other = socket.socketpair()
        with other:
            # nothing of the service's settings, keys among them, is for a process that may be taken over
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PIX2DSLR_")}
            try:
                self._process = subprocess.Popen(  # noqa: S603  a module of our own
                    [sys.executable, "-m", f"{__package__}.worker", str(other.fileno()), str(threads)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # libraries' words about a client's file
                    env=environment | {"OPENBLAS_NUM_THREADS": "1"},
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
        self._connection.settimeout(_START_WITHIN_S)
        formats = receive(self._connection, Ready).formats
        self._settled = True
        self._kept = self.resident
        return formats

    def settle(self) -> None:
        """Wait until it has returned the memory of its last task; raises Disconnected and TimeoutError."""
        if not self._settled:
            self._connection.settimeout(_SETTLE_WITHIN_S)
            receive(self._connection, Ready)
            self._settled = True

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def resident(self) -> int:
        """Bytes of its resident memory, 0 once it has ended, and where no file can be opened to read them."""
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except (psutil.Error, OSError):
            return 0

    @property
    def grown(self) -> bool:
        """Whether it keeps much more memory than it had when it started; asked for once it has settled."""
        return self.resident > self._kept + _GROWN

    def ask(self, task: Task, data: bytes) -> tuple[Answer, list[Pixels]]:
        """Let it do a task with a file, once it has settled.

        Args:
            task: what to do.
            data: the whole file.

        Raises:
            Disconnected, TimeoutError, MemoryError: it died, takes too long, or takes more; it is of no use then.
        """
        self._settled = False
        until, most = time.monotonic() + task.seconds, self.resident + task.memory

        def look() -> None:
            if time.monotonic() > until:
                raise TimeoutError
            if self.resident > most:
                raise MemoryError

        self._connection.settimeout(task.seconds)
        send(self._connection, task, data)
        self._connection.settimeout(min(_LOOK_EVERY_S, task.seconds))
        answer = receive(self._connection, Answer, look)
        samples: list[Pixels] = []
        if answer.decoded is not None and task.header is not None:
            samples = _rooms(answer.decoded, task.header)
            for part in samples:
                receive_into(self._connection, part.data.cast("B"), look)
        return answer, samples

    @property
    def was_killed(self) -> bool:
        """Whether it has ended by SIGKILL, which no decoder sends: the kernel for want of memory, or an operator."""
        try:
            return self._process.wait(_LOOK_EVERY_S) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False

    def end(self) -> None:
        """Kill it."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _rooms(decoded: Decoded, header: Header) -> list[Pixels]:
    """Make room for a picture's pixels, and for its alpha where it has any."""
    dtype, size = np.uint8 if decoded.bits == 8 else np.uint16, (header.height, header.width)
    shapes = [(*size, 3), size] if decoded.alpha else [(*size, 3)]
    return [np.empty(shape, dtype) for shape in shapes]
