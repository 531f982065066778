"""What was made in a folder, of what and how: so that a second run goes on, and nothing else's files are replaced.

A file of lines in the folder itself, each a JSON object, only ever appended to. A line is written just before its file
gets its name, so a run that is killed at any moment leaves either the file and its line, or a line too many.
"""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from service.commands.files import Stamp, sweep

NAME: Final = ".pix2dslr.jsonl"
LOCK: Final = ".pix2dslr.lock"

Options = Mapping[str, Any]
"""How a file was made: names and JSON values."""


class FolderInUse(Exception):
    """Another process writes to the folder."""


@dataclass(frozen=True)
class Entry:
    """One file that was made.

    Attributes:
        source: what it was made of, relative to the folder.
        source_stamp: which version of that.
        options: how.
        stamp: which version of the file itself.
    """

    source: str
    source_stamp: Stamp
    options: Options
    stamp: Stamp


class Ledger:
    """The ledger of one folder, which no other process writes to while it is entered. Safe from any thread."""

    def __init__(self, folder: Path) -> None:
        """Connect to a folder.

        Args:
            folder: with no link in its path; targets are files in it, named through it.
        """
        self._folder = folder
        self._file = folder / NAME
        self._lock = FileLock(folder / LOCK)
        self._threads = threading.Lock()
        self._entries: dict[str, list[Entry]] = {}

    def __enter__(self) -> Self:
        """Make the folder and read what it holds.

        Raises:
            FolderInUse: another process writes there.
            OSError: it can't be made or written to.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FolderInUse from None
        try:
            self._read()
            sweep(self._folder)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()

    def made(self, target: Path) -> Entry | None:
        """Return what is known of the file that lies at `target` now; None where it was not made here."""
        try:
            stamp = Stamp.of(target)
        except OSError:
            return None
        with self._threads:
            entries = reversed(self._entries.get(self._name(target), []))
            return next((entry for entry in entries if entry.stamp == stamp), None)

    def holds(self, file: Path) -> bool:
        """Whether a file, wherever it lies, was made here."""
        place = file.resolve()
        return place.is_relative_to(self._folder) and self.made(place) is not None

    def add(self, target: Path, entry: Entry) -> None:
        """Note a file that gets its name next; raises OSError."""
        line = json.dumps({"target": self._name(target), **asdict(entry)}) + "\n"
        with self._threads:
            with self._file.open("a", encoding="ascii") as file:
                file.write(line)
            self._entries.setdefault(self._name(target), []).append(entry)

    def relative(self, source: Path) -> str:
        """Return how a source is called in an entry, so that both folders can be moved together."""
        return os.path.relpath(source.resolve(), self._folder)

    def _name(self, target: Path) -> str:
        return target.relative_to(self._folder).as_posix()

    def _read(self) -> None:
        # opened for writing too: whether that can be done is known before any work is
        with self._file.open("a+", encoding="ascii", errors="replace") as file:
            file.seek(0)
            text = file.read()
            if text and not text.endswith("\n"):  # the line that a power cut ended
                file.write("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                entry = Entry(row["source"], Stamp(**row["source_stamp"]), row["options"], Stamp(**row["stamp"]))
                self._entries.setdefault(row["target"], []).append(entry)
            except (ValueError, TypeError, KeyError):
                continue
