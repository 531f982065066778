"""HEIC files whose primary picture is a grid of tiles, as phones write them (ISO/IEC 23008-12, 6.6.2.3)."""

import io
import struct

import numpy as np
import numpy.typing as npt
import pillow_heif


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def _full(kind: bytes, version: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24), *parts)


def _coded(tile: npt.NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Encode one tile; return its decoder configuration and its samples."""
    height, width = tile.shape[:2]
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB", (width, height), tile.tobytes()).save(file, quality=90, chroma="420")
    data = file.getvalue()

    def box(kind: bytes) -> bytes:
        start = data.index(kind) - 4
        return data[start : start + int.from_bytes(data[start : start + 4], "big")]

    return box(b"hvcC"), box(b"mdat")[8:]


def grid_heic(pixels: npt.NDArray[np.uint8], side: int) -> bytes:
    """Write a picture as a grid.

    Args:
        pixels: uint8 (H, W, 3), RGB; both sides multiples of `side`.
        side: of a tile, at least 64.
    """
    height, width = pixels.shape[:2]
    rows, columns = height // side, width // side
    tiles = [
        _coded(np.ascontiguousarray(pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]))
        for row in range(rows)
        for column in range(columns)
    ]
    config, last = tiles[0][0], len(tiles) + 1
    assert all(tile[0] == config for tile in tiles)
    items = [*(samples for _, samples in tiles), struct.pack(">4B2H", 0, 0, rows - 1, columns - 1, width, height)]

    def sized(height: int, width: int) -> bytes:
        return _full(b"ispe", 0, struct.pack(">II", width, height))

    kinds = [*[b"hvc1"] * len(tiles), b"grid"]
    infos = [_full(b"infe", 2, struct.pack(">HH", i, 0), kind, b"\0") for i, kind in enumerate(kinds, 1)]
    properties = _box(b"ipco", config, sized(side, side), sized(height, width))
    ties = [*(struct.pack(">HBBB", i, 2, 0x81, 2) for i in range(1, last)), struct.pack(">HBB", last, 1, 3)]
    parts = _box(b"dimg", struct.pack(f">HH{len(tiles)}H", last, len(tiles), *range(1, last)))

    def meta(start: int) -> bytes:
        places = b""
        for number, item in enumerate(items, 1):
            places += struct.pack(">HHHII", number, 0, 1, start, len(item))
            start += len(item)
        return _full(
            b"meta",
            0,
            _full(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
            _full(b"pitm", 0, struct.pack(">H", last)),
            _full(b"iloc", 0, b"\x44\x00", struct.pack(">H", last), places),
            _full(b"iinf", 0, struct.pack(">H", last), *infos),
            _full(b"iref", 0, parts),
            _box(b"iprp", properties, _full(b"ipma", 0, struct.pack(">I", last), *ties)),
        )

    head = _box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return head + meta(len(head) + len(meta(0)) + 8) + _box(b"mdat", *items)
