"""The `pix2dslr` command: wires what lies in `service.commands`."""

import inspect
from typing import Annotated

import typer

from service.commands import bulk, cameras, doctor, enhance, evaluate, serve
from service.versions import package_version

app = typer.Typer(no_args_is_help=True, help="Enhance photos from cheap cameras towards a DSLR's.")


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


def _flowing(text: str) -> str:
    """Join the lines of each paragraph, so that a terminal of any width breaks them where it has to."""
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in inspect.cleandoc(text).split("\n\n"))


for module in (serve, enhance, bulk, evaluate, cameras, doctor):
    command = getattr(module, module.__name__.rpartition(".")[2])
    app.command(help=_flowing(command.__doc__), epilog=module.EXAMPLES)(command)
