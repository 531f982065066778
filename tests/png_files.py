"""PNG files put together chunk by chunk, of kinds that no encoder here writes (PNG, third edition)."""

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int,
    height: int,
    rows: bytes = b"",
    depth: int = 8,
    colour: int = 2,
    before: bytes = b"",
    *,
    interlaced: bool = False,
) -> bytes:
    """A PNG file with that header, those chunks before the samples, and those unfiltered rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    samples = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + samples + chunk(b"IEND", b"")


def rows_of(samples: npt.NDArray[Any], depth: int, *, interlaced: bool = False) -> bytes:
    """The unfiltered rows of (H, W, C) samples, packed, perhaps in Adam7's seven passes (PNG, 8.2)."""
    passes = [samples]
    if interlaced:
        grid = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        passes = [samples[top::down, left::across] for top, left, down, across in grid]
    rows = b""
    for each in passes:
        if each.size:
            bits = each.astype(">u2").reshape(len(each), -1, 1).view(np.uint8)
            packed = np.packbits(np.unpackbits(bits, axis=2)[:, :, 16 - depth :].reshape(len(each), -1), axis=1)
            rows += b"".join(b"\0" + row.tobytes() for row in packed)
    return rows


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """Put chunks behind a file's header."""
    return data[:33] + b"".join(chunks) + data[33:]
