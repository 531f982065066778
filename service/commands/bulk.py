"""`pix2dslr bulk`: folders and object stores of any size, on one machine or a Ray cluster."""

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from filelock import FileLock, Timeout
from rich.console import Console

from service.codec import Format
from service.commands.batch import Counts, Options
from service.commands.bulk_actor import Work
from service.commands.bulk_ledger import digest_of
from service.commands.bulk_listing import Listing, Row
from service.commands.bulk_places import LocalPlace, NoSuchPlace, Place, open_place
from service.commands.common import (
    CameraOption,
    ForceOption,
    FormatOption,
    MetadataOption,
    OverlapOption,
    QualityOption,
    StrengthOption,
    examples,
    explain,
    fail,
    file_sha256,
    model_file,
    read_settings,
    settings_for,
    shown,
)
from service.commands.interruption import Interruption
from service.commands.ledger import LOCK
from service.settings import Settings

_SAY_EVERY_S: Final = 0.2
_MISSING: Final = "bulk needs the extra `ray`: pip install 'pix2dslr[ray]'"
_SENT: Final = frozenset(
    {"device", "cuda_graphs", "verify_models", "camera", "batch_sizes", "max_queued_tiles", "max_pixels", "max_frames"}
    | {"max_scans", "decode_workers", "decode_timeout_s", "batch_timeout_s", "request_timeout_s"}
    | {"models", "tensorrt_cache", "log_level", "log_format"}
)
"""Settings that concern an actor; what is set here goes there too."""

EXAMPLES: Final = examples(
    ("pix2dslr bulk photos enhanced", "a folder, on all CPUs of this machine; again, to go on"),
    ("pix2dslr bulk s3://bucket/photos s3://bucket/enhanced --address auto", "on the Ray cluster of this machine"),
    ("pix2dslr bulk photos enhanced --gpus-per-actor 0.5 --cpus-per-actor 4", "two actors a GPU"),
    ("pix2dslr bulk photos enhanced --report failed.jsonl", "and list what failed"),
)


def bulk(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="a folder, or a URL such as s3://bucket/photos")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="where the answers go, likewise")],
    address: Annotated[
        str | None, typer.Option(help="of a Ray cluster, or auto", show_default="one on this machine")
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="processes that enhance, at most", show_default="as there is room for")
    ] = None,
    cpus_per_actor: Annotated[int, typer.Option(min=1, help="CPUs of each")] = 1,
    gpus_per_actor: Annotated[float, typer.Option(min=0, help="GPUs of each, or a part of one")] = 0,
    camera: CameraOption = None,
    strength: StrengthOption = 1.0,
    overlap: OverlapOption = "balanced",
    format_: FormatOption = None,
    quality: QualityOption = 95,
    metadata: MetadataOption = "keep",
    force: ForceOption = False,
    report: Annotated[
        Path | None, typer.Option(help="file that gets a JSON line for each picture that failed", dir_okay=False)
    ] = None,
) -> None:
    """Enhance millions of pictures: folders or object stores, on one machine or a Ray cluster.

    A tree is mirrored in the target. What an earlier run did with the same options is passed over, unless its picture
    has changed since: .pix2dslr in the target remembers it. Files that something else made are never replaced without
    --force. A machine that is lost costs nothing but time.

    Exit code 0: all done; 1: some failed, each named on standard error and in --report, the rest done; 2: wrong usage;
    130 and 143: interrupted, with no half-written file: run it again to go on.
    """
    settings = settings_for(camera)
    options = Options(settings.camera, strength, overlap, format_, quality, metadata)
    places = _places(source, target, format_)
    set_ray_up(address)
    try:
        from service.commands import bulk_run
    except ModuleNotFoundError:
        fail(_MISSING)
    try:
        model_sha256 = file_sha256(model_file(settings))
    except OSError as error:
        fail(f"{model_file(settings)}: {explain(error)}")
    how = digest_of({**asdict(options), "model_sha256": model_sha256})
    work = Work(_absolute(places[0]), _absolute(places[1]), options, _sent(settings), how, model_sha256, cpus_per_actor)
    pool = bulk_run.Pool(address, actors, cpus_per_actor, gpus_per_actor)
    listing = Listing(open_place(work.source), open_place(work.target), format_, how, force)
    with ExitStack() as stack:
        stack.enter_context(_alone(places[1]))
        told = _Told(places[0], stack.enter_context(_opened(report)))
        try:
            verbose = "log_level" in settings.model_fields_set
            room = stack.enter_context(bulk_run.cluster(pool, verbose=verbose))
            # after Ray has set handlers of its own
            interruption = stack.enter_context(Interruption())
            stack.enter_context(told)
            bulk_run.run(listing, work, pool, room, told.row, lambda: interruption.received is not None)
        except bulk_run.RunFailed as error:
            told.stop()
            fail(str(error))
        told.stop()
        if interruption.received is not None:
            told.say(f"pix2dslr: interrupted: {told.summary()}; run it again to go on")
            raise typer.Exit(interruption.exit_code)
    told.say(told.summary())
    raise typer.Exit(1 if told.counts.failed else 0)


def set_ray_up(address: str | None) -> None:
    """Set what Ray reads from the environment, some of it as it is imported."""
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",  # nobody is told of its use
        RAY_BACKEND_LOG_LEVEL="fatal",  # what its C++ half has to say goes to log files of its own
        # listed once: if a second try saw other files, rows would be lost or done twice. Actors are not meant by it
        RAY_TASK_MAX_RETRIES="0",
    )
    if address is None:
        # Ray listens on all addresses: nobody else knows this
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex())


def _places(source: str, target: str, format_: Format | None) -> tuple[Place, Place]:
    """Check what can be known before anything is made."""
    try:
        places = open_place(source), open_place(target)
    except NoSuchPlace as error:
        fail(str(error))
    if isinstance(places[0], LocalPlace) and not places[0].is_there():
        raise typer.BadParameter(f"{shown(places[0].shown)} is no folder", param_hint="SOURCE")
    if isinstance(places[1], LocalPlace) and places[1].root.exists() and not places[1].root.is_dir():
        raise typer.BadParameter(f"{shown(places[1].shown)} is no folder", param_hint="TARGET")
    if format_ is None and places[0].below(places[1]) == "":
        raise typer.BadParameter("files would be replaced by their enhanced versions", param_hint="TARGET")
    return places


def _absolute(place: Place) -> str:
    """Return a place's URL as it is right in a process with another working folder."""
    return str(place.root) if isinstance(place, LocalPlace) else place.url


def _sent(settings: Settings) -> dict[str, Any]:
    """Return the settings that actors get. Paths have to lead to the same on every node."""
    sent = settings.model_dump(include=set(_SENT & settings.model_fields_set))
    if "models" in sent:
        sent["models"] = settings.models.absolute()
    # by default in processes of their own: a file that crashes a decoder would else end its actor, again and again
    workers = read_settings().decode_workers
    return {**sent, "decode_workers": 2 if workers is None else workers}


@contextmanager
def _alone(target: Place) -> Iterator[None]:
    """Make a local target, and keep other runs on this machine out of it."""
    if not isinstance(target, LocalPlace):
        yield
        return
    lock = FileLock(target.root / LOCK)
    try:
        target.root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        fail(f"another pix2dslr writes to {shown(target.shown)}: wait for it, or name another folder")
    except OSError as error:
        fail(f"can't write to {shown(target.shown)}: {explain(error)}")
    try:
        target.sweep()
        yield
    finally:
        lock.release()


@contextmanager
def _opened(report: Path | None) -> Iterator[TextIO | None]:
    if report is None:
        yield None
        return
    try:
        file = report.open("w", encoding="ascii")
    except OSError as error:
        fail(f"can't write {shown(report)}: {explain(error)}")
    with file:
        yield file


class _Told:
    """Counts what became of pictures, and tells it: on standard error, and in a report."""

    def __init__(self, source: Place, report: TextIO | None) -> None:
        self.counts = Counts()
        self._source = source
        self._report = report
        self._console = Console(stderr=True)
        self._status = self._console.status("starting")
        self._start = self._shown = time.monotonic()
        self._first: float | None = None

    def __enter__(self) -> "_Told":
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End what moves on a terminal."""
        self._status.stop()

    def row(self, row: Row) -> None:
        """Count a row."""
        counts, now = self.counts, time.monotonic()
        if row.outcome == "done":
            self._first = self._first or now
            counts.done += 1
            counts.pixels += row.pixels
        elif row.outcome == "failed":
            counts.failed += 1
            name = f"{self._source.shown}/{row.source}"
            self.say(f"{shown(name)}: {shown(row.detail)}")
            if self._report is not None:
                line = {"source": name, "problem": row.problem, "detail": row.detail}
                self._report.write(json.dumps(line) + "\n")
                self._report.flush()
        elif row.outcome == "already":
            counts.already += row.count
        else:
            counts.others += row.count
        if now - self._shown > _SAY_EVERY_S:
            self._shown = now
            self._status.update(self.summary())

    def summary(self) -> str:
        """Say in one line how far it is, and how fast."""
        now = time.monotonic()
        text = self.counts.summary(now - self._start)
        # from the first answer on: Ray's start and the loading of generators are no part of the pace
        seconds = now - (self._first or now)
        if self.counts.done > 1 and seconds > 0:
            rate, pixels = self.counts.done / seconds, self.counts.pixels / 1e6 / seconds
            text += f"; {rate:.1f} pictures/s, {pixels:.1f} megapixels/s since the first"
        return text

    def say(self, line: str) -> None:
        """Write a line, above what moves."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
