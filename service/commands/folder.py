"""A run into one folder: what goes where, what is done already, what may be replaced."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from service.commands.batch import Batch, Task
from service.commands.files import (
    NotAFile,
    NotOurs,
    Said,
    Stamp,
    find,
    format_of,
    hidden,
    is_folder,
    is_special,
    target_name,
    write_whole,
)
from service.commands.ledger import Entry, Ledger, Options


class OwnSource(Said):
    """An answer would replace the picture that it is made of."""

    def __str__(self) -> str:
        return "its answer would replace it: name another folder or format"


class SameName(Said):
    """Two pictures' answers would get one name.

    Attributes:
        other: the picture that has it.
    """

    def __init__(self, other: Path) -> None:
        super().__init__(f"{other} gets the same name: enhance them into different folders")
        self.other = other


class Folder:
    """Makes tasks of pictures whose answers go to one folder."""

    def __init__(self, ledger: Ledger, out: Path, batch: Batch, made_how: Options, *, force: bool) -> None:
        """Connect the parts.

        Args:
            ledger: of `out`.
            out: where answers go, with no link in its path.
            batch: the run, which gets what is done already and what can't be.
            made_how: all that a picture's answer depends on besides itself.
            force: do again what is done, and replace whatever is in the way.
        """
        self._ledger = ledger
        self._out = out
        self._batch = batch
        self._format = batch.options.format
        self._options = made_how
        self._force = force
        self._taken: dict[Path, Path] = {}
        self._latest: dict[Path, Stamp] = {}

    def from_files(self, files: Sequence[Path]) -> Iterator[Task]:
        """Make tasks of files, each of which goes to the folder itself."""
        for file in files:
            yield from self._task(file, self._out / target_name(Path(file.name), self._format))

    def from_folder(self, root: Path, below: Path | None = None) -> Iterator[Task]:
        """Make tasks of all pictures of a folder, the tree of which is mirrored.

        Args:
            root: the folder.
            below: the part of it that is looked through; None is all of it.
        """
        found = find(below or root, without=self._out)
        self._batch.counts.others += found.others
        for path, error in found.failed:
            self._batch.failed(str(path), error)
        for picture in found.pictures:
            yield from self._found(root, picture)

    def from_change(self, path: Path, roots: Sequence[Path]) -> list[Task]:
        """Make tasks of a file or folder that came or changed in one of some folders.

        Args:
            path: absolute, as a watch tells it.
            roots: the folders, as they were named.
        """
        root = next((root for root in roots if path.is_relative_to(root.absolute())), None)
        if root is None:
            return []
        within = path.relative_to(root.absolute())
        if any(hidden(part) for part in within.parts):
            return []
        if path.resolve().is_relative_to(self._out) and not root.resolve().is_relative_to(self._out):
            return []
        if is_folder(path):
            return list(self.from_folder(root, root / within))
        return list(self._found(root, root / within)) if format_of(path) is not None else []

    def _found(self, root: Path, picture: Path) -> Iterator[Task]:
        # passed over: an answer of an earlier run, where answers go beside their pictures
        if not self._ledger.holds(picture):
            yield from self._task(picture, self._out / target_name(picture.relative_to(root), self._format))

    def _task(self, source: Path, target: Path) -> Iterator[Task]:
        try:
            task = self._check(source, target)
        except (OSError, Said) as error:
            self._batch.failed(str(source), error)
            return
        if task is None:
            self._batch.counts.already += 1
        else:
            yield task

    def _check(self, source: Path, target: Path) -> Task | None:
        """Return what is to be done, None where it is done already."""
        if is_special(source):
            raise NotAFile
        stamp, place = Stamp.of(source), source.resolve()
        if self._taken.setdefault(target, place) != place:
            raise SameName(self._taken[target])
        if target.resolve() == place:
            raise OwnSource
        if self._latest.get(target) == stamp:  # named twice, or seen by the first look and by the watch
            return None
        name = self._ledger.relative(source)
        if not self._force:
            there = self._ledger.made(target)
            if there is None and os.path.lexists(target):
                raise NotOurs(target)
            # a folder of photos that was moved is still the same by its files' stamps
            if there is not None and there.source != name and there.source_stamp != stamp:
                raise NotOurs(target)
            if there is not None and there.source_stamp == stamp and there.options == self._options:
                if there.source != name:
                    self._ledger.add(target, replace(there, source=name))
                return None
        self._latest[target] = stamp
        return Task(str(source), stamp.size, source.read_bytes, partial(self._write, target, name, stamp))

    def _write(self, target: Path, source: str, stamp: Stamp, data: bytes) -> None:
        if self._latest[target] != stamp:
            return  # the picture changed meanwhile, and its new version is under way

        def note(written: Stamp) -> None:
            self._ledger.add(target, Entry(source, stamp, self._options, written))

        ours = self._force or self._ledger.made(target) is not None
        write_whole(target, data, replace=ours, before=note)
