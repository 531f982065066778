"""`pix2dslr serve`: the HTTP service."""

import os
import signal
import sys
from typing import Annotated, Final

import typer

from service.commands.common import examples, fail, read_settings
from service.keys import BrokenKeys
from service.logs import set_up_log
from service.memory import return_large_blocks
from service.tracing import TracingUnavailable

EXAMPLES: Final = examples(
    ("pix2dslr serve", "on http://127.0.0.1:8000"),
    ("pix2dslr serve --host 0.0.0.0 --port 9000", "for other machines too"),
    ("PIX2DSLR_DEVICE=cuda pix2dslr serve", "never without a GPU"),
)


def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on", show_default="8000")] = None,
) -> None:
    """Serve the HTTP API; every setting is read from the environment too, with the prefix PIX2DSLR_."""
    # until the server takes signals: as process 1 of a container, one that is not caught would be lost
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from service.app import create_app  # FastAPI takes half of a command's start
    from service.server import serve as run_server

    settings = read_settings(host=host, port=port)
    set_up_log(settings.log_level, settings.log_format)
    return_large_blocks()
    try:
        app = create_app(settings)
    except BrokenKeys as error:
        fail(f"API keys: {error}")
    except TracingUnavailable as error:
        fail(f"traces: {error}")
    try:
        code = run_server(app, settings.host, settings.port)
    except OSError as error:
        # the system's own words; a name that is not found has a number of its own below 0, and the address behind it
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror).partition(" (")[0]
        fail(f"can't listen on {settings.host}:{settings.port}: {reason}")
    raise typer.Exit(code)
