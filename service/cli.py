"""The `pix2dslr` command."""

import os
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from service import problems, telemetry
from service.app import create_app, package_version
from service.codec import Format, encode
from service.pipeline import Overlap
from service.server import serve as run_server
from service.settings import Settings
from service.state import State
from service.telemetry import Stopwatch

app = typer.Typer(no_args_is_help=True, help="Enhance photos from cheap cameras towards a DSLR's.")


FAILURES: Final[tuple[type[Exception], ...]] = (OSError, *problems.EXPECTED)
"""What costs one file, and not the files after it."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pix2dslr {package_version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = (
        False
    ),
) -> None:
    """Enhance photos from cheap cameras towards a DSLR's."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on  [default: 8000]")] = None,
) -> None:
    """Serve the HTTP API; every setting is read from the environment too, with the prefix PIX2DSLR_."""
    settings = _settings(host=host, port=port)
    telemetry.set_up_log(settings.log_level)
    try:
        code = run_server(create_app(settings), settings.host, settings.port)
    except OSError as error:
        _fail(f"can't listen on {settings.host}:{settings.port}: {os.strerror(error.errno or 0)}")
    raise typer.Exit(code)


@app.command()
def enhance(
    files: Annotated[list[Path], typer.Argument(help="JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF files")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the enhanced files, under the same names")],
    camera: Annotated[str | None, typer.Option(help="whose generator  [default: iphone]")] = None,
    strength: Annotated[float, typer.Option(min=0, max=1, help="0 as it came, 1 the generator's answer")] = 1.0,
    overlap: Annotated[Overlap, typer.Option(help="pixels that tiles share")] = "balanced",
    format_: Annotated[Format | None, typer.Option("--format", help="answer in it  [default: as it came]")] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="of JPEG and WebP")] = 95,
) -> None:
    """Enhance files. Exit code 0: all done; 1: some failed, each named, the rest done; 2: wrong usage."""
    targets = {file: out / _name_for(file, format_) for file in files}
    if len(set(targets.values())) < len(files):
        raise typer.BadParameter("two files would get one name", param_hint="FILES")
    if {file.resolve() for file in files} & {target.resolve() for target in targets.values()}:
        raise typer.BadParameter("a file would be replaced by its enhanced version", param_hint="--out")
    settings = _settings(camera=camera)
    state = State(settings)
    state.start()
    if state.failure is not None:
        _fail(state.failure)
    console = Console(stderr=True)
    failed = 0
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        for number, file in enumerate(files, 1):
            task = progress.add_task(f"{number}/{len(files)} {file.name}", total=None)

            def tiles_done(done: int, total: int, task: TaskID = task) -> None:
                progress.update(task, completed=done, total=total)

            try:
                outcome = state.pipeline.enhance(
                    file.read_bytes(), Stopwatch(), camera, strength, overlap, format_, progress=tiles_done
                )
                data = encode(outcome.enhancement.picture, outcome.format, quality)
                _write_whole(targets[file], data)
            except FAILURES as error:
                failed += 1
                progress.console.print(f"{file}: {_explain(error)}", markup=False, highlight=False, soft_wrap=True)
            progress.remove_task(task)
    state.stop()
    raise typer.Exit(1 if failed else 0)


def _settings(**given: object) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        entry = error.errors()[0]
        _fail(f"setting {entry['loc'][0]}: {entry['msg']}")


def _explain(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return problems.words_for(error)


def _name_for(file: Path, format_: Format | None) -> str:
    return file.name if format_ is None else f"{file.stem}.{'jpg' if format_ == 'jpeg' else format_}"


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _fail(message: str) -> NoReturn:
    typer.echo(f"pix2dslr: {message}", err=True)
    raise typer.Exit(1)
