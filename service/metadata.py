"""What a file says about its picture besides the colours: EXIF, XMP and IPTC; found, put right, and written again.

EXIF is changed where it lies and never written anew: a camera's own notes hold offsets that only their maker knows.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from PIL import Image

_ORIENTATION: Final = 0x0112
_EXIF_IFD: Final = 0x8769
_THUMBNAIL: Final = (0x0201, 0x0202)
_SIZE_TAGS: Final = (0xA002, 0xA003)
MAX_SEGMENT: Final = 65_533
"""Bytes that a JPEG segment holds."""
_IPTC_RESOURCE: Final = 0x0404


Sampling = Literal["4:4:4", "4:2:2", "4:2:0"]
"""Of colour differences: at every pixel, every second of a row, or every fourth."""


@dataclass(frozen=True)
class Metadata:
    """What a file says about its picture, None where it says nothing.

    Attributes:
        exif: a TIFF structure, upright and without a thumbnail.
        xmp: an XML packet, likewise.
        iptc: IIM records.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None


NONE: Final = Metadata()


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    value: int
    place: int


class _Directories:
    """A classic TIFF structure's bytes, changed in place. Reading outside them raises struct.error."""

    def __init__(self, block: bytes) -> None:
        if block[:4] not in (b"II*\0", b"MM\0*"):
            raise ValueError("no TIFF structure")
        self.block = bytearray(block)
        self.order = "<" if block[:1] == b"I" else ">"

    def number(self, place: int, format_: str = "I") -> int:
        return int(struct.unpack_from(self.order + format_, self.block, place)[0])

    def set(self, place: int, format_: str, *values: int) -> None:
        struct.pack_into(self.order + format_, self.block, place, *values)

    def entries(self, place: int) -> Iterator[_Entry]:
        for i in range(self.number(place, "H")):
            here = place + 2 + 12 * i
            tag, kind, count = struct.unpack_from(self.order + "HHI", self.block, here)
            value = self.number(here + 8, "H" if kind == 3 else "I")
            yield _Entry(tag, kind, count, value, here)

    def next_of(self, place: int) -> int:
        """Where the place of the directory after the one there is written."""
        return place + 2 + 12 * self.number(place, "H")


def upright_exif(exif: bytes | None, *, keep_thumbnail: bool = False) -> tuple[int, bytes | None]:
    """Reset a block's orientation to 1, swap the sides it names where that turns the picture, drop its thumbnail.

    Args:
        exif: a TIFF structure, perhaps behind JPEG's mark for it.
        keep_thumbnail: leave all but the first directory alone; a TIFF file is such a structure too.

    Returns:
        the orientation, 1 to 8, and the block; 1 and None where it can't be read.
    """
    if not exif:
        return 1, None
    try:
        directories = _Directories(exif.removeprefix(b"Exif\0\0"))
        first = directories.number(4)
        orientation = 1
        sides: list[_Entry] = []
        for entry in directories.entries(first):
            if entry.tag == _ORIENTATION:
                if entry.kind == 3 and entry.count == 1 and 1 <= entry.value <= 8:
                    orientation = entry.value
                directories.set(entry.place, "HHIHH", _ORIENTATION, 3, 1, 1, 0)
            elif entry.tag == _EXIF_IFD:
                sides = [each for each in directories.entries(entry.value) if each.tag in _SIZE_TAGS]
        if orientation >= 5 and len(sides) == 2:
            entries = [directories.block[each.place + 2 : each.place + 12] for each in sides]
            for side, other in zip(sides, reversed(entries), strict=True):
                directories.block[side.place + 2 : side.place + 12] = other
        if not keep_thumbnail:
            _drop_thumbnail(directories, first)
    except (ValueError, struct.error):
        return 1, None
    return orientation, bytes(directories.block)


def _drop_thumbnail(directories: _Directories, first: int) -> None:
    """Forget the second directory, which is the thumbnail's, and overwrite its picture."""
    link = directories.next_of(first)
    if link + 4 > len(directories.block):
        return
    second = directories.number(link)
    directories.set(link, "I", 0)
    if not second:
        return
    try:
        found = {entry.tag: entry.value for entry in directories.entries(second)}
    except struct.error:
        return
    start, length = (found.get(tag, 0) for tag in _THUMBNAIL)
    end = min(start + length, len(directories.block))
    if not 8 <= start < end:
        return
    if end == len(directories.block):
        del directories.block[start:]
    else:
        directories.block[start:end] = bytes(end - start)


_XMP_ORIENTATION: Final = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|\s*>)\s*)[1-8]""")
_LARGEST_XMP: Final = 1 << 24
"""Bytes of a packet that is kept: looking through as many takes two seconds at worst."""
_STALE: Final[dict[bytes, bytes]] = {
    b"http://ns.adobe.com/hdr-gain-map/1.0/": rb"[\w.-]++",
    b"http://ns.google.com/photos/1.0/container/": rb"[\w.-]++",
    b"http://ns.apple.com/HDRGainMap/1.0/": rb"[\w.-]++",
    b"http://ns.adobe.com/xap/1.0/": rb"Thumbnails",
    b"http://ns.adobe.com/xmp/note/": rb"HasExtendedXMP",
}
"""Names in XMP, by their namespace, that speak of another picture or packet in the file, which no longer is there."""


def upright_xmp(xmp: bytes | str | None) -> bytes | None:
    """Reset the orientation that a packet names, and take out what describes pictures that are not written again."""
    if not xmp:
        return None
    if len(xmp) > _LARGEST_XMP:
        return None
    packet = (xmp.encode() if isinstance(xmp, str) else xmp).rstrip(b"\0")
    packet = _XMP_ORIENTATION.sub(rb"\g<1>1", packet)
    for address, names in _STALE.items():
        if address in packet:
            found = set(re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(address) + rb"[\"']", packet))
            for prefix in list(found)[:8]:
                packet = _without(packet, re.escape(prefix) + b":" + names)
    return packet


def _without(packet: bytes, name: bytes) -> bytes:
    """Cut attributes and elements out of XML by a pattern of their names, and leave the rest as it is written."""
    packet = re.sub(rb"\s" + name + rb"\s*+=\s*+(?:\"[^\"]*\"|'[^']*')", b"", packet)
    opening, kept, place = re.compile(b"<(" + name + rb")\b[^<>]*+>"), [], 0
    while start := opening.search(packet, place):
        end = start.end()
        if not start[0].endswith(b"/>"):
            closing = b"</" + start[1] + b">"
            at = packet.find(closing, end)
            if at < 0:
                break
            end = at + len(closing)
        kept.append(packet[place : start.start()])
        place = end
    return b"".join((*kept, packet[place:]))


def of_image(image: Image.Image) -> tuple[int, Metadata]:
    """Return the orientation and the metadata of a file that Pillow has opened, TIFF and PNG aside."""
    info = image.info
    orientation, exif = upright_exif(info.get("exif"))
    resources = info.get("photoshop")
    iptc = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    return orientation, Metadata(exif, upright_xmp(info.get("xmp")), iptc if isinstance(iptc, bytes) else None)


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


def iptc_resource(resources: bytes) -> bytes | None:
    """Find the IPTC records among Photoshop's resources."""
    place = 0
    while resources[place : place + 4] == b"8BIM" and place + 12 <= len(resources):
        code = int.from_bytes(resources[place + 4 : place + 6], "big")
        place += 6 + (resources[place + 6] + 2) // 2 * 2
        size = int.from_bytes(resources[place : place + 4], "big")
        if code == _IPTC_RESOURCE:
            return resources[place + 4 : place + 4 + size]
        place += 4 + (size + 1) // 2 * 2
    return None


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """Return an application segment, APP0 being marker 0xE0."""
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def jpeg_segments(metadata: Metadata) -> bytes:
    """Write metadata as a JPEG's segments; a block that no segment holds is left out."""
    written = b""
    if metadata.exif and len(metadata.exif) + 6 <= MAX_SEGMENT:
        written += jpeg_segment(0xE1, b"Exif\0\0" + metadata.exif)
    if metadata.xmp:
        packet = _squeezed(metadata.xmp)
        if len(packet) + 29 <= MAX_SEGMENT:
            written += jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)
    if metadata.iptc and len(metadata.iptc) + 27 <= MAX_SEGMENT:
        resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(metadata.iptc)) + metadata.iptc
        written += jpeg_segment(0xED, b"Photoshop 3.0\0" + resource + bytes(len(metadata.iptc) % 2))
    return written


def _squeezed(packet: bytes) -> bytes:
    """Take the padding out of a packet that is too long with it."""
    end = packet.rfind(b"<?xpacket end")
    if len(packet) + 29 <= MAX_SEGMENT or end < 0:
        return packet
    return packet[:end].rstrip() + b"\n" + packet[end:]


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


def into_jpeg(jpeg: bytes, segments: bytes) -> bytes:
    """Put segments behind a JPEG's start and its JFIF header, which has to come first."""
    if not segments:
        return jpeg
    place = 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == b"\xff\xe0" else 2
    return b"".join((jpeg[:place], segments, jpeg[place:]))
