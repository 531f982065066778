"""ICC profiles that tests write themselves, byte by byte (ICC.1:2022), so that none of another's is needed."""

import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

D50 = np.array([0.9642, 1.0, 0.8249])
D65 = np.array([0.95047, 1.0, 1.08883])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Floats = npt.NDArray[np.float64]


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65_536)) for value in values)


def profile(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """Put a profile together."""
    tags = {b"desc": _text("test"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": b"XYZ \0\0\0\0" + _fixed(*D50)} | tags
    place, table, content = 132 + 12 * len(tags), b"", b""
    for name, block in tags.items():
        table += name + struct.pack(">II", place + len(content), len(block))
        content += block + bytes(-len(block) % 4)
    head = struct.pack(">I4sI4s4s4s12s4s", 0, b"test", 0x02400000, kind, space, pcs, bytes(12), b"acsp")
    head += bytes(28) + _fixed(*D50)
    whole = head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content
    return struct.pack(">I", len(whole)) + whole[4:]


def _text(text: str) -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text.encode() + bytes(1 + 12 + 67)


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def power(exponent: float) -> bytes:
    return b"para\0\0\0\0\0\0\0\0" + _fixed(exponent)


def srgb_curve() -> bytes:
    return b"para\0\0\0\0\0\3\0\0" + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def table(function: Callable[[Floats], Floats], count: int = 1024) -> bytes:
    values = np.rint(function(np.linspace(0, 1, count)) * 65_535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", count) + values.tobytes()


def primaries_to_xyz(primaries: list[tuple[float, float]], white: Floats = D65) -> Floats:
    """Linear RGB to XYZ under D50, from chromaticities."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    matrix = xyz * np.linalg.solve(xyz, white)
    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
    return np.asarray(adapt @ matrix)


def matrix_profile(primaries: list[tuple[float, float]], curve: bytes, white: Floats = D65) -> bytes:
    columns = primaries_to_xyz(primaries, white).T
    tags = {
        name + b"XYZ": b"XYZ \0\0\0\0" + _fixed(*column)
        for name, column in zip((b"r", b"g", b"b"), columns, strict=True)
    }
    return profile(b"RGB ", tags | {name + b"TRC": curve for name in (b"r", b"g", b"b")})


def display_p3() -> bytes:
    return matrix_profile([(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)], srgb_curve())


def adobe_rgb() -> bytes:
    return matrix_profile([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], gamma(563 / 256))


def prophoto() -> bytes:
    white = np.array([0.9642, 1.0, 0.8251])
    return matrix_profile([(0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)], gamma(1.8), white)


def rec2020_table() -> bytes:
    return matrix_profile([(0.708, 0.292), (0.17, 0.797), (0.131, 0.046)], table(lambda x: x**2.4))


def grey_gamma(value: float = 1.8) -> bytes:
    return profile(b"GRAY", {b"kTRC": gamma(value)})


def _lut(inputs: int, outputs: int, grid: int, values: Floats) -> bytes:
    """A lut16 with straight curves; values in 0..1, the last input fastest."""
    straight = struct.pack(">HH", 0, 65_535)
    head = b"mft2\0\0\0\0" + bytes([inputs, outputs, grid, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    cube = np.rint(np.clip(values, 0, 1) * 65_535).astype(">u2").tobytes()
    return head + struct.pack(">HH", 2, 2) + straight * inputs + cube + straight * outputs


def _lab16(lab: Floats) -> Floats:
    """CIELAB as a v2 lut16 encodes it."""
    return (
        np.stack([lab[..., 0] / 100, (lab[..., 1] + 128) / 255, (lab[..., 2] + 128) / 255], axis=-1) * 65_280 / 65_535
    )


INKS = {
    "": (100, 0, 0), "c": (55, -37, -50), "m": (48, 74, -3), "y": (89, -5, 93),
    "cm": (24, 22, -46), "cy": (50, -65, 27), "my": (47, 68, 48), "cmy": (23, 0, 0),
}  # fmt: skip
"""CIELAB of solid inks, about those of ISO 12647-2 on coated paper, which is white, and of overprints."""


def press(inks: Floats) -> Floats:
    """CIELAB of inks (..., 4) in 0..1: the 16 solids, and straight lines between them."""
    result = np.zeros((*inks.shape[:-1], 3))
    for number in range(16):
        printed = np.array([bool(number & bit) for bit in (8, 4, 2, 1)])
        solid = np.array(INKS["".join(ink for ink, there in zip("cmy", printed, strict=False) if there)], float)
        weight = np.where(printed, inks, 1 - inks).prod(axis=-1)
        result += weight[..., None] * solid * ((0.16, 0, 0) if printed[3] else (1, 1, 1))
    return result


def cmyk() -> bytes:
    """That press, sampled in 9 steps an axis."""
    steps = np.linspace(0, 1, 9)
    inks = np.stack(np.meshgrid(steps, steps, steps, steps, indexing="ij"), axis=-1)
    return profile(b"CMYK", {b"A2B0": _lut(4, 3, 9, _lab16(press(inks)))}, b"Lab ", b"prtr")


def lab_of(xyz: Floats) -> Floats:
    ratio = xyz / D50
    f = np.where(ratio > 216 / 24_389, np.cbrt(ratio), (24_389 / 27 * ratio + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def xyz_of(lab: Floats) -> Floats:
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    return np.asarray(np.where(f > 6 / 29, f**3, (116 * f - 16) * 27 / 24_389) * D50)


def scanner(*, one_way: bool) -> bytes:
    """RGB by lookup tables: Adobe RGB's primaries under gamma 2.2, sampled in 17 steps an axis."""
    to_xyz = primaries_to_xyz([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)])
    steps = np.linspace(0, 1, 17)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    tags = {b"A2B0": _lut(3, 3, 17, _lab16(lab_of(rgb**2.2 @ to_xyz.T)))}
    if not one_way:
        steps = np.linspace(0, 1, 33)
        encoded = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3) * 65_535 / 65_280
        lab = encoded * (100, 255, 255) - (0, 128, 128)
        linear = np.clip(xyz_of(lab) @ np.linalg.inv(to_xyz).T, 0, 1)
        tags[b"B2A0"] = _lut(3, 3, 33, linear ** (1 / 2.2))
    return profile(b"RGB ", tags, b"Lab ", b"scnr" if one_way else b"mntr")
