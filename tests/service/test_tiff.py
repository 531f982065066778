"""TIFF: which page is the picture, what broken tags may cost, and every layout of samples.

Files are put together by hand where it is a tag that matters, and by tifffile or Pillow where it is the samples.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pytest
import skimage.color
import skimage.data
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.codec import (
    MalformedPicture,
    Picture,
    PictureLimits,
    UnsupportedFormat,
    UnsupportedSamples,
    decode,
    encode,
    read_header,
)
from service.metadata import Metadata
from service.problems import details
from tests import profiles
from tests.hostile.tiff import (
    ASCII,
    BYTE,
    DOUBLE,
    LONG,
    PIXELS,
    RATIONAL,
    SHORT,
    UNDEFINED,
    Tag,
    directory,
    file,
    usual,
)

Array = npt.NDArray[Any]
LIMITS: Final = PictureLimits(10**6)
HEIGHT, WIDTH = 40, 48
PICTURE: Final = np.frombuffer(PIXELS, np.uint8).reshape(HEIGHT, WIDTH, 3)
IPTC: Final = b"\x1c\x02\x5a\x00\x05Kyoto"
XMP: Final = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>harbour</a></x:xmpmeta>'
EXIF_IFD, GPS_IFD, SUB_IFDS, INTEROP = 0x8769, 0x8825, 330, 0xA005
MAKE, SOFTWARE, ORIENTATION, LENS = 271, 305, 274, 0xA434
orders = pytest.mark.parametrize("order", ["<", ">"])


def read(data: bytes) -> Picture:
    return decode(data, read_header(data, LIMITS))


def text(number: int, words: str) -> Tag:
    return Tag(number, ASCII, [*words.encode(), 0])


def words(content: bytes, order: str = "<") -> Sequence[int]:
    """Bytes as the LONGs that have them in a file."""
    content = content.ljust(-(-len(content) // 4) * 4, b"\0")
    return struct.unpack(f"{order}{len(content) // 4}I", content)


def several(*pages: list[Tag], order: str = "<", below: Sequence[list[Tag]] = ()) -> bytes:
    """A file whose pages show `PICTURE`, but those of 12x8 a grey of 7; directories below the last page's are last."""
    small = bytes([7] * 12 * 8 * 3)
    start = 8 + len(PIXELS) + len(small)

    def page(tags: list[Tag]) -> list[Tag]:
        if [12] in [tag.values for tag in tags]:
            return usual(12, 8, *tags, Tag(273, LONG, [8 + len(PIXELS)]), Tag(279, LONG, [len(small)]))
        return usual(WIDTH, HEIGHT, *tags)

    behind = b""
    places = []
    for tags in below:
        places.append(start + len(behind))
        behind += directory(page(tags), start + len(behind), 0, order)
    if places:
        pages = (*pages[:-1], [*pages[-1], Tag(SUB_IFDS, LONG, places)])
    first = start + len(behind)
    for number, tags in enumerate(pages):
        here = start + len(behind)
        length = len(directory(page(tags), here, 0, order))
        behind += directory(page(tags), here, 0 if number == len(pages) - 1 else here + length, order)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", first) + PIXELS + small + behind


SMALL: Final = [Tag(256, SHORT, [12]), Tag(257, SHORT, [8])]
PREVIEWS: Final = {
    "NewSubfileType": Tag(254, LONG, [1]),
    "NewSubfileType as SHORT": Tag(254, SHORT, [1]),
    "a smaller version of one page of several": Tag(254, LONG, [3]),
    "SubfileType": Tag(255, SHORT, [2]),
    "a mask": Tag(254, LONG, [4]),
    "a mask by its samples": Tag(262, SHORT, [4]),
}


class TestPages:
    @orders
    @pytest.mark.parametrize("kind", PREVIEWS)
    @pytest.mark.parametrize("before", [1, 3])
    def test_the_picture_is_the_first_whole_page(self, kind: str, before: int, order: str) -> None:
        data = several(*[[*SMALL, PREVIEWS[kind]]] * before, [], [*SMALL], order=order)
        result = read(data)
        np.testing.assert_array_equal(result.pixels, PICTURE)
        assert (result.header.height, result.header.width, result.header.frames) == (HEIGHT, WIDTH, 2)

    def test_it_is_there_where_the_first_page_is_it(self) -> None:
        result = read(several([Tag(254, LONG, [0])], [*SMALL, PREVIEWS["NewSubfileType"]]))
        np.testing.assert_array_equal(result.pixels, PICTURE)
        assert result.header.frames == 1

    def test_a_preview_alone_is_the_picture(self) -> None:
        np.testing.assert_array_equal(read(several([PREVIEWS["NewSubfileType"]])).pixels, PICTURE)

    @orders
    def test_it_may_lie_below_a_preview(self, order: str) -> None:
        preview = [*SMALL, PREVIEWS["NewSubfileType"], Tag(ORIENTATION, SHORT, [6])]
        result = read(several(preview, order=order, below=[[*SMALL, PREVIEWS["NewSubfileType"]], []]))
        assert (result.header.orientation, result.header.frames) == (6, 1)
        np.testing.assert_array_equal(result.pixels, np.rot90(PICTURE, -1))

    def test_smaller_versions_below_a_page_are_not_it(self) -> None:
        result = read(several([], below=[[*SMALL, PREVIEWS["NewSubfileType"]], [*SMALL]]))
        np.testing.assert_array_equal(result.pixels, PICTURE)

    def test_its_tags_count_and_else_those_of_the_first_directory(self) -> None:
        said = [text(MAKE, "Preview"), text(SOFTWARE, "Scanner"), Tag(ORIENTATION, SHORT, [3])]
        said += [Tag(33723, UNDEFINED, list(IPTC)), Tag(700, BYTE, list(XMP))]
        profile = profiles.display_p3()
        said.append(Tag(34675, UNDEFINED, list(profile)))
        header = read_header(several([*SMALL, PREVIEWS["NewSubfileType"], *said], [text(MAKE, "Picture")]), LIMITS)
        exif = exif_of(header.metadata)
        assert (exif[MAKE], exif[SOFTWARE]) == ("Picture", "Scanner")
        assert (header.metadata.iptc, header.metadata.xmp) == (IPTC, XMP)
        assert (header.orientation, header.icc_profile) == (1, profile)


def exif_of(metadata: Metadata) -> Image.Exif:
    assert metadata.exif is not None
    exif = Image.Exif()
    exif.load(metadata.exif)
    return exif


class TestRaw:
    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(file(usual(WIDTH, HEIGHT, Tag(262, SHORT, [32_803]))), id="a colour filter array"),
            pytest.param(file(usual(WIDTH, HEIGHT, Tag(262, SHORT, [34_892]))), id="linear raw"),
            pytest.param(file(usual(WIDTH, HEIGHT, Tag(50_706, BYTE, [1, 4, 0, 0]))), id="a DNG"),
            pytest.param(
                several([*SMALL, PREVIEWS["NewSubfileType"]], [Tag(262, SHORT, [32_803])]), id="the next page"
            ),
            pytest.param(
                several([*SMALL, PREVIEWS["NewSubfileType"]], below=[[Tag(262, SHORT, [32_803])]]), id="below, as NEF"
            ),
            pytest.param(several([*SMALL], below=[[Tag(259, SHORT, [34_713])]]), id="Nikon's compression"),
            pytest.param(b"II*\0\x10\0\0\0CR\x02\0" + bytes(100), id="CR2"),
            pytest.param(b"II*\0\x10\x10\0\0IIII\x01waR" + bytes(100), id="IIQ"),
            pytest.param(b"IIU\0\x18\0\0\0" + bytes(100), id="RW2"),
            pytest.param(b"IIRO\x08\0\0\0" + bytes(100), id="ORF"),
            pytest.param(b"FUJIFILMCCD-RAW 0201" + bytes(100), id="RAF"),
            pytest.param(b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(100), id="CR3"),
        ],
    )
    def test_raw_files_are_refused_with_the_reason(self, data: bytes) -> None:
        with pytest.raises(UnsupportedFormat) as error:
            read_header(data, LIMITS)
        assert details(error.value)["detail"].startswith("It is a camera's raw file: send the JPEG")

    @pytest.mark.parametrize("begin", [b"CR\2", b"IIII", b"MMMM"])
    def test_samples_that_look_like_a_mark_are_none(self, begin: bytes) -> None:
        assert read(file(usual(WIDTH, HEIGHT), pixels=begin + PIXELS[len(begin) :])).pixels.shape == PICTURE.shape

    def test_what_is_no_picture_is_told_what_is(self) -> None:
        with pytest.raises(UnsupportedFormat) as error:
            read_header(b"hello", LIMITS)
        assert details(error.value)["detail"] == "Send a JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF file."


class TestMetadata:
    @orders
    @pytest.mark.parametrize("padding", [0, 2])
    @pytest.mark.parametrize("kind", [BYTE, ASCII, UNDEFINED, SHORT, LONG])
    def test_blocks_of_any_kind(self, kind: int, padding: int, order: str) -> None:
        tags = []
        for number, block in ((33723, IPTC), (700, XMP), (34675, profiles.display_p3())):
            content = block + bytes(padding if number != 34675 else 0)
            values: Sequence[int] = list(content)
            if kind in (SHORT, LONG):
                content = content.ljust(-(-len(content) // 4) * 4, b"\0")
                letter, size = ("H", 2) if kind == SHORT else ("I", 4)
                values = struct.unpack(f"{order}{len(content) // size}{letter}", content)
            tags.append(Tag(number, kind, values))
        header = read_header(file(usual(WIDTH, HEIGHT, *tags), order=order), LIMITS)
        assert header.metadata.iptc == IPTC
        assert header.metadata.xmp == XMP
        assert header.icc_profile is not None
        assert header.icc_profile.rstrip(b"\0") == profiles.display_p3().rstrip(b"\0")

    def test_iptc_whose_words_were_turned_round(self) -> None:
        tag = Tag(33723, LONG, words(IPTC, ">"))
        assert read_header(file(usual(WIDTH, HEIGHT, tag)), LIMITS).metadata.iptc == IPTC

    def test_iptc_that_ends_in_zeros_is_kept(self) -> None:
        records = IPTC + b"\x1c\x02\x00\x00\x02\x00\x00"
        tag = Tag(33723, UNDEFINED, list(records + bytes(2)))
        assert read_header(file(usual(WIDTH, HEIGHT, tag)), LIMITS).metadata.iptc == records

    def test_iptc_among_photoshops_resources(self) -> None:
        resources = b"8BIM\x03\xed\0\0\0\0\0\x02ab8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
        tag = Tag(34377, BYTE, list(resources))
        assert read_header(file(usual(WIDTH, HEIGHT, tag)), LIMITS).metadata.iptc == IPTC

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", [BYTE, SHORT, LONG])
    def test_an_orientation_of_any_kind(self, kind: int, orientation: int) -> None:
        header = read_header(file(usual(WIDTH, HEIGHT, Tag(ORIENTATION, kind, [orientation]))), LIMITS)
        assert header.orientation == orientation
        assert (header.height, header.width) == ((WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH))

    @orders
    def test_exif_and_gps_go_into_an_answer(self, order: str) -> None:
        start = 8 + len(PIXELS)
        exif = directory([text(LENS, "A lens of more than four letters"), Tag(0x8827, SHORT, [400])], start, 0, order)
        gps_at = start + len(exif)
        gps = directory([text(1, "N"), Tag(29, ASCII, list(b"2024:01:02\0"))], gps_at, 0, order)
        tags = [text(MAKE, "A maker"), Tag(EXIF_IFD, LONG, [start]), Tag(GPS_IFD, LONG, [gps_at])]
        data = file(usual(WIDTH, HEIGHT, *tags), pixels=PIXELS + exif + gps, order=order)
        with Image.open(io.BytesIO(encode(read(data), "tiff"))) as answer:
            said = answer.getexif()
        assert said[MAKE] == "A maker"
        assert said.get_ifd(EXIF_IFD) == {LENS: "A lens of more than four letters", 0x8827: 400}
        assert said.get_ifd(GPS_IFD) == {1: "N", 29: "2024:01:02"}

    def test_what_programs_write_into_the_page_itself_is_kept(self) -> None:
        tags = [
            text(269, "scan.tif"),
            text(285, "Page 3"),
            Tag(286, RATIONAL, [3, 2], count=1),
            Tag(33_434, RATIONAL, [1, 125], count=1),  # EXIF's exposure time, as TIFF/EP has it
            Tag(33_550, DOUBLE, struct.unpack("<3Q", struct.pack("<3d", 2, 2, 0))),  # GeoTIFF's pixel scale
            text(42_112, "<GDALMetadata/>"),
        ]
        data = several(tags)
        header = read_header(data, LIMITS)
        for exif in (exif_of(header.metadata), Image.open(io.BytesIO(encode(read(data), "tiff"))).getexif()):
            assert (exif[269], exif[285], exif[286], exif[33_434]) == ("scan.tif", "Page 3", 1.5, 0.008)
            assert (exif[33_550], exif[42_112]) == ((2, 2, 0), "<GDALMetadata/>")


NOISE: Final = np.random.default_rng(3).integers(0, 256, 3000, np.uint8).tobytes()


class TestBrokenMetadata:
    @orders
    @pytest.mark.parametrize("tag", [EXIF_IFD, GPS_IFD, SUB_IFDS, INTEROP, 34377, 33723, 700])
    @pytest.mark.parametrize("place", ["noise", "the end", "outside", "itself", "the samples"])
    def test_pointers_cost_nothing_else(self, tag: int, place: str, order: str) -> None:
        start = 8 + len(PIXELS) + len(NOISE)
        data = b""
        for _ in range(2):  # the end is known once it is written
            to = {"noise": 8 + len(PIXELS), "the end": len(data) - 3, "outside": 2**31, "itself": start}.get(place, 11)
            tags = usual(WIDTH, HEIGHT, Tag(tag, LONG, count=1, value=max(to, 0)), text(MAKE, "A maker"))
            data = file(tags, pixels=PIXELS + NOISE, order=order)
        result = read(data)
        np.testing.assert_array_equal(result.pixels, PICTURE)
        assert exif_of(result.header.metadata)[MAKE] == "A maker"
        assert read(encode(result, "tiff")).pixels.shape == PICTURE.shape

    @pytest.mark.parametrize("seed", range(20))
    def test_a_next_directory_in_noise_is_none(self, seed: int) -> None:
        noise = np.random.default_rng(seed).integers(0, 256, 200_000, np.uint8).tobytes()
        data = file(usual(WIDTH, HEIGHT), after=8 + len(PIXELS), pixels=PIXELS + noise)
        assert read(data).header.frames == 1

    @pytest.mark.parametrize(
        "tag",
        [
            Tag(SOFTWARE, SHORT, [1, 2, 3]),
            Tag(SOFTWARE, ASCII, count=2**32 - 1, value=8),
            Tag(SOFTWARE, 99, [1]),
            Tag(ORIENTATION, ASCII, [65, 0]),
            Tag(ORIENTATION, SHORT, count=2**31, value=8),
            Tag(282, ASCII, [65, 0]),
            Tag(EXIF_IFD, ASCII, [65, 0]),
            Tag(EXIF_IFD, LONG, []),
        ],
    )
    def test_tags_of_wrong_kinds_cost_nothing_else(self, tag: Tag) -> None:
        result = read(file(usual(WIDTH, HEIGHT, tag, text(MAKE, "A maker"))))
        np.testing.assert_array_equal(result.pixels, PICTURE)
        answer = encode(result, "tiff")
        assert exif_of(read_header(answer, LIMITS).metadata)[MAKE] == "A maker"

    def test_what_comes_before_the_break_is_kept(self) -> None:
        start = 8 + len(PIXELS)
        exif = directory(
            [text(LENS, "A lens"), Tag(0x8827, SHORT, [400]), Tag(0x927C, UNDEFINED, count=2**31, value=8)], start
        )
        data = file(usual(WIDTH, HEIGHT, Tag(EXIF_IFD, LONG, [start])), pixels=PIXELS + exif)
        assert exif_of(read_header(data, LIMITS).metadata).get_ifd(EXIF_IFD) == {LENS: "A lens", 0x8827: 400}

    @orders
    def test_tags_out_of_order(self, order: str) -> None:
        data = bytearray(file(usual(WIDTH, HEIGHT, text(MAKE, "A maker"), PREVIEWS["NewSubfileType"]), order=order))
        start = 8 + len(PIXELS)
        (count,) = struct.unpack_from(order + "H", data, start)
        entries = [bytes(data[start + 2 + 12 * i : start + 14 + 12 * i]) for i in range(count)]
        data[start + 2 : start + 2 + 12 * count] = b"".join(reversed(entries))
        result = read(bytes(data))
        np.testing.assert_array_equal(result.pixels, PICTURE)
        assert exif_of(result.header.metadata)[MAKE] == "A maker"

    def test_many_tags_that_share_bytes_are_not_kept_many_times(self) -> None:
        start = 8 + len(PIXELS) + 500_000
        exif = directory([Tag(40_000 + i, UNDEFINED, count=500_000, value=8) for i in range(20_000)], start)
        tags = usual(WIDTH, HEIGHT, Tag(EXIF_IFD, LONG, [start]))
        data = file(tags, pixels=PIXELS + bytes(500_000) + exif)
        kept = read_header(data, LIMITS).metadata.exif
        assert kept is not None
        assert len(kept) < 2 * len(data)


class TestPalettes:
    @orders
    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    @pytest.mark.parametrize("depth", [8, 16])
    def test_maps_of_8_and_of_16_bits(self, bits: int, depth: int, order: str) -> None:
        colours = np.random.default_rng(0).integers(0, 256, (3, 1 << bits), np.uint16)
        colours[:, 1] = 255
        indices = np.random.default_rng(1).integers(0, 1 << bits, (HEIGHT, WIDTH))
        data = palette_file(indices, bits, colours * (257 if depth == 16 else 1), order)
        np.testing.assert_array_equal(read(data).pixels, colours[:, indices].transpose(1, 2, 0))

    @pytest.mark.parametrize("count", [3, 3 * 255, 3 * 256 - 1, 3 * 256 + 1])
    def test_a_map_that_does_not_fit_is_damaged(self, count: int) -> None:
        data = palette_file(np.zeros((HEIGHT, WIDTH), int), 8, np.zeros(count, np.uint16), "<")
        with pytest.raises(MalformedPicture, match="colour map"):
            read(data)

    def test_a_map_of_more_colours_than_indices(self) -> None:
        colours = np.random.default_rng(0).integers(0, 256, (3, 256), np.uint16)
        indices = np.random.default_rng(1).integers(0, 16, (HEIGHT, WIDTH))
        result = read(palette_file(indices, 4, colours * 256, "<"))
        np.testing.assert_array_equal(result.pixels, colours[:, indices].transpose(1, 2, 0))

    def test_alpha_beside_indices(self) -> None:
        colours = np.random.default_rng(0).integers(0, 256, (3, 256), np.uint16)
        samples = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 2), np.uint8)
        tags = usual(
            WIDTH, HEIGHT, Tag(258, SHORT, [8, 8]), Tag(262, SHORT, [3]), Tag(277, SHORT, [2]), Tag(338, SHORT, [2]),
            Tag(320, SHORT, (colours * 257).ravel().tolist()), Tag(279, LONG, [samples.size]),
        )  # fmt: skip
        result = read(file(tags, pixels=samples.tobytes()))
        np.testing.assert_array_equal(result.pixels, colours[:, samples[:, :, 0]].transpose(1, 2, 0))
        assert result.alpha is not None
        np.testing.assert_array_equal(result.alpha, samples[:, :, 1])


def palette_file(indices: Array, bits: int, colours: Array, order: str) -> bytes:
    if bits == 16:
        samples = indices.astype(order + "u2").tobytes()
    else:
        each = np.unpackbits(indices.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - bits :]
        samples = np.packbits(each.reshape(HEIGHT, -1), axis=1).tobytes()
    tags = usual(
        WIDTH, HEIGHT, Tag(258, SHORT, [bits]), Tag(262, SHORT, [3]), Tag(277, SHORT, [1]),
        Tag(320, SHORT, colours.ravel().tolist()), Tag(279, LONG, [len(samples)]),
    )  # fmt: skip
    return file(tags, pixels=samples + bytes(len(samples) % 2), order=order)


class TestOldWriters:
    @pytest.mark.parametrize("places", [273, 324])
    @pytest.mark.parametrize("counts", [279, 325, None])
    def test_tiles_under_the_numbers_of_strips(self, places: int, counts: int | None) -> None:
        wide = np.zeros((48, 48, 3), np.uint8)
        wide[:HEIGHT] = PICTURE
        tiles = wide.reshape(3, 16, 3, 16, 3).swapaxes(1, 2)
        tags = [tag for tag in usual(WIDTH, HEIGHT) if tag.number not in (273, 278, 279)]
        tags += [Tag(322, SHORT, [16]), Tag(323, SHORT, [16]), Tag(places, LONG, [8 + 768 * i for i in range(9)])]
        tags += [Tag(counts, SHORT, [768] * 9)] if counts else []
        np.testing.assert_array_equal(read(file(tags, pixels=tiles.tobytes())).pixels, PICTURE)

    @pytest.mark.parametrize("counts", [None, [0, 0, 0, 0], [1, 1, 1, 1], [2**32 - 1] * 4, [0]])
    @pytest.mark.parametrize("compression", [1, 8])
    def test_wrong_and_missing_counts_of_bytes(self, compression: int, counts: list[int] | None) -> None:
        if compression == 8 and counts and counts[0]:
            pytest.skip("what is compressed needs its length")
        strips = [PICTURE[top : top + 11].tobytes() for top in range(0, HEIGHT, 11)]
        strips = strips if compression == 1 else [zlib.compress(strip) for strip in strips]
        places = [8 + sum(map(len, strips[:i])) for i in range(4)]
        tags = [Tag(273, LONG, places), Tag(278, SHORT, [11]), Tag(259, SHORT, [compression])]
        page_tags = [tag for tag in usual(WIDTH, HEIGHT, *tags) if tag.number != 279]
        if counts is not None:
            page_tags.append(Tag(279, LONG, counts))
        content = b"".join(strips)
        np.testing.assert_array_equal(read(file(page_tags, pixels=content + bytes(len(content) % 2))).pixels, PICTURE)

    @pytest.mark.parametrize("rows", [None, 0, 40, 41, 2**32 - 1])
    def test_rows_of_the_only_strip(self, rows: int | None) -> None:
        tags = [tag for tag in usual(WIDTH, HEIGHT) if tag.number != 278]
        tags += [] if rows is None else [Tag(278, LONG, [rows])]
        np.testing.assert_array_equal(read(file(tags)).pixels, PICTURE)

    def test_rows_that_are_left_out_follow_from_the_counts(self) -> None:
        tags = usual(WIDTH, HEIGHT, Tag(273, LONG, [8, 8 + 144 * 32]), Tag(279, LONG, [144 * 32, 144 * 8]))
        np.testing.assert_array_equal(read(file([tag for tag in tags if tag.number != 278])).pixels, PICTURE)

    def test_fewer_strips_than_the_picture_needs_are_damaged(self) -> None:
        with pytest.raises(MalformedPicture, match="strips"):
            read(file(usual(WIDTH, HEIGHT, Tag(278, LONG, [20]))))

    def test_samples_that_end_early_are_damaged(self) -> None:
        with pytest.raises(MalformedPicture, match="early"):
            read(file(usual(WIDTH, HEIGHT, Tag(257, LONG, [HEIGHT + 10]), Tag(278, LONG, [HEIGHT + 10]))))


BYTE_ORDERS: Final[tuple[Literal["<", ">"], ...]] = ("<", ">")
GREY: Final = ("minisblack", 1, ())
LAYOUTS: Final = (
    GREY,
    ("miniswhite", 1, ()),
    ("minisblack", 2, ("unassalpha",)),
    ("minisblack", 2, ("unspecified",)),
    ("rgb", 3, ()),
    ("rgb", 4, ("unassalpha",)),
    ("rgb", 4, ("unspecified",)),
    ("rgb", 5, ("unspecified", "unassalpha")),
    ("rgb", 7, ("unassalpha", "unspecified", "unspecified", "unspecified")),
)


class TestSamples:
    @settings(max_examples=120, deadline=None)
    @given(
        layout=st.sampled_from(LAYOUTS),
        bits=st.sampled_from([8, 16]),
        planar=st.booleans(),
        tile=st.sampled_from([None, (16, 16), (32, 48)]),
        packing=st.sampled_from([(None, False), ("zlib", False), ("zlib", True), ("lzma", True)]),
        order=st.sampled_from(BYTE_ORDERS),
        big=st.booleans(),
        size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    )
    def test_every_combination_is_read_bit_for_bit(
        self,
        layout: tuple[str, int, tuple[str, ...]],
        bits: int,
        planar: bool,
        tile: tuple[int, int] | None,
        packing: tuple[str | None, bool],
        order: Literal["<", ">"],
        big: bool,
        size: tuple[int, int],
    ) -> None:
        kind, channels, extra = layout
        samples = np.random.default_rng(0).integers(0, 2**bits, (*size, channels), np.uint8 if bits == 8 else np.uint16)
        options: dict[str, Any] = {"compression": packing[0], "predictor": packing[1], "tile": tile, "bigtiff": big}
        if channels > 1:
            options |= {"planarconfig": "separate" if planar else "contig", "extrasamples": extra or None}
        written = io.BytesIO()
        shown = samples[:, :, 0] if channels == 1 else np.moveaxis(samples, 2, 0) if planar else samples
        tifffile.imwrite(written, shown, photometric=kind, byteorder=order, **options)
        result = read(written.getvalue())
        colours = samples[:, :, :3] if kind == "rgb" else np.repeat(samples[:, :, :1], 3, axis=2)
        np.testing.assert_array_equal(result.pixels, 2**bits - 1 - colours if kind == "miniswhite" else colours)
        assert result.pixels.dtype == samples.dtype
        if "unassalpha" in extra:
            place = (3 if kind == "rgb" else 1) + extra.index("unassalpha")
            assert result.alpha is not None
            np.testing.assert_array_equal(result.alpha, samples[:, :, place])
        else:
            assert result.alpha is None

    @orders
    @pytest.mark.parametrize("bits", [1, 2, 4])
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("white", [False, True])
    def test_few_bits(self, bits: int, channels: int, white: bool, order: str) -> None:
        levels = np.random.default_rng(0).integers(0, 1 << bits, (HEIGHT, WIDTH, channels), np.uint8)
        each = np.unpackbits(levels[..., None], axis=3)[..., 8 - bits :]
        samples = np.packbits(each.reshape(HEIGHT, -1), axis=1).tobytes()
        tags = usual(
            WIDTH, HEIGHT, Tag(258, SHORT, [bits] * channels), Tag(277, SHORT, [channels]),
            Tag(262, SHORT, [2 if channels == 3 else 0 if white else 1]), Tag(279, LONG, [len(samples)]),
        )  # fmt: skip
        expected = levels * (255 // ((1 << bits) - 1))
        expected = 255 - expected if white and channels == 1 else expected
        result = read(file(tags, pixels=samples, order=order))
        np.testing.assert_array_equal(result.pixels, np.broadcast_to(expected, (HEIGHT, WIDTH, 3)))

    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
    def test_ycbcr_that_is_not_compressed_and_that_is(self, subsampling: str) -> None:
        across, down = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}[subsampling]
        flat = np.full((HEIGHT // down, WIDTH // across, across * down + 2), 100, np.uint8)
        flat[:, :, -2:] = (90, 200)
        tags = [Tag(262, SHORT, [6]), Tag(530, SHORT, [across, down]), Tag(279, LONG, [flat.size])]
        expected = Image.new("YCbCr", (1, 1), (100, 90, 200)).convert("RGB").getpixel((0, 0))
        for content, compression in ((flat.tobytes(), 1), (zlib.compress(flat.tobytes()), 8)):
            kinds = [*tags[:2], Tag(279, LONG, [len(content)]), Tag(259, SHORT, [compression])]
            result = read(file(usual(WIDTH, HEIGHT, *kinds), pixels=content + bytes(len(content) % 2)))
            assert np.abs(result.pixels.astype(int) - expected).max() <= 1

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
    @pytest.mark.parametrize("turn", [1, 6])
    def test_jpegs_inside(self, mode: str, turn: int) -> None:
        image = Image.fromarray(skimage.data.chelsea()[:40, :48]).convert(mode)
        written = io.BytesIO()
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        image.save(written, "tiff", compression="jpeg", quality=95, exif=exif)
        with Image.open(io.BytesIO(written.getvalue())) as seen:
            truth = np.asarray(seen.convert("RGB"))
        assert np.abs(read(written.getvalue()).pixels.astype(int) - truth).max() <= 1

    @pytest.mark.parametrize(("bits", "channels"), [(1, 1), (4, 1), (8, 1), (8, 3), (16, 1), (16, 3)])
    def test_bits_in_reverse_order(self, bits: int, channels: int) -> None:
        samples = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH * channels * bits // 8), np.uint8)
        turned = np.packbits(np.unpackbits(samples).reshape(-1, 8)[:, ::-1], axis=1)
        tags = [Tag(258, SHORT, [bits] * channels), Tag(277, SHORT, [channels]), Tag(279, LONG, [samples.size])]
        tags.append(Tag(262, SHORT, [2 if channels == 3 else 1]))
        expected = read(file(usual(WIDTH, HEIGHT, *tags), pixels=samples.tobytes())).pixels
        result = read(file(usual(WIDTH, HEIGHT, *tags, Tag(266, SHORT, [2])), pixels=turned.tobytes()))
        np.testing.assert_array_equal(result.pixels, expected)

    @pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
    @pytest.mark.parametrize("fill", [1, 2])
    def test_fax(self, compression: str, fill: int) -> None:
        image = Image.fromarray(skimage.data.chelsea()[:40, :48]).convert("1")
        written = io.BytesIO()
        image.save(written, "tiff", compression=compression, tiffinfo={266: fill})
        np.testing.assert_array_equal(read(written.getvalue()).pixels[:, :, 0], np.asarray(image) * 255)

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("planar", [False, True])
    @pytest.mark.parametrize("alpha", [False, True])
    def test_inks(self, bits: int, planar: bool, alpha: bool) -> None:
        inks = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
        truth = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))
        samples = np.dstack([inks, inks[:, :, 0]]) if alpha else inks
        samples = samples.astype(np.uint16) * 257 if bits == 16 else samples
        written = io.BytesIO()
        tifffile.imwrite(
            written, np.moveaxis(samples, 2, 0) if planar else samples, photometric="separated",
            planarconfig="separate" if planar else "contig", extrasamples=["unassalpha"] if alpha else None,
        )  # fmt: skip
        result = read(written.getvalue())
        np.testing.assert_array_equal(result.pixels, truth)
        assert (result.alpha is not None) == alpha
        assert result.alpha is None or np.array_equal(result.alpha, inks[:, :, 0])


def lab_truth(lab: Array) -> Array:
    """The sRGB, 0..255, of L in 0..100, a and b: Little CMS, by way of Pillow, has 8 bits alone."""
    from_xyz = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(skimage.color.lab2xyz(lab, illuminant="D50") @ np.transpose(from_xyz), 0, 1)
    srgb: Array = 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb


class TestLab:
    @orders
    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("kind", ["CIELAB", "ICCLAB", "ITULAB"])
    def test_lab_is_converted(self, kind: str, bits: int, order: str) -> None:
        if (kind, bits) == ("ITULAB", 16):
            pytest.skip("has 8 bits alone")
        # 5 is a whole number of steps of 8 bits for a and b; L is rounded
        lightness, a, b = np.meshgrid(np.arange(20, 100, 20), np.arange(-25, 26, 5), np.arange(-25, 26, 5))
        lab = np.dstack([lightness.reshape(44, -1), a.reshape(44, -1), b.reshape(44, -1)]).astype(float)
        if kind == "CIELAB":
            scaled = lab * [2.55, 1, 1] if bits == 8 else lab * [655.35, 256, 256]
        elif kind == "ICCLAB":
            scaled = lab * [2.55, 1, 1] + [0, 128, 128] if bits == 8 else lab * [652.8, 256, 256] + [0, 32768, 32768]
        else:
            scaled = (lab - [0, -85, -75]) * [2.55, 1.5, 1.275]
        samples = np.rint(scaled).astype(int).astype("u1" if bits == 8 else order + "u2")
        height, width = lab.shape[:2]
        tags = usual(
            width, height, Tag(258, SHORT, [bits] * 3), Tag(279, LONG, [samples.nbytes]),
            Tag(262, SHORT, [{"CIELAB": 8, "ICCLAB": 9, "ITULAB": 10}[kind]]),
        )  # fmt: skip
        result = read(file(tags, pixels=samples.tobytes(), order=order))
        assert np.abs(result.pixels - lab_truth(lab)).max() <= (1 if bits == 16 else 4 if kind == "ITULAB" else 2)
        assert result.header.icc_profile is None

    def test_grey_stays_grey(self) -> None:
        samples = np.zeros((HEIGHT, WIDTH, 3), "<u2")
        samples[:, :, 0] = np.linspace(0, 65_535, WIDTH)
        tags = usual(WIDTH, HEIGHT, Tag(258, SHORT, [16] * 3), Tag(262, SHORT, [8]), Tag(279, LONG, [samples.nbytes]))
        pixels = read(file(tags, pixels=samples.tobytes())).pixels.astype(int)
        assert (pixels.max(axis=2) - pixels.min(axis=2)).max() <= 1
        assert (pixels[0, 0].tolist(), pixels[0, -1].tolist()) == ([0, 0, 0], [255, 255, 255])


class TestUnsupported:
    @pytest.mark.parametrize(
        ("tags", "told"),
        [
            ([Tag(259, SHORT, [34_712])], "They are compressed by JPEG 2000: save the TIFF with LZW or ZIP"),
            ([Tag(259, SHORT, [34_887])], "They are compressed by LERC: save the TIFF with LZW or ZIP"),
            ([Tag(259, SHORT, [50_001])], "They are compressed by WebP: save the TIFF with LZW or ZIP"),
            (
                [Tag(259, SHORT, [999])],
                "They are compressed by a method that is not known (999): save the TIFF with LZW",
            ),
            ([Tag(262, SHORT, [32_845])], "They are LogLuv: save the TIFF as grey, RGB or CMYK"),
            ([Tag(262, SHORT, [5])], "They are inks other than cyan, magenta, yellow and black: save the TIFF as RGB"),
            ([Tag(339, SHORT, [3] * 3), Tag(258, SHORT, [32] * 3)], "They are floating-point, signed or undefined"),
            ([Tag(339, SHORT, [2] * 3)], "They are floating-point, signed or undefined"),
            ([Tag(258, SHORT, [12] * 3)], "They are of 12 bits: send whole numbers"),
            ([Tag(258, SHORT, [32] * 3)], "They are of 32 bits: send whole numbers"),
            ([Tag(258, SHORT, [5, 6, 5])], "They are of 5 and 6 bits: send whole numbers"),
            (
                [Tag(259, SHORT, [7]), Tag(258, SHORT, [16] * 3)],
                "They are of 16 bits in a JPEG: save the TIFF with LZW",
            ),
            (
                [Tag(259, SHORT, [7]), Tag(258, SHORT, [8] * 5), Tag(277, SHORT, [5])],
                "They are more than four channels",
            ),
            ([Tag(262, SHORT, [6]), Tag(266, SHORT, [2])], "They are of bits in reverse order: save the TIFF anew"),
            ([Tag(259, SHORT, [5]), Tag(317, SHORT, [3])], "They are predicted in a way that is not read: save the"),
        ],
    )
    def test_what_is_not_read_is_said(self, tags: list[Tag], told: str) -> None:
        with pytest.raises(UnsupportedSamples) as error:
            read_header(file(usual(WIDTH, HEIGHT, *tags)), LIMITS)
        assert details(error.value)["detail"].startswith(told)
