"""Pictures enhanced several at a time: read, enhance, encode, write, and count what became of each."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from service.caller import Caller, Cancelled
from service.codec import Format, encode
from service.commands.common import explain, shown, started
from service.commands.display import Display
from service.commands.interruption import Interruption
from service.commands.parallel import default_jobs, in_parallel
from service.pipeline import Overlap, Pipeline
from service.settings import Settings
from service.telemetry import Stopwatch


@dataclass(frozen=True)
class Options:
    """How pictures are enhanced and encoded; the fields are named as the HTTP API's."""

    camera: str
    strength: float = 1.0
    overlap: Overlap = "balanced"
    format: Format | None = None
    encoder_quality: int = 95
    metadata: Literal["keep", "strip"] = "keep"


@dataclass(frozen=True)
class Task:
    """One picture.

    Attributes:
        name: what it is called when something is said about it.
        size: bytes of its file, as far as they are known.
        read: gives the whole file.
        write: takes the answer.
    """

    name: str
    size: int
    read: Callable[[], bytes]
    write: Callable[[bytes], None]


@dataclass
class Counts:
    """What became of the pictures of a run.

    Attributes:
        wanted: how many there were to do.
        done: enhanced and written.
        already: were done by an earlier run.
        failed: named on standard error.
        others: files that are no pictures.
        pixels: of those that were done.
    """

    wanted: int = 0
    done: int = 0
    already: int = 0
    failed: int = 0
    others: int = 0
    pixels: int = 0

    def summary(self, seconds: float) -> str:
        """Say it in one line."""
        parts = [f"{self.done} done"]
        if self.already:
            parts.append(f"{self.already} done before")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.others:
            parts.append(f"{self.others} other file{'s' * (self.others > 1)} passed over")
        return ", ".join(parts) + (f": {self.pixels / 1e6:.1f} megapixels in {seconds:.1f} s" if self.done else "")


class Batch:
    """One run: pictures are enhanced until there are no more, or until an interruption.

    Attributes:
        settings: of the parts that do it.
        options: how.
        counts: what became of each picture.
        display: shows it.
        interruption: ends it.
    """

    def __init__(self, settings: Settings, options: Options, jobs: int | None = None) -> None:
        """Prepare a run of `jobs` pictures at once; None leaves the choice to the CPUs."""
        self.settings = settings
        self.options = options
        self.counts = Counts()
        self.display = Display()
        self.interruption = Interruption()
        self._jobs = jobs or default_jobs()
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        self.interruption.__enter__()
        self.display.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.display.__exit__(kind, error, at)
        self.interruption.__exit__(kind, error, at)

    def expect(self, tasks: Sequence[Task]) -> None:
        """Announce tasks that will be run."""
        self.counts.wanted += len(tasks)
        self.display.expect([task.size for task in tasks])

    def failed(self, name: str, error: BaseException) -> None:
        """Name a picture that failed, and count it."""
        self.counts.failed += 1
        self.display.say(f"{shown(name)}: {shown(explain(error))}")

    def run(self, tasks: Iterable[Task | None]) -> None:
        """Enhance pictures; None stands for "none now"."""
        with started(self.settings) as state:
            pipeline = state.pipeline

            def work(task: Task, caller: Caller) -> int:
                with self.display.file(task.name, task.size) as tiles_done:
                    return enhance_task(pipeline, self.options, task, caller, tiles_done)

            for task, future in in_parallel(work, tasks, self._jobs, self.interruption):
                error = future.exception()
                if error is None:
                    self.counts.done += 1
                    self.counts.pixels += future.result()
                elif not isinstance(error, Cancelled):
                    self.failed(task.name, error)

    def finish(self) -> int:
        """Say how it went, and return the exit code."""
        counts = self.counts
        if self.interruption.received is not None:
            left = "" if counts.done + counts.failed >= counts.wanted else "; run it again to go on"
            self.display.say(f"pix2dslr: interrupted: {counts.done} of {counts.wanted} done{left}")
            return self.interruption.exit_code
        if self.display.on_terminal:
            self.display.say(counts.summary(time.monotonic() - self._start))
        return 1 if counts.failed else 0


def enhance_task(
    pipeline: Pipeline, options: Options, task: Task, caller: Caller, tiles_done: Callable[[int, int], None]
) -> int:
    """Read a picture, enhance it and write its answer; return how many pixels it has.

    Args:
        pipeline: does it.
        options: how.
        task: the picture.
        caller: for whom it is.
        tiles_done: is called with (tiles done, all tiles).

    Raises:
        OSError, Said: as the task's reading and writing.
        Exception: as `Pipeline.admit`, `Pipeline.enhance` and `codec.encode`.
    """
    ticket = pipeline.admit(
        task.read(), options.camera, options.overlap, options.format, caller, strength=options.strength
    )
    with ticket.job:
        outcome = pipeline.enhance(ticket, Stopwatch(), options.strength, tiles_done)
    picture = outcome.enhancement.picture
    task.write(encode(picture, outcome.format, options.encoder_quality, options.metadata == "keep", spend=True))
    return picture.header.height * picture.header.width
