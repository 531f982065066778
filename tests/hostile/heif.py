"""HEIC and AVIF: cut at every box, boxes in boxes, items, extents, grids and sizes that lie (ISO/IEC 23008-12)."""

import struct
from collections.abc import Iterator

from tests.hostile import good
from tests.hostile.case import FORMAT, LARGE, MALFORMED, METADATA_LOST, SAMPLES, Case, File, truncated

PARENTS = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"iinf": 14, b"dinf": 8}
"""Boxes that hold boxes, and where those begin."""


def box(kind: bytes, content: bytes = b"", *, size: int | None = None) -> bytes:
    return struct.pack(">I", len(content) + 8 if size is None else size) + kind + content


def full(kind: bytes, content: bytes = b"", version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags) + content)


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[str, int, int]]:
    """All boxes, depth first, with where they begin and end."""
    place, end = start, len(data) if end is None else end
    while place + 8 <= end:
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        yield kind.decode("latin-1"), place, place + size
        if kind in PARENTS:
            yield from boxes(data, place + PARENTS[kind], place + size)
        place += max(size, 8)


def _cuts(data: bytes) -> list[tuple[str, int]]:
    places, seen = [], set[str]()
    for name, start, end in boxes(data):
        if name not in seen:
            places += [(f"in {name}'s size", start + 2), (f"in {name}'s name", start + 6)]
            places += [(f"in {name}", (start + 8 + end) // 2), (f"after {name}", end)]
        seen.add(name)
    return [each for each in places if 0 < each[1] < len(data)]


def sized(data: bytes, width: int, height: int) -> bytes:
    """Change every size that the properties claim."""
    place = 0
    while (place := data.find(b"ispe", place)) >= 0:
        data = data[: place + 8] + struct.pack(">II", width, height) + data[place + 16 :]
        place += 4
    return data


def _resized(data: bytes, kind: bytes, size: int) -> bytes:
    place = data.index(kind) - 4
    return data[:place] + struct.pack(">I", size) + data[place + 4 :]


def _file(brand: bytes, *inside: bytes, after: bytes = b"") -> bytes:
    return box(b"ftyp", brand + bytes(4) + b"mif1" + brand) + full(b"meta", b"".join(inside)) + after


HANDLER = full(b"hdlr", bytes(4) + b"pict" + bytes(12) + b"\0")
PRIMARY = full(b"pitm", struct.pack(">H", 1))


def _item(number: int, kind: bytes) -> bytes:
    return full(b"infe", struct.pack(">HH", number, 0) + kind + b"\0", 2)


def _items(*entries: bytes) -> bytes:
    return full(b"iinf", struct.pack(">H", len(entries)) + b"".join(entries))


def _sizes(width: int, height: int, *items: int) -> bytes:
    properties = box(b"ipco", full(b"ispe", struct.pack(">II", width, height)))
    which = b"".join(struct.pack(">HBB", item, 1, 1) for item in items)
    return box(b"iprp", properties + full(b"ipma", struct.pack(">I", len(items)) + which))


def _place(item: int, offset: int, length: int, way: int = 0) -> bytes:
    return struct.pack(">HHHHII", item, way, 0, 1, offset, length)


def _places(*entries: bytes, count: int | None = None) -> bytes:
    return full(b"iloc", struct.pack(">HH", 0x4400, len(entries) if count is None else count) + b"".join(entries), 1)


def _grid(rows: int, columns: int, width: int, height: int, *, tiles: int | None = None, inner: int = 64) -> bytes:
    """A grid of one coded tile that is named again and again, and is not there."""
    tiles = rows * columns if tiles is None else tiles
    names = struct.pack(">HH", 1, tiles) + struct.pack(">H", 2) * tiles
    data = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)
    inside = [
        HANDLER, PRIMARY, _items(_item(1, b"grid"), _item(2, b"hvc1")), _sizes(inner, inner, 1, 2),
        full(b"iref", box(b"dimg", names)), _places(_place(1, 0, len(data), 1), _place(2, 12, 4, 1)),
        box(b"idat", data + bytes(16)),
    ]  # fmt: skip
    return _file(b"heic", *inside)


def _structures() -> Iterator[Case]:
    deep = b""
    for _ in range(10_000):
        deep = box(b"iprp", deep)
    yield Case("boxes 10000 deep", File(_file(b"heic", HANDLER, PRIMARY, deep)), MALFORMED)
    deep = b""
    for _ in range(10_000):
        deep = full(b"meta", deep)
    yield Case("meta in meta 10000 deep", File(box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + deep), MALFORMED)
    yield Case("the same as AVIF", File(box(b"ftyp", b"avif" + bytes(4) + b"mif1avif") + deep), MALFORMED)
    wide = box(b"free") * 100_000
    yield Case("100000 empty boxes", File(box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + wide), MALFORMED)
    item = _item(1, b"hvc1")
    common = (HANDLER, PRIMARY, _items(item), _sizes(64, 64, 1))
    yield Case("2^16 places claimed", File(_file(b"heic", *common, _places(_place(1, 0, 9), count=65_535))), MALFORMED)
    many = full(b"iloc", struct.pack(">HI", 0x4400, 2**32 - 1) + _place(1, 0, 9), 2)
    yield Case("2^32 places claimed", File(_file(b"heic", *common, many)), MALFORMED)
    extents = full(b"iloc", struct.pack(">HHHHHH", 0x4400, 1, 1, 0, 0, 65_535) + struct.pack(">II", 0, 100) * 65_535, 1)
    yield Case("65535 extents", File(_file(b"heic", *common, extents)), MALFORMED)
    for offset, length in ((2**31, 100), (2**32 - 1, 2**32 - 1), (0, 2**32 - 1)):
        broken = _file(b"heic", *common, _places(_place(1, offset, length)))
        yield Case(f"{length} bytes at {offset}", File(broken), MALFORMED)
    wide_items = full(b"iinf", struct.pack(">I", 2**32 - 1) + item, 1)
    yield Case("2^32 items claimed", File(_file(b"heic", HANDLER, PRIMARY, wide_items)), MALFORMED)
    yield Case(
        "65535 items",
        File(_file(b"heic", HANDLER, PRIMARY, _items(*[_item(i, b"hvc1") for i in range(65_535)]))),
        MALFORMED,
    )
    yield Case(
        "2^32 associations claimed",
        File(_file(b"heic", HANDLER, PRIMARY, _items(item), box(b"iprp", box(b"ipco") + full(b"ipma", b"\xff" * 4)))),
        MALFORMED,
    )
    yield Case(
        "a picture without properties",
        File(_file(b"heic", HANDLER, PRIMARY, _items(item), _places(_place(1, 0, 9)))),
        MALFORMED,
    )
    circle = full(b"iref", box(b"dimg", struct.pack(">HHH", 1, 1, 1)))
    grid = _file(
        b"heic",
        HANDLER,
        PRIMARY,
        _items(_item(1, b"grid")),
        _sizes(64, 64, 1),
        circle,
        _places(_place(1, 0, 12, 1)),
        box(b"idat", struct.pack(">BBBBII", 0, 1, 0, 0, 64, 64)),
    )
    yield Case("a grid of itself", File(grid), MALFORMED)
    overlay = grid.replace(b"grid", b"iovl")
    yield Case("an overlay of itself", File(overlay), MALFORMED)
    identity = grid.replace(b"grid", b"iden")
    yield Case("a picture derived from itself", File(identity), MALFORMED)


def _grids() -> Iterator[Case]:
    yield Case("a grid of 65535x65535", File(_grid(2, 2, 65_535, 65_535)), LARGE | MALFORMED)
    yield Case("a grid of 256x256 tiles", File(_grid(256, 256, 9999, 9999, tiles=65_535)), MALFORMED)
    yield Case("a grid of 255x255 tiles of one", File(_grid(255, 255, 9999, 9999)), MALFORMED)
    yield Case("a grid without tiles", File(_grid(2, 2, 128, 128, tiles=0)), MALFORMED)
    yield Case("a grid of no size", File(_grid(2, 2, 0, 0)), MALFORMED)
    yield Case("a grid whose tiles claim 65535x65535", File(_grid(2, 2, 128, 128, inner=65_535)), LARGE | MALFORMED)
    yield Case("a grid of 4294967295x1", File(_grid(2, 2, 2**32 - 1, 1)), LARGE | MALFORMED)


def _why(kind: bytes, size: int) -> str:
    if size == 0:
        return "a size of 0 reaches to the end of what is around it"
    return "samples are found by their places" if kind == b"mdat" else ""


def _of(name: str, base: bytes, kind: str) -> Iterator[Case]:
    """What both formats have to bear."""
    yield from truncated(name, base, _cuts(base), f".{name.lower()}")
    for width, height in ((65_535, 65_535), (2**32 - 1, 2**32 - 1), (2**31, 2)):
        yield Case(f"{name} of {width}x{height}", File(sized(base, width, height), kind), LARGE | MALFORMED)
    for width, height in ((0, 0), (0, 64), (1, 1), (63, 64), (64, 4000), (9999, 9999)):
        yield Case(
            f"{name} that says {width}x{height} and is 64x64",
            File(sized(base, width, height), kind),
            MALFORMED,
            megabytes=900,
        )
    for kind_ in (b"meta", b"iloc", b"iprp", b"ipco", b"ipma", b"mdat", b"iinf", b"pitm"):
        for size in (0, 1, 7, 2**31, 2**32 - 1):
            if kind_ == b"mdat" and size == 0:
                continue  # up to the file's end, as it is allowed to
            wrong = _resized(base, kind_, size)
            yield Case(f"{name} {kind_.decode()} of {size} bytes", File(wrong), MALFORMED, _why(kind_, size))
    start = base.index(b"mdat") + 4
    yield Case(
        f"{name} whose samples are noise",
        File(base[:start] + good.pixels(64, 64).tobytes()[: len(base) - start]),
        MALFORMED,
    )
    yield Case(f"{name} whose samples are zeros", File(base[:start] + bytes(len(base) - start)), MALFORMED)


def _sequences() -> Iterator[Case]:
    animated = good.animation("AVIF")
    yield from truncated(
        "animated AVIF", animated, [(f"at {i} of 8", len(animated) * i // 8) for i in range(1, 8)], ".avif"
    )
    for brand, name in ((b"hevc", "HEIC"), (b"avis", "AVIF")):
        track = box(
            b"trak",
            box(b"tkhd", bytes(84))
            + box(b"mdia", box(b"minf", box(b"stbl", full(b"stsz", struct.pack(">II", 100, 2**32 - 1))))),
        )
        movie = box(b"ftyp", brand + bytes(4) + b"msf1" + brand) + box(b"moov", full(b"mvhd", bytes(96)) + track)
        yield Case(f"{name} sequence of 2^32 frames", File(movie), MALFORMED)
    av1 = good.avif()
    place = av1.index(b"av1C") + 6
    yield Case(
        "AVIF of 12 bits that is of 8",
        File(av1[:place] + bytes([av1[place] | 0x60]) + av1[place + 1 :]),
        MALFORMED | SAMPLES,
        METADATA_LOST,
    )


def cases() -> Iterator[Case]:
    yield from _of("AVIF", good.avif(), "image/avif")
    if good.heic():
        yield from _of("HEIC", good.heic(), "image/heic")
    yield from _structures()
    yield from _grids()
    yield from _sequences()
    for brand in (b"mif1", b"isom", b"crx ", b"jp2 ", b"M4V "):
        yield Case(
            f"the brand {brand.decode()}",
            File(box(b"ftyp", brand + bytes(4) + brand) + box(b"mdat", bytes(99))),
            FORMAT,
        )
    yield Case("a first box of 4 GB", File(struct.pack(">I", 2**32 - 1) + b"ftypheic" + bytes(100)), MALFORMED)
    yield Case("brands without end", File(box(b"ftyp", b"mif1" + bytes(4) + b"none" * 100_000)), FORMAT)
