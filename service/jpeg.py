"""JPEG: what its markers claim, walked through without decoding (ITU-T T.81, annex B), and its metadata."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.metadata import EXTENSION_NAME, XMP_NAME, Metadata, Resolution, iptc_resource, upright
from service.xmp import joined

_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker but for those inside samples: stuffed bytes, restarts and filling."""
_ALONE: Final = (0x01, 0xD8)
"""Markers without a segment; the end of the picture is one more."""
_END, _SCAN = 0xD9, 0xDA
_FRAMES: Final = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_HUFFMAN: Final = (0xC0, 0xC1, 0xC2)
_MOST_SEGMENTS: Final = 20_000
"""Before the samples and between scans; of 64 KiB each a profile has 255, and each costs a reader its time."""
_MOST_METADATA: Final = 64
"""Segments of EXIF and of Photoshop's resources; a reader joins all of one kind, in time by the square of them."""
_MOST_FILLING: Final = 1 << 16
"""Bytes between segments, which a reader passes over one by one."""
_EXIF: Final = re.compile(rb".{0,4}Exif\0.", re.DOTALL)
_TIFF: Final = (b"II*\0", b"MM\0*")
_PHOTOSHOP: Final = re.compile(rb"Photoshop 3\.0\0|Adobe_Photoshop2\.5:")


class Unreadable(Exception):
    """The file can't be what it claims; the message says why in words for the client."""


@dataclass(frozen=True)
class Marks:
    """What a file's markers say.

    Attributes:
        bits: of a sample, 0 where the file has no frame.
        height, width: as they lie in the file.
        scans: how many there are up to the picture's end, or one more than were asked for.
        coded: bytes of samples in them.
        huffman: whether they are Huffman codes, of which each takes a bit.
    """

    bits: int = 0
    height: int = 0
    width: int = 0
    scans: int = 0
    coded: int = 0
    huffman: bool = False

    @property
    def holds_enough(self) -> bool:
        """Whether there are as many bits as 8x8 blocks need at least, and half of that, since claims can be odd."""
        blocks = -(-self.height // 8) * -(-self.width // 8)
        return not self.huffman or self.coded * 16 >= blocks


def marks_of(data: bytes, most_scans: int) -> Marks:
    """Walk through a file's markers up to the picture's end, in linear time.

    Args:
        data: the whole file.
        most_scans: the walk ends at the first scan beyond these.

    Raises:
        Unreadable: there are more segments, or bytes between them, or metadata, than any writer makes.
    """
    frame, kind = (0, 0, 0), 0
    place, scans, coded, filling, segments, described = 0, 0, 0, 0, 0, 0
    while mark := _MARKER.search(data, place):
        if scans:
            coded += mark.start() - place
        else:
            filling += mark.start() - place
        marker, start = data[mark.end() - 1], mark.end()
        segments += 1
        if filling > _MOST_FILLING or segments > _MOST_SEGMENTS + 8 * scans:
            raise Unreadable("there is more between its markers than any camera writes")
        if marker == _END:
            break
        if marker in _ALONE:
            place = start
            continue
        place = start + max(int.from_bytes(data[start : start + 2], "big"), 2)
        if marker == 0xED or (marker == 0xE1 and data[start + 2 : start + 6] == b"Exif"):
            described += 1
            if described > _MOST_METADATA:
                raise Unreadable("it has more metadata than any camera writes")
        if marker == _SCAN:
            scans += 1
            if scans > most_scans:
                break
        elif marker in _FRAMES and not kind:
            kind = marker
            if start + 7 <= len(data):
                frame = struct.unpack_from(">BHH", data, start + 2)
    else:
        coded += len(data) - place if scans and place < len(data) else 0
    bits, height, width = frame
    return Marks(bits, height, width, scans, coded, kind in _HUFFMAN)


def metadata_of(data: bytes) -> tuple[int, Metadata]:
    """Return the orientation and the metadata of a file, whose markers `marks_of` has counted.

    EXIF, Photoshop's resources and XMP's extension may go on in further segments.
    """
    exif, resources = list[bytes](), list[bytes]()
    extensions: dict[bytes, list[bytes]] = {}
    xmp, resolution = b"", None
    for marker, content in _segments(data):
        if marker == 0xE0 and content[:5] == b"JFIF\0" and len(content) >= 12:
            unit, x, y = struct.unpack_from(">BHH", content, 7)
            resolution = resolution or Resolution.of(x, y, {1: 0.0254, 2: 0.01}.get(unit))
        elif marker == 0xE1 and (mark := _EXIF.match(content)):
            block = content[mark.end() :]
            if not exif or not block.startswith(_TIFF):
                exif.append(block)
        elif marker == 0xE1 and content.startswith(XMP_NAME):
            xmp = content[len(XMP_NAME) :]
        elif marker == 0xE1 and content.startswith(EXTENSION_NAME):
            name, part = content[len(EXTENSION_NAME) :][:32], content[len(EXTENSION_NAME) + 32 :]
            extensions.setdefault(name, []).append(part)
        elif marker == 0xED and (mark := _PHOTOSHOP.match(content)):
            resources.append(content[mark.end() :])
    for name, parts in extensions.items():
        if len(name) == 32 and name in xmp:
            xmp = joined(xmp, _whole(parts))
            break
    return upright(b"".join(exif), xmp, iptc_resource(b"".join(resources)), resolution)


def _whole(parts: list[bytes]) -> bytes:
    """Join parts that begin with the whole's length and their place in it; nothing where one is missing."""
    parts = sorted(parts, key=lambda part: part[4:8])
    whole = b"".join(part[8:] for part in parts)
    return whole if parts[0][:4] == len(whole).to_bytes(4, "big") else b""


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers before the samples, with what their segments hold."""
    place = 0
    while mark := _MARKER.search(data, place):
        marker, start = data[mark.end() - 1], mark.end()
        if marker in (_END, _SCAN):
            return
        if marker in _ALONE:
            place = start
            continue
        place = start + max(int.from_bytes(data[start : start + 2], "big"), 2)
        yield marker, data[start + 2 : place]
