"""Pictures enhanced several at a time: read, enhance, encode, write, and count what became of each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from service.codec import Format, encode
from service.commands.common import explain, shown, started
from service.commands.display import Display
from service.commands.interruption import Interruption
from service.commands.parallel import Running, default_jobs, in_parallel
from service.pipeline import Overlap, Pipeline
from service.scheduler import Cancelled
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


def run(
    settings: Settings,
    options: Options,
    tasks: Iterable[Task | None],
    counts: Counts,
    display: Display,
    interruption: Interruption,
    jobs: int | None = None,
) -> None:
    """Enhance pictures until there are no more, or until an interruption.

    Args:
        settings: of the parts that do it.
        options: how.
        tasks: which; None stands for "none now".
        counts: gets what became of each.
        display: shows it.
        interruption: ends it.
        jobs: how many at once; None leaves the choice to the CPUs.
    """
    with started(settings) as state:
        pipeline = state.pipeline

        def work(task: Task, running: Running) -> int:
            with display.file(task.name, task.size) as tiles_done:
                return _enhance(pipeline, options, task, running, tiles_done)

        for task, future in in_parallel(work, tasks, jobs or default_jobs(), interruption):
            error = future.exception()
            if error is None:
                counts.done += 1
                counts.pixels += future.result()
            elif not isinstance(error, Cancelled):
                failed(task.name, error, counts, display)


def failed(name: str, error: BaseException, counts: Counts, display: Display) -> None:
    """Name a picture that failed, and count it."""
    counts.failed += 1
    display.say(f"{shown(name)}: {shown(explain(error))}")


def _enhance(
    pipeline: Pipeline, options: Options, task: Task, running: Running, tiles_done: Callable[[int, int], None]
) -> int:
    """Return how many pixels the picture has."""
    outcome = pipeline.enhance(
        task.read(),
        Stopwatch(),
        options.camera,
        options.strength,
        options.overlap,
        options.format,
        running.attach,
        tiles_done,
    )
    picture = outcome.enhancement.picture
    task.write(encode(picture, outcome.format, options.encoder_quality, options.metadata == "keep", spend=True))
    return picture.header.height * picture.header.width
