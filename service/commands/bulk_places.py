"""Where bulk runs read and write: local folders, object stores, and whatever else fsspec knows, behind one face.

A name is a path below a place's root, with `/` between its parts; what is no UTF-8 in a local one is kept as Python
does, in surrogates.
"""

import os
import posixpath
import stat
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from service.commands.files import CantWrite, NotAFile, Said, Stamp

if TYPE_CHECKING:
    import pyarrow.fs

OWN: Final = ".pix2dslr"
"""The folder in a target that holds what a run has to remember."""

_PARTIAL: Final = f"{OWN}/partial"
_OBJECT_STORES: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "r2", "oss", "oci"})
"""Schemes of stores where an object is there whole or not at all, and that have no folders to be made."""


class NoSuchPlace(Said):
    """A source or target can't be used; the message says why."""


@dataclass
class Contents:
    """What lies in one folder, without what lies below it.

    Attributes:
        folders: names of folders; no links to folders.
        files: names of files and other things; what can't be looked at has the error instead of a stamp.
    """

    folders: list[str] = field(default_factory=list)
    files: dict[str, Stamp | OSError] = field(default_factory=dict)


class Place(Protocol):
    """A tree of files. Any process can make the same one by `open_place(url)`."""

    url: str
    """As it was given."""
    shown: str
    """As it is shown: without anything that is secret."""
    appends: bool
    """Whether files can grow."""

    def look(self, folder: str) -> Contents:
        """Look into a folder; one that is not there is empty. Raises OSError."""

    def is_there(self) -> bool:
        """Whether there is such a folder; raises OSError."""

    def read(self, name: str) -> bytes:
        """Read a file; raises OSError."""

    def write(self, name: str, data: bytes) -> Stamp:
        """Write a file that is there whole or not at all, in the place of what is there; raises CantWrite."""

    def append(self, name: str, data: bytes) -> None:
        """Let a file grow, where that can be; it is on the disk afterwards. Raises OSError."""

    def below(self, other: "Place") -> str | None:
        """Return this place's name in another one, "" for the same; None where it does not lie in it."""

    def same(self, name: str, other: "Place", its: str) -> bool:
        """Whether a file is another place's, by whatever links."""


def open_place(url: str) -> Place:
    """Return the place of a path or URL: s3://, gs://, file://, or any that fsspec has a library for.

    Raises:
        NoSuchPlace: the URL is of no known kind, or its library is not installed.
    """
    parts = urlsplit(url)
    if "://" not in url:
        return LocalPlace(url, Path(url))
    if parts.scheme == "file":
        return LocalPlace(url, Path(unquote(parts.path)))
    return _open_remote(url, parts.scheme)


class LocalPlace:
    """A folder."""

    appends = True

    def __init__(self, url: str, root: Path) -> None:
        self.url = url
        self.shown = str(root)
        self.root = root.absolute()

    def look(self, folder: str) -> Contents:
        """As `Place.look`."""
        contents = Contents()
        try:
            entries = os.scandir(self.root / folder)
        except FileNotFoundError:
            return contents
        with entries:
            for entry in entries:
                try:
                    if not entry.is_dir():
                        status = entry.stat()
                        if not stat.S_ISREG(status.st_mode):
                            raise NotAFile
                        contents.files[entry.name] = Stamp(status.st_size, status.st_mtime_ns)
                    elif not entry.is_symlink():
                        contents.folders.append(entry.name)
                except OSError as error:  # a link to nowhere, as a rule, or a pipe
                    contents.files[entry.name] = error
        return contents

    def is_there(self) -> bool:
        """As `Place.is_there`."""
        return self.root.is_dir()

    def read(self, name: str) -> bytes:
        """As `Place.read`."""
        return (self.root / name).read_bytes()

    def write(self, name: str, data: bytes) -> Stamp:
        """As `Place.write`."""
        path, partial = self.root / name, self.root / _PARTIAL / uuid.uuid4().hex
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())  # or a power cut could leave the name without the bytes
                stamp = Stamp.of(partial)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise CantWrite(path, error) from error
        return stamp

    def append(self, name: str, data: bytes) -> None:
        """As `Place.append`."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def below(self, other: Place) -> str | None:
        """As `Place.below`."""
        if not isinstance(other, LocalPlace):
            return None
        here, there = self.root.resolve(), other.root.resolve()
        return _name(here.relative_to(there).as_posix()) if here.is_relative_to(there) else None

    def same(self, name: str, other: Place, its: str) -> bool:
        """As `Place.same`."""
        return isinstance(other, LocalPlace) and (self.root / name).resolve() == (other.root / its).resolve()

    def sweep(self) -> None:
        """Remove half-written files of runs that were killed, while none is under way."""
        for path in (self.root / _PARTIAL).glob("*"):
            path.unlink(missing_ok=True)


class RemotePlace:
    """A tree of an object store, or of a file system that is reached over a network."""

    appends = False

    def __init__(self, url: str, files: "pyarrow.fs.FileSystem", root: str, *, objects: bool) -> None:
        """Connect to a place.

        Args:
            url: as it was given.
            files: how it is reached.
            root: its path there.
            objects: whether files are written at once or not at all, and folders need not be made.
        """
        self.url = url
        parts = urlsplit(url)
        self.shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        self._files = files
        self._root = root.rstrip("/")
        self._objects = objects

    def look(self, folder: str) -> Contents:
        """As `Place.look`."""
        from pyarrow.fs import FileSelector, FileType

        contents = Contents()
        for info in self._files.get_file_info(FileSelector(self._path(folder), allow_not_found=True)):
            if not info.base_name:
                continue  # a key that ends in / stands for a folder; one with // in it names nothing that a folder can
            if info.type == FileType.Directory:
                contents.folders.append(info.base_name)
            else:
                contents.files[info.base_name] = Stamp(info.size or 0, info.mtime_ns or 0)
        return contents

    def is_there(self) -> bool:
        """As `Place.is_there`; an object store has no empty folders."""
        from pyarrow.fs import FileType

        return bool(self._files.get_file_info(self._root).type == FileType.Directory)

    def read(self, name: str) -> bytes:
        """As `Place.read`."""
        with self._files.open_input_stream(self._path(name)) as file:
            data: bytes = file.read()
        return data

    def write(self, name: str, data: bytes) -> Stamp:
        """As `Place.write`."""
        path = self._path(name)
        try:
            if self._objects:
                self._put(path, data)
            else:
                partial = self._path(f"{_PARTIAL}/{uuid.uuid4().hex}")
                for needed in (partial, path):
                    self._files.create_dir(posixpath.dirname(needed), recursive=True)
                self._put(partial, data)
                self._files.move(partial, path)
            info = self._files.get_file_info(path)
        except OSError as error:
            raise CantWrite(Path(name), error) from error
        return Stamp(info.size or 0, info.mtime_ns or 0)

    def append(self, name: str, data: bytes) -> None:
        """There is no such thing here."""
        raise NotImplementedError

    def below(self, other: Place) -> str | None:
        """As `Place.below`."""
        if not isinstance(other, RemotePlace) or not self._files.equals(other._files):
            return None
        if self._root == other._root:
            return ""
        return self._root.removeprefix(f"{other._root}/") if self._root.startswith(f"{other._root}/") else None

    def same(self, name: str, other: Place, its: str) -> bool:
        """As `Place.same`; there are no links here."""
        within = self.below(other)
        return within is not None and posixpath.join(within, name) == its

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _put(self, path: str, data: bytes) -> None:
        with self._files.open_output_stream(path) as file:
            file.write(data)


def _open_remote(url: str, scheme: str) -> Place:
    try:
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem
    except ImportError:
        raise NoSuchPlace("object stores need the extra `ray`: pip install 'pix2dslr[ray]'") from None
    objects = scheme in _OBJECT_STORES
    try:
        files, root = FileSystem.from_uri(_in_one_request(url) if scheme == "s3" else url)
    except (ArrowException, OSError) as unknown:
        import fsspec

        try:
            own, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, OSError):
            # arrow's words where it knows the kind, and could not use what the URL says
            reason = " ".join(str(unknown).split()) if objects else f"no library that is installed knows {scheme}://"
            raise NoSuchPlace(f"{scheme}:// can't be used: {reason}") from None
        files = PyFileSystem(FSSpecHandler(own))
    return RemotePlace(url, files, root, objects=objects)


def _in_one_request(url: str) -> str:
    """Let Arrow put a small object at once: begun in parts, what a killed process leaves is stored, and paid for."""
    return url if "allow_delayed_open" in url else f"{url}{'&' if '?' in url else '?'}allow_delayed_open=true"


def _name(text: str) -> str:
    return "" if text == "." else text
