"""ICC profiles: tags and curves read, and one profile written (ICC.1:2022)."""

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]

NODES: Final = np.arange(65_536) / 65_535
"""Samples in 16 bits, from 0 to 1."""
_P3_TO_XYZ: Final = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
"""Linear Display P3 to XYZ under D50, as in Apple's own profile."""


@lru_cache(maxsize=1)
def display_p3() -> bytes:
    """Write a profile of Display P3, for files that name it by a number (ICC.1:2022, 7 and 8.3)."""

    def fixed(*values: float) -> bytes:
        return b"".join(round(value * 65_536).to_bytes(4, "big", signed=True) for value in values)

    def text(words: str) -> bytes:
        encoded = words.encode("utf-16-be")
        head = b"mluc" + bytes(4) + (1).to_bytes(4, "big") + (12).to_bytes(4, "big") + b"enUS"
        return head + len(encoded).to_bytes(4, "big") + (28).to_bytes(4, "big") + encoded

    curve = b"para\0\0\0\0\0\3\0\0" + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    tags = {b"desc": text("Display P3"), b"cprt": text("CC0"), b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    for name, column in zip((b"r", b"g", b"b"), _P3_TO_XYZ.T, strict=True):
        tags |= {name + b"XYZ": b"XYZ \0\0\0\0" + fixed(*column), name + b"TRC": curve}
    table, content, start = len(tags).to_bytes(4, "big"), b"", 132 + 12 * len(tags)
    for name, block in tags.items():
        table += name + (start + len(content)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
        content += block + bytes(-len(block) % 4)
    head = bytes(8) + b"\x04\x40\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    whole = head.ljust(128, b"\0") + table + content
    return len(whole).to_bytes(4, "big") + whole[4:]


def tags_of(profile: bytes) -> dict[bytes, bytes]:
    """Return a profile's tags (ICC.1:2022, 7.3)."""
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
        tags[profile[place : place + 4]] = profile[offset : offset + size]
    return tags


def curve_of(tag: bytes) -> Curve:
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


def _parametric(kind: int, parameters: bytes) -> Curve:
    count = (1, 3, 4, 5, 7)[kind]
    values = [float(value) / 65_536 for value in np.frombuffer(parameters, ">i4", count)]
    gamma, a, b, c, d, e, f = values + [1, 1, 0, 0, 0, 0, 0][count:]
    if kind in (1, 2):
        c, d, e, f = 0.0, -b / a, c, c
    with np.errstate(invalid="ignore"):
        power = np.maximum(a * NODES + b, 0) ** gamma + e
    return np.where(d <= NODES, power, c * NODES + f)
