"""`pix2dslr doctor`: what is installed, what works, how fast, and what to do about what doesn't."""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from service.commands.checks import Check, Status, cpus, decoding, environment, memory, port, versions
from service.commands.checks_gpu import graphics
from service.commands.checks_model import models, self_test
from service.commands.common import examples, setting_error
from service.settings import Settings

EXAMPLES: Final = examples(
    ("pix2dslr doctor", "look at everything; takes a few seconds"),
    ("PIX2DSLR_DEVICE=cuda pix2dslr doctor", "why it does not run on the GPU"),
    ("pix2dslr doctor --json", "for a program, or to send to whoever helps"),
)

_COLOURS: Final[dict[Status, str]] = {"ok": "green", "note": "yellow", "problem": "red"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Look at what is installed, what works and how fast, and say what to do about what doesn't.

    Everything is looked at as the settings ask for it; they are read from the environment, as `serve` does.

    Exit code 0: all that was asked for works; 1: something can't.
    """
    # what goes wrong is told by the checks
    logging.getLogger("service").addHandler(logging.NullHandler())
    found: list[Check] = []
    try:
        for check in _all_checks(Settings()):
            found.append(check)
            if not as_json:
                _show(check)
    except ValidationError as error:
        found.append(
            Check("settings", "problem", setting_error(error), "set it to a value that it can have, or unset it")
        )
        if not as_json:
            _show(found[-1])
    problems = sum(check.status == "problem" for check in found)
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "checks": [asdict(check) for check in found]}, indent=2))
    else:
        typer.echo("everything works" if not problems else f"{problems} thing{'s' * (problems > 1)} can't work")
    raise typer.Exit(1 if problems else 0)


def _all_checks(settings: Settings) -> Iterator[Check]:
    """Look at everything, one after the other; the last ones take seconds."""
    yield versions()
    yield environment(os.environ)
    yield cpus(settings)
    yield memory(settings)
    if (contained := decoding(settings)).status != "ok":
        yield contained
    yield from graphics(settings)
    usable = True
    for check in models(settings):
        usable = usable and check.status != "problem"
        yield check
    yield port(settings)
    if usable:
        yield self_test(settings)


def _show(check: Check) -> None:
    typer.secho(f"{check.status:<8}", fg=_COLOURS[check.status], nl=False)
    typer.echo(f"{check.name}: {check.found}")
    if check.do:
        typer.echo(f"{'':<8}-> {check.do}")
