"""ICC profiles, EXIF, XMP and Photoshop resources that lie; none may cost more than a moment, nor the picture."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests import profiles
from tests.hostile.case import MALFORMED, METADATA_LOST, PROFILE_LOST, Case, File
from tests.hostile.jpeg import segment, with_segments
from tests.hostile.png import chunk, with_chunks


def _in_jpeg(profile: bytes) -> bytes:
    parts = [profile[place : place + 65_000] for place in range(0, len(profile), 65_000)][:255]
    marks = [segment(0xE2, b"ICC_PROFILE\0" + bytes([i + 1, len(parts)]) + part) for i, part in enumerate(parts)]
    return with_segments(*marks)


def _in_png(profile: bytes) -> bytes:
    return with_chunks(chunk(b"iCCP", b"hostile\0\0" + zlib.compress(profile, 9)))


def _table(
    entries: list[tuple[bytes, int, int]], content: bytes = b"", space: bytes = b"RGB ", count: int | None = None
) -> bytes:
    head = struct.pack(">I4sI4s4s4s12s4s", 0, b"test", 0x02400000, b"mntr", space, b"XYZ ", bytes(12), b"acsp")
    head = head.ljust(128, b"\0") + struct.pack(">I", len(entries) if count is None else count)
    whole = head + b"".join(name + struct.pack(">II", offset, size) for name, offset, size in entries) + content
    return struct.pack(">I", len(whole)) + whole[4:]


def _lut(kind: bytes, inputs: int, outputs: int, grid: int, *, entries: int = 2) -> bytes:
    matrix = struct.pack(">9i", 65_536, 0, 0, 0, 65_536, 0, 0, 0, 65_536)
    return (
        kind + bytes(4) + bytes([inputs, outputs, grid, 0]) + matrix + struct.pack(">HH", entries, entries) + bytes(400)
    )


def _hostile() -> Iterator[tuple[str, bytes]]:
    plain = profiles.display_p3()
    for cut in (4, 40, 100, 128, 130, 132, 140, 200, len(plain) - 1):
        yield f"cut at {cut}", plain[:cut]
    for count in (0, 101, 201, 65_535, 2**31, 2**32 - 1):
        yield f"{count} tags claimed", plain[:128] + struct.pack(">I", count) + plain[132:]
    yield "a tag at 2 GB", plain[:136] + struct.pack(">I", 2**31) + plain[140:]
    yield "a tag at 4 GB of 4 GB", plain[:136] + b"\xff" * 8 + plain[144:]
    yield "a tag of 4 GB", plain[:140] + b"\xff" * 4 + plain[144:]
    yield (
        "all tags the header",
        _table([(name, 0, 128) for name in (b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")]),
    )
    yield "tags that overlap", _table([(b"rTRC", 132 + 12 * i, 5000) for i in range(150)], bytes(8000))
    size = struct.pack(">I", 2**32 - 1)
    yield "a size of 4 GB", size + plain[4:]
    yield "no signature", plain[:36] + b"none" + plain[40:]
    curves = {
        "a curve of 2^32 entries": b"curv\0\0\0\0" + struct.pack(">I", 2**32 - 1),
        "a curve of 2^31 entries": b"curv\0\0\0\0" + struct.pack(">I", 2**31),
        "a curve of no bytes": b"curv",
        "a falling curve": profiles.table(lambda x: 1 - x),
        "a flat curve": profiles.table(lambda x: x * 0),
        "a curve of noise": profiles.table(lambda x: np.random.default_rng(6).random(len(x))),
        "a curve of a million entries": profiles.table(lambda x: x, 1_000_000),
        "a gamma of 0": b"curv\0\0\0\0" + struct.pack(">IH", 1, 0),
        "a gamma of 256": b"curv\0\0\0\0" + struct.pack(">IH", 1, 65_535),
        "a parametric curve of kind 99": b"para\0\0\0\0" + struct.pack(">HH", 99, 0) + bytes(28),
        "a parametric curve of zeros": b"para\0\0\0\0" + struct.pack(">HH", 4, 0) + bytes(28),
        "a parametric curve of extremes": b"para\0\0\0\0"
        + struct.pack(">HH", 4, 0)
        + b"\x7f\xff\xff\xff\x80\0\0\0" * 4,
    }
    for name, curve in curves.items():
        yield name, profiles.matrix_profile([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], curve)
    same = {name + b"XYZ": b"XYZ \0\0\0\0" + struct.pack(">3i", 20_000, 20_000, 20_000) for name in (b"r", b"g", b"b")}
    yield (
        "primaries on a line",
        profiles.profile(b"RGB ", same | {name + b"TRC": profiles.gamma(2) for name in (b"r", b"g", b"b")}),
    )
    for name, lut in {
        "a lut8 of 15 channels and 255 steps": _lut(b"mft1", 15, 15, 255),
        "a lut16 of 16 channels and 255 steps": _lut(b"mft2", 16, 16, 255),
        "a lut16 of 3 channels and 255 steps": _lut(b"mft2", 3, 3, 255),
        "a lut16 of no channels": _lut(b"mft2", 0, 0, 2),
        "a lut16 of a step": _lut(b"mft2", 3, 3, 1),
        "a lut16 of 65535 entries": _lut(b"mft2", 3, 3, 2, entries=65_535),
        "an mAB that points at itself": b"mAB \0\0\0\0\3\3\0\0" + struct.pack(">5I", 0, 0, 0, 0, 0) + bytes(100),
        "an mAB that points out": b"mAB \0\0\0\0\3\3\0\0" + struct.pack(">5I", *[2**32 - 4] * 5) + bytes(100),
        "an mAB of 255 steps": b"mAB \0\0\0\0\3\3\0\0" + struct.pack(">5I", 32, 0, 0, 64, 32) + bytes(32)
        + b"\xff" * 16 + bytes(100),
        "an mpet of 2^32 elements": b"mpet\0\0\0\0\0\3\0\3" + b"\xff" * 4 + bytes(100),
        "an mpet in a circle": b"mpet\0\0\0\0\0\3\0\3" + struct.pack(">5I", 2, 0, 36, 0, 36) + bytes(100),
        "a type of nonsense": b"evil" + bytes(200),
    }.items():  # fmt: skip
        yield name, profiles.profile(b"RGB ", {b"A2B0": lut, b"B2A0": lut}, b"Lab ")
    great = profiles.profile(b"RGB ", {b"A2B0": _big_lut(3, 100)}, b"Lab ")
    yield "a lut16 of 6 MB", great
    yield (
        "texts of 2^32 languages",
        profiles.profile(b"RGB ", {b"desc": b"mluc\0\0\0\0" + b"\xff" * 4 + struct.pack(">I", 12) + bytes(100)}),
    )
    yield "zeros", bytes(100_000)
    yield "CMYK's name on RGB", profiles.cmyk()[:200_000]
    yield "grey on RGB", profiles.grey_gamma()
    yield "a device link", plain[:12] + b"link" + plain[16:]
    yield "a named palette", plain[:12] + b"nmcl" + plain[16:]


def _big_lut(channels: int, grid: int) -> bytes:
    matrix = struct.pack(">9i", 65_536, 0, 0, 0, 65_536, 0, 0, 0, 65_536)
    straight = struct.pack(">HH", 0, 65_535) * channels
    cube: bytes = np.random.default_rng(6).integers(0, 65_536, grid**channels * 3, np.uint16).astype(">u2").tobytes()
    return (
        b"mft2"
        + bytes(4)
        + bytes([channels, 3, grid, 0])
        + matrix
        + struct.pack(">HH", 2, 2)
        + straight
        + cube
        + straight
    )


def _segments() -> Iterator[Case]:
    plain = profiles.display_p3()
    part = b"ICC_PROFILE\0"
    for name, marks in {
        "of 255 parts, of which one is there": [part + b"\1\xff" + plain],
        "of no parts": [part + b"\0\0" + plain],
        "part 9 of 2": [part + b"\x09\2" + plain],
        "255 times part 1": [part + b"\1\xff" + plain] * 255,
        "parts in no order": [part + bytes([i, 3]) + plain[:50] for i in (3, 1, 2, 2)],
        "no number": [part],
        "10000 parts": [part + b"\1\1" + plain] * 10_000,
    }.items():
        yield Case(
            f"a profile {name}", File(with_segments(*[segment(0xE2, each) for each in marks])), MALFORMED, PROFILE_LOST
        )


def _exif(order: str, tags: list[tuple[int, int, int, int]], after: int = 0, content: bytes = b"") -> bytes:
    mark = b"MM\0*" if order == ">" else b"II*\0"
    entries = b"".join(struct.pack(order + "HHII", *tag) for tag in tags)
    return mark + struct.pack(order + "IH", 8, len(tags)) + entries + struct.pack(order + "I", after) + content


def _exifs() -> Iterator[tuple[str, bytes]]:
    yield "a directory that follows itself", _exif(">", [(0x112, 3, 1, 1 << 16)], 8)
    yield "Exif that is the first directory", _exif(">", [(0x8769, 4, 1, 8)])
    yield "GPS that is the first directory", _exif("<", [(0x8825, 4, 1, 8)])
    yield "Exif, GPS and Interop in a circle", _exif("<", [(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8)])
    yield "offsets of 2 GB", _exif("<", [(0x10F, 2, 100, 2**31 - 1), (0x8769, 4, 1, 2**31)])
    yield "offsets of 4 GB", _exif("<", [(0x10F, 2, 100, 2**32 - 1), (0x8769, 4, 1, 2**32 - 1)])
    yield "counts of 2^32", _exif("<", [(0x10F, 2, 2**32 - 1, 8), (0x11A, 5, 2**32 - 1, 8), (0x9286, 7, 2**32 - 1, 8)])
    yield "65535 tags claimed", b"II*\0" + struct.pack("<IH", 8, 65_535)
    yield "5000 tags", _exif("<", [(0x8000 + i, 4, 1, i) for i in range(5000)])
    yield "5000 tags that share 60 kB", _exif("<", [(0x8000 + i, 7, 60_000, 8) for i in range(4999)])
    yield (
        "a thumbnail of 4 GB",
        _exif("<", [(0x112, 3, 1, 6)], 26, struct.pack("<HHHIIHHIII", 2, 0x201, 4, 1, 8, 0x202, 4, 1, 2**32 - 1, 0)),
    )
    yield (
        "a thumbnail that is its own directory",
        _exif("<", [(0x112, 3, 1, 6)], 26, struct.pack("<HHHIIHHIII", 2, 0x201, 4, 1, 8, 0x202, 4, 1, 40, 26)),
    )
    yield "an orientation of 65535", _exif("<", [(0x112, 3, 1, 65_535)])
    yield "a million orientations", _exif("<", [(0x112, 3, 1_000_000, 8)])
    yield "orientation as text", _exif("<", [(0x112, 2, 4, 0x41414141)])
    yield "a kind 255", _exif("<", [(0x112, 255, 1, 6), (0x10F, 0, 1, 6)])
    yield "divisions by zero", _exif("<", [(0x11A, 5, 1, 26)], 0, bytes(8))
    yield "no directory", b"II*\0" + bytes(4)
    yield "a directory in the header", b"II*\0" + struct.pack("<I", 0) + bytes(40)
    yield "a mark alone", b"MM"
    yield "noise", np.random.default_rng(6).bytes(60_000)


def _xmps() -> Iterator[tuple[str, bytes]]:
    laughs = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">'
    for this, before in zip(b"bcdefghij", b"abcdefghi", strict=True):
        laughs += b'<!ENTITY %c "%b">' % (this, b"&%c;" % before * 10)
    yield "a billion laughs", laughs + b"]><x:xmpmeta xmlns:x='adobe:ns:meta/'>&j;</x:xmpmeta>"
    yield "an outside entity", b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x:xmpmeta>&a;</x:xmpmeta>'
    yield "an outside document type", b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x:xmpmeta/>'
    yield "elements 10000 deep", b"<a>" * 10_000
    gain = b'xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/" '
    yield "spaces between a name and no equals sign", gain + (b"h:x" + b" " * 500) * 120
    yield "60000 spaces", gain + b" h:x" + b" " * 60_000
    yield "quotes that never end", gain + b' h:x="' * 10_000
    yield "elements that never end", gain + b"<h:x " * 12_000
    yield "a name that may end anywhere", gain + b"<h:" + b"a-" * 30_000
    yield "openings without a closing", gain + b"<h:x>" * 12_000
    yield "closings without an opening", gain + b"</h:x>" * 10_000
    yield "10000 prefixes", b"".join(b'xmlns:a%d="http://ns.adobe.com/hdr-gain-map/1.0/" ' % i for i in range(1100))
    yield "a prefix of 60000 letters", b"xmlns:" + b"a" * 60_000 + b'="http://ns.adobe.com/hdr-gain-map/1.0/"'
    yield "orientation and 60000 spaces", b"tiff:Orientation" + b" " * 60_000
    yield "1000 orientations without a value", (b"tiff:Orientation" + b" " * 44) * 1000
    yield "zeros", bytes(60_000)
    yield "bytes that are no text", bytes(range(256)) * 200


def _metadata() -> Iterator[Case]:
    for name, block in _exifs():
        short = block[:65_000]
        yield Case(f"EXIF: {name}", File(with_segments(segment(0xE1, b"Exif\0\0" + short))), MALFORMED, METADATA_LOST)
        yield Case(f"EXIF in PNG: {name}", File(with_chunks(chunk(b"eXIf", block))), MALFORMED, METADATA_LOST)
    for name, packet in _xmps():
        short = packet[:65_000]
        marked = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + short)
        yield Case(f"XMP: {name}", File(with_segments(marked)), MALFORMED, METADATA_LOST)
        long = packet * (4_000_000 // len(packet))
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(long))
        yield Case(f"4 MB of XMP: {name}", File(with_chunks(text)), MALFORMED, METADATA_LOST)
    resource = b"Photoshop 3.0\0"
    for name, block in {
        "a size of -1": b"8BIM" + struct.pack(">HHI", 0x404, 0, 2**32 - 1),
        "a size of -2^31": b"8BIM" + struct.pack(">HHI", 0x404, 0, 2**31),
        "a name longer than the block": b"8BIM" + struct.pack(">HB", 0x404, 255),
        "5000 empty ones": b"8BIM" + struct.pack(">HHI", 0x404, 0, 0) * 5000,
        "no signature": b"none" * 1000,
        "half a header": b"8BIM\4",
        "IPTC of lengths that lie": b"8BIM" + struct.pack(">HHI", 0x404, 0, 10) + b"\x1c\2\x78\xff\xff" + bytes(5),
    }.items():
        yield Case(
            f"Photoshop resources: {name}",
            File(with_segments(segment(0xED, resource + block))),
            MALFORMED,
            METADATA_LOST,
        )


def cases() -> Iterator[Case]:
    for name, profile in _hostile():
        yield Case(f"profile: {name}", File(_in_jpeg(profile)), MALFORMED, PROFILE_LOST, megabytes=300)
        yield Case(
            f"profile in PNG: {name}", File(_in_png(profile), "image/png"), MALFORMED, PROFILE_LOST, megabytes=300
        )
    yield from _segments()
    yield from _metadata()
