"""EXIF blocks: what can be read is read, what was applied is reset, and the rest stays where it lies."""

import struct

import pytest
from PIL import Image

from service.exif import fitted, resolution_of, upright_exif, without_orientation

MAKE, ORIENTATION, EXIF_IFD, MAKER_NOTE, COMMENT = 0x010F, 0x0112, 0x8769, 0x927C, 0x9286
KINDS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
Row = tuple[int, int, int, bytes]


def block_of(order: str, rows: list[Row], after: int = 0, content: bytes = b"", at: int = 8) -> bytes:
    """A block with one directory; values are the entries' own four bytes."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    entries = b"".join(struct.pack(order + "HHI", *row[:3]) + row[3].ljust(4, b"\0") for row in rows)
    directory = struct.pack(order + "H", len(rows)) + entries + struct.pack(order + "I", after)
    return head.ljust(at, b"\0") + directory + content


def with_inner(order: str, inner: list[tuple[int, int, bytes]], first: list[Row] | None = None) -> bytes:
    """A block whose Exif directory holds values of any length: (tag, type of bytes, value)."""
    first = first or []
    place = 8 + 2 + 12 * (len(first) + 1) + 4
    pointer = (EXIF_IFD, 4, 1, struct.pack(order + "I", place))
    values_at = place + 2 + 12 * len(inner) + 4
    entries, values = b"", b""
    for tag, kind, value in inner:
        entries += struct.pack(order + "HHII", tag, kind, len(value), values_at + len(values))
        values += value + bytes(len(value) % 2)
    return block_of(order, [*first, pointer], 0, struct.pack(order + "H", len(inner)) + entries + bytes(4) + values)


def read(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


class TestOrientation:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_whole_numbers_of_any_type_are_read_and_reset(self, order: str, kind: int) -> None:
        block = block_of(order, [(ORIENTATION, kind, 1, struct.pack(order + KINDS[kind], 6))])
        upright = block_of(order, [(ORIENTATION, kind, 1, struct.pack(order + KINDS[kind], 1))])
        assert upright_exif(block) == (6, upright)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(
        ("kind", "count", "values"), [(3, 1, (0, 0)), (3, 1, (9, 0)), (3, 2, (6, 6)), (3, 0, (6, 0)), (5, 1, (0, 8))]
    )
    def test_one_that_is_none_stays(self, order: str, kind: int, count: int, values: tuple[int, int]) -> None:
        block = block_of(order, [(ORIENTATION, kind, count, struct.pack(order + "2H", *values))])
        assert upright_exif(block) == (1, block)

    @pytest.mark.parametrize("lead", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0", b"Exif\0\xff", bytes(6)])
    def test_wherever_the_block_begins(self, lead: bytes) -> None:
        block = block_of(">", [(ORIENTATION, 3, 1, b"\0\6")], at=20)
        orientation, upright = upright_exif(lead + block)
        assert (orientation, upright) == (6, block_of(">", [(ORIENTATION, 3, 1, b"\0\1")], at=20))

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("pointer", [0, 5, 60, 1 << 20, 2**31, 2**32 - 1])
    def test_pointers_outside_cost_nothing_else(self, order: str, pointer: int) -> None:
        place = struct.pack(order + "I", pointer)
        rows = [(MAKE, 2, 4, b"Toy\0"), (ORIENTATION, 3, 1, struct.pack(order + "H", 8)), (EXIF_IFD, 4, 1, place)]
        block = block_of(order, [*rows, (0x8825, 4, 1, place)], after=pointer)
        orientation, upright = upright_exif(block)
        assert orientation == 8
        assert upright
        assert upright == block_of(
            order, [rows[0], (ORIENTATION, 3, 1, struct.pack(order + "H", 1)), rows[2], (0x8825, 4, 1, place)], pointer
        )

    def test_a_directory_that_the_block_cuts_is_read_up_to_there(self) -> None:
        block = block_of("<", [(ORIENTATION, 3, 1, b"\3"), (MAKE, 2, 4, b"Toy\0")])
        cut = block[:8] + struct.pack("<H", 500) + block[10:34]
        orientation, upright = upright_exif(cut)
        assert orientation == 3
        assert upright == cut.replace(b"\3\0\0\0", b"\1\0\0\0")

    def test_it_is_taken_out(self) -> None:
        rows = [(MAKE, 2, 4, b"Toy\0"), (ORIENTATION, 3, 1, b"\1"), (0x0131, 2, 4, b"App\0")]
        block = block_of("<", rows, content=b"note")
        assert without_orientation(block, keep_upright=True) == block
        taken = without_orientation(block)
        assert len(taken) == len(block)
        assert taken.endswith(b"note")
        assert dict(read(taken)) == {MAKE: "Toy", 0x0131: "App"}

    def test_sides_and_resolution_turn_with_the_picture(self) -> None:
        exif = Image.Exif()
        exif[ORIENTATION], exif[0x011A], exif[0x011B], exif[0x0128] = 6, 300.0, 150.0, 2
        exif[0x0100], exif[0x0101] = 40, 30
        exif.get_ifd(EXIF_IFD).update({0xA002: 40, 0xA003: 30})
        _, upright = upright_exif(exif.tobytes())
        assert upright
        turned = read(upright)
        assert (turned[0x0100], turned[0x0101], turned[0x011A], turned[0x011B]) == (30, 40, 150, 300)
        assert turned.get_ifd(EXIF_IFD) == {0xA002: 30, 0xA003: 40}
        assert resolution_of(upright) == (150, 300, 2)


class TestThumbnail:
    @staticmethod
    def second(start: int, length: int) -> bytes:
        rows = ((0x201, 4, 1, start), (0x202, 4, 1, length))
        return struct.pack("<H", 2) + b"".join(struct.pack("<HHII", *row) for row in rows) + bytes(4)

    def test_what_it_shares_with_other_values_stays(self) -> None:
        make = b"A maker's long name\0"
        at = 8 + 2 + 12 + 4
        rows = [(MAKE, 2, len(make), struct.pack("<I", at + 40))]
        thumbnail = b"\xff\xd8" + b"t" * 38
        second_at = at + 40 + len(make)
        content = thumbnail + make + self.second(at, 50) + b"end"
        _, upright = upright_exif(block_of("<", rows, second_at, content))
        assert upright
        assert read(upright)[MAKE] == make.rstrip(b"\0").decode()
        assert b"ttt" not in upright
        assert len(read(upright).get_ifd(1)) == 0

    def test_of_samples(self) -> None:
        at = 8 + 2 + 12 + 4
        second = self.second(at + 30, 90).replace(b"\1\2\4\0", b"\x11\1\4\0").replace(b"\2\2\4\0", b"\x17\1\4\0")
        block = block_of("<", [(MAKE, 2, 4, b"Toy\0")], at, second + b"s" * 90)
        _, upright = upright_exif(block)
        assert upright == block_of("<", [(MAKE, 2, 4, b"Toy\0")], 0, second)

    def test_a_link_that_is_a_value_is_none(self) -> None:
        # the directory claims three entries and has two: what seems to be its link lies in the maker's name
        name = struct.pack("<6I", *[8] * 6)
        rows = [(MAKE, 2, len(name), struct.pack("<I", 8 + 2 + 24 + 4))]
        block = bytearray(block_of("<", [*rows, (ORIENTATION, 3, 1, b"\3")], 0, name))
        struct.pack_into("<H", block, 8, 3)
        orientation, upright = upright_exif(bytes(block))
        assert orientation == 3
        assert upright
        assert upright.endswith(name)


class TestFitted:
    LIMIT = 65_527

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_the_makers_note_alone_goes(self, order: str) -> None:
        date, comment = b"2020:01:01 00:00:00\0", b"ASCII\0\0\0" + b"c" * 30_000
        inner = [(0x9003, 2, date), (MAKER_NOTE, 7, b"n" * 50_001), (COMMENT, 7, comment)]
        block = with_inner(order, inner, [(MAKE, 2, 4, b"Toy\0")])
        result = fitted(block, self.LIMIT)
        assert result
        assert len(result) <= self.LIMIT
        exif = read(result)
        assert exif[MAKE] == "Toy"
        assert exif.get_ifd(EXIF_IFD) == {0x9003: "2020:01:01 00:00:00", COMMENT: comment}

    def test_a_small_note_stays_at_its_place(self) -> None:
        # its offsets count from the block's start
        inner = [(0x9003, 2, b"2020:01:01 00:00:00\0"), (MAKER_NOTE, 7, b"note" * 500), (COMMENT, 7, b"c" * 90_000)]
        block = with_inner("<", inner)
        result = fitted(block, self.LIMIT)
        assert result
        assert result.index(b"note") == block.index(b"note")
        assert read(result).get_ifd(EXIF_IFD) == {0x9003: "2020:01:01 00:00:00", MAKER_NOTE: b"note" * 500}

    def test_what_nothing_points_to_goes_first(self) -> None:
        block = with_inner("<", [(MAKER_NOTE, 7, b"note" * 500)]) + bytes(80_000)
        result = fitted(block, self.LIMIT)
        assert result
        assert read(result).get_ifd(EXIF_IFD) == {MAKER_NOTE: b"note" * 500}

    def test_hostile_ones(self) -> None:
        rows = [(0x8000 + i, 7, 60_000, b"\x08\0\0\0") for i in range(5000)]
        many = block_of("<", rows, 0, bytes(60_000))
        result = fitted(many, self.LIMIT)
        assert result
        assert len(result) <= self.LIMIT
        assert fitted(b"no block" * 20_000, self.LIMIT) is None
        assert fitted(b"II*\0" + b"\xff" * 100_000, self.LIMIT)
