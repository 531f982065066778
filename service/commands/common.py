"""What the commands share: settings, options, the parts of the service, words for errors, the way out."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from service.catalogue import match_camera
from service.codec import FORMATS, Format, PictureTooLarge, format_named
from service.commands.files import Said
from service.logs import set_up_log
from service.pipeline import Overlap
from service.scheduler import DeviceFailed, InferenceFailed
from service.settings import Settings
from service.state import State

_A_WEEK_S: Final = 7 * 24 * 3600.0
_ANY_TILES: Final = 1 << 40
_WIDE: Final = 400
_SHOWS_WHY: Final = "PIX2DSLR_LOG_LEVEL=ERROR shows why"

log = logging.getLogger(__name__)


def complete_camera(incomplete: str) -> list[str]:
    """Return the cameras that a shell may complete to; no generator is loaded for it."""
    try:
        folder = Settings().models
    except ValidationError:
        return []
    return [camera for camera in _cameras_in(folder) if camera.startswith(incomplete)]


def _format(name: str) -> str:
    """Return a format's own name for any that it is known by."""
    named = format_named(name)
    if named not in FORMATS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, FORMATS))}.")
    return named


def _complete_format(incomplete: str) -> list[str]:
    return [name for name in FORMATS if name.startswith(incomplete)]


CameraOption = Annotated[
    str | None, typer.Option(help="whose generator", show_default="iphone", autocompletion=complete_camera)
]
StrengthOption = Annotated[float, typer.Option(min=0, max=1, help="0 as it came, 1 the generator's answer")]
OverlapOption = Annotated[Overlap, typer.Option(help="pixels that tiles share: 16, the generator's own, 64")]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="answer in it",
        show_default="as it came",
        metavar=f"<{'|'.join(FORMATS)}>",
        parser=_format,
        autocompletion=_complete_format,
    ),
]
QualityOption = Annotated[int, typer.Option(min=1, max=100, help="of formats with loss; WebP has none at 100")]
MetadataOption = Annotated[Literal["keep", "strip"], typer.Option(help="what came with a picture")]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="pictures under way at once", show_default="by the CPUs")
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="replace whatever lies where an answer goes")]


def examples(*lines: tuple[str, str]) -> str:
    """Lay out examples, (command, what it does), for the end of a command's help."""
    return "Examples\n\n" + "\n".join(f"{command}\n    {what}" for command, what in lines)


def read_settings(**given: object) -> Settings:
    """Read the settings; what is given and not None goes before the environment. One that can't be ends the command."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        fail(setting_error(error))


def setting_error(error: ValidationError) -> str:
    """Say in one line which setting can't be."""
    entry = error.errors()[0]
    return f"setting {entry['loc'][0]}: {entry['msg']}"


def settings_for(camera: str | None) -> Settings:
    """Return the settings of a command that works for one user: nothing is refused for want of room or time.

    Raises:
        typer.BadParameter: there is no generator for the camera.
    """
    if camera is not None:
        known = _cameras_in(read_settings().models)
        name = match_camera(camera, known)
        if name is None:
            named = ", ".join(known) or "none"
            raise typer.BadParameter(f"there is no generator for {camera!r}; there are: {named}", param_hint="--camera")
        camera = name
    return read_settings(camera=camera, max_queued_tiles=_ANY_TILES, request_timeout_s=_A_WEEK_S, decode_workers=0)


def _cameras_in(folder: Path) -> list[str]:
    return [path.stem for path in sorted(folder.glob("*.onnx"))]


def model_file(settings: Settings) -> Path:
    """Return where the generator lies that a command uses."""
    return settings.models / f"{settings.camera}.onnx"


def file_sha256(path: Path) -> str:
    """Hash a file; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def log_if_asked(settings: Settings) -> None:
    """Write the service's own log where its level is set: a command says itself what it has to say."""
    if "log_level" in settings.model_fields_set:
        # people read it, even from a file
        set_up_log(settings.log_level, "text" if settings.log_format == "auto" else settings.log_format)
    else:
        logging.getLogger("service").addHandler(logging.NullHandler())


@contextmanager
def started(settings: Settings) -> Iterator[State]:
    """Start the service's parts without its HTTP half, and stop them in the end; a failure ends the command."""
    log_if_asked(settings)
    state = State(settings)
    try:
        state.start()
        if state.failure is not None:
            fail(state.failure)
        yield state
    finally:
        state.stop()


def explain(error: BaseException) -> str:
    """Say in one line what went wrong with one file."""
    from service import problems  # brings FastAPI, which takes half of a command's start

    if isinstance(error, Said):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for it."
    if isinstance(error, InferenceFailed | DeviceFailed):
        return f"The device failed on the picture. Try again; {_SHOWS_WHY}."
    if isinstance(error, PictureTooLarge):
        return f"{problems.words_for(error)} PIX2DSLR_MAX_PIXELS={error.pixels} allows it."
    if isinstance(error, problems.EXPECTED):
        return problems.words_for(error)
    log.error("unexpected", exc_info=error)
    return f"It failed unexpectedly ({type(error).__name__}); {_SHOWS_WHY}."


def shown(name: object) -> str:
    """Return a name as one line that no terminal takes for a command, whatever characters are in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def fail(message: str) -> NoReturn:
    """End the command with exit code 1 and one line."""
    typer.echo(f"pix2dslr: {message}", err=True)
    raise typer.Exit(1)


def console_for_tables() -> Console:
    """Return standard output for tables; in a pipe they are as wide as they need be."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=_WIDE)
