"""Metadata from file to file: what one format says of its picture, the other says too."""

import io
import struct
import zlib
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, IptcImagePlugin, PngImagePlugin, TiffImagePlugin

from service.codec import Format, Header, Picture, PictureLimits, decode, encode, read_header
from service.decoding import messages
from service.metadata import Metadata, Resolution, iptc_resource, jpeg_segment, jpeg_segments, upright
from tests import png_files
from tests.hostile.jpeg import markers
from tests.hostile.png import zeros
from tests.service.test_exif import COMMENT, EXIF_IFD, MAKE, MAKER_NOTE, ORIENTATION, block_of, read, with_inner
from tests.service.test_xmp import packet_of, words

pillow_heif.register_heif_opener()

LIMITS = PictureLimits(10**7)
IPTC = b"\x1c\2\x5a\0\5Kyoto"
PLACES: tuple[Format, ...] = ("jpeg", "png", "bmp", "tiff")
"""Formats that say a resolution in a header of their own."""


def saved(format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 60)).save(file, format_, **options)
    return file.getvalue()


def through(data: bytes, format_: Format, *, keep: bool = True) -> bytes:
    header = read_header(data, LIMITS)
    return encode(decode(data, header), format_, keep_metadata=keep)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def dpi(data: bytes) -> tuple[float, float]:
    """Pixels per inch; PNG and BMP count whole pixels per metre."""
    x, y = opened(data).info["dpi"]
    return round(float(x), 1), round(float(y), 1)


def png_with(keyword: str, text: bytes, kind: bytes = b"zTXt") -> bytes:
    content = keyword.encode() + (b"\0\0" + zlib.compress(text) if kind == b"zTXt" else b"\0" + text)
    if kind == b"iTXt":
        content = keyword.encode() + b"\0\0\0\0\0" + text
    return png_files.with_chunks(saved("png"), png_files.chunk(kind, content))


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    plain = saved("jpeg")
    return plain[:2] + b"".join(jpeg_segment(*segment) for segment in segments) + plain[2:]


def said(data: bytes) -> Metadata:
    return read_header(data, LIMITS).metadata


class TestResolution:
    @pytest.mark.parametrize(("source", "target"), list(product(PLACES, PLACES)))
    @pytest.mark.parametrize("keep", [True, False])
    def test_goes_from_format_to_format(self, source: Format, target: Format, keep: bool) -> None:
        assert dpi(through(saved(source, dpi=(300, 150)), target, keep=keep)) == (300, 150)

    @pytest.mark.parametrize("target", PLACES)
    @pytest.mark.parametrize("source", ["jpeg", "png", "tiff", "webp"])
    def test_turns_with_the_picture(self, source: Format, target: Format) -> None:
        exif = Image.Exif()
        exif[ORIENTATION], exif[0x011A], exif[0x011B], exif[0x0128] = 6, 300.0, 150.0, 2
        options = {"exif": exif} | ({} if source == "webp" else {"dpi": (300, 150)})
        assert dpi(through(saved(source, **options), target)) == (150, 300)

    def test_in_centimetres(self) -> None:
        data = bytearray(saved("jpeg"))
        data[13:18] = struct.pack(">BHH", 2, 118, 59)
        assert through(bytes(data), "jpeg")[13:18] == data[13:18]
        assert b"pHYs" + struct.pack(">IIB", 11_800, 5900, 1) in through(bytes(data), "png")
        tags = opened(through(bytes(data), "tiff"))
        assert isinstance(tags, TiffImagePlugin.TiffImageFile)
        assert [tags.tag_v2[tag] for tag in (282, 283, 296)] == [118, 59, 3]

    @pytest.mark.parametrize("target", ["jpeg", "png", "tiff"])
    def test_a_ratio_stays_one(self, target: Format) -> None:
        data = bytearray(saved("jpeg"))
        data[13:18] = struct.pack(">BHH", 0, 2, 1)
        answer = through(bytes(data), target)
        assert said(answer).resolution == Resolution(2, 1, absolute=False)

    @pytest.mark.parametrize("pixels", [0, 2**32 - 1])
    @pytest.mark.parametrize("target", PLACES)
    def test_an_absurd_one_is_left_out(self, pixels: int, target: Format) -> None:
        chunk = png_files.chunk(b"pHYs", struct.pack(">IIB", pixels, pixels, 1))
        data = png_files.with_chunks(saved("png"), chunk)
        assert said(data).resolution is None
        assert said(through(data, target)).resolution is None

    def test_a_jpegs_own_and_exifs_stay_as_they_were(self) -> None:
        exif = Image.Exif()
        exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 72.0, 2
        answer = through(saved("jpeg", dpi=(300, 300), exif=exif), "jpeg")
        assert dpi(answer) == (300, 300)
        assert opened(answer).getexif()[0x011A] == 72
        assert b"pHYs" + struct.pack(">IIB", 11_811, 11_811, 1) in through(answer, "png")

    def test_exifs_counts_where_the_file_says_none(self) -> None:
        exif = Image.Exif()
        exif[0x011A], exif[0x011B], exif[0x0128] = 118.0, 118.0, 3
        assert b"pHYs" + struct.pack(">IIB", 11_800, 11_800, 1) in through(saved("webp", exif=exif), "png")

    def test_a_grey_png_with_alpha_has_it_too(self) -> None:
        file = io.BytesIO()
        Image.new("LA", (40, 30), (90, 100)).save(file, "png", dpi=(300, 300))
        assert dpi(through(file.getvalue(), "png")) == (300, 300)

    @pytest.mark.parametrize("per_inch", [1, 72, 96, 100, 254, 300, 600, 2400, Fraction(7299, 100)])
    def test_numbers_are_whole_where_they_can_be(self, per_inch: int | Fraction) -> None:
        exact = Resolution.of(float(per_inch), float(per_inch), 0.0254)
        assert exact
        assert exact.numbers()[:2] == pytest.approx((float(per_inch), float(per_inch)))
        assert exact.numbers()[2] == 1
        if isinstance(per_inch, int) and per_inch > 50:
            by_png = Resolution(round(exact.x), round(exact.y))
            assert by_png.numbers() == (per_inch, per_inch, 1)


class TestRawProfiles:
    EXIF = block_of("<", [(MAKE, 2, 4, b"Toy\0")])
    RESOURCES = b"8BIM\4\4\0\0" + struct.pack(">I", len(IPTC)) + IPTC
    XMP = packet_of("", "<dc:title>kept</dc:title>")

    @staticmethod
    def text(name: bytes, block: bytes, width: int = 72) -> bytes:
        digits = block.hex().encode()
        lines = b"\n".join(digits[place : place + width] for place in range(0, len(digits), width))
        return b"\n" + name + b"\n%8d\n" % len(block) + lines + b"\n"

    @pytest.mark.parametrize("kind", [b"zTXt", b"tEXt", b"iTXt"])
    @pytest.mark.parametrize(
        ("keyword", "name", "block", "expected"),
        [
            ("iptc", b"IPTC profile", IPTC, "iptc"),  # by ExifTool
            ("iptc", b"iptc", RESOURCES, "iptc"),  # by ImageMagick
            ("8bim", b"8bim", RESOURCES, "iptc"),
            ("iptc", b"iptc", b"Photoshop 3.0\0" + RESOURCES, "iptc"),
            ("exif", b"exif", b"Exif\0\0" + EXIF, "exif"),
            ("APP1", b"generic profile", b"Exif\0\0" + EXIF, "exif"),
            ("exif", b"EXIF profile", EXIF, "exif"),
            ("APP1", b"generic profile", b"http://ns.adobe.com/xap/1.0/\0" + XMP, "xmp"),
            ("xmp", b"xmp", XMP, "xmp"),
            ("xmp", b"XMP profile", b"\xef\xbb\xbf" + XMP, "xmp"),
        ],
    )
    def test_are_read(self, kind: bytes, keyword: str, name: bytes, block: bytes, expected: str) -> None:
        found = said(png_with(f"Raw profile type {keyword}", self.text(name, block), kind))
        assert [each for each in ("exif", "xmp", "iptc") if getattr(found, each)] == [expected]
        assert found.iptc in (None, IPTC)
        assert found.exif in (None, self.EXIF)
        assert found.xmp is None or found.xmp.endswith(self.XMP)

    def test_the_length_says_where_the_digits_end(self) -> None:
        text = self.text(b"IPTC profile", IPTC) + b"00ff not digits"
        assert said(png_with("Raw profile type iptc", text)).iptc == IPTC
        assert said(png_with("Raw profile type iptc", text.replace(b"\n", b"\r\n"))).iptc == IPTC

    @pytest.mark.parametrize(
        "text", [b"", b"\n", b"\niptc\n", b"\niptc\n       5\nzz", b"\niptc\n" + b"9" * 5000, b"iptc 5 00"]
    )
    def test_broken_ones_cost_nothing(self, text: bytes) -> None:
        assert said(png_with("Raw profile type iptc", text)) == Metadata()

    def test_a_chunk_of_its_own_counts_more(self) -> None:
        own = Image.Exif()
        own[MAKE] = "Own"
        file = io.BytesIO()
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Raw profile type exif", self.text(b"exif", b"Exif\0\0" + self.EXIF).decode())
        Image.new("RGB", (40, 30)).save(file, "png", exif=own, pnginfo=texts)
        assert opened(through(file.getvalue(), "jpeg")).getexif()[MAKE] == "Own"

    def test_iptc_is_written_as_others_read_it(self) -> None:
        answer = through(png_with("Raw profile type iptc", self.text(b"IPTC profile", IPTC)), "png")
        text = str(opened(answer).info["Raw profile type iptc"])
        assert text.split("\n")[:3] == ["", "iptc", f"{len(IPTC):8d}"]
        assert bytes.fromhex("".join(text.split("\n")[3:])) == IPTC


class TestTexts:
    CHUNKS = (
        (b"tEXt", b"Title\0Br\xfccke"),
        (b"tEXt", b"Author\0one"),
        (b"tEXt", b"Author\0other"),
        (b"zTXt", b"Description\0\0" + zlib.compress(b"a bridge " * 300)),
        (b"iTXt", b"Comment\0\0\0ja\0\xe6\xb3\xa8\0\xe6\xa9\x8b"),
        (b"iTXt", b"Copyright\0\1\0en-GB\0\0" + zlib.compress(b"\xc2\xa9 2020")),
        (b"tEXt", b"Software\0"),
        (b"tEXt", b"parameters\0steps: 20"),
    )

    @staticmethod
    def texts_of(data: bytes) -> list[tuple[bytes, bytes]]:
        found, place = [], 8
        while place < len(data):
            end = place + 12 + int.from_bytes(data[place : place + 4], "big")
            if data[place + 4 : place + 8] in (b"tEXt", b"zTXt", b"iTXt"):
                found.append((data[place + 4 : place + 8], data[place + 8 : end - 4]))
            place = end
        return found

    @staticmethod
    def png(*chunks: tuple[bytes, bytes]) -> bytes:
        return png_files.with_chunks(saved("png"), *(png_files.chunk(*each) for each in chunks))

    @staticmethod
    def comments(data: bytes) -> list[bytes]:
        return [data[start + 4 : end] for marker, start, end in markers(data) if marker == 0xFE]

    def test_of_a_png_stay_as_they_were(self) -> None:
        assert self.texts_of(through(self.png(*self.CHUNKS), "png")) == list(self.CHUNKS)

    def test_behind_the_samples_too(self) -> None:
        plain = saved("png")
        chunks = b"".join(png_files.chunk(*each) for each in self.CHUNKS)
        assert self.texts_of(through(plain[:-12] + chunks + plain[-12:], "png")) == list(self.CHUNKS)
        assert self.texts_of(through(plain + chunks, "png")) == []

    def test_pillow_reads_them(self) -> None:
        image = opened(through(self.png(*self.CHUNKS), "png"))
        assert image.info["Title"] == "Br\xfccke"
        assert (image.info["Comment"], image.info["Comment"].lang) == ("\u6a4b", "ja")

    def test_a_worker_tells_them(self) -> None:
        header = read_header(self.png(*self.CHUNKS), LIMITS)
        text, behind = messages.packed(messages.Answer(header=header))
        assert messages.parsed(messages.Answer, text, lambda _: behind.pop(0)).header == header

    @pytest.mark.parametrize("format_", ["jpeg", "png"])
    def test_are_stripped(self, format_: Format) -> None:
        answer = through(self.png(*self.CHUNKS), format_, keep=False)
        assert said(answer).texts == ()

    @pytest.mark.parametrize("format_", ["webp", "tiff", "bmp", "heic", "avif"])
    def test_of_formats_without_a_place_cost_nothing(self, format_: Format) -> None:
        assert said(through(self.png(*self.CHUNKS), format_)).texts == ()

    @pytest.mark.parametrize(
        ("kind", "content"),
        [
            (b"tEXt", b"Thumb::MTime\x001700000000"),
            (b"tEXt", b"exif:Orientation\x006"),
            (b"zTXt", b"exif:thumbnail:Compression\0\0" + zlib.compress(b"6")),
            (b"tEXt", b"Raw profile type icm\0\nicm\n 1\n00"),
            (b"tEXt", b"\0no keyword"),
            (b"tEXt", b"k" * 80 + b"\0too long"),
            (b"zTXt", b"Title\0\0not deflated"),
            (b"zTXt", b"Title\0\0" + zlib.compress(b"cut")[:-3]),
            (b"iTXt", b"Title\0\0\0en"),
            (b"zTXt", b"Title\0\0" + zeros(17)),
            (b"tIME", bytes((7, 228, 1, 1, 0, 0, 0))),
        ],
    )
    def test_what_is_stale_or_broken_goes_alone(self, kind: bytes, content: bytes) -> None:
        answer = through(self.png((kind, content), *self.CHUNKS[:3]), "png")
        assert self.texts_of(answer) == list(self.CHUNKS[:3])
        assert b"tIME" not in answer

    def test_too_many_are_left_out(self) -> None:
        assert len(said(self.png(*[(b"tEXt", b"a\0b")] * 5000)).texts) == 1000
        large = self.png(*[(b"tEXt", b"a\0" + bytes(6 << 20))] * 4)
        assert [len(each.text) for each in said(large).texts] == [6 << 20] * 2

    def test_blocks_beyond_a_size_are_left_out_and_the_picture_is_upright_all_the_same(self) -> None:
        exif = b"MM\0*" + struct.pack(">IHHHIHHHHIII", 8, 2, 0x112, 3, 1, 6, 0, 0x927C, 7, 17 << 20, 38, 0)
        orientation, metadata = upright(exif + bytes(17 << 20), b"<a>" + b"b" * (5 << 20), b"\x1c" * (5 << 20))
        assert (orientation, metadata) == (6, Metadata())
        assert upright(exif[:8] + bytes(6), b"<a>" + b"b" * (3 << 20), b"\x1c")[1].xmp == b"<a>" + b"b" * (3 << 20)

    def test_many_broken_ones_take_no_time(self) -> None:
        bomb = zeros(15)[:-4] + b"null"
        data = self.png(*[(b"zTXt", b"a\0\0" + bomb)] * 500, self.CHUNKS[0])
        assert [each.keyword for each in said(data).texts] == [b"Title"]

    def test_a_jpegs_comments_stay_as_they_were(self) -> None:
        comments = [
            b"CREATOR: gd-jpeg v1.0",
            b"\x8b\xb4 in Shift-JIS",
            "\u6a4b".encode(),
            b"ends with\0",
            b"x" * 65_533,
        ]
        answer = through(jpeg_with(*((0xFE, each) for each in comments)), "jpeg")
        assert self.comments(answer) == comments

    def test_a_comment_goes_from_jpeg_to_png(self) -> None:
        comments = [b"plain\0", "Br\xfccke".encode("latin-1"), "\u6a4b".encode()]
        answer = through(jpeg_with(*((0xFE, each) for each in comments)), "png")
        assert self.texts_of(answer) == [
            (b"tEXt", b"Comment\0plain"),
            (b"tEXt", b"Comment\0Br\xfccke"),
            (b"iTXt", b"Comment\0\0\0\0\0\xe6\xa9\x8b"),
        ]

    def test_and_from_png_to_jpeg(self) -> None:
        answer = through(self.png(*self.CHUNKS, (b"zTXt", b"comment\0\0" + zlib.compress(b"c" * 70_000))), "jpeg")
        assert self.comments(answer) == ["\u6a4b".encode(), b"c" * 65_533, b"c" * 4467]
        assert opened(answer).size == (40, 30)


class TestOrientation:
    @pytest.mark.parametrize("format_", ["jpeg", "png", "webp", "avif", "heic", "tiff"])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_pointer_outside_costs_neither_the_turn_nor_the_rest(self, format_: Format, order: str) -> None:
        pointer = (EXIF_IFD, 4, 1, struct.pack(order + "I", 90_000))
        turn = (ORIENTATION, 4, 1, struct.pack(order + "I", 6))
        block = block_of(order, [(MAKE, 2, 4, b"Toy\0"), turn, pointer])
        data = saved("jpeg", exif=b"Exif\0\0" + block)
        header = read_header(data, LIMITS)
        assert (header.orientation, header.height, header.width) == (6, 40, 30)
        answer = through(data, format_)
        assert opened(answer).size == (30, 40)
        kept = said(answer).exif
        assert kept
        assert read(kept)[MAKE] == "Toy"
        assert read(kept).get(ORIENTATION, 1) == 1

    @pytest.mark.parametrize("format_", ["jpeg", "png", "webp", "avif", "tiff"])
    def test_one_that_only_xmp_has_is_neither_applied_nor_reset(self, format_: Format) -> None:
        packet = packet_of('xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"')
        data = jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet))
        header = read_header(data, LIMITS)
        assert (header.orientation, header.height, header.width) == (1, 30, 40)
        answer = through(data, format_)
        assert said(answer).xmp == packet

    def test_heic_is_not_turned_by_what_xmp_says(self) -> None:
        packet = packet_of('xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"')
        header = Header("jpeg", 64, 80, metadata=Metadata(xmp=packet))
        answer = encode(Picture(np.zeros((64, 80, 3), np.uint8), header), "heic")
        assert read_header(answer, LIMITS).width == 80

    @pytest.mark.parametrize("format_", ["heic", "avif"])
    def test_nor_by_an_exif_orientation_that_is_none(self, format_: Format) -> None:
        exif = block_of(">", [(MAKE, 2, 4, b"Toy\0"), (ORIENTATION, 3, 2, b"\0\6\0\6")])
        header = Header("jpeg", 64, 80, metadata=Metadata(exif))
        answer = encode(Picture(np.zeros((64, 80, 3), np.uint8), header), format_)
        after = read_header(answer, LIMITS)
        assert (after.height, after.width) == (64, 80)
        assert after.metadata.exif
        assert read(after.metadata.exif)[MAKE] == "Toy"


class TestJpeg:
    def test_exif_too_long_for_a_segment_loses_the_makers_note_alone(self) -> None:
        inner = [(0x9003, 2, b"2020:01:01 00:00:00\0"), (MAKER_NOTE, 7, b"n" * 90_000), (COMMENT, 7, b"c" * 20_000)]
        data = saved("webp", exif=with_inner("<", inner, [(MAKE, 2, 4, b"Toy\0")]))
        exif = opened(through(data, "jpeg")).getexif()
        assert exif[MAKE] == "Toy"
        assert exif.get_ifd(EXIF_IFD) == {0x9003: "2020:01:01 00:00:00", COMMENT: b"c" * 20_000}
        assert len(opened(through(data, "png")).getexif().get_ifd(EXIF_IFD)[MAKER_NOTE]) == 90_000

    def test_exif_over_several_segments_is_joined(self) -> None:
        block = with_inner(
            ">", [(MAKER_NOTE, 7, b"n" * 90_000)], [(MAKE, 2, 4, b"Toy\0"), (ORIENTATION, 3, 1, b"\0\6")]
        )
        data = jpeg_with(*((0xE1, b"Exif\0\0" + block[place : place + 60_000]) for place in (0, 60_000)))
        header = read_header(data, LIMITS)
        assert header.orientation == 6
        assert header.metadata.exif == block.replace(b"\x01\x12\0\3\0\0\0\1\0\6", b"\x01\x12\0\3\0\0\0\1\0\1")

    def test_a_second_exif_does_not_hide_the_first(self) -> None:
        blocks = [block_of("<", [(ORIENTATION, 3, 1, bytes([turn]))]) for turn in (3, 6)]
        header = read_header(jpeg_with(*((0xE1, b"Exif\0\0" + block) for block in blocks)), LIMITS)
        assert header.orientation == 3
        assert header.metadata.exif == block_of("<", [(ORIENTATION, 3, 1, b"\1")])

    @pytest.mark.parametrize("mark", [b"Exif\0\0", b"Exif\0\xff", b"\0\0Exif\0\0"])
    def test_marks_of_exif(self, mark: bytes) -> None:
        assert (
            read_header(jpeg_with((0xE1, mark + block_of("<", [(ORIENTATION, 3, 1, b"\6")]))), LIMITS).orientation == 6
        )

    def test_xmp_too_long_for_a_segment_gets_an_extension(self) -> None:
        items = "".join(f"<rdf:li>{i}</rdf:li>" for i in range(12_000))
        packet = packet_of("", f"<dc:title>kept</dc:title><dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>")
        data = png_with("XML:com.adobe.xmp", packet, b"iTXt")
        answer = through(data, "jpeg")
        assert b"http://ns.adobe.com/xmp/extension/" in answer
        assert "kept" in words(bytes(opened(answer).info["xmp"]))
        again = words(said(answer).xmp)
        assert "11999" in again
        assert "HasExtendedXMP" not in again

    def test_a_film_behind_the_picture_goes_with_what_xmp_says_of_it(self) -> None:
        camera = 'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:MotionPhoto="1"'
        data = jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet_of(camera))) + b"....ftypmp42film"
        for format_ in ("jpeg", "heic", "webp"):
            answer = through(data, format_)
            assert not any(word in answer for word in (b"MotionPhoto", b"ftypmp42", b"film"))
            assert said(answer).xmp == packet_of(camera.partition(" ")[0] + " ").replace(b" >", b">")

    def test_iptc_too_long_for_a_segment_goes_on_in_the_next(self) -> None:
        records = b"".join(b"\x1c\2\x19" + struct.pack(">H", 60) + b"%060d" % i for i in range(2000))
        segments = jpeg_segments(Metadata(iptc=records))
        data = saved("jpeg")
        data = data[:2] + segments + data[2:]
        assert sum(marker == 0xED for marker, _, _ in markers(data)) == 2
        assert said(data).iptc == records
        assert said(through(data, "png")).iptc == records
        assert said(through(data, "jpeg")).iptc == records

    def test_iptc_in_several_blocks_counts(self) -> None:
        def resource(records: bytes) -> bytes:
            return b"8BIM\4\4\0\0" + struct.pack(">I", len(records)) + records + bytes(len(records) % 2)

        caption, another = b"\x1c\2\x78\0\4Kobe", IPTC.replace(b"Kyoto", b"Osaka")
        blocks = [resource(each) for each in (b"", IPTC, IPTC, caption + b"\0", another)]
        for segments in ([b"".join(blocks)], blocks):
            data = jpeg_with(*((0xED, b"Photoshop 3.0\0" + each) for each in segments))
            assert said(data).iptc == IPTC + caption
        assert iptc_resource(resource(b"")) is None

    def test_iptc_of_older_writers(self) -> None:
        resource = b"8BIM\4\4\0\0" + struct.pack(">I", len(IPTC)) + IPTC
        other = b"AgHg\0\1\0\0\0\0\0\2ok"
        assert iptc_resource(other + resource) == IPTC
        data = jpeg_with((0xED, b"Adobe_Photoshop2.5:" + resource))
        records = IptcImagePlugin.getiptcinfo(Image.open(io.BytesIO(through(data, "jpeg"))))
        assert records
        assert records[2, 90] == b"Kyoto"
