"""PNG: metadata before and behind the samples, what a broken file claims, and grey with alpha, which OpenCV lacks."""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from service.metadata import Metadata, iptc_resource, upright_exif, upright_xmp

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
_XMP_KEYWORD: Final = b"XML:com.adobe.xmp"
_IPTC_KEYWORD: Final = b"Raw profile type iptc"
_MOST_CHUNKS: Final = 200_000
"""Each costs a step, and more in a decoder; of the smallest that writers make, 64 MiB hold a tenth."""
_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf")
_MAX_BLOCK: Final = 1 << 24
"""Bytes of metadata that are inflated, of all compressed chunks together."""


def chunks_fit(data: bytes) -> bool:
    """Whether a file's chunks lie inside it and are not too many; a decoder would allocate what they claim, 4 GiB.

    The last one may be cut or missing: whether all samples are there is for the decoder to say.
    """
    place = 8
    for _ in range(_MOST_CHUNKS):
        if place + 12 > len(data):
            return place <= len(data)
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + length
    return False


def without_texts(data: bytes) -> bytes:
    """Return a file without its texts, its profile and its EXIF: a decoder would inflate them all, unused.

    An end chunk that is cut or missing is added: OpenCV reads nothing without it, though all samples may be there.
    """
    pieces, kept, place, ended = [], 0, 8, False
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        ended = ended or kind == b"IEND"
        if kind in _TEXTS:
            pieces.append(data[kept:place])
            kept = end
        place = end
    if not ended:
        return b"".join((*pieces, data[kept:place], _END))
    return b"".join((*pieces, data[kept:])) if pieces else data


def is_grey(data: bytes) -> bool:
    """Whether a file has grey samples, with alpha or without; Pillow calls 16-bit ones with alpha RGBA."""
    return data[25] in (0, 4)


def metadata_of(data: bytes) -> tuple[int, Metadata]:
    """Return the orientation and the metadata of a PNG file; they may also lie behind the samples."""
    exif = xmp = iptc = None
    left = _MAX_BLOCK
    for kind, content in _chunks(data):
        if kind == b"eXIf":
            exif = content
        elif kind in (b"iTXt", b"zTXt", b"tEXt"):
            keyword, text, inflated = _text(kind, content, left)
            left -= inflated
            if keyword == _XMP_KEYWORD:
                xmp = text
            elif keyword == _IPTC_KEYWORD:
                iptc = _from_hex(text)
            elif keyword in (b"Raw profile type exif", b"Raw profile type APP1") and exif is None:
                exif = _from_hex(text)
            elif keyword == b"Raw profile type xmp" and xmp is None:
                xmp = _from_hex(text)
    orientation, exif = upright_exif(exif)
    return orientation, Metadata(exif, upright_xmp(xmp), iptc)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        yield kind, data[place + 8 : place + 8 + length] if kind != b"IDAT" else b""
        place += 12 + length


def _text(kind: bytes, content: bytes, most: int) -> tuple[bytes, bytes | None, int]:
    """Return a text chunk's keyword, its text where no more than `most` bytes had to be inflated, and how many were.

    The layout is PNG's, 11.3.3.
    """
    keyword, _, rest = content.partition(b"\0")
    if kind == b"tEXt":
        return keyword, rest, 0
    compressed = kind == b"zTXt"
    if kind == b"iTXt":
        compressed, rest = rest[:1] == b"\1", rest[2:]
        rest = rest.partition(b"\0")[2].partition(b"\0")[2]
    else:
        rest = rest[1:]
    if not compressed:
        return keyword, rest, 0
    if most <= 0:  # zlib would take 0 for no limit
        return keyword, None, 0
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(rest, most)
    except zlib.error:
        return keyword, None, 0
    return keyword, text if inflater.eof else None, len(text)


def _from_hex(text: bytes | None) -> bytes | None:
    """Read ImageMagick's `Raw profile type`: a name, a length, and hexadecimal digits in lines."""
    if text is None:
        return None
    try:
        block = bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except ValueError:
        return None
    if block.startswith(b"8BIM"):
        return iptc_resource(block)
    return block or None


def with_metadata(png: bytes, metadata: Metadata, profile: bytes | None) -> bytes:
    """Put metadata and a colour profile behind a PNG's header chunk."""
    chunks = []
    if profile:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if metadata.exif:
        chunks.append(_chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append(_chunk(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc:
        digits = metadata.iptc.hex().encode()
        lines = b"\n".join(digits[place : place + 72] for place in range(0, len(digits), 72))
        text = b"\niptc\n%8d\n" % len(metadata.iptc) + lines + b"\n"
        chunks.append(_chunk(b"zTXt", _IPTC_KEYWORD + b"\0\0" + zlib.compress(text)))
    return b"".join((png[:33], *chunks, png[33:])) if chunks else png


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_grey(samples: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    """Write grey with alpha, (H, W, 2)."""
    height, width = samples.shape[:2]
    rows = samples.astype(samples.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    filtered = np.full((height, rows.shape[1] + 1), 2, np.uint8)  # each row less the one above (PNG, 9.2)
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    head = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, 4, 0, 0, 0)
    return (
        _SIGNATURE
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 3))
        + _chunk(b"IEND", b"")
    )
