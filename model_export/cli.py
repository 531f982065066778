"""The `pix2dslr-export` command: make pairs, train a generator, export it to ONNX, score it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from model_export import distil as distilling
from model_export import evaluate as evaluating
from model_export import export as exporting
from model_export import tables
from model_export.config import ConfigError, load_config
from model_export.contenders import open_network
from model_export.data import open_data
from model_export.journal import Journal
from model_export.pairs import PairsError, list_pictures, match_folders, real_tiles
from model_export.patch_files import check_out, cut_photos
from model_export.report import NoRun, write_report
from model_export.score_inputs import find_outputs, find_pairs, find_photos
from model_export.scoring import PairScore
from model_export.train import Trainer
from service.alignment import NotAligned
from service.generator import cpu_threads
from service.model_files import ModelUnusable

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def main() -> None:
    """Make pairs, train a generator, export it to ONNX, score it."""


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="the run's TOML file, see model_export/configs/")],
    data: Annotated[Path, typer.Option(help="the folder that the configuration's paths are relative to")],
    out: Annotated[Path, typer.Option(help="the run's folder: checkpoint.pt, report.html, TensorBoard events")],
    device: Annotated[str, typer.Option(help="auto, which takes a GPU where there is one, cpu or cuda")] = "auto",
    start_from: Annotated[
        Path | None, typer.Option(help="another run's checkpoint, whose averaged weights a new run begins with")
    ] = None,
) -> None:
    """Train a generator; a run that was stopped goes on from its last checkpoint.

    Several GPUs: accelerate launch --multi_gpu --num_processes 2 -m model_export train ...
    """
    with _plain_errors("stopped; the same command goes on from the last checkpoint"):
        settings = load_config(config)
        batches, validation = open_data(settings, data)
        trainer = Trainer(settings, batches, device, data)
        checkpoint = out / "checkpoint.pt"
        speaks = trainer.engine.is_main_process
        if checkpoint.exists():
            trainer.resume(checkpoint)
            note = f"; {start_from} is not looked at" if start_from else ""
            if speaks:
                typer.echo(f"going on from step {trainer.step}{note}")
        elif start_from is not None:
            trainer.start_from(start_from)
        # one process keeps the journal: several would write the same files
        journal = Journal(out, settings, trainer.steps, trainer.step) if speaks else None
        console = Console()
        told = TextColumn("{task.fields[rate]:.1f} tiles/s {task.description}")
        with _bar(console, after=told, hidden=not speaks) as progress:
            task = progress.add_task("", total=trainer.steps, completed=trainer.step, rate=0.0)

            def report(values: dict[str, float]) -> None:
                words = " ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "step")
                speed = progress.tasks[task].speed or 0.0
                progress.update(task, completed=values["step"], description=words, rate=speed * settings.batch)
                if journal is not None:
                    journal.step(values)
                if "psnr" in values:
                    progress.console.print(f"step {values['step']:.0f}: {words}", highlight=False)

            def validated(step: int, scores: list[PairScore]) -> None:
                if journal is not None:
                    journal.validated(step, scores, trainer.history)

            trainer.run(validation, checkpoint, report, validated)
        if journal is not None:
            journal.close()
            typer.echo(f"{write_report(out)}: the run's report")
        trainer.engine.end_training()


@app.command()
def report(run: Annotated[Path, typer.Argument(help="a run's folder, also of one that goes on")]) -> None:
    """Make a run's report.html anew: curves, sample grids, best and worst pairs, configuration."""
    with _plain_errors():
        typer.echo(write_report(run))


@app.command()
def distil(
    network: Annotated[Path, typer.Argument(help="ONNX file of the network that teaches")],
    photos: Annotated[Path, typer.Argument(help="folder of photos")],
    out: Annotated[Path, typer.Argument(help="where the pairs go: tiles/ and photos/, each with phone/ and target/")],
    tiles: Annotated[int, typer.Option(min=0, help="tiles of each photo, each given to the network alone")] = 80,
    side: Annotated[int, typer.Option(min=0, help="longer side of the whole photos, in pixels; 0 makes none")] = 512,
    shots: Annotated[
        int, typer.Option(min=0, help="take each photo again so often with a random cheap camera; 0 takes it as it is")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    only: Annotated[list[str] | None, typer.Option(help="a photo to use; may be given often  [default: all]")] = None,
    without: Annotated[list[str] | None, typer.Option(help="a photo to leave out; may be given often")] = None,
    every: Annotated[int, typer.Option(min=1, help="use every so many of the photos alone")] = 1,
) -> None:
    """Write what a published network makes of photos, as pairs to train on; goes on where it was stopped."""
    with _plain_errors("stopped; the same command goes on where it was"):
        teacher = open_network(network)
        chosen = _choose(list_pictures(photos), only or [], without or [])[::every]
        plan = distilling.Plan(tiles, side, shots, seed)
        with _bar(Console(stderr=True)) as progress:
            for _ in progress.track(distilling.distil(teacher.run, chosen, out, plan), total=len(chosen)):
                pass
        typer.echo(f"{out}: pairs of {len(chosen)} photos, by {teacher.name}")


def _choose(photos: list[Path], only: list[str], without: list[str]) -> list[Path]:
    unknown = {*only, *without} - {photo.stem for photo in photos}
    if unknown:
        raise PairsError(f"no photo is named {min(unknown)}")
    return [photo for photo in photos if (not only or photo.stem in only) and photo.stem not in without]


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="ours, or a unet_128 generator of the PyTorch pix2pix code")],
    target: Annotated[Path, typer.Argument(help="the ONNX file to write")],
    tiles: Annotated[Path, typer.Option(help="folder of photos or patches, on which ONNX Runtime must match torch")],
    camera: Annotated[str | None, typer.Option(help="whose pictures it enhances  [default: as trained]")] = None,
    trained_on: Annotated[str | None, typer.Option(help="the data, in words  [default: as trained]")] = None,
    half: Annotated[bool, typer.Option(help="convert the network to float16, for CUDA")] = False,
    strength: Annotated[float, typer.Option(help="factor on what the generator adds to its picture")] = 1.0,
    phone: Annotated[
        Path | None, typer.Option(help="with a strength: folder of the phone's pictures to score on, for the metadata")
    ] = None,
    dslr: Annotated[Path | None, typer.Option(help="and of the DSLR's, equally named")] = None,
    names: Annotated[Path | None, typer.Option(help="file with the names to score, one a line  [default: all]")] = None,
) -> None:
    """Write an ONNX file that keeps the service's contract; refused unless it answers as torch does.

    Its line in SHA256SUMS beside it is written too: the service loads only what is listed there.
    """
    with _plain_errors():
        loaded = exporting.load(checkpoint, camera, trained_on)
        if strength != 1:
            scored = find_pairs(None, phone, dslr, names) if phone and dslr else []
            loaded = exporting.weakened(loaded, strength, scored)
        target.parent.mkdir(parents=True, exist_ok=True)
        _, match = exporting.export(loaded, target, *real_tiles(tiles, 32), half=half)
        typer.echo(
            f"{target}: {target.stat().st_size / 1e6:.1f} MB; on {match.tiles} real tiles ONNX Runtime is "
            f"{match.psnr:.1f} dB from torch, max difference {match.max_difference:.1e}"
        )


@app.command()
def evaluate(
    models: Annotated[list[Path], typer.Argument(help="ONNX files: ours, or networks that take a whole float picture")],
    pairs: Annotated[Path | None, typer.Option(help="folder with one folder of pairs for each camera")] = None,
    phone: Annotated[
        Path | None, typer.Option(help="the phone's folder in PAIRS, or any folder  [default: the other of two]")
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="the DSLR's, pictures equally named  [default: canon, dslr or target]")
    ] = None,
    names: Annotated[Path | None, typer.Option(help="file with the pairs to score, one a line  [default: all]")] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="what another network made of the pairs; may be given often"),
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="folder of whole photos of the phone")] = None,
    photo_targets: Annotated[Path | None, typer.Option(help="what they should become, equally named")] = None,
    photo_names: Annotated[Path | None, typer.Option(help="file with the photos to run  [default: all]")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the report here, with each single score")
    ] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="write the report here, as one page")] = None,
) -> None:
    """Score networks side by side on pairs, on whole photos and by the clock, and print the table: all from one run."""
    with _plain_errors():
        scored = find_pairs(pairs, phone, target, names)
        whole = find_photos(photos, photo_targets, photo_names)
        if not scored and not whole:
            raise PairsError("there is nothing to score on: give --pairs, or --phone and --target, or --photos")
        for file in (json_file, html_file):
            if file is not None:  # now: a folder that can't be made is no news for after minutes of work
                file.parent.mkdir(parents=True, exist_ok=True)
        with _bar(Console(stderr=True), before=TextColumn("{task.description}")) as progress:
            tasks: dict[str, TaskID] = {}

            def report_step(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = progress.add_task(what)
                progress.update(tasks[what], completed=done, total=total)

            report = evaluating.evaluate(models, scored, whole, find_outputs(outputs or []), report_step)
        if json_file is not None:
            json_file.write_text(tables.to_json(report))
        if html_file is not None:
            html_file.write_text(tables.html(report))
        typer.echo(f"{tables.facts(report)}\n\n{tables.markdown(report)}")


@app.command()
def patches(
    phone_dir: Annotated[Path, typer.Argument(help="the phone's photos")],
    dslr_dir: Annotated[Path, typer.Argument(help="the DSLR's photos of the same scenes, equally named")],
    out: Annotated[Path, typer.Argument(help="the folder that gets phone/ and dslr/, with equally named PNG patches")],
    jobs: Annotated[int | None, typer.Option(min=1, help="photos at a time  [default: one for each CPU]")] = None,
) -> None:
    """Cut two cameras' photos of the same scenes into aligned 100x100 patches, to train on as `kind = "pairs"`."""
    with _plain_errors():
        photos = match_folders(phone_dir, dslr_dir)
        check_out(out, phone_dir, dslr_dir)
        outcomes = []
        with _bar(Console(stderr=True)) as progress:
            for outcome in progress.track(cut_photos(photos, out, jobs or cpu_threads()), total=len(photos)):
                outcomes.append(outcome)
                if isinstance(outcome.failure, NotAligned):
                    typer.echo(f"{outcome.photos.phone.name} shows no scene in common: {outcome.failure}", err=True)
                elif outcome.failure is not None:
                    typer.echo(str(outcome.failure), err=True)
        count = sum(outcome.patches for outcome in outcomes)
        unmatched = sum(isinstance(outcome.failure, NotAligned) for outcome in outcomes)
        unread = sum(isinstance(outcome.failure, PairsError) for outcome in outcomes)
        typer.echo(
            f"{len(photos)} photos, {count} patches, {sum(outcome.dropped for outcome in outcomes)} dropped by "
            f"correlation, {unmatched} photos without match" + (f", {unread} unreadable" if unread else "")
        )
        if not count:
            raise typer.Exit(1)


def _bar(
    console: Console, *, before: TextColumn | None = None, after: TextColumn | None = None, hidden: bool = False
) -> Progress:
    """A progress bar with counts and times, and text before or after it; none where no one sees it."""
    columns = (before, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), after)
    shown = [column for column in columns if column is not None]
    return Progress(*shown, console=console, disable=hidden or not console.is_terminal)


@contextmanager
def _plain_errors(when_stopped: str = "stopped") -> Iterator[None]:
    try:
        yield
    except (ConfigError, PairsError, ModelUnusable, NoRun, exporting.ExportRefused, OSError) as error:
        typer.echo(f"pix2dslr-export: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo(when_stopped, err=True)
        raise typer.Exit(130) from None
