"""The `pix2dslr-export` command: train a generator, export it to ONNX, score it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model_export import evaluate as evaluating
from model_export import export as exporting
from model_export.config import ConfigError, load_config
from model_export.pairs import PairsError, match_folders, named, real_tiles
from model_export.train import Trainer, open_data
from service.generator import ModelUnusable

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def main() -> None:
    """Train a generator, export it to ONNX, score it."""


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="the run's TOML file, see model_export/configs/")],
    data: Annotated[Path, typer.Option(help="the folder that the configuration's paths are relative to")],
    out: Annotated[Path, typer.Option(help="the run's folder: checkpoint.pt and history.json")],
    device: Annotated[str, typer.Option(help="torch device, such as cpu or cuda")] = "cpu",
) -> None:
    """Train a generator; a run that was stopped goes on from its last checkpoint."""
    with _plain_errors():
        settings = load_config(config)
        batches, validation = open_data(settings, data)
        trainer = Trainer(settings, batches, device)
        checkpoint = out / "checkpoint.pt"
        if checkpoint.exists():
            trainer.resume(checkpoint)
            typer.echo(f"going on from step {trainer.step}")
        console = Console()
        with Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        ) as progress:
            task = progress.add_task("", total=settings.steps, completed=trainer.step)

            def report(values: dict[str, float]) -> None:
                words = " ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "step")
                progress.update(task, completed=values["step"], description=words)
                if "psnr" in values:
                    progress.console.print(f"step {values['step']:.0f}: {words}", highlight=False)

            trainer.run(validation, checkpoint, report)
        (out / "history.json").write_text(json.dumps(trainer.history, indent=1))


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="ours, or a unet_128 generator of the PyTorch pix2pix code")],
    target: Annotated[Path, typer.Argument(help="the ONNX file to write")],
    tiles: Annotated[Path, typer.Option(help="folder of photos or patches, on which ONNX Runtime must match torch")],
    camera: Annotated[str | None, typer.Option(help="whose pictures it enhances  [default: as trained]")] = None,
    trained_on: Annotated[str | None, typer.Option(help="the data, in words  [default: as trained]")] = None,
    half: Annotated[bool, typer.Option(help="convert the network to float16, for CUDA")] = False,
) -> None:
    """Write an ONNX file that keeps the service's contract; refused unless it answers as torch does."""
    with _plain_errors():
        loaded = exporting.load(checkpoint, camera, trained_on)
        target.parent.mkdir(parents=True, exist_ok=True)
        _, match = exporting.export(loaded, target, *real_tiles(tiles, 32), half=half)
        typer.echo(
            f"{target}: {target.stat().st_size / 1e6:.1f} MB; on {match.tiles} real tiles ONNX Runtime is "
            f"{match.psnr:.1f} dB from torch, max difference {match.max_difference:.1e}"
        )


@app.command()
def evaluate(
    models: Annotated[list[Path], typer.Argument(help="ONNX files: ours, or networks that take a whole float picture")],
    phone: Annotated[Path, typer.Option(help="folder of the phone's pictures")],
    target: Annotated[Path, typer.Option(help="folder of the DSLR's pictures, equally named")],
    names: Annotated[Path | None, typer.Option(help="file with the names to score, one a line  [default: all]")] = None,
) -> None:
    """Print a table of PSNR, SSIM and milliseconds per megapixel on the CPU, all from one run."""
    with _plain_errors():
        pairs = match_folders(phone, target)
        if names is not None:
            pairs = named(pairs, frozenset(names.read_text().split()))[1]
        scores = evaluating.evaluate(models, pairs)
        typer.echo(f"{len(pairs)} pairs\n\n{evaluating.markdown(scores)}")


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (ConfigError, PairsError, ModelUnusable, exporting.ExportRefused, OSError) as error:
        typer.echo(f"pix2dslr-export: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(130) from None
