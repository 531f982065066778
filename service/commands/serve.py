"""`pix2dslr serve`: the HTTP service."""

import logging
import os
import signal
import sys
from typing import Annotated, Final, NoReturn

import typer

from service.commands.common import examples, fail, read_settings
from service.keys import BrokenKeys
from service.logs import is_json, set_up_log
from service.memory import return_large_blocks
from service.settings import Settings
from service.tracing import TracingUnavailable

log = logging.getLogger(__name__)

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
    from service.decoding.containment import hide
    from service.edge.headers import hosts_at
    from service.server import serve as run_server

    settings = read_settings(host=host, port=port)
    hide()  # keys and pictures are in this process' memory
    if not settings.trusted_hosts and not settings.trusted_proxies:  # a proxy passes the name on that it is known by
        settings = settings.model_copy(update={"trusted_hosts": hosts_at(settings.host)})
    set_up_log(settings.log_level, settings.log_format)
    return_large_blocks()
    try:
        app = create_app(settings)
    except BrokenKeys as error:
        _end(f"API keys: {error}", settings)
    except TracingUnavailable as error:
        _end(f"traces: {error}", settings)
    try:
        code = run_server(app, settings.host, settings.port)
    except OSError as error:
        # the system's own words; a name that is not found has a number of its own below 0, and the address behind it
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror).partition(" (")[0]
        _end(f"can't listen on {settings.host}:{settings.port}: {reason}", settings)
    raise typer.Exit(code)


def _end(message: str, settings: Settings) -> NoReturn:
    """End with one line, which is the log's where programs read that."""
    if not is_json(settings.log_format):
        fail(message)
    log.critical(message)
    raise typer.Exit(1)
