"""JPEG: cut at every kind of marker, scans, sizes, segments that lie (ITU-T T.81, annex B)."""

import struct
from collections.abc import Iterator

from tests.hostile import good
from tests.hostile.case import LARGE, MALFORMED, METADATA_LOST, SAMPLES, SCANS, Case, File, truncated

NAMES = {0xD8: "SOI", 0xE0: "APP0", 0xDB: "DQT", 0xC0: "SOF0", 0xC2: "SOF2", 0xC4: "DHT", 0xDA: "SOS", 0xD9: "EOI"}


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Each marker with where it begins and where its segment ends."""
    place = 0
    while place + 4 <= len(data):
        marker = data[place + 1]
        if marker in (0xD8, 0xD9):
            yield marker, place, place + 2
            place += 2
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, place, end
        place = end
        if marker == 0xDA:
            while not (data[place] == 0xFF and data[place + 1] not in (0, *range(0xD0, 0xD8))):
                place += 1


def _cuts(data: bytes) -> list[tuple[str, int]]:
    places, seen = [], set[str]()
    for marker, start, end in markers(data):
        name = NAMES.get(marker, f"{marker:02X}")
        if name in seen:
            continue
        seen.add(name)
        places += [(f"inside {name}'s mark", start + 1), (f"behind {name}'s mark", start + 2)]
        if end - start > 2:
            places += [
                (f"in {name}'s length", start + 3),
                (f"in {name}", (start + 4 + end) // 2),
                (f"after {name}", end),
            ]
    return [each for each in places if each[1] < len(data) - 2]


def with_segments(*segments: bytes, base: bytes | None = None) -> bytes:
    """Put segments behind a good JPEG's start."""
    data = base or good.jpeg()
    return data[:2] + b"".join(segments) + data[2:]


def frame(data: bytes, precision: int, height: int, width: int) -> bytes:
    """Change what the frame's header claims."""
    place = next(start for marker, start, _ in markers(data) if marker in (0xC0, 0xC2))
    return data[: place + 4] + struct.pack(">BHH", precision, height, width) + data[place + 9 :]


def many_scans(count: int, height: int, width: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each costs a pass over all coefficients."""
    base = frame(good.jpeg(progressive=True), 8, height, width)
    scans = [(start, end) for marker, start, end in markers(base) if marker == 0xDA]
    start = scans[-1][0]
    last = base[start:-2]
    return base[:start] + last * count + base[-2:]


def of_nothing(height: int, width: int) -> bytes:
    """A baseline JPEG that claims a size and holds but a few blocks."""
    return frame(good.jpeg(), 8, height, width)


def _spectral(scans: int) -> bytes:
    """Scans that send single coefficients, one by one, of a grey picture."""
    head = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64)
    head += segment(0xC2, struct.pack(">BHHB", 8, 2000, 2000, 1) + b"\1\x11\0")
    head += segment(0xC4, b"\0" + b"\1" + bytes(15) + b"\0") + segment(0xC4, b"\x10" + b"\1" + bytes(15) + b"\xe0")
    direct = segment(0xDA, b"\1\1\0\0\0\0") + bytes(7813)
    later = b"".join(segment(0xDA, b"\1\1\0" + bytes([1 + each % 63] * 2) + b"\0") + bytes(4) for each in range(scans))
    return head + direct + later + b"\xff\xd9"


def _frames() -> Iterator[Case]:
    for name, base in (("baseline", good.jpeg()), ("progressive", good.jpeg(progressive=True))):
        yield Case(f"{name} of 65535x65535", File(frame(base, 8, 65_535, 65_535)), LARGE)
        yield Case(f"{name} of 65500x65500, as a body", File(frame(base, 8, 65_500, 65_500), raw=True), LARGE)
        yield Case(f"{name} of no width", File(frame(base, 8, 40, 0)), MALFORMED)
        yield Case(f"{name} of no height", File(frame(base, 8, 0, 48)), MALFORMED)
        yield Case(f"{name} of 4000x4000 that ends early", File(frame(base, 8, 4000, 4000)), MALFORMED)
        for bits in (0, 1, 7, 9, 12, 16, 255):
            yield Case(f"{name} of {bits} bits", File(frame(base, bits, 40, 48)), MALFORMED | SAMPLES)
    yield Case("9999x9999 that ends early", File(of_nothing(9999, 9999)), MALFORMED, megabytes=1200)
    yield Case(
        "progressive of 9999x9999 that ends early", File(frame(good.jpeg(progressive=True), 8, 9999, 9999)), MALFORMED,
        megabytes=1500,
    )  # fmt: skip


def _scans() -> Iterator[Case]:
    for count in (101, 1000, 10_000):
        yield Case(f"{count} scans of 40x48", File(many_scans(count, 40, 48)), SCANS)
    yield Case("10000 scans of 4000x4000", File(many_scans(10_000, 4000, 4000)), SCANS)
    yield Case("10000 scans of 9000x9000, as a body", File(many_scans(10_000, 9000, 9000), raw=True), SCANS)
    yield Case("10000 scans of a coefficient each", File(_spectral(10_000)), SCANS)
    yield Case("90 scans of a coefficient each", File(_spectral(90)), MALFORMED, "within the limit, and decodes")
    head, body = good.jpeg()[:2], good.jpeg()[2:]
    hidden = segment(0xFE, b"\xff\xda\0\x08" * 2000) * 4
    yield Case("marks of scans in a comment", File(head + hidden + body), MALFORMED, "they are a comment's text")
    thumbnail = segment(0xE1, b"Exif\0\0" + many_scans(500, 40, 48)[:65_000])
    yield Case("scans in a thumbnail", File(head + thumbnail + body), MALFORMED, "no one decodes the thumbnail")
    yield Case("scans after the end", File(good.jpeg() + many_scans(500, 40, 48)[2:]), SCANS, "decoding ends at EOI")


def _segments() -> Iterator[Case]:
    base = good.jpeg()
    tables = base.index(b"\xff\xdb"), base.index(b"\xff\xc4"), base.index(b"\xff\xda")
    odd = "what does not matter to the picture is passed over"
    for marker in (0xE0, 0xE1, 0xE2, 0xED, 0xFE):
        yield Case(
            f"a segment {marker:02X} of length 0",
            File(with_segments(b"\xff" + bytes([marker]) + b"\0\0")),
            MALFORMED,
            odd,
        )
        yield Case(
            f"a segment {marker:02X} of length 1",
            File(with_segments(b"\xff" + bytes([marker]) + b"\0\1")),
            MALFORMED,
            odd,
        )
        lying = with_segments(b"\xff" + bytes([marker]) + b"\xff\xff")
        yield Case(f"a segment {marker:02X} longer than the file", File(lying), MALFORMED)
    for name, place in zip(("quantisation tables", "Huffman tables", "scan"), tables, strict=True):
        wrong = base[: place + 2] + b"\xff\xff" + base[place + 4 :]
        yield Case(f"{name} longer than the file", File(wrong), MALFORMED)
        wrong = base[: place + 2] + b"\0\2" + base[place + 4 :]
        why = "without its own, a JPEG has the usual ones" if name.startswith("Huffman") else ""
        yield Case(f"{name} of no content", File(wrong), MALFORMED, why)
    codes = tables[1] + 5
    yield Case("Huffman codes that overflow", File(base[:codes] + b"\xff" * 16 + base[codes + 16 :]), MALFORMED)
    yield Case("100000 comments", File(with_segments(segment(0xFE, b"") * 100_000)), MALFORMED, odd)
    yield Case("30 MB of fill bytes", File(with_segments(b"\xff" * 30_000_000)), MALFORMED, odd)
    yield Case("40000 application segments", File(with_segments(segment(0xEF, b"x" * 10) * 40_000)), MALFORMED, odd)
    exif, resources = b"Exif\0\0" + bytes(65_000), b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000
    yield Case("300 segments of EXIF", File(with_segments(segment(0xE1, exif) * 300)), MALFORMED, seconds=5)
    yield Case(
        "1.5 million Photoshop resources", File(with_segments(segment(0xED, resources) * 300)), MALFORMED, seconds=5
    )
    yield Case("two frames' headers", File(_twice(base)), MALFORMED)
    yield Case("restarts without end", File(_restarts(base)), MALFORMED, odd)
    yield Case(
        "arithmetic coding without data",
        File(base.replace(b"\xff\xc0", b"\xff\xc9", 1)),
        MALFORMED,
        "any bytes are arithmetic codes",
    )
    yield Case("lossless coding", File(base.replace(b"\xff\xc0", b"\xff\xc3", 1)), MALFORMED)
    yield Case("hierarchical coding", File(base.replace(b"\xff\xc0", b"\xff\xc5", 1)), MALFORMED)
    yield Case("the markers alone", File(b"\xff\xd8\xff\xd9"), MALFORMED)
    yield Case("a megabyte of zeros behind the mark", File(b"\xff\xd8\xff\xe0" + bytes(1 << 20)), MALFORMED)
    yield Case("255 components", File(_components(base, 255)), MALFORMED)
    yield Case("no components", File(_components(base, 0)), MALFORMED)
    yield Case("two components", File(_components(base, 2)), MALFORMED)
    place = base.index(b"\xff\xc0") + 11
    for factors in (0x00, 0x55, 0xFF, 0x41):
        wrong = base[:place] + bytes([factors]) + base[place + 1 :]
        why = "unusual, and allowed" if factors == 0x41 else ""
        yield Case(f"sampling factors {factors:02X}", File(wrong), MALFORMED, why)
    index = struct.pack(">2sHIHHI", b"MM", 42, 8, 1, 0xB001, 4) + struct.pack(">II", 1, 0xFFFF_FFFF)
    yield Case(
        "a multi-picture index of 2^32 pictures",
        File(with_segments(segment(0xE2, b"MPF\0" + index))),
        MALFORMED,
        METADATA_LOST,
    )
    entries = struct.pack(">2sHIH", b"MM", 42, 8, 2) + struct.pack(">HHII", 0xB001, 4, 1, 60_000)
    entries += struct.pack(">HHIII", 0xB002, 7, 960_000, 38, 0)
    yield Case(
        "a multi-picture index that points out",
        File(with_segments(segment(0xE2, b"MPF\0" + entries))),
        MALFORMED,
        METADATA_LOST,
    )


def _twice(base: bytes) -> bytes:
    start, end = next((start, end) for marker, start, end in markers(base) if marker == 0xC0)
    return base[:end] + base[start:end] + base[end:]


def _restarts(base: bytes) -> bytes:
    place = base.index(b"\xff\xda")
    return base[:place] + segment(0xDD, b"\0\1") + base[place:-2] + b"\xff\xd0\xff\xd3" * 50_000 + b"\xff\xd9"


def _components(base: bytes, count: int) -> bytes:
    place = base.index(b"\xff\xc0") + 9
    return base[:place] + bytes([count]) + base[place + 1 :]


def cases() -> Iterator[Case]:
    yield from truncated("baseline", good.jpeg(), _cuts(good.jpeg()), ".jpg")
    progressive = good.jpeg(progressive=True)
    yield from truncated("progressive", progressive, _cuts(progressive), ".jpg")
    yield from _frames()
    yield from _scans()
    yield from _segments()
