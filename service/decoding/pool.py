"""A pool of decode workers: processes that read and decode clients' files, each replaced when it ends.

Files and pixels go through a socket. Shared memory took three times as long for 12 megapixels, since all its small
pages are faulted in anew for each picture, while what is received lies in the huge pages of an ordinary array. And
whatever a worker answers, it has no hand in the service's memory.
"""

import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from service.decoding.messages import Answer, Decoded, Disconnected, Task, exception_of, receive, receive_into, send
from service.generator import cpu_threads
from service.metadata import NONE
from service.picture import (
    DecodingTooCostly,
    Header,
    MalformedPicture,
    Picture,
    PictureLimits,
    PictureTooLarge,
    Pixels,
)

log = logging.getLogger(__name__)

Ending = Literal["died", "timeout"]

_MEMORY: Final = 512 << 20
"""Bytes that any file may take to be looked at, beyond the pixels: codecs' tables, threads' stacks, metadata."""
_MEMORY_A_BYTE: Final = 8
"""Copies of a file that metadata may cause."""
_MEMORY_A_PIXEL: Final = 64
"""Bytes of address space that decoding may take for each pixel; HEIC of ten bits took 40, everything else up to 22."""
_SECONDS_A_PIXEL: Final = 1e-6
"""HEIC of ten bits, the slowest, took a quarter of it on one core."""
_ENOUGH: Final = 8
_TRIES: Final = 3
"""Workers that may die over one file: somebody may have killed one, or all at once, for no fault of the file's."""
_START_WITHIN_S: Final = 60
_PATIENCE_S: Final = 1.0


class NoDecodeWorker(Exception):
    """No decode worker could be had: all were busy for too long, or none can be started."""


class _Worker:
    """One process."""

    def __init__(self) -> None:
        """Start it; raises OSError."""
        self._connection, other = socket.socketpair()
        with other:
            # nothing of the service's settings, keys among them, is for a process that may be taken over
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PIX2DSLR_")}
            try:
                self._process = subprocess.Popen(  # noqa: S603  a module of our own
                    [sys.executable, "-m", f"{__package__}.worker", str(other.fileno())],
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

    def wait_until_ready(self) -> None:
        """Wait for its first word; raises Disconnected and TimeoutError."""
        self._connection.settimeout(_START_WITHIN_S)
        receive(self._connection, Answer)

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, task: Task, data: bytes) -> tuple[Answer, list[Pixels]]:
        """Let it do a task with a file; raises Disconnected and TimeoutError, after which it is of no use."""
        self._connection.settimeout(task.seconds)
        send(self._connection, task, data)
        answer = receive(self._connection, Answer)
        samples: list[Pixels] = []
        if answer.decoded is not None and task.header is not None:
            samples = _rooms(answer.decoded, task.header)
            for part in samples:
                receive_into(self._connection, part.data.cast("B"))
        return answer, samples

    def end(self) -> None:
        """Kill it."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


class DecodePool:
    """Reads headers and decodes files, as `codec` does, in other processes; safe from any number of threads."""

    def __init__(
        self,
        workers: int,
        timeout_s: float = 10.0,
        patience_s: float = 300.0,
        on_end: Callable[[Ending], None] = lambda _: None,
    ) -> None:
        """Start the workers; `wait_until_ready` says whether they run.

        Args:
            workers: how many, at least 2: one is always left for headers, which are read before a picture is
                admitted, and must not wait for large ones to be decoded.
            timeout_s: seconds that a file may take, beyond one a megapixel.
            patience_s: seconds to wait for a worker that is free.
            on_end: called when a worker died, or was ended since a file took too long.
        """
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._on_end = on_end
        self._count = workers
        # in turns, so that one that died idle is found soon
        self._free: queue.Queue[_Worker] = queue.Queue()
        self._for_pixels = threading.BoundedSemaphore(workers - 1)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._all: set[_Worker] = set()
        self._starting = 0
        self._refill()

    @staticmethod
    def possible() -> bool:
        """Whether this system can give a process one end of a socket."""
        return os.name == "posix"

    def wait_until_ready(self) -> None:
        """Wait for the first worker.

        Raises:
            NoDecodeWorker: none can be started.
        """
        self._free.put(self._take(_START_WITHIN_S))

    def read_header(self, data: bytes, limits: PictureLimits) -> Header:
        """As `codec.read_header`.

        Raises:
            UnsupportedFormat, MalformedPicture, PictureTooLarge: as there.
            DecodingTooCostly: it takes too long, or too much memory.
            NoDecodeWorker: see there.
        """
        task = Task(
            length=len(data), seconds=self._timeout_s, memory=_MEMORY + _MEMORY_A_BYTE * len(data), limits=limits
        )
        header = self._ask(task, data)[0].header
        if header is None:
            raise MalformedPicture("the header can't be read")
        if not 0 < header.height * header.width <= limits.max_pixels:
            raise PictureTooLarge(header.height * header.width, limits.max_pixels)
        return header

    def decode(self, data: bytes, header: Header) -> Picture:
        """As `codec.decode`.

        Raises:
            MalformedPicture: as there, and where decoding it ends the worker.
            DecodingTooCostly: it takes too long, or too much memory.
            NoDecodeWorker: see there.
        """
        pixels = header.height * header.width
        task = Task(
            length=len(data),
            seconds=self._timeout_s + _SECONDS_A_PIXEL * pixels,
            memory=_MEMORY + _MEMORY_A_BYTE * len(data) + _MEMORY_A_PIXEL * pixels,
            header=replace(header, metadata=NONE),
        )
        if not self._for_pixels.acquire(timeout=self._patience_s):
            raise NoDecodeWorker
        try:
            answer, samples = self._ask(task, data)
        finally:
            self._for_pixels.release()
        if answer.decoded is None:
            raise MalformedPicture("it can't be decoded")
        said = replace(header, icc_profile=None) if answer.decoded.converted else header
        return Picture(samples[0], said, samples[1] if answer.decoded.alpha else None)

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers that run."""
        with self._lock:
            return [worker.process_id for worker in self._all if worker.alive]

    def close(self) -> None:
        """End all workers; whoever waits for one gets NoDecodeWorker."""
        self._closed.set()
        with self._lock:
            left = list(self._all)
        for worker in left:
            worker.end()

    def _ask(self, task: Task, data: bytes) -> tuple[Answer, list[Pixels]]:
        for _ in range(_TRIES):
            worker = self._take(self._patience_s)
            try:
                answer, samples = worker.ask(task, data)
                # here, since one that names no exception of ours makes no more sense than any other garbage
                error = None if answer.failure is None else exception_of(answer.failure)
            except TimeoutError:
                self._replace(worker, "timeout")
                raise DecodingTooCostly("time", task.seconds) from None
            except Disconnected:
                self._replace(worker, "died")
                continue
            except BaseException:
                self._replace(worker, "died")
                raise
            self._free.put(worker)
            if error is None:
                return answer, samples
            if isinstance(error, MemoryError):
                raise DecodingTooCostly("memory", task.memory)
            raise error
        raise MalformedPicture("decoding it fails")

    def _take(self, seconds: float) -> _Worker:
        until = time.monotonic() + seconds
        while not self._closed.is_set():
            try:
                # short of its patience now and then: nobody tells when the pool is closed
                worker = self._free.get(timeout=min(max(until - time.monotonic(), 0.0), _PATIENCE_S))
            except queue.Empty:
                if time.monotonic() > until:
                    break
                continue
            if worker.alive:
                return worker
            self._replace(worker, "died")
        raise NoDecodeWorker

    def _replace(self, worker: _Worker, ending: Ending) -> None:
        worker.end()
        with self._lock:
            self._all.discard(worker)
        if self._closed.is_set():
            return
        log.warning("a decode worker %s and is replaced", ending if ending == "died" else "took too long")
        self._on_end(ending)
        self._refill()

    def _refill(self) -> None:
        with self._lock:
            missing = self._count - len(self._all) - self._starting
            self._starting += missing
        for _ in range(missing):
            threading.Thread(target=self._start, name="decode-worker-start", daemon=True).start()

    def _start(self) -> None:
        """Start one worker, again and again until it runs."""
        while not self._closed.is_set():
            worker = None
            try:
                worker = _Worker()
                worker.wait_until_ready()
            except (OSError, Disconnected, TimeoutError) as error:
                log.error("a decode worker can't be started: %s", error or type(error).__name__)  # noqa: TRY400
                if worker is not None:
                    worker.end()
                self._closed.wait(_PATIENCE_S)
                continue
            with self._lock:
                self._starting -= 1
                self._all.add(worker)
            self._free.put(worker)
            if self._closed.is_set():
                worker.end()
            return


def decode_workers() -> int:
    """How many decode workers are enough: one a CPU, up to 8, since decoding takes a fraction of a picture's time."""
    return min(cpu_threads(), _ENOUGH) + 1


def _rooms(decoded: Decoded, header: Header) -> list[Pixels]:
    """Make room for a picture's pixels, and for its alpha where it has any."""
    dtype, size = np.uint8 if decoded.bits == 8 else np.uint16, (header.height, header.width)
    shapes = [(*size, 3), size] if decoded.alpha else [(*size, 3)]
    return [np.empty(shape, dtype) for shape in shapes]
