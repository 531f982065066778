"""EXIF: a TIFF structure (TIFF 6.0, section 2), put right where it lies.

It is written anew only where it would not fit: a camera's own notes hold offsets that only their maker knows.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HEADER: Final = re.compile(rb"II\*\0|MM\0\*")
_LEAD: Final = 64
"""Bytes that may come before the header: JPEG's mark, once or twice, zeros."""
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value, by its type."""
_WHOLE: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
"""Types of whole numbers, by what struct calls them."""
_FIRST: Final = 0
"""How the first directory is called here, to which no tag points."""
_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005
_NESTED: Final = {_EXIF: _FIRST, _GPS: _FIRST, _INTEROP: _EXIF}
"""Tags that point to further directories, and the directory that holds them."""
_ORIENTATION: Final = 0x0112
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
_SIDES: Final = (
    (_FIRST, 0x0100, 0x0101),
    (_FIRST, _X_RESOLUTION, _Y_RESOLUTION),
    (_EXIF, 0xA002, 0xA003),
    (_INTEROP, 0x1001, 0x1002),
)
"""Tags of width and height, by directory."""
_THUMBNAILS: Final = ((0x0201, 0x0202), (0x0111, 0x0117))
"""Where a thumbnail lies and how long it is, coded as JPEG and as samples."""
_ELSEWHERE: Final = (0x0111, 0x0117, 0x014A, 0x0201, 0x0202)
"""Tags of the first directory that point to samples and to directories of unknown content."""
_MAKER_NOTE: Final = 0x927C
_MOST_ENTRIES: Final = 1000
"""Of a directory that is written anew; a JPEG's segment would hold five times as many at most."""


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    place: int

    @property
    def size(self) -> int:
        """Bytes of the value, 0 where the type is unknown."""
        return _SIZES.get(self.kind, 0) * self.count


class _Structure:
    """A block's bytes, changed in place. What lies outside the block, or points there, is as if it were not there."""

    def __init__(self, block: bytes) -> None:
        header = _HEADER.search(block, 0, _LEAD)
        if header is None:
            raise ValueError("no TIFF structure")
        self.block = bytearray(block)
        del self.block[: header.start()]
        self.order = "<" if self.block[:1] == b"I" else ">"
        first = self.unpack("I", 4) if len(self.block) >= 8 else 0
        self.places = {_FIRST: first}
        self.entries: dict[int, list[_Entry]] = {_FIRST: list(self.entries_at(first))}
        for tag, parent in _NESTED.items():
            for entry in self.entries.get(parent, ()):
                if entry.tag == tag and (inside := list(self.entries_at(self.number(entry) or 0))):
                    self.places[tag], self.entries[tag] = self.number(entry) or 0, inside
                    break  # any tag may come 65,535 times, and each directory have as many

    def unpack(self, format_: str, place: int) -> int:
        return int(struct.unpack_from(self.order + format_, self.block, place)[0])

    def entries_at(self, place: int) -> Iterator[_Entry]:
        """A directory's entries, up to the block's end where it claims more."""
        if not 8 <= place <= len(self.block) - 2:
            return
        most = (len(self.block) - place - 2) // 12
        for here in range(place + 2, place + 2 + 12 * min(self.unpack("H", place), most), 12):
            tag, kind, count = struct.unpack_from(self.order + "HHI", self.block, here)
            yield _Entry(tag, kind, count, here)

    def link_of(self, place: int) -> int | None:
        """Where the place of the directory after the one there is written, None where the block ends before."""
        if not 8 <= place <= len(self.block) - 2:
            return None
        link = place + 2 + 12 * self.unpack("H", place)
        return link if link + 4 <= len(self.block) else None

    def number(self, entry: _Entry) -> int | None:
        """An entry's value, None where it is not one whole number."""
        if entry.count != 1 or entry.kind not in _WHOLE:
            return None
        return self.unpack(_WHOLE[entry.kind], entry.place + 8)

    def start_of(self, entry: _Entry) -> int | None:
        """Where an entry's value begins, None where it lies outside the block."""
        start = entry.place + 8 if entry.size <= 4 else self.unpack("I", entry.place + 8)
        return start if start + entry.size <= len(self.block) else None


def upright_exif(exif: bytes | None) -> tuple[int, bytes | None]:
    """Reset a block's orientation to 1, swap the sides it names where that turns the picture, drop its thumbnail.

    Args:
        exif: a TIFF structure, perhaps behind JPEG's mark for it.

    Returns:
        the orientation, 1 to 8, and the block, whatever else is broken in it; None where there is no structure. An
        orientation that is none (0, two numbers, a text) is not applied and stays.
    """
    try:
        tiff = _Structure(exif or b"")
    except ValueError:
        return 1, None
    orientation = 1
    for entry in tiff.entries[_FIRST]:
        value = tiff.number(entry) if entry.tag == _ORIENTATION else None
        if value is not None and 1 <= value <= 8:
            orientation = value
            struct.pack_into(tiff.order + _WHOLE[entry.kind], tiff.block, entry.place + 8, 1)
    if orientation >= 5:
        _swap_sides(tiff)
    _drop_thumbnail(tiff)
    return orientation, bytes(tiff.block)


def _swap_sides(tiff: _Structure) -> None:
    for directory, *tags in _SIDES:
        places = {entry.tag: entry.place + 2 for entry in tiff.entries.get(directory, ()) if entry.tag in tags}
        if len(places) == 2:
            one, other = places.values()
            kept = tiff.block[one : one + 10]
            tiff.block[one : one + 10] = tiff.block[other : other + 10]
            tiff.block[other : other + 10] = kept


def _drop_thumbnail(tiff: _Structure) -> None:
    """Forget the second directory, which is the thumbnail's, and overwrite its picture, but nothing that is used."""
    link = tiff.link_of(tiff.places[_FIRST])
    second = tiff.unpack("I", link) if link else 0
    if not link or not second:
        return
    found = {entry.tag: tiff.number(entry) for entry in tiff.entries_at(second)}
    values = _values(tiff)
    if not found or any(start < link + 4 and link < end for start, end in values):
        return  # the first directory claims too many entries, and what seems to follow it is a value
    struct.pack_into(tiff.order + "I", tiff.block, link, 0)
    tables = [(place, place + 2 + 12 * len(tiff.entries[directory]) + 4) for directory, place in tiff.places.items()]
    used = _joined([(0, 8), *tables, *values])
    for at, long in _THUMBNAILS:
        start, length = found.get(at) or 0, found.get(long) or 0
        end = min(start + length, len(tiff.block))
        if start < 8:
            continue
        for here, there in used:
            tiff.block[start : min(here, end)] = bytes(max(min(here, end) - start, 0))
            start = max(start, there)
        if start < end == len(tiff.block):
            del tiff.block[start:]
        elif start < end:
            tiff.block[start:end] = bytes(end - start)


def _values(tiff: _Structure) -> list[tuple[int, int]]:
    """Where values lie that do not lie in their entries: start and end."""
    return [
        (start, start + entry.size)
        for entries in tiff.entries.values()
        for entry in entries
        if entry.size > 4 and (start := tiff.start_of(entry)) is not None
    ]


def _joined(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort places, and join those that touch."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(places):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def resolution_of(exif: bytes | None) -> tuple[float, float, int] | None:
    """Return a block's X and Y resolution and their unit (2 inch, 3 centimetre), None where it names none."""
    try:
        tiff = _Structure(exif or b"")
    except ValueError:
        return None
    unit, found = 2, {}
    for entry in tiff.entries[_FIRST]:
        if entry.tag == _RESOLUTION_UNIT:
            unit = tiff.number(entry) or unit
        elif entry.tag in (_X_RESOLUTION, _Y_RESOLUTION) and entry.kind == 5 and entry.count == 1:
            start = tiff.start_of(entry)
            if start is not None and (divisor := tiff.unpack("I", start + 4)):
                found[entry.tag] = tiff.unpack("I", start) / divisor
    if len(found) != 2:
        return None
    return found[_X_RESOLUTION], found[_Y_RESOLUTION], unit


def without_orientation(exif: bytes, *, keep_upright: bool = False) -> bytes:
    """Take the orientation out of a block, or only one that is not 1."""
    try:
        tiff = _Structure(exif)
    except ValueError:
        return exif
    first, entries = tiff.places[_FIRST], tiff.entries[_FIRST]
    link = tiff.link_of(first)
    kept = [
        tiff.block[entry.place : entry.place + 12]
        for entry in entries
        if entry.tag != _ORIENTATION or (keep_upright and tiff.number(entry) == 1)
    ]
    if link and len(kept) < len(entries):
        table = b"".join((*kept, tiff.block[link : link + 4]))
        struct.pack_into(tiff.order + "H", tiff.block, first, len(kept))
        tiff.block[first + 2 : link + 4] = table.ljust(link + 4 - first - 2, b"\0")
    return bytes(tiff.block)


def fitted(exif: bytes, most: int) -> bytes | None:
    """Return a block in at most `most` bytes: as it is, else without what nothing points to, else with less in it.

    The maker's note goes where that is enough. Else the largest values go, one by one, until the rest fits.
    """
    if len(exif) <= most:
        return exif
    try:
        tiff = _Structure(exif)
    except ValueError:
        return None
    kept = [
        (directory, entry)
        for directory, entries in tiff.entries.items()
        for entry in entries[:_MOST_ENTRIES]
        if entry.size and tiff.start_of(entry) is not None and entry.tag not in (*_NESTED, *_ELSEWHERE)
    ]
    kept.sort(key=lambda each: each[1].size)
    note = next((each for each in kept if each[0] == _EXIF and each[1].tag == _MAKER_NOTE), None)
    excess = 8 + 30 * len(tiff.entries) + sum(_room(entry) for _, entry in kept) - most
    if note and 0 < excess <= note[1].size:
        kept.remove(note)
        excess = 0
    while excess > 0:
        excess -= _room(kept.pop()[1])
    written = _rewritten(tiff, kept, note[1] if note in kept else None)
    if len(written) > most and note in kept:  # it stays at its own place, which may leave no room around it
        kept.remove(note)
        written = _rewritten(tiff, kept)
    return written if len(written) <= most else None


def _room(entry: _Entry) -> int:
    """Bytes that an entry takes with its value."""
    return 12 + (entry.size + entry.size % 2 if entry.size > 4 else 0)


def _rewritten(tiff: _Structure, kept: list[tuple[int, _Entry]], note: _Entry | None = None) -> bytes:
    """Write entries into a new block, in order, and the maker's note at its old place."""
    pieces = [(0, bytes(tiff.block[:4]) + struct.pack(tiff.order + "I", 8))]
    note_start, note_end, end = 0, 0, 8
    if note and note.size > 4:
        note_start = tiff.start_of(note) or 0
        note_end = note_start + note.size

    def reserve(size: int) -> int:
        nonlocal end
        if end < note_end and end + size > note_start:
            end = note_end + note_end % 2
        end += size + size % 2
        return end - size - size % 2

    filled = {directory for directory, _ in kept}
    filled |= {_NESTED[directory] for directory in filled if directory}
    pointers: dict[int, int] = {}  # where a directory's place is to be written
    for directory in (_FIRST, *_NESTED):
        if directory != _FIRST and directory not in filled:
            continue
        nested = [tag for tag in _NESTED if _NESTED[tag] == directory and tag in filled]
        rows: list[tuple[int, _Entry | None]] = [(entry.tag, entry) for where, entry in kept if where == directory]
        rows = sorted([*rows, *((tag, None) for tag in nested)], key=lambda row: row[0])
        place = reserve(2 + 12 * len(rows) + 4)
        if directory in pointers:
            pieces.append((pointers[directory], struct.pack(tiff.order + "I", place)))
        pieces.append((place, struct.pack(tiff.order + "H", len(rows))))
        for at, (tag, entry) in zip(range(place + 2, end, 12), rows, strict=False):
            if entry is None:
                pieces.append((at, struct.pack(tiff.order + "HHI", tag, 4, 1)))
                pointers[tag] = at + 8
                continue
            pieces.append((at, bytes(tiff.block[entry.place : entry.place + 12])))
            start = tiff.start_of(entry)
            if entry.size > 4 and start is not None:
                new = start if entry == note else reserve(entry.size)
                pieces.append((at + 8, struct.pack(tiff.order + "I", new)))
                pieces.append((new, bytes(tiff.block[start : start + entry.size])))
    written = bytearray(max(end, note_end))
    for place, piece in pieces:
        written[place : place + len(piece)] = piece
    return bytes(written)
