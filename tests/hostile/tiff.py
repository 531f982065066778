"""TIFF: cut at header, directory, strips and tiles; directories in circles; offsets, counts, depths (TIFF 6.0)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tests.hostile import good
from tests.hostile.case import (
    FORMAT,
    FRAMES,
    LARGE,
    MALFORMED,
    METADATA_LOST,
    SAMPLES,
    Case,
    File,
    truncated,
)

SHORT, LONG, BYTE, ASCII, RATIONAL, UNDEFINED, DOUBLE = 3, 4, 1, 2, 5, 7, 12
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


@dataclass(frozen=True)
class Tag:
    """An entry; `count` and `value` speak for themselves where given, whatever the content is."""

    number: int
    kind: int
    values: Sequence[int] = ()
    count: int | None = None
    value: int | None = None


def directory(tags: Sequence[Tag], start: int, after: int = 0, order: str = "<") -> bytes:
    """A directory at `start`, followed by what does not fit into its entries."""
    place = start + 2 + 12 * len(tags) + 4
    entries, content = bytearray(), bytearray()
    for tag in sorted(tags, key=lambda each: each.number):
        letter = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 12: "Q"}.get(tag.kind, "I")
        packed = struct.pack(f"{order}{len(tag.values)}{letter}", *tag.values)
        count = len(tag.values) if tag.count is None else tag.count
        entries += struct.pack(order + "HHI", tag.number, tag.kind, count)
        if tag.value is not None:
            entries += struct.pack(order + "I", tag.value)
        elif len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack(order + "I", place + len(content))
            content += packed + bytes(len(packed) % 2)
    return struct.pack(order + "H", len(tags)) + bytes(entries) + struct.pack(order + "I", after) + bytes(content)


def usual(width: int = 48, height: int = 40, *others: Tag, channels: int = 3) -> list[Tag]:
    """The tags of an uncompressed 8-bit picture of one strip at 8; others take the place of equal ones."""
    tags = [
        Tag(256, LONG, [width]), Tag(257, LONG, [height]), Tag(258, SHORT, [8] * channels), Tag(259, SHORT, [1]),
        Tag(262, SHORT, [2 if channels == 3 else 1]), Tag(273, LONG, [8]), Tag(277, SHORT, [channels]),
        Tag(278, LONG, [height]), Tag(279, LONG, [40 * 48 * 3]),
    ]  # fmt: skip
    replaced = {tag.number for tag in others}
    return [tag for tag in tags if tag.number not in replaced] + list(others)


PIXELS = good.pixels().tobytes()


def file(tags: Sequence[Tag], after: int = 0, pixels: bytes = PIXELS, order: str = "<") -> bytes:
    """Header, samples at 8, directory behind them."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    start = 8 + len(pixels)
    return mark + struct.pack(order + "I", start) + pixels + directory(tags, start, after, order)


def chain(count: int, *, circle: bool = False, tags: int = 1) -> bytes:
    """A good page, and that many directories behind it, which lead back to the second one where in a circle."""
    first = file(usual())
    place = len(first)
    page = bytearray(file(usual(), after=place))
    size = 2 + 12 * tags + 4
    for number in range(count):
        last = number == count - 1
        following = (place if circle else 0) if last else place + size * (number + 1)
        entries = struct.pack("<HHII", 254, LONG, 1, 0) + struct.pack("<HHII", 256, LONG, 1, 10) * (tags - 1)
        page += struct.pack("<H", tags) + entries + struct.pack("<I", following)
    return bytes(page)


def _cuts(data: bytes, strip: int, directory_: int) -> list[tuple[str, int]]:
    return [
        ("in the mark", 2), ("after the mark", 4), ("in the first offset", 6), ("after the header", 8),
        ("in the samples", strip), ("before the directory", directory_), ("in the directory's count", directory_ + 1),
        ("in a tag", directory_ + 9), ("after a tag", directory_ + 14), ("amid the tags", directory_ + 60),
        ("after the tags", min(directory_ + 2 + 12 * data[directory_], len(data) - 1)),
        ("before its last ten bytes", len(data) - 10),
    ]  # fmt: skip


def _layouts() -> Iterator[tuple[str, bytes]]:
    """Good files of several layouts."""
    yield (
        "strips",
        file(usual(48, 40, Tag(273, LONG, [8, 8 + 20 * 144]), Tag(278, LONG, [20]), Tag(279, LONG, [2880] * 2))),
    )
    grey = np.zeros((48, 48), np.uint8).tobytes()
    tiled = [Tag(322, LONG, [16]), Tag(323, LONG, [16]), Tag(324, LONG, [8 + 256 * i for i in range(9)])]
    tiled += [Tag(325, LONG, [256] * 9), Tag(258, SHORT, [8])]
    tags = [tag for tag in usual(48, 48, *tiled, channels=1) if tag.number not in (273, 278, 279)]
    yield "tiles", file(tags, pixels=grey)
    for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        yield name.removeprefix("tiff_"), good.saved(good.pixels(), "TIFF", compression=name)


def _directories() -> Iterator[Case]:
    base = file(usual())
    start = 8 + len(PIXELS)
    many = "the first page is there, and the others are only counted"
    yield Case("a directory that follows itself", File(file(usual(), after=start)), MALFORMED, many)
    yield Case("two directories in a circle", File(chain(1, circle=True)), MALFORMED, many)
    yield Case("500 directories in a circle", File(chain(500, circle=True)), MALFORMED, many)
    yield Case("1001 directories", File(chain(1001)), FRAMES)
    yield Case("100000 directories", File(chain(100_000)), FRAMES)
    yield Case("100000 directories, as a body", File(chain(100_000), "image/tiff", raw=True), FRAMES)
    yield Case("100000 directories in a circle", File(chain(100_000, circle=True)), FRAMES)
    yield Case("900 directories of 1000 tags", File(chain(900, tags=1000)), MALFORMED, many)
    yield Case("directories that overlap", File(_overlapping()), FRAMES)
    for name, number in (("SubIFDs", 330), ("Exif", 0x8769), ("GPS", 0x8825), ("Interop", 0xA005)):
        tags = usual(48, 40, Tag(number, LONG, [start]))
        yield Case(f"{name} that is the first directory itself", File(file(tags)), MALFORMED, METADATA_LOST)
        yield Case(
            f"{name} at 2 GB", File(file(usual(48, 40, Tag(number, LONG, [2**31 - 1])))), MALFORMED, METADATA_LOST
        )
        tags = usual(48, 40, Tag(number, LONG, [start] * 10_000))
        yield Case(f"10000 times {name}", File(file(tags)), MALFORMED, METADATA_LOST)
        yield Case(
            f"2^32 times {name}",
            File(file(usual(48, 40, Tag(number, LONG, count=2**32 - 1, value=8)))),
            MALFORMED,
            METADATA_LOST,
        )
    yield Case("first directory at 2 GB", File(b"II*\0" + struct.pack("<I", 2**31) + base[8:]), MALFORMED)
    yield Case("first directory at 4 GB", File(b"II*\0" + b"\xff" * 4 + base[8:]), MALFORMED)
    yield Case("first directory in the header", File(b"II*\0" + struct.pack("<I", 4) + base[8:]), MALFORMED)
    yield Case("no directory", File(b"II*\0" + bytes(4) + base[8:]), MALFORMED)
    yield Case("a directory of no tags", File(file([])), MALFORMED)
    yield Case("65535 tags claimed", File(base[:start] + b"\xff\xff" + base[start + 2 :]), MALFORMED)
    yield Case(
        "65535 equal tags", File(file(usual(48, 40) + [Tag(270, ASCII, [65, 0])] * 65_000)), MALFORMED, METADATA_LOST
    )
    deep = file(usual(48, 40) + [Tag(40_000 + i, ASCII, count=len(PIXELS), value=8) for i in range(20_000)])
    yield Case("20000 tags that share 5 kB", File(deep), MALFORMED, METADATA_LOST)
    shared = bytes(2_000_000)
    deep = file(
        usual(48, 40) + [Tag(40_000 + i, UNDEFINED, count=len(shared), value=8) for i in range(2000)], pixels=shared
    )
    yield Case("2000 tags that share 2 MB", File(deep), MALFORMED, METADATA_LOST)
    wide = file(usual(48, 40) + [Tag(40_000 + i, SHORT, count=1_000_000, value=8) for i in range(2000)], pixels=shared)
    yield Case("2000 tags of a million numbers that share 2 MB", File(wide), MALFORMED, METADATA_LOST)
    yield Case("BigTIFF of no tags", File(b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + bytes(100)), MALFORMED)
    for name, count in (("2^61", 2**61), ("2^64", 2**64 - 1)):
        claims = struct.pack("<QQ", 16, count) + bytes(100)
        yield Case(f"BigTIFF of {name} tags", File(b"II+\0\x08\0\0\0" + claims), MALFORMED)
    beyond = struct.pack("<Q", 2**63) + bytes(100)
    yield Case("BigTIFF whose directory is at 2^63", File(b"II+\0\x08\0\0\0" + beyond), MALFORMED)
    values = struct.pack("<QQ", 16, 1) + struct.pack("<HHQQ", 256, 16, 2**61, 16) + bytes(100)
    yield Case("BigTIFF of 2^61 widths", File(b"II+\0\x08\0\0\0" + values), MALFORMED)


def _overlapping() -> bytes:
    """Directories two bytes apart, each of no tags, whose link is the next one's count."""
    page = bytearray(file(usual(), after=len(file(usual()))))
    base = len(page)
    for number in range(20_000):
        page += struct.pack("<HI", 0, base + 6 * (number + 1))
    return bytes(page + bytes(6))


def _counts() -> Iterator[Case]:
    kept = "a tag that describes and can't be read is left out"
    for name, tag in {
        "a strip at 2 GB": Tag(273, LONG, [2**31]),
        "a strip at 4 GB": Tag(273, LONG, [2**32 - 1]),
        "no strips": Tag(273, LONG, []),
        "2^32 strips": Tag(273, LONG, count=2**32 - 1, value=8),
        "2^31 strips of 2^31 bytes": Tag(279, LONG, count=2**31, value=8),
        "a million strips": Tag(273, LONG, count=1_000_000, value=8),
        "2^32 bit depths": Tag(258, SHORT, count=2**32 - 1, value=8),
        "a million bit depths": Tag(258, SHORT, count=1_000_000, value=8),
        "65535 channels": Tag(277, SHORT, [65_535]),
        "no channels": Tag(277, SHORT, [0]),
        "17 channels": Tag(277, SHORT, [17]),
        "no width": Tag(256, LONG, [0]),
        "no height": Tag(257, LONG, [0]),
        "a width of text": Tag(256, ASCII, [65, 0, 0, 0]),
        "a compression that no one knows": Tag(259, SHORT, [999]),
        "JPEG of old": Tag(259, SHORT, [6]),
        "fax coding": Tag(259, SHORT, [4]),
        "LZMA": Tag(259, SHORT, [34_925]),
        "WebP inside": Tag(259, SHORT, [50_001]),
        "Zstandard inside": Tag(259, SHORT, [50_000]),
        "JPEG 2000 inside": Tag(259, SHORT, [34_712]),
        "a palette that is not there": Tag(262, SHORT, [3]),
        "LogLuv": Tag(262, SHORT, [32_845]),
    }.items():
        yield Case(name, File(file(usual(48, 40, tag))), MALFORMED | SAMPLES | LARGE)
    for name, tag in {
        "a colour filter array": Tag(262, SHORT, [32_803]),
        "linear raw": Tag(262, SHORT, [34_892]),
        "Nikon's compression": Tag(259, SHORT, [34_713]),
        "a DNG's version": Tag(50_706, BYTE, [1, 4, 0, 0]),
    }.items():
        yield Case(name, File(file(usual(48, 40, tag))), FORMAT)
    for name, tag, why in (
        ("a strip of 2 GB", Tag(279, LONG, [2**31]), "how many bytes it has follows from the size"),
        ("a strip of 4 GB", Tag(279, LONG, [2**32 - 1]), "how many bytes it has follows from the size"),
        ("a strip of no bytes", Tag(279, LONG, [0]), "how many there are follows from the size"),
        ("rows of 0", Tag(278, LONG, [0]), "one strip is all rows"),
        ("4 GB rows in a strip", Tag(278, LONG, [2**32 - 1]), "this is how one strip is written"),
        ("a profile of 4 GB", Tag(34_675, UNDEFINED, count=2**32 - 1, value=8), kept),
        ("XMP of 4 GB", Tag(700, BYTE, count=2**32 - 1, value=8), kept),
        ("IPTC of 4 GB", Tag(33_723, UNDEFINED, count=2**32 - 1, value=8), kept),
        ("Photoshop resources of 4 GB", Tag(34_377, BYTE, count=2**32 - 1, value=8), kept),
        ("a description of 2 GB", Tag(270, ASCII, count=2**31, value=8), kept),
        ("a tag of an unknown kind", Tag(270, 99, [1]), kept),
        ("a tag of kind 0", Tag(270, 0, [1]), kept),
        ("a resolution over zero", Tag(282, RATIONAL, count=1, value=0), kept),
        ("an orientation of 99", Tag(274, SHORT, [99]), kept),
        ("a predictor of 99", Tag(317, SHORT, [99]), "it says nothing of samples that are not compressed"),
    ):
        yield Case(name, File(file(usual(48, 40, tag))), MALFORMED, why)
    for width, height in ((65_535, 65_535), (2**32 - 1, 2**32 - 1), (2**31, 1), (1, 2**32 - 1)):
        yield Case(f"{width}x{height}", File(file(usual(width, height))), LARGE)
    yield Case("9999x9999 of one strip that is not there", File(file(usual(9999, 9999))), MALFORMED, megabytes=900)
    signed = Tag(256, 9, [2**32 - 20])
    yield Case("a width of -20", File(file(usual(48, 40, signed))), MALFORMED | LARGE)
    tile = [Tag(324, LONG, [8]), Tag(325, LONG, [5760])]
    for side in (1 << 14, 1 << 16, 2**31 - 16, 2**32 - 16):
        tiled = [*tile, Tag(322, LONG, [side]), Tag(323, LONG, [side])]
        tags = [tag for tag in usual(48, 40, *tiled) if tag.number not in (273, 278, 279)]
        yield Case(f"a tile of {side}x{side} in 48x40", File(file(tags)), MALFORMED)
    tags = [
        each
        for each in usual(48, 40, *tile, Tag(322, LONG, [0]), Tag(323, LONG, [0]))
        if each.number not in (273, 278, 279)
    ]
    yield Case("a tile of no size", File(file(tags)), MALFORMED)
    tags = [
        each
        for each in usual(48, 40, *tile, Tag(322, LONG, [17]), Tag(323, LONG, [3]))
        if each.number not in (273, 278, 279)
    ]
    yield Case("a tile of 17x3", File(file(tags)), MALFORMED)


def _depths() -> Iterator[Case]:
    for bits in (0, 3, 5, 7, 17, 24, 31, 32, 64, 65_535):
        depth = Tag(258, SHORT, [bits] * 3)
        yield Case(f"{bits} bits", File(file(usual(16, 16, depth), pixels=PIXELS * 3)), SAMPLES | MALFORMED)
    for bits in (10, 12, 14):
        depth = Tag(258, SHORT, [bits] * 3)
        yield Case(f"{bits} bits", File(file(usual(16, 16, depth))), SAMPLES)
    mixed = Tag(258, SHORT, [8, 16, 4])
    yield Case("bits of 8, 16 and 4", File(file(usual(16, 16, mixed))), SAMPLES)
    for value, name in ((1.0, "floats"), (float("nan"), "NaN"), (float("inf"), "infinity"), (1e38, "1e38")):
        for bits, letter in ((32, "<f4"), (64, "<f8"), (16, "<f2")):
            if bits == 16 and value == 1e38:
                continue
            pixels = np.full((16, 16, 3), value, letter).tobytes()
            tags = usual(16, 16, Tag(258, SHORT, [bits] * 3), Tag(339, SHORT, [3] * 3), Tag(279, LONG, [len(pixels)]))
            yield Case(f"{name} of {bits} bits", File(file(tags, pixels=pixels)), SAMPLES)
    for kind, name in ((2, "signed"), (4, "undefined"), (5, "complex whole"), (6, "complex"), (99, "unknown")):
        yield Case(f"{name} samples", File(file(usual(48, 40, Tag(339, SHORT, [kind] * 3)))), SAMPLES)


def cases() -> Iterator[Case]:
    for name, data in _layouts():
        start = struct.unpack("<I", data[4:8])[0]
        behind = _cuts(data, 8 + (start - 8) // 2 if start > 20 else len(data) - 200, start)
        if name in ("strips", "tiles"):
            behind.pop()  # the counts of bytes lie there, which samples that are not compressed can do without
        yield from truncated(name, data, [each for each in behind if 0 < each[1] < len(data)], ".tif")
    yield from _directories()
    yield from _counts()
    yield from _depths()
