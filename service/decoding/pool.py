"""A pool of decode workers: processes that read and decode clients' files, each replaced when it ends.

Files and pixels go through a socket. Shared memory took three times as long for 12 megapixels, since all its small
pages are faulted in anew for each picture, while what is received lies in the huge pages of an ordinary array. And
whatever a worker answers, it has no hand in the service's memory.

What a worker may use is bounded by its resident memory, which the service looks at. A limit of the address space counts
what decoders' threads reserve and never use, 64 MB each, and makes decoders fail in words for damaged files.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Literal

from service.caller import NOBODY, Caller
from service.decoding.messages import Answer, Disconnected, Task, exception_of
from service.decoding.process import Worker
from service.generator import cpu_threads
from service.metadata import NONE
from service.picture import (
    DecodingTooCostly,
    Format,
    Header,
    MalformedPicture,
    Picture,
    PictureLimits,
    PictureTooLarge,
    Pixels,
)

log = logging.getLogger(__name__)

Ending = Literal["died", "timeout", "memory", "unfit", "grown"]
"""Why a worker was replaced: see `_ENDINGS`."""

_ENDINGS: Final[Mapping[Ending, str]] = {
    "died": "died",
    "timeout": "took too long for a file",
    "memory": "took too much memory for a file",
    "unfit": "could not decode a known good file",
    "grown": "kept too much memory",
}
_MEMORY: Final = 256 << 20
"""Bytes of memory that any file may take to be looked at, beyond the pixels: codecs' tables, metadata."""
_MEMORY_A_BYTE: Final = 8
"""Copies of a file that metadata may cause."""
_MEMORY_A_PIXEL: Final = 64
"""Bytes of memory that decoding may take for each pixel; HEIC of ten bits with alpha took 50, everything else 17."""
_SECONDS_A_PIXEL: Final = 1e-6
"""HEIC of ten bits, the slowest, took a quarter of it on one core."""
_ENOUGH: Final = 8
_THREADS: Final = 4
"""Threads that a decoder may use: several workers decode at a time."""
_TRIES: Final = 3
"""Workers that may die over one file, or fail to start: somebody may have killed one, or all at once."""
_START_WITHIN_S: Final = 60
_PATIENCE_S: Final = 1.0


class NoDecodeWorker(Exception):
    """No decode worker could be had: all were busy for too long, none can be started, or none works."""


class Unfit(Exception):
    """A worker can't decode a known good file."""


class DecodePool:
    """Reads headers and decodes files, as `codec` does, in other processes; safe from any number of threads."""

    def __init__(
        self,
        workers: int,
        timeout_s: float = 10.0,
        patience_s: float = 300.0,
        on_end: Callable[[Ending], None] = lambda _: None,
        threads: int | None = None,
    ) -> None:
        """Start the workers; `wait_until_ready` says whether they run.

        Args:
            workers: how many, at least 2: one is always left for headers, which are read before a picture is
                admitted, and must not wait for large ones to be decoded.
            timeout_s: seconds that a file may take, beyond one a megapixel.
            patience_s: seconds to wait for a worker that is free.
            on_end: called when a worker is replaced.
            threads: how many a decoder may use; by the CPUs where absent.
        """
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._on_end = on_end
        self._threads = min(cpu_threads(), _THREADS) if threads is None else threads
        self._count = workers
        # in turns, so that one that died idle is found soon
        self._free: queue.Queue[Worker] = queue.Queue()
        self._for_pixels = threading.BoundedSemaphore(workers - 1)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._all: set[Worker] = set()
        self._starting = 0
        self._formats: frozenset[Format] = frozenset()
        self._failed_starts = 0  # since the last one that did not fail
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

    @property
    def works(self) -> bool:
        """Whether there is a worker, or one is on its way: False where several that were started failed in a row."""
        return self._failed_starts < _TRIES or bool(self.processes)

    def read_header(self, data: bytes, limits: PictureLimits, caller: Caller = NOBODY) -> Header:
        """As `codec.read_header`.

        Raises:
            UnsupportedFormat, MalformedPicture, PictureTooLarge: as there.
            DecodingTooCostly: it takes too long, or too much memory.
            NoDecodeWorker: see there.
        """
        task = Task(length=len(data), seconds=self._timeout_s, memory=_memory(data), limits=limits)
        header = self._ask(task, data)[0].header
        if header is None:
            raise MalformedPicture("the header can't be read")
        if not 0 < header.height * header.width <= limits.max_pixels:
            raise PictureTooLarge(header.height * header.width, limits.max_pixels)
        return header

    def decode(self, data: bytes, header: Header, caller: Caller = NOBODY) -> Picture:
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
            memory=_memory(data, pixels),
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
        """Let a worker do a task; what may be the worker's fault and not the file's is tried again on another."""
        worker, renewed, deaths, killed = self._take(self._patience_s), False, 0, 0
        while True:
            try:
                answer, samples = worker.ask(task, data)
                error = _fault_of_the_file(answer)
            except (TimeoutError, MemoryError, Unfit) as lack:
                ending, verdict = _verdict(lack, task)
                if renewed:
                    self._replace(worker, ending)
                    raise verdict from None
                worker, renewed = self._renew(worker, ending), True
            except Disconnected:
                deaths += 1
                killed += worker.was_killed
                if deaths == _TRIES:
                    # a new one decodes known good files, or there is none
                    self._free.put(self._renew(worker, "died"))
                    raise NoDecodeWorker if killed == _TRIES else MalformedPicture("decoding it fails") from None
                self._replace(worker, "died")
                worker = self._take(self._patience_s)
            except BaseException:
                self._replace(worker, "died")
                raise
            else:
                self._free.put(worker)
                if error is not None:
                    raise error
                return answer, samples

    def _take(self, seconds: float) -> Worker:
        until = time.monotonic() + seconds
        while not self._closed.is_set():
            try:
                # short of its patience now and then: nobody tells when the pool is closed
                worker = self._free.get(timeout=min(max(until - time.monotonic(), 0.0), _PATIENCE_S))
            except queue.Empty:
                if time.monotonic() > until:
                    break
                continue
            try:
                worker.settle()
            except (Disconnected, TimeoutError):
                self._replace(worker, "died")
                continue
            if worker.grown:
                self._replace(worker, "grown")
            elif worker.alive:
                return worker
            else:
                self._replace(worker, "died")
        raise NoDecodeWorker

    def _end(self, worker: Worker, ending: Ending, starting: int = 0) -> None:
        worker.end()
        with self._lock:
            self._all.discard(worker)
            self._starting += starting
        if not self._closed.is_set():
            log.warning("a decode worker %s and is replaced", _ENDINGS[ending])
            self._on_end(ending)

    def _replace(self, worker: Worker, ending: Ending) -> None:
        """End a worker, and start another in a thread of its own."""
        self._end(worker, ending)
        self._refill()

    def _renew(self, worker: Worker, ending: Ending) -> Worker:
        """End a worker, and return a new one in its place.

        Raises:
            NoDecodeWorker: none can be started; it is tried again in a thread.
        """
        self._end(worker, ending, starting=1)
        try:
            return self._started()
        except (OSError, Disconnected, TimeoutError, Unfit):
            with self._lock:
                self._starting -= 1
            self._refill()
            raise NoDecodeWorker from None

    def _refill(self) -> None:
        if self._closed.is_set():
            return
        with self._lock:
            missing = self._count - len(self._all) - self._starting
            self._starting += missing
        for _ in range(missing):
            threading.Thread(target=self._start, name="decode-worker-start", daemon=True).start()

    def _start(self) -> None:
        """Start one worker, again and again until it runs."""
        while not self._closed.is_set():
            try:
                worker = self._started()
            except (OSError, Disconnected, TimeoutError, Unfit):
                self._closed.wait(_PATIENCE_S)
                continue
            self._free.put(worker)
            return

    def _started(self) -> Worker:
        """Start one worker; raises OSError, Disconnected, TimeoutError and Unfit."""
        worker = None
        try:
            worker = Worker(self._threads)
            formats = worker.wait_until_ready()
            self._check(formats)
        except (OSError, Disconnected, TimeoutError, Unfit) as error:
            log.error("a decode worker can't be started: %s", error or type(error).__name__)  # noqa: TRY400
            self._failed_starts += 1
            if worker is not None:
                worker.end()
            raise
        self._failed_starts = 0
        with self._lock:
            self._formats |= formats
            self._starting -= 1
            self._all.add(worker)
        if self._closed.is_set():
            worker.end()
        return worker

    def _check(self, formats: frozenset[Format]) -> None:
        """Raise Unfit where a new worker decodes fewer formats than one before it, or none."""
        missing = self._formats - formats
        if missing or not formats:
            raise Unfit(f"it can't decode known good files: {', '.join(sorted(missing)) or 'of any format'}")


def _memory(data: bytes, pixels: int = 0) -> int:
    """Bytes of memory that a worker may take for a file."""
    return _MEMORY + _MEMORY_A_BYTE * len(data) + _MEMORY_A_PIXEL * pixels


def _fault_of_the_file(answer: Answer) -> Exception | None:
    """Return what is wrong with the file, None where nothing is.

    Raises:
        MemoryError, Unfit: something else is wrong.
        Disconnected: it names no exception of ours, and makes no more sense than any other garbage.
    """
    error = None if answer.failure is None else exception_of(answer.failure)
    if isinstance(error, MemoryError):
        raise error
    if answer.unfit:
        raise Unfit
    return error


def _verdict(lack: Exception, task: Task) -> tuple[Ending, Exception]:
    """Say why a worker is replaced, and what becomes of the file where a new one fails likewise."""
    match lack:
        case TimeoutError():
            return "timeout", DecodingTooCostly("time", task.seconds)
        case MemoryError():
            return "memory", DecodingTooCostly("memory", task.memory)
        case _:
            return "unfit", NoDecodeWorker()


def decode_workers() -> int:
    """How many decode workers are enough: one a CPU, up to 8, since decoding takes a fraction of a picture's time."""
    return min(cpu_threads(), _ENOUGH) + 1
