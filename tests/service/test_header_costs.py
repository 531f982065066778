"""What reading a header costs, whatever the file: some MB that would make it slow, none of which is one of a camera."""

import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import pytest

from service import codec
from service.codec import Format, PictureLimits
from service.colour import space_of
from service.decoding import known
from tests.png_files import chunk

LIMITS: Final = PictureLimits(10**8)
MB: Final = 1 << 20
_ENOUGH_S: Final = 1.5
"""Several times what the slowest takes, and far less than any took before it was bounded."""


def of(format_: Format) -> bytes:
    return known.file_of(format_)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(*segments: bytes) -> bytes:
    return of("jpeg")[:2] + b"".join(segments) + of("jpeg")[2:]


def with_chunks(*chunks: bytes) -> bytes:
    return of("png")[:33] + b"".join(chunks) + of("png")[33:]


def with_exif(block: bytes) -> bytes:
    return with_chunks(chunk(b"eXIf", block))


def with_packet(packet: bytes) -> bytes:
    return with_chunks(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))


def described(attributes: bytes, content: bytes) -> bytes:
    rdf = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    return with_packet(
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:rdf="%s" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><rdf:RDF>'
        b"<rdf:Description %s>%s</rdf:Description></rdf:RDF></x:xmpmeta>" % (rdf, attributes, content)
    )


def row(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def directory(rows: list[bytes], following: int = 0) -> bytes:
    return struct.pack("<H", len(rows)) + b"".join(rows) + struct.pack("<I", following)


_PAGE: Final = [row(256, 4, 1, 8), row(257, 4, 1, 8), row(258, 3, 1, 8), row(262, 3, 1, 1), row(277, 3, 1, 1)]
_PAGE_END: Final = [row(273, 4, 1, 8), row(278, 4, 1, 8), row(279, 4, 1, 64)]


def tiff(*rows: bytes, behind: bytes = b"") -> bytes:
    table = directory(sorted([*_PAGE, *_PAGE_END, *rows], key=lambda each: each[:2][::-1]))
    return b"II*\0\x08\0\0\0" + table + behind


def pages(count: int, content: int, *rows: bytes) -> bytes:
    """So many pages, and bytes behind them."""
    size, data = 2 + 12 * (len(rows) + 8) + 4, [b"II*\0\x08\0\0\0"]
    for number in range(1, count + 1):
        rows_ = sorted([*_PAGE, *_PAGE_END, *rows], key=lambda each: each[:2][::-1])
        data.append(directory(rows_, 8 + number * size if number < count else 0))
    return b"".join((*data, bytes(content)))


def nested_tiff(entries: int, below: int) -> bytes:
    """A BigTIFF with directories below its page, all of them the same large one."""
    places = 8 + 8 + 8 + 20 * 9 + 8
    rows = [struct.pack("<HHQQ", *struct.unpack("<HHII", each)) for each in (*_PAGE, *_PAGE_END)]
    rows.append(struct.pack("<HHQQ", 330, 16, below, places))
    large = places + 8 * below
    return b"".join(
        (
            struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(rows)),
            *sorted(rows),
            bytes(8),
            struct.pack("<Q", large + 1) * 0 + b"".join(struct.pack("<Q", large + 20 * each) for each in range(below)),
            struct.pack("<Q", entries) * (3 * entries),
        )
    )


def box(kind: bytes, *content: bytes) -> bytes:
    whole = b"".join(content)
    return struct.pack(">I4s", 8 + len(whole), kind) + whole


def with_meta_box(name: bytes, content: bytes) -> bytes:
    """An AVIF one of whose boxes of items is another."""
    data, inside = of("avif"), b""
    place = data.index(b"meta") - 4
    size = int.from_bytes(data[place : place + 4], "big")
    at = place + 12
    while at < place + size:
        length = int.from_bytes(data[at : at + 4], "big")
        inside += box(name, content) if data[at + 4 : at + 8] == name else data[at : at + length]
        at += length
    return data[:place] + box(b"meta", bytes(4), inside) + data[place + size :]


def tracks(count: int, boxes: int) -> bytes:
    """An AVIF sequence of tracks that hold many boxes of nothing."""
    track = box(b"trak", box(b"free") * boxes)
    return box(b"ftyp", b"avis\0\0\0\0avisavif") + box(b"moov", track * count) + box(b"mdat", bytes(600))


def riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def attributes(count: int) -> bytes:
    return b" ".join(b'tiff:a%d="1"' % each for each in range(count))


def profile(**tags: tuple[int, int]) -> bytes:
    """A profile of 16 MiB whose tags lie where these say."""
    head = bytearray(16 * MB)
    head[0:4] = len(head).to_bytes(4, "big")
    head[12:24] = b"mntrRGB XYZ "
    head[36:40] = b"acsp"
    head[128:132] = len(tags).to_bytes(4, "big")
    for number, (name, (offset, size)) in enumerate(tags.items()):
        struct.pack_into(">4sII", head, 132 + 12 * number, name.encode().ljust(4), offset, size)
    return bytes(head)


def with_profile(content: bytes) -> bytes:
    return with_chunks(chunk(b"iCCP", b"icc\0\0" + zlib.compress(content, 1)))


def curves(count: int) -> bytes:
    content = bytearray(
        profile(
            **dict.fromkeys(("rTRC", "gTRC", "bTRC"), (4096, 12 + 2 * count)),
            rXYZ=(1024, 20),
            gXYZ=(1024, 20),
            bXYZ=(1024, 20),
        )
    )
    content[4096:4108] = b"curv" + bytes(4) + count.to_bytes(4, "big")
    content[4108 : 4108 + 2 * count] = np.linspace(0, 65_535, count).astype(">u2").tobytes()
    return bytes(content)


def _jpegs() -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield "three bytes and zeros", lambda: b"\xff\xd8\xff" + bytes(32 * MB)
    yield "three bytes and marks", lambda: b"\xff\xd8" + b"\xff" * (32 * MB)
    yield "three bytes and stuffed bytes", lambda: b"\xff\xd8\xff" + b"\xff\0" * (16 * MB)
    yield "zeros behind the tables", lambda: of("jpeg")[: of("jpeg").index(b"\xff\xda")] + bytes(32 * MB)
    yield "a comment, and zeros", lambda: b"\xff\xd8" + segment(0xFE, b"x") + bytes(32 * MB)
    yield "zeros behind the start of a scan", lambda: of("jpeg")[: of("jpeg").index(b"\xff\xda") + 14] + bytes(32 * MB)
    yield "restarts", lambda: of("jpeg")[:-2] + b"\xff\xd0" * (16 * MB)
    yield "19,000 comments", lambda: with_segments(segment(0xFE, bytes(1600)) * 19_000)
    yield "64 segments of EXIF", lambda: with_segments(segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 64)
    yield "resources", lambda: with_segments(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000) * 64)
    name = b"http://ns.adobe.com/xmp/extension/\0"
    names = (segment(0xE1, name + b"A" * 15 + b"%016dB" % each + bytes(8)) for each in range(19_000))
    packet = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + (b"A" * 15 + b"0" * 16 + b"A") * 2000)
    yield "19,000 extensions", lambda: with_segments(packet, *names)


def _blocks() -> Iterator[tuple[str, Callable[[], bytes]]]:
    def exif(tag: int) -> bytes:
        rows = [row(tag, 4, 1, 8)] * 65_535
        return b"II*\0\x08\0\0\0" + directory(rows)

    for tag in (0x8769, 0x8825):
        yield f"EXIF's tag {tag:x} 65,535 times", lambda tag=tag: with_exif(exif(tag))  # type: ignore[misc]
    yield (
        "20 MB of EXIF",
        lambda: with_exif(b"II*\0\x08\0\0\0" + directory([row(0x927C, 7, 20 * MB, 8)]) + bytes(20 * MB)),
    )
    yield "XMP of lines", lambda: described(b"", b"<tiff:Make>" + b"\n" * (15 * MB) + b"</tiff:Make>")
    yield (
        "an orientation of lines",
        lambda: described(b"", b"<tiff:Orientation>" + b"\n" * (15 * MB) + b"</tiff:Orientation>"),
    )
    yield "an attribute and spaces", lambda: described(b'tiff:Orientation="1"' + b" " * (15 * MB), b"")
    long = b"http://" + b"a" * MB
    yield "a long namespace", lambda: described(b'xmlns:a="%s"' % long, b"<a:b/>" * 190_000)
    yield "an element of many attributes", lambda: described(attributes(240_000), b"")
    yield "an element of too many attributes", lambda: described(attributes(900_000), b"")
    yield "deep XMP", lambda: described(b"", b"<a>" * 190_000)
    yield "many elements", lambda: described(b"", b"<tiff:a/>" * 1_500_000)
    yield "entities", lambda: described(b"", b"<tiff:Orientation>" + b"&#10;" * (3 * MB) + b"</tiff:Orientation>")


def _pngs() -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield "chunks of nothing", lambda: with_chunks(chunk(b"abCd", b"") * 190_000)
    yield "texts", lambda: with_chunks(chunk(b"tEXt", b"a\0b") * 190_000)
    yield "deflated texts", lambda: with_chunks(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"")) * 190_000)
    yield "broken texts", lambda: with_chunks(chunk(b"zTXt", b"a\0\0xyz") * 190_000)
    digits = b"raw profile type exif\0\n1\n" + b"a " * (15 * MB)
    yield "a text of digits", lambda: with_chunks(chunk(b"tEXt", digits))
    yield "chunks that are broken", lambda: with_chunks((chunk(b"eXIf", bytes(1000))[:-1] + b"\1") * 30_000)
    yield (
        "200 tags of all of a profile",
        lambda: with_profile(profile(**{f"t{n:03}": (0, 16 * MB) for n in range(200)})),
    )
    yield "curves of 7 million places", lambda: with_profile(curves(7_000_000))
    yield (
        "resources in digits",
        lambda: with_chunks(
            chunk(
                b"zTXt",
                b"raw profile type 8bim\0\0"
                + zlib.compress(b"\n8bim\n9999999\n" + b"3842494d0404000000000000" * 600_000),
            )
        ),
    )


def _tiffs() -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield "10,000 pages of a large tag", lambda: pages(10_000, 30 * MB, row(50706, 1, 30 * MB, 8))
    yield "10,000 pages", lambda: pages(10_000, 8)
    yield "64 large directories below", lambda: nested_tiff(500_000, 64)
    yield "a page of a million strips", lambda: tiff(row(273, 4, MB, 8), row(258, 3, MB, 8), behind=bytes(4 * MB))
    resources = b"8BIM\4\5\0\0\0\0\0\0" * (2 * MB)
    yield "resources", lambda: tiff(row(34377, 1, len(resources), 130), behind=resources)
    records = b"\x1c\2\5\0\0" * (6 * MB)
    yield "records", lambda: tiff(row(33723, 1, len(records), 8 + 2 + 12 * 9 + 4), behind=records)
    yield (
        "copies of all of it",
        lambda: tiff(
            *(
                row(tag, 1, 30 * MB, 8)
                for tag in (269, 270, 271, 272, 285, 305, 306, 315, 316, 337, *range(42032, 42038))
            ),
            behind=bytes(30 * MB),
        ),
    )


def _boxes() -> Iterator[tuple[str, Callable[[], bytes]]]:
    item = struct.pack(">IHHH", 9, 0, 0, 0)
    yield (
        "AVIF of 3 million places",
        lambda: with_meta_box(b"iloc", struct.pack(">BBHHI", 2, 0, 0, 0x4400 >> 8 << 8, 3_000_000) + item * 3_000_000),
    )
    yield "AVIF of 4000 tracks", lambda: tracks(1000, 4000)
    links = struct.pack(">HB", 1, 255) + b"\1" * 255
    yield (
        "AVIF of a million properties",
        lambda: with_meta_box(
            b"iprp", box(b"ipco", box(b"free")) + box(b"ipma", bytes(4), struct.pack(">I", 4000), links * 4000)
        ),
    )
    yield "AVIF of boxes of nothing", lambda: with_meta_box(b"iinf", bytes(6) + box(b"infe") * 1_000_000)
    entry = box(b"infe", struct.pack(">IHH4s", 2 << 24, 7, 0, b"av01"), b"\0")
    yield "AVIF of a million items", lambda: with_meta_box(b"iinf", bytes(4) + b"\xff\xff" + entry * 1_000_000)
    heic = of("heic")
    yield "HEIC of boxes of nothing", lambda: heic + box(b"free") * (2 * MB)
    yield "HEIC and zeros", lambda: heic + bytes(32 * MB)
    place = heic.index(b"meta") - 4
    nested = b"".join(struct.pack(">I4s4x", 12 * (100_000 - each), b"meta") for each in range(100_000))
    yield "HEIC of nested boxes", lambda: heic[:place] + nested + heic[place:]


def _others() -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield "WebP of chunks of nothing", lambda: riff(of("webp")[12:] + b"abcd\0\0\0\0" * 49_000)
    yield "WebP of millions of them", lambda: riff(of("webp")[12:] + b"abcd\0\0\0\0" * (3 * MB))
    yield "BMP and zeros", lambda: of("bmp") + bytes(32 * MB)
    colours = bytearray(of("bmp") + bytes(32 * MB))
    colours[28:30], colours[46:50] = struct.pack("<H", 8), struct.pack("<I", 60_000)
    yield "BMP of many colours", lambda: bytes(colours)
    for format_ in ("png", "webp", "tiff", "heic", "avif"):
        yield f"{format_} and zeros", lambda format_=format_: of(format_) + bytes(32 * MB)  # type: ignore[misc]
        yield f"{format_}, cut, and zeros", lambda format_=format_: of(format_)[:40] + bytes(32 * MB)  # type: ignore[misc]


CASES: Final = {
    f"{kind}: {name}": made
    for kind, cases in (
        ("JPEG", _jpegs()),
        ("metadata", _blocks()),
        ("PNG", _pngs()),
        ("TIFF", _tiffs()),
        ("boxes", _boxes()),
        ("others", _others()),
    )
    for name, made in cases
}


@pytest.mark.parametrize("name", CASES)
def test_no_file_makes_its_header_slow(name: str) -> None:
    data = CASES[name]()
    began = time.process_time()
    try:
        header = codec.read_header(data, LIMITS)
        space_of(header.icc_profile, grey=header.grey)
    except (codec.MalformedPicture, codec.PictureTooLarge, codec.TooManyFrames, codec.UnsupportedSamples, MemoryError):
        pass
    except codec.UnsupportedFormat:
        pass
    assert time.process_time() - began < _ENOUGH_S
