"""Valid files made invalid in ways that reach past the first check: by their structure, with sums put right again."""

import random
import struct
import zlib
from collections.abc import Sequence

from tests.fuzz.structure import Number, Part, structure_of

_SMALL = (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 255, 256, 257)
_LARGEST = 1 << 20
"""Bytes of an input; what takes longer is a question of size, which the hostile corpus asks."""


def mutated(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Change a file in one to six ways.

    Args:
        data: a valid file.
        others: further ones, from which parts are taken.
        chance: decides.
    """
    for _ in range(min(1 + int(chance.expovariate(0.7)), 6)):
        data = chance.choices(_WAYS, _WEIGHTS)[0](data, others, chance)[:_LARGEST]
    if data.startswith(b"\x89PNG") and chance.random() < 0.9:
        data = _with_sums(data)
    if data.startswith(b"RIFF") and chance.random() < 0.8:
        data = data[:4] + struct.pack("<I", max(len(data) - 8, 0)) + data[8:]
    return data


def _flip(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    changed = bytearray(data)
    within = len(data) if chance.random() < 0.5 else min(len(data), 1024)
    for place in chance.choices(range(within), k=chance.choice((1, 1, 2, 4, 16))) if within else ():
        changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _lie(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    """Change numbers: lengths, offsets, counts, sizes, types."""
    numbers = structure_of(data).numbers
    if not numbers:
        return _flip(data, (), chance)
    changed = bytearray(data)
    for each in chance.choices(numbers, k=chance.choice((1, 1, 1, 2, 3))):
        most = (1 << 8 * each.width) - 1
        now = int.from_bytes(changed[each.place : each.place + each.width], each.order)
        value = chance.choice((
            chance.choice(_SMALL), most, most >> 1, (most >> 1) + 1, now + chance.randint(-8, 8), now * 2, now // 2,
            now ^ (1 << chance.randrange(8 * each.width)), len(data), len(data) - each.place, chance.randint(0, most),
            most - chance.choice(_SMALL), 65_535, 65_536, 0x7FFFFFFF // chance.choice((1, 2, 3, 4, 12)),
        ))  # fmt: skip
        changed[each.place : each.place + each.width] = (value & most).to_bytes(each.width, each.order)
    return bytes(changed)


def _splice(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Take a part out, put one in, repeat it, or swap two."""
    parts = structure_of(data).parts
    if not parts:
        return _cut(data, others, chance)
    part = chance.choice(parts)
    content = data[part.start : part.end]
    way = chance.randrange(6)
    if way == 0:
        return _replaced(data, part, b"")
    if way == 1:
        times = chance.choice((2, 2, 3, 10, 300))
        return _replaced(data, part, content * max(min(times, _LARGEST // max(len(content), 1)), 1))
    if way in (2, 3):
        other = chance.choice(others) if others else data
        offered = structure_of(other).parts
        same = [each for each in offered if each.kind == part.kind] if way == 2 else offered
        if not same:
            return data
        taken = chance.choice(same)
        piece = other[taken.start : taken.end]
        return _replaced(data, part, piece if chance.random() < 0.6 else content + piece)
    if way == 4:
        second = chance.choice(parts)
        first, second = sorted((part, second), key=lambda each: each.start)
        if first.end > second.start:
            return data
        return (
            data[: first.start] + data[second.start : second.end] + data[first.end : second.start]
            + data[first.start : first.end] + data[second.end :]
        )  # fmt: skip
    return _replaced(data, part, content[: chance.randint(0, len(content))])


def _replaced(data: bytes, part: Part, content: bytes) -> bytes:
    """Put other content in a part's place; the lengths around it follow, its own as well unless it is gone."""
    changed = bytearray(data)
    grown = len(content) - (part.end - part.start)
    for each in part.sizes:
        if each.place < part.start or content:
            _add(changed, each, grown)
    head = changed[part.start : min(part.start + 8, part.end)]
    changed[part.start : part.end] = content
    if content.startswith(bytes(data[part.start : min(part.start + 8, part.end)])):
        changed[part.start : part.start + len(head)] = head
    return bytes(changed)


def _add(changed: bytearray, number: Number, by: int) -> None:
    here = slice(number.place, number.place + number.width)
    value = int.from_bytes(changed[here], number.order) + by // number.unit
    if 0 <= value < 1 << 8 * number.width:
        changed[here] = value.to_bytes(number.width, number.order)


def _cut(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    """End early, at a part's edge or anywhere."""
    parts = structure_of(data).parts
    if parts and chance.random() < 0.7:
        part = chance.choice(parts)
        return data[: max(chance.choice((part.start, part.end)) + chance.choice((0, 0, -1, 1, 4, 8)), 0)]
    return data[: chance.randint(0, len(data))]


def _overwrite(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    """Write noise, zeros or ones over a stretch, or push it in between."""
    place = chance.randint(0, len(data))
    length = chance.choice((1, 2, 4, 8, 64, 512))
    noise = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length), data[place : place + length]))
    return data[:place] + noise + data[place + (length if chance.random() < 0.7 else 0) :]


def _cross(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """One file's beginning, another's end."""
    other = chance.choice(others) if others else data
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


def _repack(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Change what a PNG's chunk has packed, and pack it again."""
    parts = [each for each in structure_of(data).parts if each.kind in (b"IDAT", b"iCCP", b"zTXt", b"iTXt", b"fdAT")]
    if not data.startswith(b"\x89PNG") or not parts:
        return _lie(data, others, chance)
    part = chance.choice(parts)
    content = data[part.start + 8 : part.end - 4]
    start = content.find(b"\x78")  # how zlib's streams begin
    try:
        plain = zlib.decompress(content[start:]) if start >= 0 else b""
    except zlib.error:
        return data
    changed = chance.choice((_flip, _lie, _overwrite, _cut))(plain, (), chance)
    if chance.random() < 0.1:
        changed += bytes(chance.choice((1, 1000, 1 << 22)))
    return _replaced(data, part, data[part.start : part.start + 8] + content[:start] + zlib.compress(changed) + b"sum!")


def _with_sums(data: bytes) -> bytes:
    """Put a PNG's check sums right, so that what was changed is read."""
    changed, place = bytearray(data), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        changed[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(changed)


_WAYS = (_flip, _lie, _splice, _cut, _overwrite, _cross, _repack)
_WEIGHTS = (4, 8, 6, 2, 3, 1, 2)
