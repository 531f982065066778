"""PNG: cut at every kind of chunk, bombs in text and profile, sizes and depths (PNG, third edition)."""

import struct
import zlib
from collections.abc import Iterator
from functools import cache

from tests.hostile import good
from tests.hostile.case import FRAMES, LARGE, MALFORMED, METADATA_LOST, PROFILE_LOST, SAMPLES, Case, File, truncated

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes = b"", *, check: int | None = None, length: int | None = None) -> bytes:
    """A chunk; its check sum and length are right unless others are given."""
    check = zlib.crc32(kind + content) if check is None else check
    return struct.pack(">I", len(content) if length is None else length) + kind + content + struct.pack(">I", check)


def head(width: int, height: int, bits: int = 8, colour: int = 2, *ways: int) -> bytes:
    ways = ways or (0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, *ways))


@cache
def zeros(megabytes: int) -> bytes:
    """That many megabytes of zeros, deflated to a thousandth: one block that stands alone, again and again."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    check = (megabytes << 20) % 65_521 << 16 | 1
    return b"\x78\xda" + block * megabytes + b"\3\0" + struct.pack(">I", check)


def with_chunks(*chunks: bytes) -> bytes:
    """Put chunks behind a good PNG's header."""
    data = good.png()
    return data[:33] + b"".join(chunks) + data[33:]


def of_zeros(width: int, height: int, rows: int) -> bytes:
    """A black RGB picture that holds `rows` of the rows that its header claims."""
    data = zlib.compress(bytes((3 * width + 1) * rows), 9)
    return head(width, height) + chunk(b"IDAT", data) + chunk(b"IEND")


def _cuts(data: bytes) -> list[tuple[str, int]]:
    places: list[tuple[str, int]] = [("in the signature", 6), ("after the signature", 8)]
    place = 8
    seen = set[str]()
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        name = data[place + 4 : place + 8].decode()
        if name not in seen:
            places += [(f"in {name}'s length", place + 2), (f"in {name}'s name", place + 6)]
            places += [
                (f"in {name}", (place + 8 + end) // 2),
                (f"in {name}'s check sum", end - 2),
                (f"after {name}", end),
            ]
        seen.add(name)
        place = end
    # what only lacks the end chunk or a part of it is a picture still
    return [each for each in places if each[1] < len(data) - 12]


def _sizes() -> Iterator[Case]:
    rest = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND")
    for width, height in ((65_535, 65_535), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1_000_000, 1_000_000)):
        yield Case(f"{width}x{height}", File(head(width, height) + rest), LARGE)
    yield Case("65535x65535, as a body", File(head(65_535, 65_535) + rest, "image/png", raw=True), LARGE)
    for width, height in ((0, 0), (0, 10), (10, 0), (2**31, 10), (2**32 - 1, 2**32 - 1)):
        yield Case(f"size {width}x{height}", File(head(width, height) + rest), MALFORMED | LARGE)
    yield Case("9999x9999 of which one row is there", File(of_zeros(9999, 9999, 1)), MALFORMED, megabytes=900)
    yield Case("6000x6000 of which half is there", File(of_zeros(6000, 6000, 3000)), MALFORMED, megabytes=500)
    bomb = head(20, 20) + chunk(b"IDAT", zeros(200)) + chunk(b"IEND")
    yield Case("200 MB in the samples of 20x20", File(bomb), MALFORMED, "what comes after the last row is left")
    interlaced = head(9999, 9999, 8, 2, 0, 0, 1) + rest
    yield Case("interlaced 9999x9999 of nothing", File(interlaced), MALFORMED, megabytes=900)


def _depths() -> Iterator[Case]:
    rest = chunk(b"IDAT", zlib.compress(bytes(4000))) + chunk(b"IEND")
    for bits, colour in (
        (0, 2),
        (3, 0),
        (7, 0),
        (4, 2),
        (32, 2),
        (64, 0),
        (255, 2),
        (16, 3),
        (1, 6),
        (8, 1),
        (8, 5),
        (8, 7),
    ):
        yield Case(f"{bits} bits of colour type {colour}", File(head(20, 20, bits, colour) + rest), MALFORMED | SAMPLES)
    for name, ways in (("compression", (1, 0, 0)), ("filter", (0, 9, 0)), ("interlacing", (0, 0, 7))):
        yield Case(f"an unknown {name}", File(head(20, 20, 8, 2, *ways) + rest), MALFORMED)
    yield Case("a palette picture without a palette", File(head(20, 20, 8, 3) + rest), MALFORMED)
    palette = chunk(b"PLTE", bytes(3 * 256 + 3))
    yield Case("a palette of 257 colours", File(head(20, 20, 8, 3) + palette + rest), MALFORMED)
    yield Case("a palette of 7 bytes", File(head(20, 20, 8, 3) + chunk(b"PLTE", bytes(7)) + rest), MALFORMED)
    beyond = head(20, 20, 8, 3) + chunk(b"PLTE", bytes(3)) + chunk(b"IDAT", zlib.compress(b"\0" + b"\xff" * 20)) * 20
    yield Case("colours beyond the palette", File(beyond + chunk(b"IEND")), MALFORMED)


def _bombs() -> Iterator[Case]:
    bomb = zeros(200)
    texts = {
        "zTXt": chunk(b"zTXt", b"Comment\0\0" + bomb),
        "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
        "zTXt of IPTC": chunk(b"zTXt", b"Raw profile type iptc\0\0" + bomb),
        "zTXt of EXIF": chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb),
        "40 times iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb) * 40,
        "zTXt that does not end": chunk(b"zTXt", b"Comment\0\0" + bomb[:-100]),
        "100 times zTXt that is broken at its end": chunk(b"zTXt", b"Comment\0\0" + zeros(15)[:-4] + b"null") * 100,
        "2000 times zTXt of 1 MB": chunk(b"zTXt", b"Raw profile type xmp\0\0" + zeros(1)) * 2000,
    }
    for name, block in texts.items():
        yield Case(f"200 MB in {name}", File(with_chunks(block)), MALFORMED, METADATA_LOST)
        yield Case(
            f"200 MB in {name}, after the samples",
            File(good.png()[:-12] + block + good.png()[-12:]),
            MALFORMED,
            METADATA_LOST,
        )
    yield Case("200 MB in iCCP", File(with_chunks(chunk(b"iCCP", b"profile\0\0" + bomb))), MALFORMED, PROFILE_LOST)
    twenty = chunk(b"iCCP", b"profile\0\0" + bomb) * 20
    yield Case("20 times 200 MB in iCCP", File(with_chunks(twenty)), MALFORMED, PROFILE_LOST)
    yield Case(
        "iCCP that is not deflated",
        File(with_chunks(chunk(b"iCCP", b"profile\0\0" + b"x" * 1000))),
        MALFORMED,
        PROFILE_LOST,
    )


def _chunks() -> Iterator[Case]:
    odd = "chunks that need not be known are passed over"
    base = good.png()
    yield Case("a chunk of 4 GiB", File(base[:33] + chunk(b"teXt", b"x", length=2**32 - 1) + base[33:]), MALFORMED)
    yield Case("a chunk of 2 GiB", File(base[:33] + chunk(b"tEXt", b"x", length=2**31 - 1) + base[33:]), MALFORMED)
    yield Case("samples of 2 GiB", File(base[:33] + struct.pack(">I", 2**31 - 1) + base[37:]), MALFORMED)
    yield Case("a wrong check sum of the header", File(base[:29] + bytes(4) + base[33:]), MALFORMED)
    yield Case("a wrong check sum of the samples", File(base[:-16] + bytes(4) + base[-12:]), MALFORMED)
    yield Case("a header of 12 bytes", File(SIGNATURE + chunk(b"IHDR", bytes(12)) + base[33:]), MALFORMED)
    yield Case("two headers", File(base[:33] + base[8:33] + base[33:]), MALFORMED)
    yield Case("no header", File(SIGNATURE + base[33:]), MALFORMED)
    yield Case("no samples", File(base[:33] + chunk(b"IEND")), MALFORMED)
    yield Case(
        "an unknown chunk that has to be known", File(with_chunks(chunk(b"HACK", b"x"))), MALFORMED, "libraries differ"
    )
    yield Case("100000 empty chunks", File(with_chunks(chunk(b"teSt") * 100_000)), MALFORMED, odd)
    yield Case("100000 texts", File(with_chunks(chunk(b"tEXt", b"a\0b") * 100_000)), MALFORMED, odd)
    samples = base[41:-16]
    split = b"".join(chunk(b"IDAT", samples[i : i + 1]) for i in range(len(samples)))
    yield Case("samples in chunks of a byte", File(base[:33] + split + base[-12:]), MALFORMED, "any split is allowed")
    empty = base[:33] + chunk(b"IDAT") * 100_000 + base[33:]
    yield Case("100000 empty chunks of samples", File(empty), MALFORMED, "any split is allowed")
    text = chunk(b"iTXt", b"XML:com.adobe.xmp" + b"x" * 200_000)
    yield Case("a keyword of 200000 letters", File(with_chunks(text)), MALFORMED, odd)
    yield Case(
        "odd hexadecimal digits",
        File(with_chunks(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 8\n12x"))),
        MALFORMED,
        METADATA_LOST,
    )
    yield Case("bytes behind the end", File(base + bytes(100_000)), MALFORMED, "decoding ends at IEND")


def _animations() -> Iterator[Case]:
    base = good.animation("PNG")
    yield from truncated(
        "animated", base, [(f"at {place} of {len(base)}", place) for place in range(60, 3000, 900)], ".png"
    )
    for frames in (0, 1001, 2**31 - 1, 2**32 - 1):
        claimed = with_chunks(chunk(b"acTL", struct.pack(">II", frames, 0)))
        problems = FRAMES | MALFORMED if frames else MALFORMED
        yield Case(f"{frames} frames claimed", File(claimed), problems, "the first frame is there")
    control = struct.pack(">IIIIIHHBB", 0, 2**31 - 1, 2**31 - 1, 0, 0, 1, 1, 0, 0)
    huge = with_chunks(chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", control))
    yield Case("a frame larger than the picture", File(huge), MALFORMED | LARGE, "the still picture is there")
    bomb = good.png()[:-12] + chunk(b"fdAT", bytes(4) + zeros(200)) + good.png()[-12:]
    bomb = bomb[:33] + chunk(b"acTL", struct.pack(">II", 2, 0)) + bomb[33:]
    yield Case("200 MB in a later frame", File(bomb), MALFORMED, "the first frame is there")


def cases() -> Iterator[Case]:
    yield from truncated("still", good.png(), _cuts(good.png()), ".png")
    yield from _sizes()
    yield from _depths()
    yield from _bombs()
    yield from _chunks()
    yield from _animations()
