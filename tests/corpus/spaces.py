"""What a file says of its colours without a profile, as a profile: cICP and gAMA in PNG, nclx in HEIC and AVIF."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tests import profiles

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PRIMARIES: Final = {
    1: [(0.64, 0.33), (0.3, 0.6), (0.15, 0.06)],
    4: [(0.67, 0.33), (0.21, 0.71), (0.14, 0.08)],
    5: [(0.64, 0.33), (0.29, 0.6), (0.15, 0.06)],
    6: [(0.63, 0.34), (0.31, 0.595), (0.155, 0.07)],
    7: [(0.63, 0.34), (0.31, 0.595), (0.155, 0.07)],
    9: [(0.708, 0.292), (0.17, 0.797), (0.131, 0.046)],
    11: [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)],
    12: [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)],
    22: [(0.63, 0.34), (0.295, 0.605), (0.155, 0.077)],
}
"""Chromaticities of red, green and blue by ITU-T H.273, table 2."""
_WHITES: Final = {4: (0.31, 0.316), 11: (0.314, 0.351)}
_D65: Final = (0.3127, 0.329)
_BT709: Final = (1, 6, 11, 14, 15)
_HDR: Final = (16, 18)
_NEAR_SRGB: Final = 0.05
"""By how much, as a share, a gamma may differ from 1/2.2 and still mean sRGB's curve; libpng's own threshold."""


@dataclass(frozen=True)
class Space:
    """What a file says of its colours outside a profile.

    Attributes:
        profile: an ICC profile of that; None for sRGB's, or where nothing is said.
        hdr: whether it is PQ or HLG.
    """

    profile: bytes | None = None
    hdr: bool = False


def space_of(data: bytes) -> Space:
    """Read it from a whole file of any format."""
    try:
        if data.startswith(_PNG):
            return _of_png(data)
        if data[4:8] == b"ftyp":
            return _of_heif(data)
    except (struct.error, IndexError, ValueError, ZeroDivisionError, np.linalg.LinAlgError):
        pass  # broken: the decoders say what they make of it
    return Space()


def _of_png(data: bytes) -> Space:
    chunks: dict[bytes, bytes] = {}
    place = 8
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if kind in (b"IDAT", b"IEND"):
            break
        chunks.setdefault(kind, data[place + 8 : place + 8 + size])
        place += 12 + size
    if b"cICP" in chunks:
        return _coded(chunks[b"cICP"][0], chunks[b"cICP"][1])
    if b"iCCP" in chunks or b"sRGB" in chunks or b"gAMA" not in chunks:
        return Space()
    exponent = struct.unpack(">I", chunks[b"gAMA"])[0] / 100_000
    near = abs(exponent * 2.2 - 1) <= _NEAR_SRGB
    curve = profiles.power(1 / exponent)
    if len(chunks.get(b"cHRM", b"")) != 32:
        return Space(None if near else _profile(_PRIMARIES[1], curve, _D65))
    values = [value / 100_000 for value in struct.unpack(">8I", chunks[b"cHRM"])]
    white, *primaries = zip(values[::2], values[1::2], strict=True)
    same = np.allclose([white, *primaries], [_D65, *_PRIMARIES[1]], atol=0.002)
    return Space(None if near and same else _profile(primaries, curve, white))


def _coded(primaries: int, transfer: int) -> Space:
    """A space by its numbers of H.273."""
    if transfer in _HDR:
        return Space(hdr=True)
    known = primaries if primaries in _PRIMARIES else 1
    if transfer in _BT709:
        curve = profiles.table(lambda v: np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45)), 4096)
    elif transfer in (4, 5):
        curve = profiles.gamma(2.2 if transfer == 4 else 2.8)
    elif transfer == 8:
        curve = profiles.gamma(1)
    else:
        curve = profiles.srgb_curve()
        if known == 1:
            return Space()
    return Space(_profile(_PRIMARIES[known], curve, _WHITES.get(known, _D65)))


def _profile(primaries: list[tuple[float, float]], curve: bytes, white: tuple[float, float]) -> bytes:
    x, y = white
    return profiles.matrix_profile(primaries, curve, np.array([x / y, 1, (1 - x - y) / y]))


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box (ISO/IEC 14496-12, 4.2)."""
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, place + 8)[0], 16
        end = place + size if size else len(data)
        if size and size < head:
            return
        yield kind, data[place + head : end]
        place = end


def _of_heif(data: bytes) -> Space:
    """By nclx of the primary item, where it has no ICC profile."""
    meta = next((content for kind, content in _boxes(data) if kind == b"meta"), None)
    if meta is None:
        return Space()
    parts = dict(_boxes(meta[4:]))
    primary = int.from_bytes(parts[b"pitm"][4:] if b"pitm" in parts else b"")
    properties = dict(_boxes(parts.get(b"iprp", b"")))
    listed = list(_boxes(properties.get(b"ipco", b"")))
    for index in _associated(properties.get(b"ipma", b""), primary):
        kind, content = listed[index - 1]
        if kind == b"colr" and content[:4] == b"nclx":
            return _coded(*struct.unpack_from(">HH", content, 4))
    return Space()


def _associated(box: bytes, item: int) -> list[int]:
    """Numbers of an item's properties, from 1."""
    if not box:
        return []
    version, wide = box[0], box[3] & 1
    place = 8
    for _ in range(struct.unpack_from(">I", box, 4)[0]):
        size = 2 if version == 0 else 4
        number, count = int.from_bytes(box[place : place + size]), box[place + size]
        place += size + 1
        step = 2 if wide else 1
        entries = [int.from_bytes(box[at : at + step]) for at in range(place, place + count * step, step)]
        if number == item:
            return [entry & (0x7FFF if wide else 0x7F) for entry in entries]
        place += count * step
    return []
