"""WebP: its header by its chunks (RFC 9649); libwebp makes room for two whole canvases as soon as it opens one."""

import struct
from dataclasses import dataclass
from typing import Final

from service.metadata import Metadata, upright

_MOST_CHUNKS: Final = 50_000
"""Of one file: of an animation a frame has one, and each costs a step."""


class Unreadable(Exception):
    """The chunks are broken; the message says how."""


@dataclass(frozen=True)
class Found:
    """What a file says.

    Attributes:
        height, width: of the canvas, as it lies in the file.
        orientation: 1 to 8.
        metadata: EXIF and XMP, upright.
        icc_profile: None where there is none.
        frames: how many there are, at least one.
    """

    height: int
    width: int
    orientation: int
    metadata: Metadata
    icc_profile: bytes | None
    frames: int


def read_header(data: bytes) -> Found:
    """Read a file's header.

    Raises:
        Unreadable, struct.error, IndexError: it is broken.
    """
    chunks: dict[bytes, tuple[int, int]] = {}
    frames, place = 0, 12
    end = min(len(data), 8 + int(struct.unpack_from("<I", data, 4)[0]))
    for _ in range(_MOST_CHUNKS):
        if place + 8 > end:
            break
        kind, size = struct.unpack_from("<4sI", data, place)
        chunks.setdefault(kind, (place + 8, size))
        if place + 8 + size > end:
            raise Unreadable("a chunk claims more bytes than the file has")
        frames += kind == b"ANMF"
        place += 8 + size + size % 2
    else:
        raise Unreadable("it has more chunks than any writer makes")

    def content(kind: bytes) -> bytes | None:
        start, size = chunks.get(kind, (0, 0))
        return data[start : start + size] or None

    height, width = _size(data, chunks)
    orientation, said = upright(content(b"EXIF"), content(b"XMP "))
    return Found(height, width, orientation, said, content(b"ICCP"), max(frames, 1))


def _size(data: bytes, chunks: dict[bytes, tuple[int, int]]) -> tuple[int, int]:
    if b"VP8X" in chunks:
        start, _ = chunks[b"VP8X"]
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (start + 4, start + 7))
        return height, width
    if b"VP8L" in chunks:
        start, _ = chunks[b"VP8L"]
        mark, bits = struct.unpack_from("<BI", data, start)
        if mark != 0x2F:
            raise Unreadable("its samples have no header")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if b"VP8 " not in chunks:
        raise Unreadable("it holds no picture")
    start, _ = chunks[b"VP8 "]
    mark_, width, height = struct.unpack_from("<3sHH", data, start + 3)
    if mark_ != b"\x9d\x01\x2a":
        raise Unreadable("its samples have no header")
    return height & 0x3FFF, width & 0x3FFF
