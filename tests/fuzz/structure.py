"""Where a file's parts lie and which numbers say so: segments, chunks, boxes, directories, tags. Never fails."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

_NESTING_BOXES = (b"meta", b"iprp", b"ipco", b"iinf", b"iref", b"dinf", b"moov", b"trak", b"mdia", b"minf", b"stbl")
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}


@dataclass(frozen=True)
class Number:
    """A number in the file.

    Attributes:
        place: its first byte.
        width: its bytes, 1 to 8.
        order: `big` or `little`.
        unit: bytes of what it counts.
    """

    place: int
    width: int
    order: Literal["big", "little"]
    unit: int = 1


@dataclass(frozen=True)
class Part:
    """A stretch that means something by itself.

    Attributes:
        start, end: its bytes, its head included.
        kind: its name, such as b"IHDR".
        sizes: lengths, its own and of those that it lies in, which grow and shrink with it.
    """

    start: int
    end: int
    kind: bytes
    sizes: tuple[Number, ...] = ()


@dataclass
class Structure:
    """What was found in a file."""

    parts: list[Part]
    numbers: list[Number]


def structure_of(data: bytes) -> Structure:
    """Take a file apart as far as it can be; an unknown one has neither parts nor numbers."""
    found = Structure([], [])
    for part, numbers in _walk(data):
        if len(found.parts) >= 2000:
            break
        found.parts.append(part)
        found.numbers += [each for each in numbers if each.place + each.width <= len(data)]
    return found


Found = Iterator[tuple[Part, list[Number]]]


def _walk(data: bytes) -> Found:
    if data.startswith(b"\xff\xd8"):
        yield from _jpeg(data)
    elif data.startswith(b"\x89PNG"):
        yield from _png(data)
    elif data.startswith(b"RIFF"):
        yield from _riff(data, 12, len(data), (Number(4, 4, "little"),))
    elif data[:4] in (b"II*\0", b"MM\0*"):
        yield from _tiff(data, 0)
    elif data.startswith(b"BM"):
        head = int.from_bytes(data[14:18], "little")
        yield Part(0, 14, b"file"), [Number(2, 4, "little"), Number(10, 4, "little")]
        fields = [Number(place, 4, "little") for place in range(14, 14 + min(head, 124), 4)]
        yield Part(14, 14 + head, b"head"), [*fields, Number(26, 2, "little"), Number(28, 2, "little")]
    elif data[4:8] == b"ftyp":
        yield from _boxes(data, 0, len(data), ())
    elif data[36:40] == b"acsp":
        yield from _icc(data, 0)
    elif data.startswith((b"PK\3\4", b"PK\5\6")):
        yield from _zip(data)


def _jpeg(data: bytes) -> Found:
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            # coded samples: up to the next marker that is neither stuffing nor a restart
            end = place
            while (end := data.find(b"\xff", end)) >= 0 and (data[end + 1 : end + 2] or b"\0")[0] in (
                0,
                *range(208, 216),
            ):
                end += 2
            end = len(data) if end < 0 else end
            yield Part(place, end, b"scan"), []
            place = end
            continue
        marker = data[place + 1]
        if marker in (0xD8, 0xD9, 0xFF, 1) or 0xD0 <= marker <= 0xD7:
            yield Part(place, place + 2, data[place : place + 2]), []
            place += 2
            continue
        length = Number(place + 2, 2, "big")
        end = min(place + 2 + int.from_bytes(data[place + 2 : place + 4], "big"), len(data))
        fields = [Number(at, 1, "big") for at in range(place + 4, min(end, place + 24))]
        if marker in range(0xC0, 0xC3):
            fields += [Number(place + 5, 2, "big"), Number(place + 7, 2, "big")] * 4
        yield Part(place, end, data[place : place + 2], (length,)), [length, *fields]
        content = place + 4
        if data[content : content + 6] == b"Exif\0\0":
            yield from _tiff(data, content + 6)
        elif data[content : content + 4] == b"MPF\0":
            yield from _tiff(data, content + 4)
        elif data[content : content + 12] == b"ICC_PROFILE\0":
            yield from _icc(data, content + 14)
        place = max(end, place + 2)


def _png(data: bytes) -> Found:
    place = 8
    while place + 12 <= len(data):
        length = Number(place, 4, "big")
        size = int.from_bytes(data[place : place + 4], "big")
        end = min(place + 12 + size, len(data))
        kind = data[place + 4 : place + 8]
        numbers = [length]
        if kind != b"IDAT":
            numbers += [Number(at, 1, "big") for at in range(place + 8, min(end - 4, place + 40))]
            numbers += [Number(at, 4, "big") for at in range(place + 8, min(end - 7, place + 34), 4)]
        yield Part(place, end, kind, (length,)), numbers
        if kind == b"eXIf":
            yield from _tiff(data, place + 8)
        place = max(end, place + 12)


def _riff(data: bytes, place: int, end: int, around: tuple[Number, ...]) -> Found:
    while place + 8 <= end:
        length = Number(place + 4, 4, "little")
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        stop = min(place + 8 + size + size % 2, end)
        kind = data[place : place + 4]
        numbers = [length, *(Number(at, 1, "little") for at in range(place + 8, min(stop, place + 28)))]
        yield Part(place, stop, kind, (length, *around)), numbers
        if kind == b"ANMF":
            yield from _riff(data, place + 24, stop, (length, *around))
        elif kind == b"EXIF":
            yield from _tiff(data, place + 8)
        elif kind == b"ICCP":
            yield from _icc(data, place + 8)
        place = max(stop, place + 8)


def _tiff(data: bytes, base: int) -> Found:
    """Directories, from a structure that begins at `base`."""
    order: Literal["big", "little"] = "little" if data[base : base + 2] == b"II" else "big"
    mark = "<" if order == "little" else ">"
    yield Part(base, base + 8, b"tiff"), [Number(base + 4, 4, order)]
    seen: set[int] = set()
    todo = [int.from_bytes(data[base + 4 : base + 8], order)]
    while todo and len(seen) < 16:
        place = base + todo.pop()
        if place in seen or place + 2 > len(data):
            continue
        seen.add(place)
        (count,) = struct.unpack_from(mark + "H", data, place)
        yield Part(place, min(place + 6 + 12 * count, len(data)), b"ifd"), [Number(place, 2, order)]
        for entry in range(place + 2, min(place + 2 + 12 * min(count, 100), len(data) - 12), 12):
            tag, kind, length, value = struct.unpack_from(mark + "HHII", data, entry)
            numbers = [Number(entry, 2, order), Number(entry + 2, 2, order), Number(entry + 4, 4, order)]
            numbers += [Number(entry + 8, 4, order), Number(entry + 8, 2, order)]
            yield Part(entry, entry + 12, b"entry", (Number(place, 2, order, 12),)), numbers
            size = length * _TYPE_SIZES.get(kind, 1)
            if size > 4 and base + value + size <= len(data):
                width = min(_TYPE_SIZES.get(kind, 1), 4)
                inner = [Number(base + value + at, width, order) for at in range(0, min(size, 16 * width), width)]
                yield Part(base + value, base + value + size, b"value"), inner
            if tag in (0x8769, 0x8825, 0xA005, 330):
                todo.append(value)
        link = place + 2 + 12 * count
        if link + 4 <= len(data):
            yield Part(link, link + 4, b"next"), [Number(link, 4, order)]
            todo.append(int.from_bytes(data[link : link + 4], order))


def _boxes(data: bytes, place: int, end: int, around: tuple[Number, ...]) -> Found:
    while place + 8 <= end:
        length = Number(place, 4, "big")
        size = int.from_bytes(data[place : place + 4], "big") or end - place
        stop = min(place + max(size, 8), end)
        kind = data[place + 4 : place + 8]
        numbers = [length]
        if kind not in (b"mdat", b"idat"):
            numbers += [Number(at, 1, "big") for at in range(place + 4, min(stop, place + 64))]
            numbers += [Number(at, 2, "big") for at in range(place + 8, min(stop, place + 64) - 1, 2)]
            numbers += [Number(at, 4, "big") for at in range(place + 8, min(stop, place + 64) - 3, 4)]
        yield Part(place, stop, kind, (length, *around)), numbers
        if kind in _NESTING_BOXES:
            inside = place + 8 + {b"meta": 4, b"iinf": 6, b"iref": 4}.get(kind, 0)
            yield from _boxes(data, inside, stop, (length, *around))
        elif kind == b"colr" and data[place + 8 : place + 12] in (b"prof", b"rICC"):
            yield from _icc(data, place + 12)
        place = stop


def _icc(data: bytes, base: int) -> Found:
    count = Number(base + 128, 4, "big")
    yield Part(base, base + 132, b"icc"), [count, *(Number(base + at, 4, "big") for at in range(0, 84, 4))]
    for entry in range(
        base + 132, min(base + 132 + 12 * int.from_bytes(data[base + 128 : base + 132], "big"), len(data)), 12
    ):
        offset, size = (int.from_bytes(data[entry + skip : entry + skip + 4], "big") for skip in (4, 8))
        yield (
            Part(entry, entry + 12, b"tag", (replace(count, unit=12),)),
            [Number(entry + 4, 4, "big"), Number(entry + 8, 4, "big")],
        )
        start, end = base + offset, min(base + offset + size, len(data))
        if start < end:
            numbers = [Number(at, 4, "big") for at in range(start, min(end - 3, start + 64), 4)]
            numbers += [Number(at, 2, "big") for at in range(start + 8, min(end - 1, start + 32), 2)]
            yield Part(start, end, data[start : start + 4]), numbers
        if entry > base + 132 + 12 * 100:
            return


def _zip(data: bytes) -> Found:
    place = 0
    heads = {
        b"PK\3\4": (30, (26, 28), ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
        b"PK\1\2": (46, (28, 30, 32), ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2),
        (38, 4), (42, 4))),
        b"PK\5\6": (22, (20,), ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
    }  # fmt: skip
    while (place := data.find(b"PK", place)) >= 0:
        kind = data[place : place + 4]
        if kind not in heads:
            place += 2
            continue
        head, lengths, fields = heads[kind]
        end = place + head + sum(int.from_bytes(data[place + at : place + at + 2], "little") for at in lengths)
        if kind == b"PK\3\4":
            end += int.from_bytes(data[place + 18 : place + 22], "little")
        end = min(end, len(data))
        yield Part(place, end, kind), [Number(place + at, width, "little") for at, width in fields]
        place = max(end, place + 4)
