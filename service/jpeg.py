"""JPEG: what its markers claim, walked through without decoding (ITU-T T.81, annex B), and its metadata."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from service.metadata import COMMENT, EXTENSION_NAME, XMP_NAME, Metadata, Resolution, Text, iptc_resource, upright
from service.xmp import joined

_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker but for those inside samples: stuffed bytes, restarts and filling."""
_ALONE: Final = (0x01, 0xD8)
"""Markers without a segment; the end of the picture is one more."""
_END, _SCAN = 0xD9, 0xDA
_FRAMES: Final = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_HUFFMAN: Final = (0xC0, 0xC1, 0xC2)
_CODES: Final = 0xC4
_CODING: Final = (*range(0xC0, 0xD0), *range(0xDB, 0xE0))
"""Frames, tables and the like: all but metadata, restarts and scans."""
_NEEDED: Final = {b"JFIF\0": 14, b"ICC_PROFILE\0": 15, b"MPF\0": 12, b"Adobe": 12}
"""How the segments begin that a reader of pixels needs, and how many bytes they have at least."""
_PROGRESSIVE: Final = (0xC2, 0xC6, 0xCA, 0xCE)
_EOI: Final = b"\xff\xd9"
_RESTARTS: Final = re.compile(rb"\xff[\xd0-\xd7]")
_ANY_SAMPLES: Final = tuple(
    bytes.fromhex(digits) * 4
    for digits in (
        "b5d1639e2c47e8153ab6c90d72f458a1",
        "4ac60f93d8217be4953c6ab01e87d25f",
        "e71b8452fc0639ad70c85e13b4962fda",
    )
)
"""Bytes that decode to anything, and to other things each."""
_FEW_ZEROS: Final = 8
"""Bytes at the end that may be samples: more are taken for the rest of a file whose download broke off."""
_ALL_COEFFICIENTS: Final = (1 << 64) - 1
_MOST_SEGMENTS: Final = 20_000
"""Before the samples and between scans; of 64 KiB each a profile has 255, and each costs a reader its time."""
_MOST_METADATA: Final = 64
"""Segments of EXIF and of Photoshop's resources; a reader joins all of one kind, in time by the square of them."""
_MOST_FILLING: Final = 1 << 16
"""Bytes between segments, and behind the last one, which a reader passes over one by one."""
_MOST_EXTENSIONS: Final = 16
"""Names of XMP's extensions that are looked for in the packet; it has one."""
_TOO_MUCH: Final = "there is more between its markers than any camera writes"
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


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield each marker, the bytes between it and the segment before, where its own segment begins, and where it ends.

    The end of the picture is the last one.
    """
    place = 0
    while mark := _MARKER.search(data, place):
        marker, gap, start = data[mark.end() - 1], mark.start() - place, mark.end()
        alone = marker in _ALONE or marker == _END
        place = start if alone else start + max(int.from_bytes(data[start : start + 2], "big"), 2)
        yield marker, gap, start, place
        if marker == _END:
            return


def marks_of(data: bytes, most_scans: int) -> Marks:
    """Walk through a file's markers up to the picture's end, in linear time.

    Args:
        data: the whole file.
        most_scans: the walk ends at the first scan beyond these.

    Raises:
        Unreadable: there are more segments, or bytes between them, or metadata, than any writer makes; or the samples
            break off at what can't follow them.
    """
    frame, kind = (0, 0, 0), 0
    place, scans, coded, filling, described = 0, 0, 0, 0, 0
    for segments, (marker, gap, start, place) in enumerate(_segments(data), 1):
        if scans:
            coded += gap
        else:
            filling += gap
        if filling > _MOST_FILLING or segments > _MOST_SEGMENTS + 8 * scans:
            raise Unreadable(_TOO_MUCH)
        if marker == _END:
            break
        if marker == 0xED or (marker == 0xE1 and data[start + 2 : start + 6] == b"Exif"):
            described += 1
            if described > _MOST_METADATA:
                raise Unreadable("it has more metadata than any camera writes")
        if marker == _SCAN:
            scans += 1
            if scans > most_scans:
                break
        elif (marker in _FRAMES and kind) or (marker == _CODES and scans and not _are_codes(data[start + 2 : place])):
            # a decoder fills up what is missing, and is done before it comes to this
            raise Unreadable("the file is damaged or ends early")
        elif marker in _FRAMES:
            kind = marker
            if start + 7 <= len(data):
                frame = struct.unpack_from(">BHH", data, start + 2)
    else:
        behind = max(len(data) - place, 0)
        if scans:
            coded += behind
        elif filling + behind > _MOST_FILLING:
            raise Unreadable(_TOO_MUCH)
    bits, height, width = frame
    return Marks(bits, height, width, scans, coded, kind in _HUFFMAN)


def _are_codes(content: bytes) -> bool:
    """Whether a segment holds tables of Huffman codes, as decoders check them (T.81, B.2.4.2)."""
    place = 0
    while place < len(content):
        count = sum(content[place + 1 : place + 17])
        if content[place] & 0xEF > 3 or count > 256:
            return False
        place += 17 + count
    return place == len(content)


def plain(data: bytes, most: int | None = None) -> bytes:
    """Return a file without its metadata and what lies between segments, over which Pillow's reader may stumble.

    The profile stays, and what says how many pictures there are and how colours are coded.

    Args:
        data: the whole file.
        most: bytes that are wanted from the first scan on; None for all.
    """
    kept = [b"\xff\xd8"]
    for marker, _, start, end in _segments(data):
        if marker == _SCAN:
            kept.append(data[start - 2 : None if most is None else start + most])
            break
        content = data[start + 2 : end]
        if marker in _CODING or any(content.startswith(each) and len(content) >= _NEEDED[each] for each in _NEEDED):
            kept.append(data[start - 2 : end])
    return b"".join(kept)


def metadata_of(data: bytes) -> tuple[int, Metadata]:
    """Return the orientation and the metadata of a file, whose markers `marks_of` has counted.

    EXIF, Photoshop's resources and XMP's extension may go on in further segments.
    """
    exif, resources, texts = list[bytes](), list[bytes](), list[Text]()
    extensions: dict[bytes, list[bytes]] = {}
    xmp, resolution = b"", None
    for marker, _, start, end in _segments(data):
        if marker == _SCAN:
            break
        content = data[start + 2 : end]
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
        elif marker == 0xFE:
            texts.append(_comment(content))
    for name, parts in islice(extensions.items(), _MOST_EXTENSIONS):
        if len(name) == 32 and name in xmp:
            xmp = joined(xmp, _whole(parts))
            break
    return upright(b"".join(exif), xmp, iptc_resource(b"".join(resources)), resolution, texts=texts)


def _comment(content: bytes) -> Text:
    """A comment, of no language, where it is UTF-8 beyond ASCII: a PNG would take it for Latin-1 without any."""
    try:
        return Text(COMMENT, content, None if content.isascii() or not content.decode() else b"\0")
    except UnicodeDecodeError:
        return Text(COMMENT, content)


def _whole(parts: list[bytes]) -> bytes:
    """Join parts that begin with the whole's length and their place in it; nothing where one is missing."""
    parts = sorted(parts, key=lambda part: part[4:8])
    whole = b"".join(part[8:] for part in parts)
    return whole if parts[0][:4] == len(whole).to_bytes(4, "big") else b""


def unended_scan(data: bytes) -> int | None:
    """Look whether a file lacks the mark of its end.

    Args:
        data: the whole file.

    Returns:
        where the samples of its last scan begin; None where the mark is there.

    Raises:
        Unreadable: whole scans are missing.
    """
    if data.endswith(_EOI):
        return None
    whole: dict[int, int] = {}  # of each component, the coefficients that are there to their last bit
    progressive, place, marker = False, 0, 0
    for marker, _, start, place in _segments(data):  # noqa: B007  the last one counts
        if marker in _FRAMES and not whole:
            progressive = marker in _PROGRESSIVE
            whole = dict.fromkeys(data[start + 8 : start + 8 + 3 * data[start + 7] : 3], 0)
        elif marker == _SCAN:
            last = start + 3 + 2 * data[start + 2]
            first_of, last_of, bits = (*data[last : last + 2], data[last + 2] & 15) if progressive else (0, 63, 0)
            if not bits:
                for component in data[start + 3 : last : 2]:
                    whole[component] = whole.get(component, 0) | (2 << last_of) - (1 << first_of)
    if marker == _END:
        return None
    if not whole or any(there != _ALL_COEFFICIENTS for there in whole.values()):
        raise Unreadable("it ends before its last scan")
    return place


def endings(data: bytes, last_scan: int) -> tuple[bytes, ...]:
    """Give a file without the mark of its end such a mark, in several ways.

    Decoders fill up what is missing and do not say so. With the first ending they fill it with zeros; in the others any
    samples follow, and a restart where the next one would be. Where all give the same picture, nothing is missing but
    the mark. One way more was too few: of a picture whose last block showed four pixels, they came out the same.

    Args:
        data: the whole file; many zeros at its end are left out.
        last_scan: where the samples of its last scan begin.

    Raises:
        Unreadable: there are none.
    """
    kept = data.rstrip(b"\0")
    if len(data) - len(kept) <= _FEW_ZEROS:
        kept = data
    elif kept.endswith(b"\xff"):  # a sample of 255, which is followed by 0
        kept += b"\0"
    kept = kept.rstrip(b"\xff")  # half of the mark
    if len(kept) <= last_scan:
        raise Unreadable("it ends before its last scan")
    restart = bytes((0xFF, 0xD0 + len(_RESTARTS.findall(kept, last_scan)) % 8))
    return kept + _EOI, *(kept + samples + restart + samples + _EOI for samples in _ANY_SAMPLES)
