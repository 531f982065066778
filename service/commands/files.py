"""Files as the commands see them: which look like pictures, what they are called, writing them whole or not at all."""

import errno
import mimetypes
import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import psutil
from PIL import Image

from service.codec import FORMATS, Format, media_type, plain_media_type, writable

_PARTIAL: Final = ".pix2dslr-partial-"
"""How the name of a file begins that is being written: hidden, and short whatever the file is called."""


_MORE_SUFFIXES: Final[Mapping[str, Format]] = {
    ".hif": "heic",
    ".heics": "heic",
    ".heifs": "heic",
    ".jif": "jpeg",
    ".jfi": "jpeg",
}
"""That neither of Python's tables has; `.hif` is what cameras of Canon, Nikon, Sony and Fujifilm write."""


class Said(Exception):
    """A failure of a command's own, whose message is what the user reads."""


class NotOurs(Said):
    """Something lies where an answer should go, and it is no answer to the same picture.

    Attributes:
        path: where.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there already and was not made from it: --force replaces it")
        self.path = path


class CantWrite(Said):
    """A file can't be written.

    Attributes:
        path: which.
        reason: why, in the system's words.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        self.path = path
        self.reason = error.strerror or str(error)
        super().__init__(f"can't write {path}: {self.reason}")


@dataclass(frozen=True)
class Stamp:
    """What tells a file from a later version of it.

    Attributes:
        size: bytes.
        mtime_ns: when it was last written, nanoseconds since 1970.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: Path) -> "Stamp":
        """Read a file's; raises OSError."""
        status = file.stat()
        return cls(status.st_size, status.st_mtime_ns)


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; one that may not be looked at is told of when it is read."""
    try:
        return path.is_dir()
    except OSError:
        return False


def size_of(path: Path) -> int:
    """Return a file's bytes, 0 where it can't be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class NotAFile(OSError):
    """What was found in a folder is a pipe, a socket or a device: to read it could take for ever."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "It is no file but a pipe, a socket or a device")


def is_special(path: Path) -> bool:
    """Whether a path leads to a pipe, a socket or a device; a path that can't be examined fails when it is read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@cache
def suffixes() -> Mapping[str, Format]:
    """Return the format of each suffix that a picture's name may end in, such as `.jpg`; in lower case."""
    # by media type: Pillow calls formats by names of its own, and neither table knows all suffixes
    types = {suffix: Image.MIME.get(name, "") for suffix, name in Image.registered_extensions().items()}
    known = mimetypes.MimeTypes(filenames=())
    types |= known.types_map[False] | known.types_map[True]
    formats = {media_type(format_): format_ for format_ in FORMATS}
    named = {suffix: formats.get(plain_media_type(kind)) for suffix, kind in types.items()}
    return {**_MORE_SUFFIXES, **{suffix: format_ for suffix, format_ in named.items() if format_ is not None}}


def format_of(path: Path) -> Format | None:
    """Return the format that a name promises, None where it promises none that can be handled."""
    return suffixes().get(path.suffix.lower())


def target_name(source: Path, format_: Format | None) -> Path:
    """Return a source's name in another format; None is its own, or JPEG where that can't be written here."""
    own = format_of(source)
    if format_ is None and own is not None and not writable(own):
        format_ = "jpeg"
    if format_ is None or own == format_:
        return source
    return source.with_suffix(".jpg" if format_ == "jpeg" else f".{format_}")


@dataclass
class Found:
    """What lies in a folder.

    Attributes:
        pictures: files that look like pictures, in the order of their names.
        others: how many other files there are; what is hidden is not counted.
        failed: what can't be read, and why: folders, and pipes that are called like pictures.
    """

    pictures: list[Path] = field(default_factory=list)
    others: int = 0
    failed: list[tuple[Path, OSError]] = field(default_factory=list)


def find(folder: Path, without: Path | None = None) -> Found:
    """Look through a folder and those in it; hidden ones, and links to folders, are passed over.

    Args:
        folder: where.
        without: a folder in it that is left out.
    """
    found = Found()

    def note(error: OSError) -> None:
        found.failed.append((Path(error.filename or folder), error))

    for here, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(
            name for name in folders if not hidden(name) and (without is None or Path(here, name).resolve() != without)
        )
        for name in sorted(files):
            if hidden(name):
                continue
            path = Path(here, name)
            if format_of(path) is None:
                found.others += 1
            elif is_special(path):
                found.failed.append((path, NotAFile()))
            else:
                found.pictures.append(path)
    return found


def hidden(name: str) -> bool:
    """Whether a name is hidden, as those of half-written files and of macOS's side files are."""
    return name.startswith(".")


def write_whole(path: Path, data: bytes, *, replace: bool, before: Callable[[Stamp], None] = lambda _: None) -> None:
    """Write a file that is there whole or not at all; folders that it needs are made.

    Args:
        path: where.
        data: all of it.
        replace: whether what lies there may be replaced.
        before: is given the file's stamp just before it gets its name.

    Raises:
        NotOurs: something lies there, and `replace` is not set.
        CantWrite: it can't be written.
    """
    try:
        _write(path, data, replace, before)
    except OSError as error:
        raise CantWrite(path, error) from error


def _write(path: Path, data: bytes, replace: bool, before: Callable[[Stamp], None]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file where a folder should be
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{threading.get_ident()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the name without the bytes
        if not replace and os.path.lexists(path):
            raise NotOurs(path)
        before(Stamp.of(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove half-written files of processes that were killed."""
    for path in folder.rglob(f"{_PARTIAL}*"):
        pid = path.name.removeprefix(_PARTIAL).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)
