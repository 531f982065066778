"""A pool of decode workers: processes that read and decode clients' files, each replaced when it ends.

Files and pixels go through a socket. Shared memory took three times as long for 12 megapixels, since all its small
pages are faulted in anew for each picture, while what is received lies in the huge pages of an ordinary array. And
whatever a worker answers, it has no hand in the service's memory.

What a worker may use is bounded by its resident memory, which the service looks at. A limit of the address space counts
what decoders' threads reserve and never use, 64 MB each, and makes decoders fail in words for damaged files.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Literal, TypeVar

from service.caller import NOBODY, Caller, Cancellation, Cancelled
from service.decoding.line import Line, Place
from service.decoding.messages import Answer, Disconnected, Task, exception_of
from service.decoding.process import Spent, Worker
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

Ending = Literal["died", "timeout", "memory", "unfit", "grown", "cancelled", "worn"]
"""Why a worker was replaced: see `_ENDINGS`."""

_ENDINGS: Final[Mapping[Ending, str]] = {
    "died": "died",
    "timeout": "took too long for a file",
    "memory": "took too much memory for a file",
    "unfit": "could not decode a known good file",
    "grown": "kept too much memory",
    "cancelled": "had a file for which nobody waits any more",
    "worn": "has had enough files",
}
_USUAL: Final = ("cancelled", "worn")
"""Endings that say nothing of what is wrong."""
_MEMORY: Final = 256 << 20
"""Bytes of memory that any file may take to be looked at, beyond the pixels: codecs' tables, metadata."""
_MEMORY_A_BYTE: Final = 8
"""Copies of a file that metadata may cause."""
_MEMORY_A_PIXEL: Final = 64
"""Bytes of memory that decoding may take for each pixel; HEIC of ten bits with alpha took 50, everything else 17."""
_SECONDS_A_PIXEL: Final = 1e-6
"""HEIC of ten bits, the slowest, took a quarter of it on one core."""
_FOR_HEADERS: Final = 0.2
"""Of the seconds that a file may take, how many its header may."""
_SECONDS_A_BYTE: Final = 1e-8
"""Of a header besides: metadata of 20 MB took half of it."""
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


_FAILS_TO_START: Final = (OSError, Disconnected, TimeoutError, Unfit)
Argument = TypeVar("Argument")


class _Waiting(Place):
    """A place, and what comes of its waiting.

    Attributes:
        worker: that it was given.
        woken: set once it has one, or nobody waits for it any more.
    """

    def __init__(self, client: str = "", *, pixels: bool = False) -> None:
        super().__init__(client, pixels=pixels)
        self.worker: Worker | None = None
        self.woken = threading.Event()

    def cancel(self) -> None:
        self.woken.set()


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
            timeout_s: seconds of CPU that decoding a file may take, beyond one a megapixel; its header a fifth.
            patience_s: seconds to wait for a worker that is free.
            on_end: called when a worker is replaced.
            threads: how many a decoder may use; by the CPUs where absent.
        """
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._on_end = on_end
        self._threads = min(cpu_threads(), _THREADS) if threads is None else threads
        self._count = workers
        self._line = Line[_Waiting](workers)
        # in turns, so that one that died idle is found soon
        self._free: deque[Worker] = deque()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._all: set[Worker] = set()
        self._starting = 0
        self._refreshing = False
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
        place = _Waiting()
        worker = self._take(_START_WITHIN_S, place)
        for lacking in worker.lacks:
            log.warning("decode workers run %s: a file that takes one over is less contained", lacking)
        self._release(worker, place)

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
            Cancelled: the caller does not wait any more.
        """
        seconds = _FOR_HEADERS * self._timeout_s + _SECONDS_A_BYTE * len(data)
        task = Task(length=len(data), seconds=seconds, memory=_memory(data), limits=limits)
        header = self._ask(task, data, caller)[0].header
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
            Cancelled: the caller does not wait any more.
        """
        pixels = header.height * header.width
        task = Task(
            length=len(data),
            seconds=self._timeout_s + _SECONDS_A_PIXEL * pixels,
            memory=_memory(data, pixels),
            header=replace(header, metadata=NONE),
        )
        answer, samples = self._ask(task, data, caller)
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
            for place in self._line:
                place.cancel()
        for worker in left:
            worker.end()

    def _ask(self, task: Task, data: bytes, caller: Caller) -> tuple[Answer, list[Pixels]]:
        """Let a worker do a task; what may be the worker's fault and not the file's is tried again on another."""
        place, cancellation = self._place(task, caller), caller.cancellation
        worker, renewed, deaths, killed = self._take(self._patience_s, place, cancellation), False, 0, 0
        while True:
            if cancellation.cancelled:  # while a new worker was started
                self._release(worker, place)
                raise Cancelled
            try:
                answer, samples = worker.ask(task, data, cancellation)
                error = _fault_of_the_file(answer)
            except (TimeoutError, MemoryError, Unfit) as lack:
                ending, verdict = _verdict(lack, task)
                # a header's time is spent by the file, and not for want of anything
                if renewed or (isinstance(lack, Spent) and task.header is None):
                    self._replace(worker, ending, place)
                    raise verdict from None
                worker, renewed = self._renew(worker, ending, place), True
            except Disconnected:
                deaths += 1
                killed += worker.was_killed
                if deaths == _TRIES:
                    # a new one decodes known good files, or there is none
                    self._release(self._renew(worker, "died", place), place)
                    raise NoDecodeWorker if killed == _TRIES else MalformedPicture("decoding it fails") from None
                self._replace(worker, "died", place)
                place = self._place(task, caller)
                worker = self._take(self._patience_s, place, cancellation)
            except BaseException as error:
                self._replace(worker, "cancelled" if isinstance(error, Cancelled) else "died", place)
                raise
            else:
                self._release(worker, place)
                cancellation.check()
                if error is not None:
                    raise error
                return answer, samples

    @staticmethod
    def _place(task: Task, caller: Caller) -> _Waiting:
        return _Waiting(caller.client, pixels=task.header is not None)

    def _take(
        self, seconds: float, place: _Waiting | None = None, cancellation: Cancellation = NOBODY.cancellation
    ) -> Worker:
        """Wait for a worker that works; raises NoDecodeWorker and Cancelled."""
        place, until = place or _Waiting(), time.monotonic() + seconds
        while True:
            worker = self._next(place, until, cancellation)
            try:
                worker.settle()
            except (Disconnected, TimeoutError):
                ending: Ending = "died"
            else:
                if worker.alive and not worker.grown:
                    return worker
                ending = "grown" if worker.alive else "died"
            self._replace(worker, ending)
            with self._lock:
                self._line.done(place)

    def _next(self, place: _Waiting, until: float, cancellation: Cancellation) -> Worker:
        """Wait in the line for a worker; raises as `_take`."""
        cancellation.check()
        place.worker = None
        place.woken.clear()
        with self._lock:
            self._line.add(place)
            self._serve()
        if place.worker is None:
            cancellation.attach(place)
            if not self._closed.is_set():
                place.woken.wait(max(until - time.monotonic(), 0))
            cancellation.detach(place)
        with self._lock:
            worker = place.worker
            if worker is None:
                self._line.drop(place)
        if worker is not None and (cancellation.cancelled or self._closed.is_set()):
            self._release(worker, place)
            worker = None
        cancellation.check()
        if worker is None:
            raise NoDecodeWorker
        return worker

    def _serve(self) -> None:
        """Give workers that are free to those in the line; the lock is held."""
        while self._free and (place := self._line.next(len(self._free))) is not None:
            place.worker = self._free.popleft()
            place.woken.set()

    def _release(self, worker: Worker, place: _Waiting) -> None:
        """Take a worker back."""
        with self._lock:
            self._line.done(place)
            retired, refresh = worker.retired, worker.worn and not self._refreshing
            if not retired:
                self._free.append(worker)
                self._refreshing = self._refreshing or refresh
            self._serve()
        if retired:
            self._end(worker, "worn")
        elif refresh:
            self._in_thread(self._refresh, worker)

    def _refresh(self, worker: Worker) -> None:
        """Start another worker while this one goes on, and let it take its place."""
        with self._lock:
            self._starting += 1
        try:
            fresh = self._started()
        except _FAILS_TO_START:
            with self._lock:
                self._starting -= 1
                self._refreshing = False  # it is tried again after the next file
            return
        with self._lock:
            self._refreshing = False
            self._free.append(fresh)
            idle = worker in self._free
            if idle:
                self._free.remove(worker)
            worker.retired = True
            self._serve()
        if idle:
            self._end(worker, "worn")

    def _end(self, worker: Worker, ending: Ending, starting: int = 0) -> None:
        worker.end()
        with self._lock:
            self._all.discard(worker)
            self._starting += starting
        if not self._closed.is_set():
            level = logging.DEBUG if ending in _USUAL else logging.WARNING
            log.log(level, "a decode worker %s and is replaced", _ENDINGS[ending])
            self._on_end(ending)

    def _replace(self, worker: Worker, ending: Ending, place: _Waiting | None = None) -> None:
        """End a worker, and start another in a thread of its own.

        Args:
            worker: which one.
            ending: why.
            place: what had it, and counts as having it until there is another: a client that makes workers end, one
                after the other, does not take the last one.
        """
        self._end(worker, ending)
        self._refill(place)

    def _renew(self, worker: Worker, ending: Ending, place: _Waiting) -> Worker:
        """End a worker, and return a new one in its place.

        Raises:
            NoDecodeWorker: none can be started; it is tried again in a thread.
        """
        self._end(worker, ending, starting=1)
        try:
            return self._started()
        except _FAILS_TO_START:
            with self._lock:
                self._starting -= 1
            self._refill(place)
            raise NoDecodeWorker from None

    def _refill(self, place: _Waiting | None = None) -> None:
        """Start the workers that are missing; a place gives its own back with the first of them."""
        with self._lock:
            missing = 0 if self._closed.is_set() else max(self._count - len(self._all) - self._starting, 0)
            self._starting += missing
            if place is not None and not missing:
                self._line.done(place)
        for number in range(missing):
            self._in_thread(self._start, None if number else place)

    @staticmethod
    def _in_thread(work: Callable[[Argument], None], argument: Argument) -> None:
        threading.Thread(target=work, args=(argument,), name="decode-worker-start", daemon=True).start()

    def _start(self, place: _Waiting | None) -> None:
        """Start one worker, again and again until it runs."""
        while not self._closed.is_set():
            try:
                worker = self._started()
            except _FAILS_TO_START:
                self._closed.wait(_PATIENCE_S)
                continue
            with self._lock:
                self._free.append(worker)
                if place is not None:
                    self._line.done(place)
                self._serve()
            return

    def _started(self) -> Worker:
        """Start one worker; raises OSError, Disconnected, TimeoutError and Unfit."""
        worker = None
        try:
            worker = Worker(self._threads)
            formats = worker.wait_until_ready()
            self._check(formats)
        except _FAILS_TO_START as error:
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
