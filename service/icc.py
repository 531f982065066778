"""ICC profiles: tags and curves read, and profiles of primaries and a curve written (ICC.1:2022)."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]

NODES: Final = np.arange(65_536) / 65_535
"""Samples in 16 bits, from 0 to 1."""
_D50: Final = (0.9642, 1.0, 0.8249)
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Point = tuple[float, float]
"""A chromaticity, x and y."""


@dataclass(frozen=True)
class Chromaticities:
    """What samples of red, green, blue and white look like."""

    red: Point
    green: Point
    blue: Point
    white: Point


SRGB: Final = Chromaticities((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290))


def rgb_profile(name: str, colours: Chromaticities, curve: bytes, peak: float = 1.0) -> bytes:
    """Write a profile of three primaries and one curve (ICC.1:2022, 8.3.3).

    Args:
        name: what programs show.
        colours: the chromaticities of the primaries and of white.
        curve: a tag that `parametric` or `table` writes.
        peak: the light of the highest sample, white's being 1: a curve ends at 1.

    Raises:
        ValueError: the primaries lie on a line or don't enclose white.
    """
    matrix, adaptation = to_xyz(colours)
    tags = {b"chad": b"sf32\0\0\0\0" + _fixed(*adaptation.ravel())}
    for letter, column in zip((b"r", b"g", b"b"), peak * matrix.T, strict=True):
        tags |= {letter + b"XYZ": b"XYZ \0\0\0\0" + _fixed(*column), letter + b"TRC": curve}
    return _written(b"RGB ", name, tags)


def grey_profile(name: str, curve: bytes) -> bytes:
    """Write a profile of grey samples (ICC.1:2022, 8.3.4)."""
    return _written(b"GRAY", name, {b"kTRC": curve})


def parametric(*values: float) -> bytes:
    """Write a curve y = x ** g, of (g), or y = (a x + b) ** g from d on and c x below, of (g, a, b, c, d)."""
    return b"para\0\0\0\0" + {1: b"\0\0", 5: b"\0\3"}[len(values)] + bytes(2) + _fixed(*values)


def table(curve: Curve) -> bytes:
    """Write a curve that is sampled at places of equal distance, in 0..1."""
    return b"curv\0\0\0\0" + len(curve).to_bytes(4, "big") + np.rint(curve * 65_535).astype(">u2").tobytes()


def to_xyz(colours: Chromaticities) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return linear RGB to XYZ under D50, by Bradford's adaptation, and the adaptation.

    Raises:
        ValueError: the primaries lie on a line or don't enclose white.
    """
    primaries = np.array([(x, y, 1 - x - y) for x, y in (colours.red, colours.green, colours.blue)]).T
    x, y = colours.white
    if y <= 0 or abs(np.linalg.det(primaries)) < 1e-4:
        raise ValueError("the primaries lie on a line")
    white = np.array([x, y, 1 - x - y]) / y
    shares = np.linalg.solve(primaries, white)
    if not (shares > 1e-4).all() or not (np.abs(white) < 10).all():
        raise ValueError("white lies outside the primaries")
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD
    return np.asarray(adaptation @ (primaries * shares)), np.asarray(adaptation)


def _fixed(*values: float) -> bytes:
    return b"".join(round(float(value) * 65_536).to_bytes(4, "big", signed=True) for value in values)


def _written(space: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    """Put a profile of version 4.4 together (ICC.1:2022, 7); tags of the same content share it."""

    def text(words: str) -> bytes:
        encoded = words.encode("utf-16-be")
        head = b"mluc" + bytes(4) + (1).to_bytes(4, "big") + (12).to_bytes(4, "big") + b"enUS"
        return head + len(encoded).to_bytes(4, "big") + (28).to_bytes(4, "big") + encoded

    tags = {b"desc": text(name), b"cprt": text("CC0"), b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50)} | tags
    entries, content, places = len(tags).to_bytes(4, "big"), b"", dict[bytes, int]()
    for kind, block in tags.items():
        if block not in places:
            places[block] = 132 + 12 * len(tags) + len(content)
            content += block + bytes(-len(block) % 4)
        entries += kind + places[block].to_bytes(4, "big") + len(block).to_bytes(4, "big")
    head = bytes(8) + b"\x04\x40\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(28) + _fixed(*_D50)
    whole = head.ljust(128, b"\0") + entries + content
    return len(whole).to_bytes(4, "big") + whole[4:]


def tags_of(profile: bytes) -> dict[bytes, memoryview]:
    """Return a profile's tags (ICC.1:2022, 7.3), which may overlap."""
    if profile[36:40] != b"acsp":
        raise ValueError("no profile")
    count = int.from_bytes(profile[128:132], "big")
    if not 0 < count <= 200:
        raise ValueError("no tags")
    tags = {}
    for place in range(132, 132 + 12 * count, 12):
        offset, size = (int.from_bytes(profile[place + skip : place + skip + 4], "big") for skip in (4, 8))
        if offset + size > len(profile):
            raise ValueError("a tag lies outside the profile")
        tags[profile[place : place + 4]] = memoryview(profile)[offset : offset + size]
    return tags


def curve_of(tag: bytes | memoryview) -> Curve:
    """Sample a curve (ICC.1:2022, 10.6 and 10.18) at 65536 places.

    Raises:
        ValueError: it falls, stays flat or is none.
    """
    if tag[:4] == b"curv":
        count = int.from_bytes(tag[8:12], "big")
        if count == 0:
            curve = NODES
        elif count == 1:
            curve = NODES ** (int.from_bytes(tag[12:14], "big") / 256)
        elif count > len(NODES):
            raise ValueError("more places than samples have levels")
        else:
            table = np.frombuffer(tag, ">u2", count, 12) / 65_535
            curve = np.interp(NODES, np.linspace(0, 1, count), table)
    elif tag[:4] == b"para":
        curve = _parametric(int.from_bytes(tag[8:10], "big"), tag[12:])
    else:
        raise ValueError("no curve")
    curve = np.clip(curve, 0, 1)
    if not np.isfinite(curve).all() or (np.diff(curve) < 0).any() or curve[-1] - curve[0] < 0.1:
        raise ValueError("the curve does not rise")
    return curve


def _parametric(kind: int, parameters: bytes | memoryview) -> Curve:
    count = (1, 3, 4, 5, 7)[kind]
    values = [float(value) / 65_536 for value in np.frombuffer(parameters, ">i4", count)]
    gamma, a, b, c, d, e, f = values + [1, 1, 0, 0, 0, 0, 0][count:]
    if kind in (1, 2):
        c, d, e, f = 0.0, -b / a, c, c
    with np.errstate(invalid="ignore"):
        power = np.maximum(a * NODES + b, 0) ** gamma + e
    return np.where(d <= NODES, power, c * NODES + f)
