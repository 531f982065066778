"""AVIF: whether the coded pictures are as large as the file says, which a decoder would else scale them to.

Boxes are ISO/IEC 14496-12's and 23008-12's, the coded size is in AV1's sequence header (AV1, 5.5).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_MOST_BOXES: Final = 4096
"""Of one file; each costs a step."""
_SEQUENCE_HEADER: Final = 1
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


@dataclass
class _Item:
    coded: bool = False
    sizes: set[tuple[int, int]] = field(default_factory=set)
    start: bytes = b""


def sizes_agree(data: bytes) -> bool:
    """Whether each coded picture of a file has the size that the file says it has; False where that can't be told."""
    try:
        boxes = _top(data)
        if b"moov" in boxes and not _tracks_agree(data, *boxes[b"moov"]):
            return False
        if b"meta" not in boxes:
            return b"moov" in boxes
        items = _items(data, boxes[b"meta"][0] + 4, boxes[b"meta"][1])
        return all(item.sizes == {_coded_size(item.start)} for item in items if item.coded)
    except (ValueError, IndexError, KeyError, struct.error):
        return False


def _top(data: bytes) -> dict[bytes, tuple[int, int]]:
    """The file's own boxes, the first of each kind; cameras put things of their own behind them."""
    found: dict[bytes, tuple[int, int]] = {}
    try:
        for kind, start, end in _boxes(data, 0, len(data)):
            found.setdefault(kind, (start, end))
    except ValueError:
        pass
    return found


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes there: kind, where the content begins and where it ends."""
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


def _items(data: bytes, start: int, end: int) -> list[_Item]:
    inside = {kind: (a, b) for kind, a, b in _boxes(data, start, end)}
    items: dict[int, _Item] = {}
    a, b = inside[b"iinf"]
    for kind, entry, _ in _boxes(data, a + (6 if data[a] == 0 else 8), b):
        if kind == b"infe":
            wide = data[entry] > 2
            (number,) = struct.unpack_from(">I" if wide else ">H", data, entry + 4)
            name = entry + (10 if wide else 8)
            items[number] = _Item(coded=data[name : name + 4] == b"av01")
    _find_sizes(data, *inside[b"iprp"], items)
    store = inside.get(b"idat", (0, 0))
    for number, way, extents in _places(data, *inside[b"iloc"]):
        if number in items and items[number].coded:
            shift, limit = store if way == 1 else (0, len(data))
            ends = [min(shift + at + (size or limit), limit, shift + at + _HEAD) for at, size in extents[:8]]
            pieces = [data[shift + at : stop] for (at, _), stop in zip(extents, ends, strict=False)]
            items[number].start = b"".join(pieces)[:_HEAD]
    return list(items.values())


def _find_sizes(data: bytes, start: int, end: int, items: dict[int, _Item]) -> None:
    properties = list(_boxes(data, *_within(data, start, end, b"ipco")))
    a, b = _within(data, start, end, b"ipma")
    large, wide = data[a] > 0, data[a + 3] & 1
    (count,) = struct.unpack_from(">I", data, a + 4)
    place = a + 8
    for _ in range(count):
        (number,) = struct.unpack_from(">I" if large else ">H", data, place)
        place += 4 if large else 2
        for step in range(data[place]):
            at = place + 1 + step * (2 if wide else 1)
            index = struct.unpack_from(">H", data, at)[0] & 0x7FFF if wide else data[at] & 0x7F
            kind, content, _ = properties[index - 1] if index else (b"", 0, 0)
            if kind == b"ispe" and number in items:
                items[number].sizes.add(struct.unpack_from(">II", data, content + 4))
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

    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        way = number(2) & 15 if version else 0
        number(2)
        base, extents = number(base_size), []
        for _ in range(number(2)):
            number(index_size if version else 0)
            extents.append((base + number(offset_size), number(length_size)))
        yield item, way, extents


def _tracks_agree(data: bytes, start: int, end: int) -> bool:
    for kind, a, b in _boxes(data, start, end):
        if kind == b"trak":
            _, head_end = _within(data, a, b, b"tkhd")
            claimed = struct.unpack_from(">II", data, head_end - 8)
            table = _within(data, a, b, b"mdia", b"minf", b"stbl")
            places = {name: at for name, at, _ in _boxes(data, *table)}
            wide = b"co64" in places
            (first,) = struct.unpack_from(">Q" if wide else ">I", data, places[b"co64" if wide else b"stco"] + 8)
            if _coded_size(data[first : first + _HEAD]) != (claimed[0] >> 16, claimed[1] >> 16):
                return False
    return True


def _coded_size(coded: bytes) -> tuple[int, int]:
    """Width and height in the sequence header of AV1's open bitstream units (AV1, 5.3)."""
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
            return _sequence_size(_Bits(coded[place : place + size]))
        place += size
    raise ValueError("no sequence header")


def _sequence_size(bits: _Bits) -> tuple[int, int]:
    bits.take(4)
    if bits.take(1):  # a still picture's short header
        bits.take(5)
    else:
        _pass_operating_points(bits)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(wide) + 1, bits.take(high) + 1


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
