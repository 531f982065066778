"""TIFF's directories: read from classic and Big files, whatever they claim, and written as classic ones.

TIFF 6.0, section 2; BigTIFF differs in its numbers' widths alone. Values stay bytes in the file's own order until they
are asked for: a directory may list far more of them than are needed.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from service.picture import MalformedPicture

BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7
CLASSIC: Final = 12
"""The last kind of values that describe; those behind it are offsets, or BigTIFF's."""
MAX_PAGES: Final = 10_000
_MAX_VALUES: Final = 1 << 20
_MAX_DIRECTORY: Final = 0xFFFF
"""Entries of a directory: a classic file counts them in two bytes."""
MAX_ENTRIES: Final = 1 << 18
"""Of all directories of a chain together, and of those below them."""
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each kind."""
_WHOLE: Final = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
"""Kinds of whole numbers, as numpy names them."""


@dataclass(frozen=True)
class Entry:
    """One tag's values.

    Attributes:
        tag: its number.
        kind: its type's number.
        count: how many values there are.
        content: their bytes.
    """

    tag: int
    kind: int
    count: int
    content: bytes


@dataclass(frozen=True)
class Tree:
    """A directory to be written, and those that it points to by their tags."""

    entries: Sequence[Entry]
    nested: Mapping[int, "Tree"] = field(default_factory=dict)


class Directory:
    """A directory of a file; tags come in any order, and of equal ones the first counts.

    Attributes:
        entries: how many it has.
        next: the offset of the next one, 0 where there is none.
        plausible: whether most of it are tags of known kinds; an offset into samples or text leads to noise.
    """

    def __init__(self, data: bytes, order: str, rows: Iterable[tuple[int, int, int, bytes]], next_: int) -> None:
        self._data = data
        self._order = order
        self._rows: dict[int, tuple[int, int, bytes]] = {}
        self.next = next_
        self.entries = known = 0
        for tag, kind, count, value in rows:
            self.entries += 1
            known += kind in _SIZES
            self._rows.setdefault(tag, (kind, count, value))
        self.plausible = 2 * known >= self.entries

    def __contains__(self, tag: int) -> bool:
        return tag in self._rows

    def entry(self, tag: int, most: int | None = None, room: int | None = None) -> Entry | None:
        """Return a tag's values; None where it is absent, of no known kind, or beyond the file.

        Args:
            tag: its number.
            most: so many values at most.
            room: None where they take more bytes.
        """
        if tag not in self._rows:
            return None
        kind, count, value = self._rows[tag]
        size, start = _SIZES.get(kind, 0) * count, 0
        if size > len(value):
            start = int.from_bytes(value, "little" if self._order == "<" else "big")
            value = self._data
        if not size or start + size > len(value) or (room is not None and size > room):
            return None
        count = count if most is None else min(count, most)
        return Entry(tag, kind, count, value[start : start + _SIZES[kind] * count])

    def readable(self, room: int) -> Iterator[Entry]:
        """Return all that can be read, each tag once, and that take so many bytes together at most."""
        for tag in self._rows:
            entry = self.entry(tag, room=room)
            if entry is not None:
                room -= len(entry.content)
                yield entry

    def content(self, tag: int) -> bytes | None:
        """Return a tag's bytes, whatever its kind."""
        entry = self.entry(tag)
        return None if entry is None else entry.content

    def check_count(self, tag: int) -> None:
        """Check that a tag lists no more values than a writer's would; raises MalformedPicture."""
        if tag in self and self._rows[tag][1] > _MAX_VALUES:
            raise MalformedPicture("a tag lists too many values")

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the numbers of a tag that the samples depend on; none where it is absent.

        Raises:
            MalformedPicture: it can't be read, or lists more values than any writer's.
        """
        if tag not in self:
            return ()
        self.check_count(tag)
        entry = self.entry(tag)
        if entry is None or entry.kind not in _WHOLE:
            raise MalformedPicture("a tag that the samples depend on can't be read")
        return tuple(np.frombuffer(entry.content, self._order + _WHOLE[entry.kind]).tolist())

    def number(self, tag: int, default: int) -> int:
        """Return the first of a tag's numbers; raises as `numbers`."""
        return next(iter(self.numbers(tag)), default)

    def hints(self, tag: int, most: int) -> list[int]:
        """Return so many numbers at most of a tag that the samples do not depend on; none where it can't be read."""
        entry = self.entry(tag, most)
        if entry is None or entry.kind not in _WHOLE:
            return []
        return [int(value) for value in np.frombuffer(entry.content, self._order + _WHOLE[entry.kind])]

    def hint(self, tag: int) -> int:
        """Return the first of such numbers, 0 where it can't be read."""
        return next(iter(self.hints(tag, 1)), 0)


class Directories:
    """The directories of a file.

    Attributes:
        order: the file's byte order, `<` or `>`.
        size: its bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.order = "<" if data[:1] == b"I" else ">"
        self.size = len(data)
        self._big = 43 in data[2:4]
        self._row = struct.Struct(self.order + ("HHQ8s" if self._big else "HHI4s"))

    def _number(self, place: int, letter: str) -> int:
        return int(struct.unpack_from(self.order + letter, self._data, place)[0])

    def at(self, place: int, *, cut: bool = False) -> Directory:
        """Read the directory at an offset.

        Args:
            place: the offset.
            cut: take the tags that are there where the file ends within the directory.

        Raises:
            MalformedPicture: none fits there.
        """
        head = 8 if self._big else 2
        try:
            entries = self._number(place, "Q" if self._big else "H")
            room = min((len(self._data) - place - head) // self._row.size, _MAX_DIRECTORY)
            if cut:
                entries = min(entries, room)
            end = place + head + entries * self._row.size
            # a file may end without the offset of a next one
            following = (
                0
                if cut or end + (8 if self._big else 4) > len(self._data)
                else self._number(end, "Q" if self._big else "I")
            )
        except (struct.error, OverflowError):
            raise MalformedPicture("the header can't be read") from None
        if not 0 <= entries <= room:
            raise MalformedPicture("the header can't be read")
        rows = self._row.iter_unpack(memoryview(self._data)[place + head : end])
        return Directory(self._data, self.order, rows, following)

    def chain(self) -> Iterator[Directory]:
        """Follow the directories from the first on, as far as they can be read and do not come round again.

        Raises:
            MalformedPicture: there is no first one.
        """
        try:
            place = self._number(8, "Q") if self._big else self._number(4, "I")
        except struct.error:
            raise MalformedPicture("the header can't be read") from None
        seen, entries = set[int](), 0
        while place not in seen and len(seen) < MAX_PAGES and entries < MAX_ENTRIES:
            seen.add(place)
            try:
                directory = self.at(place)
            except MalformedPicture:
                if len(seen) == 1:
                    raise
                return
            if len(seen) > 1 and not directory.plausible:
                return
            yield directory
            entries += directory.entries
            place = directory.next
            if not place:
                return


def numbers(order: str, tag: int, kind: int, values: Sequence[int]) -> Entry:
    """Return an entry of whole numbers."""
    return Entry(tag, kind, len(values), np.array(values, order + _WHOLE[kind]).tobytes())


def packed(tree: Tree, order: str, start: int) -> bytes:
    """Write a directory and those below it, to lie at an even offset."""
    entries = [*tree.entries, *(Entry(tag, LONG, 1, b"") for tag in tree.nested)]
    base = start + 2 + 12 * len(entries) + 4
    table, behind = bytearray(struct.pack(order + "H", len(entries))), bytearray()
    for entry in sorted(entries, key=lambda each: each.tag):
        content = entry.content
        if entry.tag in tree.nested or len(content) > 4:
            place = base + len(behind)
            behind += packed(tree.nested[entry.tag], order, place) if entry.tag in tree.nested else content
            behind += bytes(len(behind) % 2)
            content = struct.pack(order + "I", place)
        table += struct.pack(order + "HHI", entry.tag, entry.kind, entry.count) + content.ljust(4, b"\0")
    return bytes(table + bytes(4) + behind)


def mark(order: str, place: int) -> bytes:
    """Return the eight bytes that a classic file begins with, its first directory being there."""
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", place)
