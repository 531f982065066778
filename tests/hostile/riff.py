"""WebP (RIFF; lossy, lossless, animated) and BMP: cut at every chunk and field, sizes, lengths that lie."""

import struct
from collections.abc import Iterator

from tests.hostile import good
from tests.hostile.case import (
    FORMAT,
    FRAMES,
    LARGE,
    MALFORMED,
    METADATA_LOST,
    PROFILE_LOST,
    SAMPLES,
    Case,
    File,
    truncated,
)


def chunk(kind: bytes, content: bytes, *, length: int | None = None) -> bytes:
    return kind + struct.pack("<I", len(content) if length is None else length) + content + bytes(len(content) % 2)


def riff(*chunks: bytes, length: int | None = None) -> bytes:
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content) if length is None else length) + content


def extended(width: int, height: int, flags: int = 0) -> bytes:
    size = (width - 1).to_bytes(3, "little", signed=False) + (height - 1).to_bytes(3, "little", signed=False)
    return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)


def _cuts(data: bytes) -> list[tuple[str, int]]:
    places, place, seen = [("in the RIFF's length", 6), ("before the kind", 8), ("after the kind", 12)], 12, set[str]()
    while place + 8 <= len(data):
        end = place + 8 + int.from_bytes(data[place + 4 : place + 8], "little")
        name = data[place : place + 4].decode().strip()
        if name not in seen:
            places += [(f"in {name}'s name", place + 2), (f"in {name}'s length", place + 6)]
            places += [
                (f"at {name}'s content", place + 8),
                (f"in {name}", (place + 8 + end) // 2),
                (f"after {name}", end),
            ]
        seen.add(name)
        place = end + end % 2
    return [each for each in places if each[1] < len(data)]


def _still(data: bytes) -> bytes:
    """The only chunk of a simple file."""
    return data[12:]


def _webp() -> Iterator[Case]:
    lossy, lossless = good.webp(), good.webp(lossless=True)
    yield from truncated("lossy", lossy, _cuts(lossy), ".webp")
    yield from truncated("lossless", lossless, _cuts(lossless), ".webp")
    animated = good.animation()
    yield from truncated("animated", animated, _cuts(animated), ".webp")
    for width, height in ((65_535, 65_535), (1 << 24, 1 << 8), (16_383, 16_383)):
        data = riff(extended(width, height), _still(lossy))
        yield Case(f"a canvas of {width}x{height}", File(data, "image/webp"), LARGE | MALFORMED)
    place = lossy.index(b"\x9d\x01\x2a") + 3
    yield Case("lossy of 16383x16383", File(lossy[:place] + b"\xff\x3f\xff\x3f" + lossy[place + 4 :]), LARGE)
    yield Case("lossy of 0x0", File(lossy[:place] + bytes(4) + lossy[place + 4 :]), MALFORMED)
    yield Case(
        "lossy of 9000x9000 of nothing",
        File(lossy[:place] + struct.pack("<HH", 9000, 9000) + lossy[place + 4 :]),
        MALFORMED,
        megabytes=900,
    )
    place = lossless.index(b"VP8L") + 9
    yield Case("lossless of 16384x16384", File(lossless[:place] + b"\xff\xff\xff\x0f" + lossless[place + 4 :]), LARGE)
    wrong = lossless[:place] + struct.pack("<I", 8999 | 8999 << 14) + lossless[place + 4 :]
    yield Case("lossless of 9000x9000 of nothing", File(wrong), MALFORMED, megabytes=900)
    for name, length in (("0", 0), ("4 GB", 2**32 - 1), ("2 GB", 2**31)):
        yield Case(
            f"a RIFF of {name}",
            File(riff(_still(lossy), length=length)),
            MALFORMED | FORMAT,
            "a reader may go by the chunks",
        )
        yield Case(f"a chunk of {name}", File(riff(chunk(b"VP8 ", _still(lossy)[8:], length=length))), MALFORMED)
    yield Case("no chunks", File(riff(b"")), MALFORMED)
    yield Case("an extended header alone", File(riff(extended(48, 40))), MALFORMED)
    odd = "chunks that need not be known are passed over"
    many = riff(extended(48, 40), chunk(b"JUNK", b"") * 100_000, _still(lossy))
    yield Case("100000 empty chunks", File(many), MALFORMED, odd)
    yield Case("two pictures", File(riff(_still(lossy), _still(lossy))), MALFORMED, "the first one counts")
    yield Case("a RIFF in the RIFF", File(riff(riff(_still(lossy)))), MALFORMED)
    wave = b"RIFF" + struct.pack("<I", 100) + b"WAVEfmt " + bytes(100)
    yield Case("a sound", File(wave, "image/webp"), FORMAT)
    for flag, kind, why in (
        (0x20, b"ICCP", PROFILE_LOST),
        (0x08, b"EXIF", METADATA_LOST),
        (0x04, b"XMP ", METADATA_LOST),
    ):
        name = kind.decode().strip()
        yield Case(
            f"{name} of 4 GB",
            File(riff(extended(48, 40, flag), chunk(kind, b"x", length=2**32 - 1), _still(lossy))),
            MALFORMED,
        )
        yield Case(
            f"{name} of 8 MB of nothing",
            File(riff(extended(48, 40, flag), chunk(kind, bytes(8 << 20)), _still(lossy))),
            MALFORMED,
            why,
        )
    alpha = riff(extended(48, 40, 0x10), chunk(b"ALPH", b"\1" + b"\xff" * 20), _still(lossy))
    yield Case("alpha of nonsense", File(alpha), MALFORMED, "the colours are there")


def _animations() -> Iterator[Case]:
    lossy = _still(good.webp())

    def frames(count: int, width: int, height: int, canvas: tuple[int, int] = (48, 40)) -> bytes:
        place = bytes(6) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + bytes(4)
        return riff(extended(*canvas, 2), chunk(b"ANIM", bytes(6)), chunk(b"ANMF", place + lossy) * count)

    yield Case("1001 frames", File(frames(1001, 48, 40)), FRAMES)
    yield Case("20000 frames", File(frames(20_000, 48, 40)), FRAMES)
    tiny = chunk(b"ANMF", bytes(12) + bytes(4))
    many = riff(extended(48, 40, 2), chunk(b"ANIM", bytes(6)), tiny * 500_000)
    yield Case("500000 frames of nothing", File(many), FRAMES | MALFORMED)
    yield Case("no frames", File(frames(0, 1, 1)), MALFORMED)
    yield Case(
        "a frame larger than its canvas",
        File(frames(2, 16_384, 16_384)),
        MALFORMED | LARGE,
        "the frame itself says how large it is",
    )
    yield Case("frames on a canvas of 16384x16384", File(frames(2, 48, 40, (16_384, 16_384))), LARGE)
    yield Case(
        "two frames on a canvas of 2000x2000",
        File(frames(2, 48, 40, (2000, 2000))),
        MALFORMED,
        "a small part of a large canvas is allowed",
    )


def _bmp() -> Iterator[Case]:
    base = good.bmp()

    def changed(place: int, letters: str, *values: int) -> File:
        size = struct.calcsize("<" + letters)
        return File(base[:place] + struct.pack("<" + letters, *values) + base[place + size :], "image/bmp")

    places = [("in the mark", 1), ("in the size", 4), ("in the offset", 12), ("after the file's header", 14)]
    places += [("in the width", 20), ("in the height", 24), ("in the header", 40), ("after the header", 54)]
    places += [("in the samples", 2000), ("in the last row", len(base) - 70), ("before the last byte", len(base) - 1)]
    yield from truncated("BMP", base, places, ".bmp")
    for width, height in ((65_535, 65_535), (2**31 - 1, 2**31 - 1), (65_535, -65_535), (2**31 - 1, 1)):
        yield Case(f"BMP of {width}x{height}", changed(18, "ii", width, height), LARGE | MALFORMED)
    for width, height in ((0, 0), (0, 40), (48, 0), (-48, 40), (-(2**31), -(2**31))):
        yield Case(f"BMP of {width}x{height}", changed(18, "ii", width, height), MALFORMED | LARGE)
    yield Case("BMP of 9999x9999 of nothing", changed(18, "ii", 9999, 9999), MALFORMED, megabytes=900)
    for bits in (0, 2, 3, 5, 7, 12, 48, 64, 65_535):
        yield Case(f"BMP of {bits} bits", changed(28, "H", bits), MALFORMED | SAMPLES)
    for way in (1, 2, 3, 4, 5, 6, 11, 99, 2**32 - 1):
        yield Case(f"BMP of compression {way}", changed(30, "I", way), MALFORMED | SAMPLES)
    for size in (0, 1, 39, 41, 2**31, 2**32 - 1):
        yield Case(f"a BMP header of {size} bytes", changed(14, "I", size), MALFORMED)
    for offset in (2**31, 2**32 - 1):
        yield Case(f"BMP samples at {offset}", changed(10, "I", offset), MALFORMED)
    yield Case("BMP of 2^32 colours", changed(46, "I", 2**32 - 1), MALFORMED, "24 bits need no palette")
    yield Case("BMP of two planes", changed(26, "H", 2), MALFORMED, "no reader looks at it")
    head = struct.pack("<2sIHHIIiiHHIIIIII", b"BM", 0, 0, 0, 1078, 40, 2000, 2000, 1, 8, 1, 0, 0, 0, 0, 0) + bytes(1024)
    yield Case(
        "a run-length BMP of 2000x2000 of skips",
        File(head + b"\0\2\xff\xff" * 40 + b"\0\1"),
        MALFORMED,
        "what is skipped stays black",
    )
    yield Case("a run-length BMP of short runs", File(head + b"\1\0" * 1_000_000), MALFORMED)


def cases() -> Iterator[Case]:
    yield from _webp()
    yield from _animations()
    yield from _bmp()
