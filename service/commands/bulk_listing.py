"""What a bulk run has to do: a source's pictures as rows, a few at a time, less what is done already."""

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.codec import Format
from service.commands.bulk_ledger import Known
from service.commands.bulk_places import Contents, LocalPlace, NoSuchPlace, Place
from service.commands.common import shown
from service.commands.files import Said, Stamp, format_of, hidden, target_name

ROWS_A_BLOCK: Final = 32
"""Rows that travel together. They hold names, not pixels."""


_NO_STAMP: Final = Stamp(0, 0)


@dataclass(frozen=True)
class Row:
    """One picture, or a number of files.

    Attributes:
        outcome: `todo`, `done`, `failed`; `already` and `other` stand for `count` files.
        source, target: names below both places.
        stamp: which version of the source.
        problem: of what failed: the problem's short name.
        detail: of what failed: what to do, in one line.
        pixels: of what is done.
        count: how many files it stands for.
    """

    outcome: str
    source: str = ""
    target: str = ""
    stamp: Stamp = _NO_STAMP
    problem: str = ""
    detail: str = ""
    pixels: int = 0
    count: int = 1


class Refused(Said):
    """A picture's answer has no place.

    Attributes:
        problem: the problem's short name.
    """

    def __init__(self, problem: str, message: str) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True)
class Listing:
    """How a source's pictures go to a target.

    Attributes:
        source, target: the places.
        format: what the answers' names are for; None keeps each.
        how: digest of all that an answer depends on besides its picture.
        force: do again what is done, and replace whatever is in the way.
    """

    source: Place
    target: Place
    format: Format | None
    how: str
    force: bool

    def blocks(self) -> Iterator[list[Row]]:
        """Yield rows, a block at a time; one folder's contents are in memory at once.

        Raises:
            NoSuchPlace: there is no such source.
            OSError: the source's root can't be read.
        """
        if not self.source.is_there():
            raise NoSuchPlace(f"{self.source.shown} is not there")
        block: list[Row] = []
        counts = {"already": 0, "other": 0}
        for row in self._rows():
            if row.outcome in counts:
                counts[row.outcome] += 1
                if counts[row.outcome] < ROWS_A_BLOCK * 100:
                    continue
                row = Row(row.outcome, count=counts[row.outcome])
                counts[row.outcome] = 0
            block.append(row)
            if len(block) >= ROWS_A_BLOCK:
                yield block
                block = []
        block += [Row(outcome, count=count) for outcome, count in counts.items() if count]
        if block:
            yield block

    def _rows(self) -> Iterator[Row]:
        known = Known(self.target)
        within = self.source.below(self.target)
        called = called_from(self.source, self.target)
        for folder, found in folders_of(self.source, without=self.target.below(self.source) or None):
            if isinstance(found, OSError):
                if not folder:
                    raise found
                yield Row("failed", folder, problem="unreadable", detail=found.strerror or str(found))
                continue
            pictures = sorted(name for name in found.files if not hidden(name) and format_of(Path(name)) is not None)
            others = sum(not hidden(name) for name in found.files) - len(pictures)
            yield from (Row("other") for _ in range(others))
            if pictures:
                yield from self._folder(folder, found, pictures, known, within, called)

    def _folder(
        self, folder: str, found: Contents, pictures: list[str], known: Known, within: str | None, called: str
    ) -> Iterator[Row]:
        there = self._answers_in(folder)
        taken: dict[str, str] = {}
        for base in pictures:
            source, stamp = posixpath.join(folder, base), found.files[base]
            target = posixpath.join(folder, target_name(Path(base), self.format))
            if isinstance(stamp, OSError):
                yield Row("failed", source, problem="unreadable", detail=stamp.strerror or str(stamp))
                continue
            if within is not None and known.is_answer(posixpath.join(within, source), stamp):
                continue  # of an earlier run, where answers go beside their pictures
            other = taken.setdefault(target, source)
            if other != source:
                detail = f"{shown(other)} gets the same name: enhance them into different folders"
                yield Row("failed", source, problem="same-name", detail=detail)
                continue
            try:
                done = self._is_done(source, stamp, target, there, known, called)
            except Refused as refused:
                yield Row("failed", source, problem=refused.problem, detail=str(refused))
                continue
            yield Row("already") if done else Row("todo", source, target, stamp)

    def _answers_in(self, folder: str) -> dict[str, Stamp | OSError]:
        try:
            return self.target.look(folder).files
        except NotADirectoryError:  # whoever writes there is told
            return {}

    def _is_done(
        self, source: str, stamp: Stamp, target: str, there: dict[str, Stamp | OSError], known: Known, called: str
    ) -> bool:
        lies = there.get(posixpath.basename(target))
        if lies is not None and self.source.same(source, self.target, target):
            raise Refused("own-source", "its answer would replace it: name another folder or format")
        if lies is None or self.force:
            return False
        if isinstance(lies, OSError) or not known.is_ours(target, lies, posixpath.join(called, source), stamp):
            raise Refused("not-ours", f"{shown(target)} is there already and was not made from it: --force replaces it")
        return known.is_done(target, lies, stamp, self.how)


def called_from(source: Place, target: Place) -> str:
    """Return how a source is called in a target's ledger: relative where both can be moved together."""
    if isinstance(source, LocalPlace) and isinstance(target, LocalPlace):
        return os.path.relpath(source.root.resolve(), target.root.resolve())
    return source.shown


def folders_of(place: Place, without: str | None = None) -> Iterator[tuple[str, Contents | OSError]]:
    """Walk a tree, a folder at a time and by name: (its name, "" for the root; what is in it, or why it can't be read).

    Hidden folders are passed over, and one that is named; so are an object store's . and .., which could lead out.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            contents = place.look(folder)
        except OSError as error:
            yield folder, error
            continue
        yield folder, contents
        inner = (posixpath.join(folder, name) for name in sorted(contents.folders, reverse=True) if name[:1] != ".")
        waiting += [name for name in inner if name != without]
