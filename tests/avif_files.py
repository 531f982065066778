"""AVIF files put together box by box around what Pillow encodes: grids, cuts and turns, and items in any order."""

import io
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.hostile.heif import box, full

Pixels = npt.NDArray[np.uint8]


def file(
    pixels: Pixels | list[Pixels],
    *properties: bytes,
    grid: tuple[int, int] = (0, 0),
    brand: bytes = b"avif",
    numbers: tuple[int, int] = (12, 13),
    backwards: bool = False,
) -> bytes:
    """An AVIF put together from what Pillow encodes: one picture, or tiles of a grid (ISO/IEC 23008-12, 6.6.2.3)."""
    tiles, coded, configuration = pixels if isinstance(pixels, list) else [pixels], [], b""
    for tile in tiles:
        written = io.BytesIO()
        Image.fromarray(tile).save(written, "AVIF", quality=100, speed=10, subsampling="4:4:4")
        data = written.getvalue()
        place = data.index(b"av1C") - 4
        configuration = data[place : place + int.from_bytes(data[place : place + 4], "big")]
        coded.append(data[data.index(b"mdat") + 4 :])
    height, width = tiles[0].shape[:2]
    common = [
        full(b"ispe", struct.pack(">II", width, height)),
        configuration,
        full(b"pixi", b"\3\x08\x08\x08"),
        box(b"colr", b"nclx" + struct.pack(">HHHB", *numbers, 6, 128)),
    ]
    primary = len(tiles) + 1 if grid[0] else 1
    items = [(number + 1, b"av01", piece) for number, piece in enumerate(coded)]
    references, whole = b"", b""
    if grid[0]:
        rows, columns = grid
        content = bytes([0, 0, rows - 1, columns - 1]) + struct.pack(">HH", width * columns, height * rows)
        items.append((primary, b"grid", content))
        links = struct.pack(">HH", primary, len(tiles)) + b"".join(struct.pack(">H", n + 1) for n in range(len(tiles)))
        references = full(b"iref", box(b"dimg", links))
        whole = full(b"ispe", struct.pack(">II", width * columns, height * rows))
    everything = [*common, *([whole] if whole else []), *properties]
    turns = list(range(len(everything) - len(properties) + 1, len(everything) + 1))
    associations = b""
    for number, kind, _ in items:
        shown = number == primary
        which = ([5, 3, 4] if kind == b"grid" else [1, 2, 3, 4]) + (turns if shown else [])
        marks = bytes(n | (128 if n == 2 or n in turns else 0) for n in which)
        associations += struct.pack(">HB", number, len(which)) + marks
    if backwards:
        items.reverse()
    entries = b"".join(full(b"infe", struct.pack(">HH", n, 0) + kind + b"\0", 2) for n, kind, _ in items)
    ftyp = box(b"ftyp", brand + bytes(4) + b"avifmif1miaf")

    def meta(start: int) -> bytes:
        places, at = b"", start
        for number, _, content in items:
            places += struct.pack(">HHHII", number, 0, 1, at, len(content))
            at += len(content)
        return full(
            b"meta",
            full(b"hdlr", bytes(4) + b"pict" + bytes(13))
            + full(b"pitm", struct.pack(">H", primary))
            + full(b"iloc", b"\x44\0" + struct.pack(">H", len(items)) + places)
            + full(b"iinf", struct.pack(">H", len(items)) + entries)
            + references
            + box(
                b"iprp",
                box(b"ipco", b"".join(everything)) + full(b"ipma", struct.pack(">I", len(items)) + associations),
            ),
        )

    before = len(ftyp) + len(meta(0)) + 8
    return ftyp + meta(before) + box(b"mdat", b"".join(content for _, _, content in items))


def turn(quarters: int) -> bytes:
    return box(b"irot", bytes([quarters]))


def mirror(axis: int) -> bytes:
    return box(b"imir", bytes([axis]))


def cut(width: Any, height: Any, across: Any = 0, down: Any = 0) -> bytes:
    fractions = [Fraction(each) for each in (width, height, across, down)]
    return box(b"clap", b"".join(struct.pack(">iI", each.numerator, each.denominator) for each in fractions))
