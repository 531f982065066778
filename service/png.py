"""PNG: its header, colours and metadata, what a broken file claims, and grey with alpha, which OpenCV lacks."""

import re
import string
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service import cicp
from service.colour import usable
from service.copies import joined
from service.icc import SRGB, Chromaticities, grey_profile, parametric, rgb_profile
from service.metadata import COMMENT, XMP_NAME, Metadata, Resolution, Text, iptc_resource, upright

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
_XMP_KEYWORD: Final = b"XML:com.adobe.xmp"
_IPTC_KEYWORD: Final = b"Raw profile type iptc"
_RAW_KEYWORD: Final = b"raw profile type "
_STALE: Final = re.compile(rb"(?i:thumb::.*|(?:exif|tiff):orientation|exif:thumbnail:.*)", re.DOTALL)
"""Keywords of texts that speak of the picture as it was: as a thumbnail of another, before it was turned."""
_LONGEST_KEYWORD: Final = 79
_MOST_CHUNKS: Final = 200_000
"""Each costs a step, and more in a decoder; of the smallest that writers make, 64 MiB hold a tenth."""
_MOST_TEXTS: Final = 20_000
"""Text chunks that are looked at: a thousand are kept at most."""
_UNUSED: Final = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT")
_PALETTE: Final = b"\3"
_NEAR: Final = 0.0025
"""Programs round what they write for sRGB; no other space is as near."""
_MAX_BLOCK: Final = 1 << 24
"""Bytes of metadata that are inflated, of all compressed chunks together."""
_BROKEN_COUNTS: Final = 1 << 20
"""As so many bytes counts a block that turns out to be broken; zlib doesn't say how many it inflated before."""


def chunks_fit(data: bytes) -> bool:
    """Whether a file's chunks lie inside it and are not too many; a decoder would allocate what they claim, 4 GiB.

    The last one may be cut or missing: whether all samples are there is for the decoder to say.
    """
    end = 8
    for number, (kind, _, end) in enumerate(_chunks(data), 1):  # noqa: B007  end: of the last
        if kind == b"IEND":
            return True
        if number == _MOST_CHUNKS:
            return False
    return end <= len(data)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's kind, where it begins and where it ends, up to the end chunk."""
    place, kind = 8, b""
    while place + 12 <= len(data) and kind != b"IEND":
        kind, end = data[place + 4 : place + 8], place + 12 + int.from_bytes(data[place : place + 4], "big")
        yield kind, place, end
        place = end


def without_unused(data: bytes) -> bytes:
    """Return a file without its texts, its profile and its EXIF, which a decoder would inflate, and without animation.

    What is left of an animation is its default picture, the one for programs that show stills. An end chunk that is
    cut, broken or missing is added: OpenCV reads nothing without it, though all samples may be there. Behind the
    samples a chunk that is not known ends the file, though its name may say that a reader has to know it. Empty chunks
    go too, and a palette where the samples are colours.
    """
    pieces, kept, kind, place, end, sampled = list[bytes](), 0, b"", 8, 8, False
    unused = _UNUSED if data[25:26] == _PALETTE else (*_UNUSED, b"PLTE")
    for kind, place, end in _chunks(data):
        sampled = sampled or kind == b"IDAT"
        if kind == b"IEND" or (sampled and kind != b"IDAT" and kind[:1].isupper()):
            break
        if kind in unused or end == place + 12:
            pieces.append(data[kept:place])
            kept = end
    else:
        place = end
    if not data.startswith(_END, place):
        return b"".join((*pieces, data[kept:place], _END))
    return b"".join((*pieces, data[kept:])) if pieces else data


@dataclass(frozen=True)
class Found:
    """What a file says before its samples.

    Attributes:
        height, width: pixels, before they are turned.
        grey: whether it has grey samples, with alpha or without.
        clear_grey: the grey level that is transparent, of 16 bits or of 8, None where there is none.
        profile: the colour profile, None for sRGB.
        frames: pictures in the file, among them a default picture that is not part of the animation.
    """

    height: int
    width: int
    grey: bool
    clear_grey: int | None
    profile: bytes | None
    frames: int


def read_header(data: bytes) -> Found:
    """Read what lies before the samples.

    Raises:
        ValueError: the first chunk is no header.
        UnsupportedSamples: they are of high dynamic range.
    """
    if data[8:16] != b"\0\0\0\x0dIHDR":
        raise ValueError("no header")
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    if depth not in (1, 2, 4, 8, 16):
        raise ValueError("no depth of a PNG")
    chunks = _before_samples(data)
    grey, clear, clear_grey, animation = kind in (0, 4), chunks.get(b"tRNS", b""), None, chunks.get(b"acTL", b"")
    if kind == 0 and len(clear) == 2:
        # compared at the file's own depth; bits above it don't count (PNG, 11.3.1.1)
        clear_grey = int.from_bytes(clear, "big") & (1 << depth) - 1
        if depth < 8:
            clear_grey *= 255 // ((1 << depth) - 1)  # as the decoder scales the samples
    frames = int.from_bytes(animation[:4], "big") if len(animation) == 8 else 0
    if not 0 < frames <= 1 << 31:
        frames = 1  # the standard's way with a broken animation
    elif b"fcTL" not in chunks:
        frames += 1
    return Found(height, width, grey, clear_grey, _profile_of(chunks, depth, grey=grey), frames)


def _before_samples(data: bytes) -> dict[bytes, bytes]:
    """Return the first undamaged chunk of each kind."""
    found: dict[bytes, bytes] = {}
    for kind, place, end in _chunks(data):
        if kind == b"IDAT":
            break
        if kind not in found and zlib.crc32(data[place + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big"):
            found[kind] = data[place + 8 : end - 4]
    return found


def _profile_of(chunks: dict[bytes, bytes], depth: int, *, grey: bool) -> bytes | None:
    """Return the colour profile that the chunks stand for, the first that can be used of four (PNG, 4.3)."""
    numbers = chunks.get(b"cICP", b"")
    if len(numbers) == 4 and numbers[2] == 0 and numbers[3] <= 1 and cicp.known(numbers[0], numbers[1]):
        narrow = 0 if numbers[3] else max(8, depth)
        return cicp.profile_of(numbers[0], numbers[1], grey=grey, narrow=narrow)
    if b"iCCP" in chunks:
        block = chunks[b"iCCP"].partition(b"\0")[2][1:]
        # Photoshop leaves out the checksum behind a profile, which says itself how long it is
        profile = usable(_inflated(block, _MAX_BLOCK, ended=False)[0], grey=grey)
        if profile:
            return profile
    if b"sRGB" in chunks:
        return None
    return usable(_profile_by_gamma(chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b""), grey=grey), grey=grey)


def _profile_by_gamma(gamma: bytes, chromaticities: bytes, *, grey: bool) -> bytes | None:
    """Write the profile of a `gAMA` chunk and a `cHRM` chunk, which says nothing of the curve alone.

    A gamma of 1/2.2 beside sRGB's primaries, or alone, is what programs write for sRGB.
    """
    (encoding,) = struct.unpack(">I", gamma) if len(gamma) == 4 else (0,)
    if not 10_000 <= encoding <= 1_000_000:  # powers of 10 and of 0.1
        return None
    colours = _chromaticities(chromaticities) if not grey else None
    if colours is None and abs(encoding / 100_000 - 1 / 2.2) < _NEAR:
        return None
    name, curve = f"gamma {100_000 / encoding:.3g}", parametric(100_000 / encoding)
    if grey:
        return grey_profile(f"Grey, {name}", curve)
    try:
        return rgb_profile(f"PNG, {name}", colours or SRGB, curve)
    except ValueError:
        return _profile_by_gamma(gamma, b"", grey=grey)


def _chromaticities(content: bytes) -> Chromaticities | None:
    """Read a `cHRM` chunk, None where it has sRGB's primaries or is broken."""
    if len(content) != 32:
        return None
    values = [value / 100_000 for value in struct.unpack(">8I", content)]
    white, red, green, blue = zip(values[::2], values[1::2], strict=True)
    if np.abs(np.subtract((red, green, blue, white), (SRGB.red, SRGB.green, SRGB.blue, SRGB.white))).max() < _NEAR:
        return None
    return Chromaticities(red, green, blue, white)


def metadata_of(data: bytes) -> tuple[int, Metadata]:
    """Return the orientation and the metadata of a PNG file; they may also lie behind the samples."""
    found: dict[str, bytes] = {}  # by what it is
    raw: dict[str, bytes] = {}  # likewise, in hexadecimal digits, which count where there is nothing better
    texts = list[Text]()
    resolution, left, seen = None, _MAX_BLOCK, 0
    for kind, place, end in _chunks(data):
        if kind == b"eXIf":
            found["exif"] = data[place + 8 : end - 4]
        elif kind == b"pHYs" and end - place >= 12 + 9:
            x, y, unit = struct.unpack_from(">IIB", data, place + 8)
            resolution = resolution or Resolution.of(x, y, {1: 1.0}.get(unit))
        elif kind in (b"iTXt", b"zTXt", b"tEXt") and seen < _MOST_TEXTS:
            seen += 1
            text, inflated = _text(kind, data[place + 8 : end - 4], left)
            left -= inflated
            if text is None:
                continue
            if text.keyword == _XMP_KEYWORD:
                found["xmp"] = text.text or found.get("xmp", b"")
            elif text.keyword.lower().startswith(_RAW_KEYWORD):
                name, block = _raw_profile(text.text)
                raw.setdefault(name, block)
            elif 0 < len(text.keyword) <= _LONGEST_KEYWORD and not _STALE.fullmatch(text.keyword):
                texts.append(text)
    found = raw | found
    return upright(found.get("exif"), found.get("xmp"), found.get("iptc"), resolution, texts=texts)


def _text(kind: bytes, content: bytes, most: int) -> tuple[Text | None, int]:
    """Read a text chunk (PNG, 11.3.3); also return how many bytes count as inflated, `most` at most.

    What is broken, or longer than that, is None.
    """
    keyword, _, rest = content.partition(b"\0")
    language, compressed = None, kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        compressed = rest[:1] == b"\1"
        *tags, rest = rest[2:].split(b"\0", 2)
        if len(tags) < 2:
            return None, 0
        language = b"\0".join(tags)
    text, inflated = _inflated(rest, most) if compressed else (rest, 0)
    return None if text is None else Text(keyword, text, language, compressed), inflated


def _inflated(content: bytes, most: int, *, ended: bool = True) -> tuple[bytes | None, int]:
    """Inflate a block, and count how many bytes are taken for inflated.

    Args:
        content: the block.
        most: how many bytes are inflated.
        ended: whether a block without its end is broken.

    Returns:
        what was inflated, None where the block is broken or longer than that; and the count.
    """
    if most <= 0:  # zlib would take 0 for no limit
        return None, 0
    inflater = zlib.decompressobj()
    try:
        block = inflater.decompress(content, most)
    except zlib.error:
        return None, min(_BROKEN_COUNTS, most)
    return block if inflater.eof or (not ended and len(block) < most) else None, len(block)


def _raw_profile(text: bytes) -> tuple[str, bytes]:
    """Read a `Raw profile type ...` as ImageMagick and ExifTool write it: a name, a length, hexadecimal digits.

    Returns:
        `exif`, `xmp` or `iptc`, or nothing; and the block. Its own bytes say what it is: the keyword `APP1` stands for
        both of the former, and Photoshop's resources come under `8bim` and under `iptc`.
    """
    lines = text.split(b"\n", 4)
    # the name is a line of its own, perhaps after an empty one
    at = next((i for i, line in enumerate(lines[:4]) if line.strip().isdigit() and len(line) < 20), None)
    if at is None:
        return "", b""
    digits = b"".join(lines[at + 1 :]).translate(None, string.whitespace.encode())[: 2 * int(lines[at])]
    try:
        block = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return "", b""
    if block.startswith((b"Exif\0\0", b"II*\0", b"MM\0*")):
        return "exif", block
    if block.startswith((XMP_NAME, b"<", b"\xef\xbb\xbf<")):
        return "xmp", block.removeprefix(XMP_NAME)
    if block.startswith(b"\x1c"):
        return "iptc", block
    records = iptc_resource(block.removeprefix(b"Photoshop 3.0\0"))
    return ("iptc", records) if records else ("", b"")


def with_metadata(png: bytes, metadata: Metadata, profile: bytes | None) -> bytes:
    """Put metadata and a colour profile behind a PNG's header chunk."""
    chunks = []
    if profile:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if resolution := metadata.resolution:
        chunks.append(
            _chunk(b"pHYs", struct.pack(">IIB", round(resolution.x), round(resolution.y), resolution.absolute))
        )
    if metadata.exif:
        chunks.append(_chunk(b"eXIf", metadata.exif))
    texts = list(metadata.texts)
    if metadata.xmp:
        texts.append(Text(_XMP_KEYWORD, metadata.xmp, b"\0"))
    if metadata.iptc:
        digits = metadata.iptc.hex().encode()
        lines = b"\n".join(digits[place : place + 72] for place in range(0, len(digits), 72))
        text = b"\niptc\n%8d\n" % len(metadata.iptc) + lines + b"\n"
        texts.append(Text(_IPTC_KEYWORD, text, compressed=True))
    chunks += map(_text_chunk, texts)
    return joined(png[:33], *chunks, memoryview(png)[33:]) if chunks else png


def _text_chunk(text: Text) -> bytes:
    # a JPEG's comment may end with zeros, a PNG's text must not
    content = text.text.rstrip(b"\0") if text.keyword == COMMENT else text.text
    if text.compressed:
        content = zlib.compress(content)
    if text.language is not None:
        return _chunk(b"iTXt", text.keyword + bytes((0, text.compressed, 0)) + text.language + b"\0" + content)
    if text.compressed:
        return _chunk(b"zTXt", text.keyword + b"\0\0" + content)
    return _chunk(b"tEXt", text.keyword + b"\0" + content)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind))
    return joined(struct.pack(">I", len(content)), kind, content, struct.pack(">I", check))


def write_grey(samples: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    """Write grey with alpha, (H, W, 2)."""
    height, width = samples.shape[:2]
    rows = samples.astype(samples.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    filtered = np.full((height, rows.shape[1] + 1), 2, np.uint8)  # each row less the one above (PNG, 9.2)
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    head = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, 4, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(filtered.data, 3)) + _chunk(b"IEND", b"")
