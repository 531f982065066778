"""AVIF: what Pillow doesn't say of a file: its colours by numbers, sampling, cut and turns, and the coded sizes.

A decoder would scale pictures to the sizes that the file claims. Boxes are ISO/IEC 14496-12's and 23008-12's, the coded
size is in AV1's sequence header (AV1, 5.5).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.metadata import Sampling

_MOST_BOXES: Final = 4096
"""Of one file; each costs a step."""
_MOST_TRACKS: Final = 16
_MOST_PROPERTIES: Final = 1 << 16
"""Of all items together."""
_MOST_EXTENTS: Final = 1 << 16
"""Of one file, with the items that have them; they may take no bytes."""
_SEQUENCE_HEADER: Final = 1
_SAMPLE_ENTRY: Final = 78
"""Bytes of a track's description before its boxes."""
_HEAD: Final = 512
"""Bytes of a coded picture that hold its sequence header."""


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("it ends early")
        return self._number >> self._left & (1 << count) - 1


_Box = tuple[bytes, int, int]
"""A box's kind, where its content begins and where it ends."""


@dataclass
class _Item:
    kind: bytes
    properties: list[_Box] = field(default_factory=list)
    start: bytes = b""


@dataclass(frozen=True)
class Found:
    """What a file says of its picture.

    Attributes:
        numbers: colour primaries and transfer characteristics (ITU-T H.273), None where it says nothing.
        sampling: of colour differences, None for grey and where it can't be told.
        steps: the contents of the boxes `clap`, `irot` and `imir` that are to be applied, in their order.
        pixels: how many it claims before it is cut, 0 where it says nothing.
    """

    numbers: tuple[int, int] | None = None
    sampling: Sampling | None = None
    steps: tuple[tuple[bytes, bytes], ...] = ()
    pixels: int = 0


def read_header(data: bytes) -> Found:
    """Read what a file says of its picture; what is broken says nothing."""
    try:
        properties, start = _picture(data)
        content = {kind: data[a:b] for kind, a, b in reversed(properties)}
        numbers = _numbers(data, properties) or _sequence_of(start).numbers
        # by the three bits of AV1's configuration: grey alone, halved in a row, halved in a column
        samplings: dict[int, Sampling] = {0: "4:4:4", 2: "4:2:2", 3: "4:2:0"}
        sampling = samplings.get(content[b"av1C"][2] >> 2 & 7) if b"av1C" in content else None
        steps = tuple((kind, data[a:b]) for kind, a, b in properties if kind in (b"clap", b"irot", b"imir"))
        width, height = struct.unpack_from(">II", content.get(b"ispe", bytes(12)), 4)
        return Found(numbers, sampling, steps, width * height)
    except (ValueError, IndexError, KeyError, struct.error):
        return Found()


def upright(samples: npt.NDArray[Any], found: Found) -> npt.NDArray[Any]:
    """Cut and turn (H, W) or (H, W, C) as the file says; a view. A cut that leaves the picture is none."""
    for kind, content in found.steps:
        if kind == b"irot" and content:
            samples = np.rot90(samples, content[0] & 3)
        elif kind == b"imir" and content:
            samples = samples[:, ::-1] if content[0] & 1 else samples[::-1]
        elif kind == b"clap" and len(content) == 32:
            samples = _cut(samples, content)
    return samples


def _cut(samples: npt.NDArray[Any], content: bytes) -> npt.NDArray[Any]:
    """Apply a clean aperture: width, height and how far its centre is from the picture's, as fractions."""
    values = struct.unpack(">IIIIiIiI", content)
    if not all(values[1::2]):
        return samples
    spans = []
    for whole, side, away in ((samples.shape[0], 2, 6), (samples.shape[1], 0, 4)):
        length = values[side] // values[side + 1]
        # half the difference, and the distance, rounded down
        first = ((whole - length) * values[away + 1] + 2 * values[away]) // (2 * values[away + 1])
        if not 0 <= first < first + length <= whole:
            return samples
        spans.append(slice(first, first + length))
    return samples[spans[0], spans[1]]


def _picture(data: bytes) -> tuple[list[_Box], bytes]:
    """Return the properties of the picture that is decoded, and where its first coded piece begins."""
    boxes = _top(data)
    if data[8:12] == b"avis" and b"moov" in boxes:
        return next(_tracks(data, *boxes[b"moov"]))[1:]
    inside = {kind: (a, b) for kind, a, b in _boxes(data, boxes[b"meta"][0] + 4, boxes[b"meta"][1])}
    items = _items(data, inside)
    a, _ = inside[b"pitm"]
    number = struct.unpack_from(">I" if data[a] else ">H", data, a + 4)[0]
    item = items[number]
    properties = item.properties
    if item.kind != b"av01":  # a grid, coded in tiles
        item = items[_first_part(data, *inside[b"iref"], number)]
        properties = properties + [box for box in item.properties if box[0] == b"av1C"]
    return properties, item.start


def _first_part(data: bytes, start: int, end: int, number: int) -> int:
    """The first of the items that another one is derived from."""
    form, size = (">I", 4) if data[start] else (">H", 2)
    for kind, a, _ in _boxes(data, start + 4, end):
        if kind == b"dimg" and struct.unpack_from(form, data, a)[0] == number:
            return int(struct.unpack_from(form, data, a + size + 2)[0])
    raise ValueError("it is derived from nothing")


def _numbers(data: bytes, properties: list[_Box]) -> tuple[int, int] | None:
    for kind, a, b in properties:
        if kind == b"colr" and data[a : a + 4] == b"nclx" and b - a >= 8:
            primaries, transfer = struct.unpack_from(">HH", data, a + 4)
            return primaries, transfer
    return None


def sizes_agree(data: bytes) -> bool:
    """Whether each coded picture of a file has the size that the file says it has; False where that can't be told."""
    try:
        boxes = _top(data)
        if b"moov" in boxes and any(
            size != _sequence_of(start).size for size, _, start in _tracks(data, *boxes[b"moov"])
        ):
            return False
        if b"meta" not in boxes:
            return b"moov" in boxes
        inside = {kind: (a, b) for kind, a, b in _boxes(data, boxes[b"meta"][0] + 4, boxes[b"meta"][1])}
        for item in _items(data, inside).values():
            sizes = {struct.unpack_from(">II", data, a + 4) for kind, a, _ in item.properties if kind == b"ispe"}
            if item.kind == b"av01" and sizes != {_sequence_of(item.start).size}:
                return False
    except (ValueError, IndexError, KeyError, struct.error):
        return False
    return True


def _top(data: bytes) -> dict[bytes, tuple[int, int]]:
    """The file's own boxes, the first of each kind; cameras put things of their own behind them."""
    found: dict[bytes, tuple[int, int]] = {}
    try:
        for kind, start, end in _boxes(data, 0, len(data)):
            found.setdefault(kind, (start, end))
    except ValueError:
        pass
    return found


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if size == 0 else start + size
        if not content <= stop <= end:
            raise ValueError("a box leaves the one around it")
        yield kind, content, stop
        start = stop
    raise ValueError("too many boxes")


def _within(data: bytes, start: int, end: int, *path: bytes) -> tuple[int, int]:
    for kind in path:
        start, end = next(((a, b) for name, a, b in _boxes(data, start, end) if name == kind), (0, 0))
        if not end:
            raise ValueError("a box is missing")
    return start, end


def _items(data: bytes, inside: dict[bytes, tuple[int, int]]) -> dict[int, _Item]:
    items: dict[int, _Item] = {}
    a, b = inside[b"iinf"]
    for kind, entry, _ in _boxes(data, a + (6 if data[a] == 0 else 8), b):
        if kind == b"infe":
            wide = data[entry] > 2
            (number,) = struct.unpack_from(">I" if wide else ">H", data, entry + 4)
            name = entry + (10 if wide else 8)
            items[number] = _Item(data[name : name + 4])
    _find_properties(data, *inside[b"iprp"], items)
    store = inside.get(b"idat", (0, 0))
    for number, way, extents in _places(data, *inside[b"iloc"]):
        if number in items and items[number].kind == b"av01":
            shift, limit = store if way == 1 else (0, len(data))
            ends = [min(shift + at + (size or limit), limit, shift + at + _HEAD) for at, size in extents[:8]]
            pieces = [data[shift + at : stop] for (at, _), stop in zip(extents, ends, strict=False)]
            items[number].start = b"".join(pieces)[:_HEAD]
    return items


def _find_properties(data: bytes, start: int, end: int, items: dict[int, _Item]) -> None:
    properties = list(_boxes(data, *_within(data, start, end, b"ipco")))
    a, b = _within(data, start, end, b"ipma")
    large, wide = data[a] > 0, data[a + 3] & 1
    (count,) = struct.unpack_from(">I", data, a + 4)
    if count > _MOST_BOXES:
        raise ValueError("too many associations")
    place, left = a + 8, _MOST_PROPERTIES
    for _ in range(count):
        (number,) = struct.unpack_from(">I" if large else ">H", data, place)
        place += 4 if large else 2
        left -= data[place]
        if left < 0:
            raise ValueError("too many associations")
        for step in range(data[place]):
            at = place + 1 + step * (2 if wide else 1)
            index = struct.unpack_from(">H", data, at)[0] & 0x7FFF if wide else data[at] & 0x7F
            if index and number in items:
                items[number].properties.append(properties[index - 1])
        place += 1 + data[place] * (2 if wide else 1)
        if place > b:
            raise ValueError("the associations end early")


def _places(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Each item's number, the way that its places are counted, and its places with their lengths."""
    version, sizes = data[start], struct.unpack_from(">H", data, start + 4)[0]
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    place = start + 6

    def number(size: int) -> int:
        nonlocal place
        place += size
        if place > end:
            raise ValueError("the places end early")
        return int.from_bytes(data[place - size : place], "big")

    left = _MOST_EXTENTS
    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        way = number(2) & 15 if version else 0
        number(2)
        base, count, extents = number(base_size), number(2), []
        left -= 1 + count
        if left < 0:
            raise ValueError("too many extents")
        for _ in range(count):
            number(index_size if version else 0)
            extents.append((base + number(offset_size), number(length_size)))
        yield item, way, extents


def _tracks(data: bytes, start: int, end: int) -> Iterator[tuple[tuple[int, int], list[_Box], bytes]]:
    """The tracks of pictures: the size that each claims, its properties, and where its first picture begins."""
    left = _MOST_TRACKS
    for kind, a, b in _boxes(data, start, end):
        if kind == b"trak":
            left -= 1
            if left < 0:
                raise ValueError("too many tracks")
            table = _within(data, a, b, b"mdia", b"minf", b"stbl")
            inside = {name: (at, to) for name, at, to in _boxes(data, *table)}
            name, entry, entry_end = next(_boxes(data, inside[b"stsd"][0] + 8, inside[b"stsd"][1]))
            if name != b"av01":  # sound, or text
                continue
            _, head_end = _within(data, a, b, b"tkhd")
            width, height = struct.unpack_from(">II", data, head_end - 8)
            wide = b"co64" in inside
            at, _ = inside[b"co64" if wide else b"stco"]
            (first,) = struct.unpack_from(">Q" if wide else ">I", data, at + 8)
            properties = list(_boxes(data, entry + _SAMPLE_ENTRY, entry_end))
            yield (width >> 16, height >> 16), properties, data[first : first + _HEAD]


@dataclass(frozen=True)
class _Sequence:
    """What a sequence header says: width and height, and colour primaries and transfer characteristics."""

    size: tuple[int, int]
    numbers: tuple[int, int] | None


def _sequence_of(coded: bytes) -> _Sequence:
    """Read the sequence header among AV1's open bitstream units (AV1, 5.3)."""
    place = 0
    while place < len(coded):
        mark = coded[place]
        place += 2 if mark & 4 else 1
        if not mark & 2:
            size = len(coded) - place
        else:
            size = shift = 0
            while True:
                size |= (coded[place] & 127) << shift
                shift, place = shift + 7, place + 1
                if not coded[place - 1] & 128:
                    break
        if mark >> 3 & 15 == _SEQUENCE_HEADER:
            return _sequence(_Bits(coded[place : place + size]))
        place += size
    raise ValueError("no sequence header")


def _sequence(bits: _Bits) -> _Sequence:
    profile = bits.take(3)
    bits.take(1)
    reduced = bits.take(1)
    if reduced:  # a still picture's short header
        bits.take(5)
    else:
        _pass_operating_points(bits)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    size = bits.take(wide) + 1, bits.take(high) + 1
    _pass_tools(bits, reduced)
    deep = bits.take(1)
    if profile == 2 and deep:
        bits.take(1)
    if profile != 1:
        bits.take(1)
    return _Sequence(size, (bits.take(8), bits.take(8)) if bits.take(1) else None)


def _pass_tools(bits: _Bits, reduced: int) -> None:
    if not reduced and bits.take(1):  # frame numbers
        bits.take(7)
    bits.take(3)
    if not reduced:
        bits.take(4)
        order = bits.take(1)
        bits.take(2 * order)
        # for screens: chosen by each frame, or by a bit; whole vectors likewise, where there is something for screens
        if (bits.take(1) or bits.take(1)) and not bits.take(1):
            bits.take(1)
        bits.take(3 * order)
    bits.take(3)


def _pass_operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            zeros = 0
            while not bits.take(1):
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder model
            delay = bits.take(5) + 1
            bits.take(42)
    display = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if display and bits.take(1):
            bits.take(4)
