"""`pix2dslr evaluate`: pictures against references."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from service.caller import Caller, Cancelled
from service.commands.common import (
    CameraOption,
    JobsOption,
    OverlapOption,
    StrengthOption,
    console_for_tables,
    examples,
    explain,
    fail,
    settings_for,
    shown,
    started,
)
from service.commands.display import Display
from service.commands.files import CantWrite, Said, is_folder, size_of, write_whole
from service.commands.interruption import Interruption
from service.commands.matching import match
from service.commands.parallel import default_jobs, in_parallel
from service.commands.tables import Failure, Row, as_csv, as_html, as_json, as_table, row_of
from service.evaluation import admit, compare
from service.pipeline import Pipeline
from service.schemas import EvaluateOptions
from service.settings import Settings
from service.telemetry import Stopwatch

EXAMPLES: Final = examples(
    ("pix2dslr evaluate phone.jpg dslr.jpg", "one picture, two of the same size"),
    ("pix2dslr evaluate phone.jpg dslr.jpg --align", "two photos of one scene, registered first"),
    ("pix2dslr evaluate phone dslr --html report.html", "two folders, matched by name, with thumbnails"),
    ("pix2dslr evaluate phone dslr --json - | jq .mean", "for a program"),
)

_STREAM: Final = Path("-")


@dataclass(frozen=True)
class _Pair:
    name: str
    picture: Path
    reference: Path
    size: int


def evaluate(
    picture: Annotated[Path, typer.Argument(help="a picture, or a folder of them", show_default=False, readable=False)],
    reference: Annotated[
        Path,
        typer.Argument(
            help="what it should look like, such as the DSLR's; or a folder", show_default=False, readable=False
        ),
    ],
    camera: CameraOption = None,
    strength: StrengthOption = 1.0,
    overlap: OverlapOption = "balanced",
    align: Annotated[bool, typer.Option("--align", help="register each reference with its picture first")] = False,
    csv: Annotated[Path | None, typer.Option(help="file for a line a picture; - is standard output")] = None,
    json: Annotated[Path | None, typer.Option(help="file for everything; - is standard output")] = None,
    html: Annotated[Path | None, typer.Option(help="file for a page with thumbnails; - is standard output")] = None,
    jobs: JobsOption = None,
) -> None:
    """Measure pictures against references, before and after they are enhanced: PSNR, SSIM, colour, seams.

    Two folders are matched by their files' places and names, whatever their suffixes. The table goes to standard
    output, unless one of the other forms does; files of a report are replaced.

    Exit code 0: all measured; 1: some failed, each named on standard error; 2: wrong usage; 130 and 143: interrupted.
    """
    settings = settings_for(camera)
    reports = [path for path in (csv, json, html) if path is not None]
    if reports.count(_STREAM) > 1:
        raise typer.BadParameter("only one can go to standard output", param_hint="-")
    options = EvaluateOptions(camera=settings.camera, strength=strength, overlap=overlap, align=align)
    pairs, failures, left = _pairs(picture, reference)
    display, rows = Display(), []
    with Interruption() as interruption, display:
        for failure in failures:
            display.say(f"{shown(failure.name)}: {shown(failure.problem)}")
        if pairs:
            rows = _measure(
                settings, options, pairs, failures, display, interruption, jobs, thumbnails=html is not None
            )
    if interruption.received is not None:
        display.say(f"pix2dslr: interrupted: {len(rows)} of {len(pairs)} measured, nothing is written")
        raise typer.Exit(interruption.exit_code)
    facts = {
        "camera": settings.camera,
        "strength": f"{strength:g}",
        "overlap": overlap,
        "aligned": "yes" if align else "no",
    }
    _write(csv, lambda: as_csv(rows))
    _write(json, lambda: as_json(rows, failures))
    _write(html, lambda: as_html(rows, failures, facts))
    if rows and _STREAM not in reports:
        console_for_tables().print(as_table(rows))
    if left and display.on_terminal:
        display.say(f"{left} references belong to no picture")
    raise typer.Exit(1 if failures else 0)


def _pairs(picture: Path, reference: Path) -> tuple[list[_Pair], list[Failure], int]:
    """Return what to measure, what can't be, and how many references are left over."""
    if is_folder(picture) != is_folder(reference):
        raise typer.BadParameter("name two pictures, or two folders", param_hint="PICTURE REFERENCE")
    if not is_folder(picture):
        return [_Pair(str(picture), picture, reference, size_of(picture))], [], 0
    matches = match(picture, reference)
    pairs = [_Pair(str(each.relative_to(picture)), each, other, size_of(each)) for each, other in matches.pairs]
    failures = [Failure(str(path), explain(error)) for path, error in matches.failed]
    return pairs, failures, matches.left


def _measure(
    settings: Settings,
    options: EvaluateOptions,
    pairs: Sequence[_Pair],
    failures: list[Failure],
    display: Display,
    interruption: Interruption,
    jobs: int | None,
    *,
    thumbnails: bool,
) -> list[Row]:
    """Return the rows in the order of the pairs, and add what failed to the failures."""
    display.expect([pair.size for pair in pairs])
    rows: dict[_Pair, Row] = {}
    with started(settings) as state:
        pipeline = state.pipeline

        def work(pair: _Pair, caller: Caller) -> Row:
            with display.file(pair.name, pair.size) as tiles_done:
                picture, reference = pair.picture.read_bytes(), _reference(pipeline, pair.reference)
                ticket, header = admit(pipeline, picture, reference, options, caller)
                with ticket.job:
                    comparison = compare(pipeline, ticket, reference, header, options, Stopwatch(), tiles_done)
                return row_of(pair.name, comparison, thumbnails=thumbnails)

        for pair, future in in_parallel(work, pairs, jobs or default_jobs(), interruption):
            error = future.exception()
            if error is None:
                rows[pair] = future.result()
            elif not isinstance(error, Cancelled):
                failures.append(Failure(pair.name, explain(error)))
                display.say(f"{shown(pair.name)}: {shown(failures[-1].problem)}")
    return [rows[pair] for pair in pairs if pair in rows]


def _reference(pipeline: Pipeline, path: Path) -> bytes:
    """Read a reference; what is wrong with it must not be taken for the picture's fault."""
    try:
        data = path.read_bytes()
        pipeline.read_header(data)
    except Exception as error:
        raise Said(f"the reference {path}: {explain(error)}") from error
    return data


def _write(path: Path | None, text: Callable[[], str]) -> None:
    if path is None:
        return
    data = text().encode()
    if path == _STREAM:
        typer.echo(data, nl=False)
        return
    try:
        write_whole(path, data, replace=True)
    except CantWrite as error:
        fail(str(error))
