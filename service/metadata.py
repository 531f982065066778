"""What a file says about its picture besides the colours: EXIF, XMP, IPTC, texts and resolution; put right."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from PIL import Image

from service import exif as exif_blocks
from service import xmp as xmp_packets
from service.copies import joined

MAX_SEGMENT: Final = 65_533
"""Bytes that a JPEG segment holds."""
XMP_NAME: Final = b"http://ns.adobe.com/xap/1.0/\0"
"""What comes before a packet in a JPEG's segment."""
EXTENSION_NAME: Final = b"http://ns.adobe.com/xmp/extension/\0"
"""Likewise before the name of an extension, its length, and where in it the segment's part belongs."""
_IPTC_RESOURCE: Final = 0x0404
COMMENT: Final = b"Comment"
"""What PNG calls the text that JPEG has a segment for."""
_MOST_TEXTS: Final = 1000
"""As many as libpng reads by itself."""
_LARGEST_TEXTS: Final = 1 << 24
"""Bytes of texts that are kept, of all together."""
_LARGEST_EXIF: Final = 1 << 24
"""Bytes that are kept. Python keeps its lock while libraries write them: 250 ms for 56 MB."""
_LARGEST_TEXT: Final = 1 << 22
"""Bytes of XMP, or of IPTC, that are kept, likewise: they are searched and written in other digits."""
_MOST_BLOCKS: Final = 16
"""Of IPTC, that are looked at; each is compared with those before it."""
_MOST_RESOURCES: Final = 10_000
"""Of Photoshop, that are looked at; it writes some fifty."""
MOST_RECORDS: Final = 100_000
"""Of IPTC, that are looked at one by one."""

Sampling = Literal["4:4:4", "4:2:2", "4:2:0"]
"""Of colour differences: at every pixel, every second of a row, or every fourth."""

_INCH: Final = 0.0254
_MOST_PER_METRE: Final = 10_000_000


@dataclass(frozen=True)
class Resolution:
    """How large a picture is meant to be.

    Attributes:
        x, y: pixels per metre across and down; where they are not absolute, numbers in the ratio of such.
        absolute: whether they are.
    """

    x: float
    y: float
    absolute: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.x <= self._most or not 1 <= self.y <= self._most:
            raise ValueError("no device has such a resolution")

    @property
    def _most(self) -> int:
        return _MOST_PER_METRE if self.absolute else 65_535

    @classmethod
    def of(cls, x: float, y: float, metres: float | None) -> Self | None:
        """Return x and y pixels per so many metres, None where that says nothing or is beyond any device.

        Args:
            x, y: how many pixels.
            metres: the unit; None where only their ratio counts.
        """
        try:
            if metres is not None:
                return cls(x / metres, y / metres)
            return cls(x, y, absolute=False) if x != y else None
        except ValueError:
            return None

    def turned(self) -> "Resolution":
        """The resolution of the picture once turned by a quarter."""
        return Resolution(self.y, self.x, self.absolute)

    def numbers(self) -> tuple[float, float, int]:
        """As JPEG and TIFF count: across, down, and 0 for a ratio, 1 for inches or 2 for centimetres.

        Whole numbers are preferred, also those that PNG's and BMP's whole pixels per metre stand for.
        """
        if not self.absolute:
            return self.x, self.y, 0
        inches, centimetres = ((_whole(self.x, metres), _whole(self.y, metres)) for metres in (_INCH, 0.01))
        in_centimetres = all(each.is_integer() for each in centimetres)
        if in_centimetres and not all(each.is_integer() for each in inches):
            return *centimetres, 2
        return *inches, 1


def _whole(per_metre: float, metres: float) -> float:
    """Pixels per so many metres, rounded where whole pixels per metre may be a rounded number of such."""
    count = per_metre * metres
    slack = metres / 2 if per_metre == round(per_metre) else 1e-6 * count
    return float(round(count)) if abs(count - round(count)) <= slack else count


@dataclass(frozen=True)
class Text:
    """What a file says in words, in the bytes that it says it in.

    Attributes:
        keyword: what PNG calls it.
        text: in Latin-1, or in UTF-8 where there is a language; a JPEG does not say.
        language: the language's tag and the keyword in that language, behind a zero byte; each may be empty.
        compressed: whether it is to be deflated.
    """

    keyword: bytes
    text: bytes
    language: bytes | None = None
    compressed: bool = False


def _bounded(texts: Iterable[Text]) -> tuple[Text, ...]:
    kept, room = list[Text](), _LARGEST_TEXTS
    for each in texts:
        size = len(each.text) + len(each.language or b"")
        if len(kept) < _MOST_TEXTS and size <= room:
            kept.append(each)
            room -= size
    return tuple(kept)


@dataclass(frozen=True)
class Metadata:
    """What a file says about its picture, None where it says nothing.

    Attributes:
        exif: a TIFF structure, upright and without a thumbnail.
        xmp: an XML packet, likewise.
        iptc: IIM records.
        resolution: by the file's own header, else by EXIF.
        texts: what else it says in words.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    resolution: Resolution | None = None
    texts: tuple[Text, ...] = ()

    def stripped(self) -> "Metadata":
        """What is left where nothing of a person is to be passed on."""
        return Metadata(resolution=self.resolution)


NONE: Final = Metadata()


def upright(
    exif: bytes | None,
    xmp: bytes | None = None,
    iptc: bytes | None = None,
    resolution: Resolution | None = None,
    *,
    texts: Iterable[Text] = (),
    turned: bool = False,
) -> tuple[int, Metadata]:
    """Return the orientation that EXIF names, and metadata that suits the picture once it is upright.

    Args:
        exif, xmp, iptc: as they are in the file.
        resolution: by the file's own header.
        texts: as they are in the file; those beyond 1000, or 16 MiB of all together, are left out.
        turned: whether the picture is upright already, whatever EXIF and XMP say.
    """
    orientation, block = exif_blocks.upright_exif(exif)
    packet = xmp_packets.upright_xmp(xmp, turned=turned or orientation != 1)
    if resolution and orientation >= 5:
        resolution = resolution.turned()
    elif resolution is None and (named := exif_blocks.resolution_of(block)):
        x, y, unit = named
        resolution = Resolution.of(x, y, {2: _INCH, 3: 0.01}.get(unit))
    return orientation, Metadata(
        _up_to(_LARGEST_EXIF, block),
        _up_to(_LARGEST_TEXT, packet),
        _up_to(_LARGEST_TEXT, iptc),
        resolution,
        _bounded(texts),
    )


def _up_to(most: int, block: bytes | None) -> bytes | None:
    return None if block is None or len(block) > most else block


def without_orientation(metadata: Metadata, *, keep_upright: bool = False) -> Metadata:
    """Take out the orientation for a format that says it in boxes of its own, which its writer would make of it.

    Args:
        metadata: of a picture that is upright.
        keep_upright: whether an orientation of 1 may stay.
    """
    if not metadata.exif:
        return metadata
    exif = exif_blocks.without_orientation(metadata.exif, keep_upright=keep_upright)
    if exif == metadata.exif:
        return metadata
    return replace(metadata, exif=exif, xmp=xmp_packets.upright_xmp(metadata.xmp))


def of_image(image: Image.Image) -> tuple[int, Metadata]:
    """Return the orientation and the metadata of a BMP or AVIF file that Pillow has opened."""
    info = image.info
    x, y = info.get("dpi") or (0, 0)
    return upright(info.get("exif"), info.get("xmp"), resolution=Resolution.of(x, y, _INCH))


def frames_of_jpeg(image: Image.Image) -> int:
    """Count the frames of a JPEG: views of one scene (CIPA DC-007), but not the previews and gain maps behind it."""
    entries = (getattr(image, "mpinfo", None) or {}).get(0xB002, ())
    return max(sum(str(entry["Attribute"]["MPType"]).startswith("Multi-Frame") for entry in entries), 1)


def sampling_of_jpeg(image: Image.Image) -> Sampling | None:
    """Tell how a JPEG samples its colour differences, None where it has none or an unusual way."""
    layers = getattr(image, "layer", [])
    if len(layers) != 3 or any(layer[1:3] != (1, 1) for layer in layers[1:]):
        return None
    factors: dict[tuple[int, int], Sampling] = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}
    return factors.get(layers[0][1:3])


_RESOURCES: Final = (b"8BIM", b"PHUT", b"DCSR", b"AgHg", b"MeSa")


def iptc_resource(resources: bytes) -> bytes | None:
    """Find the IPTC records among Photoshop's resources, in several blocks perhaps."""
    found: list[bytes] = []
    place = 0
    for _ in range(_MOST_RESOURCES):
        if resources[place : place + 4] not in _RESOURCES or place + 12 > len(resources):
            break
        code = int.from_bytes(resources[place + 4 : place + 6], "big")
        place += 6 + (resources[place + 6] + 2) // 2 * 2
        size = int.from_bytes(resources[place : place + 4], "big")
        block = resources[place + 4 : place + 4 + size]
        if code == _IPTC_RESOURCE and block not in found[:_MOST_BLOCKS]:
            found.append(block)
        place += 4 + (size + 1) // 2 * 2
    return _joined(found[:_MOST_BLOCKS]) or None


def _joined(blocks: list[bytes]) -> bytes:
    """Join blocks of IIM records: what one says, those behind it do not say anew."""
    blocks = [block for block in blocks if block]
    said: dict[bytes, list[bytes]] = {}  # records by their marks
    left = MOST_RECORDS
    for block in blocks if len(blocks) > 1 else ():
        here: dict[bytes, list[bytes]] = {}
        place = 0
        while block[place : place + 1] == b"\x1c" and left:
            left -= 1
            mark, length = block[place : place + 3], int.from_bytes(block[place + 3 : place + 5], "big")
            here.setdefault(mark, []).append(block[place : place + 5 + length])
            place += 5 + length
        for mark, records in here.items():
            said.setdefault(mark, records)
    return b"".join(map(b"".join, said.values())) or b"".join(blocks[:1])


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """Return a segment, APP0 being marker 0xE0."""
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def jpeg_segments(metadata: Metadata) -> bytes:
    """Write metadata as a JPEG's segments; of EXIF what one segment holds."""
    written = b""
    if metadata.exif and (block := exif_blocks.fitted(metadata.exif, MAX_SEGMENT - 6)):
        written += jpeg_segment(0xE1, b"Exif\0\0" + block)
    if metadata.xmp:
        packet, extension = xmp_packets.split(metadata.xmp, MAX_SEGMENT - len(XMP_NAME))
        written += jpeg_segment(0xE1, XMP_NAME + packet) if packet else b""
        written += _extension_segments(extension) if extension else b""
    if metadata.iptc:
        resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(metadata.iptc)) + metadata.iptc
        resource += bytes(len(metadata.iptc) % 2)
        written += _in_parts(0xED, b"Photoshop 3.0\0", resource)
    comments = (each.text for each in metadata.texts if each.keyword.lower() == COMMENT.lower())
    return written + b"".join(_in_parts(0xFE, b"", comment) for comment in comments)


def _extension_segments(extension: bytes) -> bytes:
    head, length = EXTENSION_NAME + xmp_packets.guid(extension), len(extension)
    most = MAX_SEGMENT - len(head) - 8
    return b"".join(
        jpeg_segment(0xE1, head + struct.pack(">II", length, place) + extension[place : place + most])
        for place in range(0, length, most)
    )


def _in_parts(marker: int, name: bytes, content: bytes) -> bytes:
    most = MAX_SEGMENT - len(name)
    parts = (content[place : place + most] for place in range(0, len(content), most))
    return b"".join(jpeg_segment(marker, name + part) for part in parts)


def icc_segments(profile: bytes) -> bytes:
    """Split a profile over APP2 segments (ICC.1:2022, annex B.4)."""
    most = MAX_SEGMENT - 14
    parts = [profile[place : place + most] for place in range(0, len(profile), most)]
    return b"".join(
        jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part)
        for number, part in enumerate(parts, 1)
    )


MAX_JPEG_PROFILE: Final = 255 * (MAX_SEGMENT - 14)
"""Bytes of a profile that a JPEG holds: its parts are counted in one byte."""


def into_jpeg(jpeg: bytes, segments: bytes, resolution: Resolution | None = None) -> bytes:
    """Put segments behind a JPEG's start and its JFIF header, which has to come first, and a resolution into that."""
    place = 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == b"\xff\xe0" else 2
    head = jpeg[:place]
    if resolution and head[6:11] == b"JFIF\0":
        x, y, unit = resolution.numbers()
        if max(x, y) <= 65_535:
            density = struct.pack(">BHH", unit, max(round(x), 1), max(round(y), 1))
            head = head[:13] + density + head[18:]
    return joined(head, segments, memoryview(jpeg)[place:])
