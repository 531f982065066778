"""Zips: names that lead out, bombs, entries that lie (APPNOTE.TXT)."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator

from tests.hostile import good
from tests.hostile.case import BYTES, ENTRY, FORMAT, MALFORMED, MANY, REQUEST, UNZIPPED, ZIP, Body, Case
from tests.hostile.png import zeros

KIND = "application/zip"


def _zip(*files: tuple[str, bytes], way: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", way) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, way)
    return file.getvalue()


def _entry(
    name: bytes,
    packed: bytes,
    size: int,
    check: int,
    offset: int,
    way: int = 8,
    *,
    flags: int = 0,
    attributes: int = 0,
    packed_size: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """An entry of the directory."""
    packed_size = len(packed) if packed_size is None else packed_size
    return (
        struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            b"PK\1\2",
            0x314,
            20,
            flags,
            way,
            0,
            0x21,
            check,
            packed_size,
            size,
            len(name),
            len(extra),
            0,
            0,
            0,
            attributes,
            offset,
        )
        + name
        + extra
    )


def _local(name: bytes, packed: bytes, size: int, check: int, way: int = 8, flags: int = 0) -> bytes:
    return (
        struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, flags, way, 0, 0x21, check, len(packed), size, len(name), 0)
        + name
        + packed
    )


def _end(count: int, size: int, offset: int, comment: bytes = b"") -> bytes:
    return struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size, offset, len(comment)) + comment


def _one(packed: bytes, size: int, check: int = 0, way: int = 8, **entry: int) -> bytes:
    """A zip of one entry of which anything may be a lie."""
    name = b"photo.jpg"
    local = _local(name, packed, size, check, way)
    directory = _entry(name, packed, size, check, 0, way, **entry)  # type: ignore[arg-type]
    return local + directory + _end(1, len(directory), len(local))


def of_packed(entries: Iterable[tuple[bytes, bytes, int, int]]) -> bytes:
    """A zip of what is deflated already: name, deflated bytes, size and check sum of each entry."""
    files, directory, place = list[bytes](), list[bytes](), 0
    for name, packed, size, check in entries:
        directory.append(_entry(name, packed, size, check, place))
        files.append(_local(name, packed, size, check))
        place += len(files[-1])
    listed = b"".join(directory)
    return b"".join((*files, listed, _end(len(directory), len(listed), place)))


def of_zeros(count: int, head: bytes, megabytes: int) -> bytes:
    """A zip of equal entries: `head`, and so many megabytes of zeros; a thousandth of that in bytes."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + zeros(megabytes)[2:-4]
    check = zlib.crc32(bytes(megabytes << 20), zlib.crc32(head))
    return of_packed((b"%d.jpg" % i, packed, len(head) + (megabytes << 20), check) for i in range(count))


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush()


def _overlapping(count: int) -> bytes:
    """Entries that all name the same bytes (a better zip bomb, D. Fifield, WOOT 2019, simplified)."""
    packed = zeros(60)[2:-4]
    local = _local(b"a", packed, 60 << 20, 0)
    directory = b"".join(_entry(b"a%d" % i, packed, 60 << 20, 0, 0) for i in range(count))
    return local + directory + _end(count, len(directory), len(local))


def _nested(depth: int) -> bytes:
    data = _zip(("photo.png", good.png()))
    for _ in range(depth):
        data = _zip(("inner.zip", data))
    return data


def _zip64(size: int, offset: int, count: int) -> bytes:
    local = _local(b"photo.jpg", good.jpeg(), len(good.jpeg()), zlib.crc32(good.jpeg()), 0)
    extra = struct.pack("<HHQQQ", 1, 24, size, size, offset)
    directory = _entry(b"photo.jpg", b"", 2**32 - 1, 0, 2**32 - 1, 0, packed_size=2**32 - 1, extra=extra)
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(local))
    place = struct.pack("<4sIQI", b"PK\6\7", 0, len(local) + len(directory), 1)
    return local + directory + end + place + _end(65_535, 2**32 - 1, 2**32 - 1)


def _names() -> Iterator[Case]:
    """Entries whose names are traps; each holds no picture, so that each is a problem."""
    for name in (
        "../../../../etc/passwd", "/etc/cron.d/x", "C:\\Windows\\x.jpg", "..\\..\\x.jpg", "a/../../b.jpg", "con.jpg",
        "\u202egpj.exe", "a\r\nX-Evil: 1", "x" * 60_000, "photo.jpg ", ".", "..", "\x1b[31mred",
        "\ud800".encode(errors="replace").decode(),
        "/".join("d" * 3000), "a\x7fb", "<script>", "%2e%2e%2f", "~root", "-rf", "|id", "$(id)", "`id`",
    ):  # fmt: skip
        data = _zip((name, b"no picture"))
        problems = FORMAT if len(name) <= 4096 else ZIP
        yield Case(f"an entry {name[:24]!r}", Body(data, KIND), problems, entries=1)
    raw = _zip(("AAAA", b"no picture")).replace(b"AAAA", b"\xff\xfe\0\n")
    yield Case("a name of bytes that are no text", Body(raw, KIND), FORMAT | ZIP, entries=1)
    utf8 = bytearray(_zip(("\u00e9A", b"no picture")).replace(b"\xc3\xa9A", b"\xc3\xc3\xff"))
    yield Case("a name that is no UTF-8", Body(bytes(utf8), KIND), FORMAT | ZIP, entries=1)
    equal = _zip(("a.jpg", b"x"), ("A.JPG", b"x"), ("./a.jpg", b"x"), ("a.jpg/", b"x"), ("b/../a.jpg", b"x"))
    yield Case("equal names", Body(equal, KIND), FORMAT, entries=4)
    errors = _zip(("errors.json", b"{}"), ("ERRORS.JSON", b"{}"))
    yield Case("an entry errors.json", Body(errors, KIND), FORMAT, entries=2)


def _links() -> Iterator[Case]:
    for name, mode in (
        ("link", stat.S_IFLNK),
        ("device", stat.S_IFCHR),
        ("pipe", stat.S_IFIFO),
        ("socket", stat.S_IFSOCK),
    ):
        data = _one(b"/etc/passwd", 11, zlib.crc32(b"/etc/passwd"), 0, attributes=(mode | 0o777) << 16)
        yield Case(f"a {name}", Body(data, KIND), ENTRY | FORMAT, entries=1)


def _bombs() -> Iterator[Case]:
    for megabytes in (60, 300):
        bomb = _one(zeros(megabytes)[2:-4], megabytes << 20)
        yield Case(f"{megabytes} MB of zeros", Body(bomb, KIND), ENTRY | FORMAT, entries=1, megabytes=400)
    yield Case("300 MB of zeros that claim 1 kB", Body(_one(zeros(300)[2:-4], 1000), KIND), ENTRY | FORMAT, entries=1)
    yield Case("1 kB that claims 60 MB", Body(_one(_deflated(bytes(1000)), 60 << 20), KIND), ENTRY, entries=1)
    yield Case("1 kB that claims 4 GB", Body(_one(_deflated(bytes(1000)), 2**32 - 2), KIND), UNZIPPED)
    for count in (18, 900):
        yield Case(f"{count} entries of the same 60 MB", Body(_overlapping(count), KIND), UNZIPPED)
    yield Case("10 entries of the same 60 MB", Body(_overlapping(10), KIND), ENTRY | FORMAT, entries=10, megabytes=600)
    yield Case("zips 20 deep", Body(_nested(20), KIND), ENTRY, entries=1)
    inner = _zip(("0.jpg", bytes(1 << 20)))
    for _ in range(3):
        inner = _zip(*[(f"{i}.zip", inner) for i in range(16)])
    yield Case("16 zips in 16 zips in 16 zips", Body(inner, KIND), ENTRY, entries=16)
    quine = _zip(("a.zip", _zip(("b.zip", b"PK\3\4" + bytes(50)))))
    yield Case("a zip of a zip that is none", Body(quine, KIND), ENTRY, entries=1)
    for name, suffix in (("entries", b""), ("folders", b"/")):
        local = _local(b"x", b"", 0, 0, 0)
        directory = b"".join(_entry(b"%d" % i + suffix, b"", 0, 0, 0, 0) for i in range(65_535))
        whole = local + directory + _end(65_535, len(directory), len(local))
        yield Case(f"65535 {name}", Body(whole, KIND), MANY)
    yield Case("1001 entries", Body(_zip(*[(f"{i}.jpg", b"") for i in range(1001)]), KIND), MANY)
    yield Case("900 folders and nothing else", Body(_zip(*[(f"{i}/", b"") for i in range(900)]), KIND), ZIP)
    marks = b"PK\1\2" * 1_000_000
    yield Case("a million marks of entries", Body(b"PK\3\4" + marks + _end(1, 46, 4), KIND), MANY | ZIP)


def _lies() -> Iterator[Case]:
    plain = _zip(("photo.png", good.png()))
    for way, name in (
        (1, "shrunk"),
        (6, "imploded"),
        (9, "deflated in 64 bits"),
        (12, "bzip2"),
        (14, "LZMA"),
        (93, "Zstandard"),
        (95, "XZ"),
        (97, "WavPack"),
        (99, "AES"),
        (65_535, "an unknown way"),
    ):
        yield Case(f"an entry in {name}", Body(_one(bytes(100), 1000, 0, way), KIND), ENTRY | ZIP, entries=1)
    yield Case("an encrypted entry", Body(_one(bytes(100), 100, 0, 8, flags=1), KIND), ENTRY, entries=1)
    yield Case("a wrong check sum", Body(_one(good.jpeg(), len(good.jpeg()), 1, 0), KIND), ENTRY, entries=1)
    yield Case("noise for deflated bytes", Body(_one(good.pixels().tobytes(), 9999), KIND), ENTRY, entries=1)
    yield Case("stored bytes of another size", Body(_one(good.jpeg(), 9_999_999, 0, 0), KIND), ENTRY, entries=1)
    yield Case("an entry of no bytes", Body(_one(b"", 0, 0, 0), KIND), FORMAT | ENTRY, entries=1)
    for size, offset, count in ((2**63 - 1, 0, 1), (2**40, 0, 1), (100, 2**62, 1), (100, 0, 2**60)):
        yield Case(
            f"zip64: {size} bytes at {offset}, {count} entries",
            Body(_zip64(size, offset, count), KIND),
            ZIP | UNZIPPED | ENTRY | MANY,
            entries=1,
        )
    place = plain.index(b"PK\1\2")
    for cut in (4, 10, 30, place, place + 4, place + 46, len(plain) - 22, len(plain) - 1):
        yield Case(f"cut at {cut} of {len(plain)}", Body(plain[:cut], KIND), ZIP)
    for count in (0, 2, 65_535):
        end = plain[-22:-14] + struct.pack("<HH", count, count) + plain[-10:]
        yield Case(f"{count} entries claimed", Body(plain[:-22] + end, KIND), ZIP, "what there is is found")
    yield Case(
        "a directory at 4 GB",
        Body(plain[:-6] + struct.pack("<I", 2**32 - 2) + plain[-2:], KIND),
        ZIP,
        "it is found from the end as well",
    )
    yield Case("a directory of 4 GB", Body(plain[:-10] + struct.pack("<I", 2**32 - 2) + plain[-6:], KIND), ZIP)
    yield Case("the end alone", Body(_end(0, 0, 0), KIND), ZIP)
    yield Case("a comment of 65535 bytes", Body(_end(0, 0, 0, b"PK\5\6" * 16_383), KIND), ZIP)
    beyond = _entry(b"photo.jpg", b"", 100, 0, 2**31)
    yield Case("an entry at 2 GB", Body(b"PK\3\4" + beyond + _end(1, len(beyond), 4), KIND), ENTRY | ZIP, entries=1)
    yield Case("no zip, of a zip's type", Body(good.png(), KIND), REQUEST)
    yield Case("a mark alone", Body(b"PK\3\4", KIND), ZIP)
    yield Case("70 MB", Body(b"PK\3\4" + bytes(70_000_000), KIND), BYTES)
    broken = [(f"{i}.png", good.png()[: 40 + i]) for i in range(200)]
    yield Case("200 broken pictures", Body(_zip(*broken), KIND), MALFORMED, entries=200, seconds=30)


def cases() -> Iterator[Case]:
    yield from _names()
    yield from _links()
    yield from _bombs()
    yield from _lies()
