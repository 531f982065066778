import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from service.codec import (
    FORMATS,
    Format,
    Header,
    MalformedPicture,
    Picture,
    PictureLimits,
    PictureTooLarge,
    SideTooLong,
    TooManyFrames,
    TooManyScans,
    UnsupportedFormat,
    UnsupportedSamples,
    check_size,
    decode,
    encode,
    media_type,
    read_header,
)
from service.metadata import Metadata
from tests import profiles
from tests.png_files import chunk, png, rows_of

Pixels = npt.NDArray[np.uint8]

MAKE, ORIENTATION, EXIF_IFD, GPS_IFD = 0x010F, 0x0112, 0x8769, 0x8825
LENS, LATITUDE = 0xA434, 0x0002
MAX_PIXELS = 10**6
COMMON: tuple[Format, ...] = ("jpeg", "png", "webp")
"""What OpenCV decodes; `test_fidelity` goes over all of `FORMATS`."""
each_format = pytest.mark.parametrize("format_", COMMON)

OURS = (UnsupportedFormat, UnsupportedSamples, MalformedPicture, PictureTooLarge, TooManyFrames, TooManyScans)
"""What a file can be refused with."""


def photo(height: int = 90, width: int = 130) -> Pixels:
    """A part of a real photo; its upper left corner is marked, so that it can't be turned unseen."""
    pixels: Pixels = skimage.data.chelsea()[80 : 80 + height, 100 : 100 + width].copy()
    pixels[:16, :24] = (255, 0, 0)
    return pixels


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_.upper(), **options)
    return file.getvalue()


def read(data: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    return decode(data, read_header(data, PictureLimits(max_pixels)))


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def picture(pixels: npt.NDArray[Any], alpha: npt.NDArray[Any] | None = None, **header: Any) -> Picture:
    return Picture(pixels, Header("png", *pixels.shape[:2], **header), alpha)


def same(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def differences(one: Any, other: Any) -> npt.NDArray[np.int64]:
    return np.asarray(np.abs(np.asarray(one, np.int64) - np.asarray(other, np.int64)))


def furthest(one: Any, other: Any) -> int:
    return int(differences(one, other).max())


def average(one: Any, other: Any) -> float:
    return float(differences(one, other).mean())


@cache
def srgb_profile() -> bytes:
    profile: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile


def exif_with(orientation: int | None) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKE] = "Toy"
    exif.get_ifd(EXIF_IFD)[LENS] = "50mm"
    exif.get_ifd(GPS_IFD)[LATITUDE] = (52.0, 30.0, 0.0)
    if orientation is not None:
        exif[ORIENTATION] = orientation
    return exif


class TestRoundTrip:
    """Written by Pillow and read by us, and the other way round."""

    @each_format
    def test_read(self, format_: Format) -> None:
        data = saved(Image.fromarray(photo()), format_, quality=92)
        header = read_header(data, PictureLimits(MAX_PIXELS))
        assert header == Header(format_, 90, 130, sampling="4:2:0" if format_ == "jpeg" else None)
        result = decode(data, header)
        assert result.pixels.dtype == np.uint8
        assert result.alpha is None
        assert furthest(result.pixels, opened(data)) <= 2

    @each_format
    def test_written(self, format_: Format) -> None:
        data = encode(picture(photo()), format_)
        image = opened(data)
        assert (image.format, image.size, image.mode) == (format_.upper(), (130, 90), "RGB")
        assert average(image, photo()) < 4
        assert furthest(read(data).pixels, image) <= 2

    @pytest.mark.parametrize(("format_", "options"), [("png", {}), ("webp", {"lossless": True, "exact": True})])
    def test_lossless(self, format_: Format, options: dict[str, bool]) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (61, 47, 4), np.uint8)
        opaque, clear = Image.fromarray(pixels[:, :, :3]), Image.fromarray(pixels)
        assert same(read(saved(opaque, format_, **options)).pixels, opaque)
        with_alpha = read(saved(clear, format_, **options))
        assert with_alpha.alpha is not None
        assert same(np.dstack([with_alpha.pixels, with_alpha.alpha]), pixels)
        assert same(opened(encode(picture(pixels[:, :, :3]), format_, quality=100)), opaque)
        ours = encode(picture(pixels[:, :, :3], pixels[:, :, 3]), format_, quality=100)
        there = pixels[:, :, 3] > 0  # WebP may forget the colour of what can't be seen
        assert same(np.asarray(opened(ours))[there], pixels[there])
        assert same(np.asarray(opened(ours))[:, :, 3], pixels[:, :, 3])

    @pytest.mark.parametrize("format_", ["jpeg", "webp"])
    def test_quality(self, format_: Format) -> None:
        sizes = [len(encode(picture(photo()), format_, quality)) for quality in (1, 50, 95)]
        assert sizes[0] < sizes[1] < sizes[2]

    @settings(max_examples=30, deadline=None)
    @given(
        height=st.integers(1, 40), width=st.integers(1, 40), format_=st.sampled_from(COMMON), seed=st.integers(0, 99)
    )
    def test_any_size(self, height: int, width: int, format_: Format, seed: int) -> None:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        result = read(encode(picture(pixels), format_, quality=100))
        assert (result.header.format, result.header.height, result.header.width) == (format_, height, width)
        if format_ != "jpeg":
            assert same(result.pixels, pixels)


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @each_format
    def test_pixels_are_turned_upright(self, format_: Format, orientation: int) -> None:
        data = saved(Image.fromarray(photo()), format_, exif=exif_with(orientation), quality=95)
        upright = ImageOps.exif_transpose(opened(data))
        header = read_header(data, PictureLimits(MAX_PIXELS))
        assert header.orientation == orientation
        assert (header.width, header.height) == upright.size
        pixels = decode(data, header).pixels
        assert pixels.shape[:2] == (header.height, header.width)
        assert furthest(pixels, upright) <= 2

    @pytest.mark.parametrize("orientation", [1, 6, None])
    @each_format
    def test_exif_is_kept_upright_or_stripped(self, format_: Format, orientation: int | None) -> None:
        data = saved(Image.fromarray(photo()), "jpeg", exif=exif_with(orientation))
        result = read(data)
        kept = opened(encode(result, format_)).getexif()
        assert kept.get(ORIENTATION, 1) == 1
        assert kept[MAKE] == "Toy"
        assert kept.get_ifd(EXIF_IFD)[LENS] == "50mm"
        assert kept.get_ifd(GPS_IFD)[LATITUDE] == (52.0, 30.0, 0.0)
        stripped = encode(result, format_, keep_metadata=False)
        assert not opened(stripped).getexif()
        assert b"Toy" not in stripped

    @pytest.mark.parametrize(
        ("kind", "count", "value"),
        [
            pytest.param(3, 1, b"\0\0\0\0", id="0"),
            pytest.param(3, 1, b"\0\x09\0\0", id="9"),
            pytest.param(2, 4, b"six\0", id="text"),
            pytest.param(3, 0, b"\0\x06\0\0", id="none"),
        ],
    )
    def test_an_orientation_that_is_none_is_upright(self, kind: int, count: int, value: bytes) -> None:
        make = struct.pack(">HHI", MAKE, 2, 4) + b"Toy\0"
        entries = make + struct.pack(">HHI", ORIENTATION, kind, count) + value
        block = b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
        result = read(saved(Image.fromarray(photo()), "webp", exif=block, lossless=True))
        assert same(result.pixels, photo())
        assert opened(encode(result, "jpeg")).getexif()[MAKE] == "Toy"

    @settings(max_examples=40, deadline=None)
    @given(block=st.binary(max_size=120), order=st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
    def test_broken_exif_does_not_cost_the_picture(self, block: bytes, order: bytes) -> None:
        data = saved(Image.fromarray(photo(20, 30)), "jpeg", exif=b"Exif\0\0" + order + block, quality=95)
        result = read(data)
        assert sorted(result.pixels.shape) == [3, 20, 30]
        for format_ in FORMATS:
            assert read(encode(result, format_)).pixels.shape == result.pixels.shape


class TestColourProfile:
    @pytest.mark.parametrize("source", COMMON)
    @each_format
    def test_is_kept(self, source: Format, format_: Format) -> None:
        result = read(saved(Image.fromarray(photo()), source, icc_profile=srgb_profile()))
        assert result.header.icc_profile == srgb_profile()
        assert opened(encode(result, format_)).info["icc_profile"] == srgb_profile()
        assert "icc_profile" not in opened(encode(result, format_, keep_metadata=False)).info

    @pytest.mark.parametrize("broken", [b"broken", bytes(200), srgb_profile()[:100], b"x" * 70_000])
    @pytest.mark.parametrize("source", COMMON)
    @each_format
    def test_a_broken_one_does_not_cost_the_picture(self, source: Format, format_: Format, broken: bytes) -> None:
        data = saved(Image.fromarray(photo()), source, icc_profile=broken)
        result = read(data)
        assert furthest(result.pixels, opened(data)) <= 2
        assert average(opened(encode(result, format_)), photo()) < 6

    @each_format
    def test_a_broken_one_does_not_cost_the_rest(self, format_: Format) -> None:
        data = saved(Image.fromarray(photo()), "jpeg", icc_profile=b"broken", exif=exif_with(6))
        assert opened(encode(read(data), format_)).getexif()[MAKE] == "Toy"

    @each_format
    def test_a_large_one_is_kept(self, format_: Format) -> None:
        # lookup tables make it large; a JPEG segment holds 65519 bytes of it, so there it goes into several
        profile = struct.pack(">I", 140_000) + srgb_profile()[4:]
        profile += bytes(140_000 - len(profile))
        result = read(saved(Image.fromarray(photo()), "jpeg", icc_profile=profile, exif=exif_with(1)))
        assert result.header.icc_profile == profile
        after = opened(encode(result, format_))
        assert after.getexif()[MAKE] == "Toy"
        assert after.info.get("icc_profile") == profile

    def test_one_that_jpeg_can_not_hold_does_not_cost_the_picture(self) -> None:
        profile = bytes(16) + b"RGB " + bytes(255 * 65_519)
        picture = Picture(photo(), Header("png", photo().shape[0], photo().shape[1], icc_profile=profile))
        assert opened(encode(picture, "jpeg")).size == photo().shape[1::-1]

    @pytest.mark.parametrize(("mode", "space"), [("L", b"GRAY"), ("CMYK", b"CMYK")])
    @each_format
    def test_one_for_other_channels_than_rgb_is_not_kept(self, format_: Format, mode: str, space: bytes) -> None:
        # it describes samples that the picture no longer has; readers reject it or show wrong colours
        profile = srgb_profile()[:16] + space + srgb_profile()[20:]
        result = read(saved(Image.fromarray(photo()).convert(mode), "jpeg", icc_profile=profile))
        assert "icc_profile" not in opened(encode(result, format_)).info


class TestAlpha:
    @pytest.fixture
    def clear(self) -> Image.Image:
        """A photo that fades from clear to opaque."""
        image = Image.fromarray(photo())
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return image

    @pytest.mark.parametrize("format_", ["png", "webp"])
    def test_is_kept(self, clear: Image.Image, format_: Format) -> None:
        result = read(saved(clear, format_))
        assert result.alpha is not None
        assert same(result.alpha, clear.getchannel("A"))
        after = opened(encode(result, format_))
        assert after.mode == "RGBA"
        assert same(after.getchannel("A"), clear.getchannel("A"))

    def test_is_laid_over_white_in_jpeg(self, clear: Image.Image) -> None:
        after = opened(encode(read(saved(clear, "png")), "jpeg", quality=100))
        white = Image.new("RGBA", clear.size, "white")
        expected = Image.alpha_composite(white, clear).convert("RGB")
        assert average(after, expected) < 2
        clear.putalpha(0)
        assert np.asarray(opened(encode(read(saved(clear, "png")), "jpeg"))).min() >= 254

    @pytest.mark.parametrize("orientation", [5, 6])
    def test_is_turned_with_the_picture(self, clear: Image.Image, orientation: int) -> None:
        result = read(saved(clear, "png", exif=exif_with(orientation)))
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        turned = opened(saved(clear, "png", exif=exif))
        assert same(np.dstack([result.pixels, result.alpha]), ImageOps.exif_transpose(turned))  # type: ignore[list-item]


class TestSixteenBits:
    def test_png_keeps_every_bit(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 65_536, (33, 57, 4), np.uint16)
        for alpha in (None, pixels[:, :, 3]):
            data = encode(picture(pixels[:, :, :3], alpha), "png")
            assert data[24] == 16  # IHDR's bit depth
            result = read(data)
            assert result.pixels.dtype == np.uint16
            assert same(result.pixels, pixels[:, :, :3])
            assert (result.alpha is None) == (alpha is None)
            assert alpha is None or same(result.alpha, alpha)

    def test_reads_what_others_write(self) -> None:
        grey = np.random.default_rng(0).integers(0, 65_536, (33, 57), np.uint16)
        assert same(read(saved(Image.fromarray(grey), "png")).pixels, np.dstack([grey] * 3))
        # no one but libpng's own rows says what 16-bit RGB is: big-endian samples
        colour = np.random.default_rng(0).integers(0, 65_536, (4, 5, 3), np.uint16)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
        assert same(read(png(5, 4, rows, depth=16)).pixels, colour)

    @pytest.mark.parametrize(("format_", "near"), [("jpeg", 1), ("webp", 0)])
    def test_others_are_rounded(self, format_: Format, near: int) -> None:
        level = np.arange(256)
        for away in (-128, 0, 128):  # half a step of 257, and less
            row = np.clip(level * 257 + away, 0, 65_535).astype(np.uint16)
            pixels = np.broadcast_to(row[:, None, None], (256, 16, 3)).copy()
            opaque = opened(encode(picture(pixels), format_, quality=100))
            assert furthest(np.asarray(opaque)[:, 0, 0], level) <= near
            if format_ == "webp":
                clear = opened(encode(picture(pixels, pixels[:, :, 0]), format_, quality=100))
                assert same(np.asarray(clear)[:, 0, 3], level)


class TestClearColours:
    """What tRNS says is compared at the file's own depth (PNG, 11.3.1.1)."""

    @pytest.mark.parametrize("interlaced", [False, True])
    @pytest.mark.parametrize("above", [0, 1])
    @pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
    def test_grey(self, depth: int, above: int, interlaced: bool) -> None:
        samples = np.random.default_rng(depth).integers(0, 1 << depth, (9, 13, 1))
        for level in sorted({0, 1, (1 << depth) - 1, int(samples[4, 5, 0])}):
            samples[2, 3] = level
            if depth == 16:
                samples[2, 4] = level ^ 1  # the same in its upper byte
            clear = level | (above << depth if depth < 16 else 0)
            before = chunk(b"tRNS", struct.pack(">H", clear))
            data = png(13, 9, rows_of(samples, depth, interlaced=interlaced), depth, 0, before, interlaced=interlaced)
            result = read(data)
            most = 65_535 if depth == 16 else 255
            assert same(result.pixels[:, :, 0], samples[:, :, 0] * (most // ((1 << depth) - 1)))
            assert result.alpha is not None
            assert same(result.alpha, np.where(samples[:, :, 0] == level, 0, most))
            again = read(encode(result, "png"))
            assert same(again.alpha, result.alpha)
            assert same(again.pixels, result.pixels)

    @pytest.mark.parametrize("interlaced", [False, True])
    @pytest.mark.parametrize("depth", [8, 16])
    def test_colour(self, depth: int, interlaced: bool) -> None:
        samples = np.random.default_rng(depth).integers(0, 1 << depth, (9, 13, 3))
        samples[3:5, 3] = samples[1, 1]
        samples[2, 4] = samples[1, 1] ^ (0, 0, 1)
        before = chunk(b"tRNS", struct.pack(">3H", *(int(sample) for sample in samples[1, 1])))
        data = png(13, 9, rows_of(samples, depth, interlaced=interlaced), depth, 2, before, interlaced=interlaced)
        result = read(data)
        assert same(result.pixels, samples)
        assert result.alpha is not None
        assert same(result.alpha == 0, (samples == samples[1, 1]).all(axis=2))

    @pytest.mark.parametrize("interlaced", [False, True])
    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    def test_palette(self, depth: int, interlaced: bool) -> None:
        colours = min(1 << depth, 200)
        palette = np.random.default_rng(depth).integers(0, 256, (colours, 4), np.uint8)
        indices = np.random.default_rng(1).integers(0, colours, (9, 13, 1))
        for count in (1, colours // 2 + 1, colours):
            alpha = np.where(np.arange(colours) < count, palette[:, 3], 255)
            before = chunk(b"PLTE", palette[:, :3].tobytes()) + chunk(b"tRNS", palette[:count, 3].tobytes())
            rows = rows_of(indices, depth, interlaced=interlaced)
            result = read(png(13, 9, rows, depth, 3, before, interlaced=interlaced))
            assert same(result.pixels, palette[indices[:, :, 0], :3])
            assert result.alpha is not None
            assert same(result.alpha, alpha[indices[:, :, 0]])

    @pytest.mark.parametrize("colour", [0, 2, 4, 6])
    @pytest.mark.parametrize("length", [0, 1, 2, 3, 6, 7, 300])
    def test_another_length_says_nothing(self, colour: int, length: int) -> None:
        channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
        if (colour, length) in ((0, 2), (2, 6)):
            return
        samples = np.full((4, 5, channels), 255)
        result = read(png(5, 4, rows_of(samples, 8), 8, colour, chunk(b"tRNS", (b"\0\xff" * 150)[:length])))
        assert result.alpha is None or result.alpha.min() == 255


class TestOtherKindsOfPixels:
    @pytest.mark.parametrize("mode", ["L", "1", "P", "LA"])
    def test_png(self, mode: str) -> None:
        image = Image.fromarray(photo()).convert(mode)
        result = read(saved(image, "png"))
        assert same(result.pixels, image.convert("RGB"))
        assert (result.alpha is not None) == (mode == "LA")

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_png_of_few_colours(self, bits: int) -> None:
        image = Image.fromarray(photo()).quantize(2**bits)
        assert same(read(saved(image, "png", bits=bits)).pixels, image.convert("RGB"))

    def test_png_with_a_clear_palette_entry(self) -> None:
        image = Image.fromarray(photo()).quantize(16)
        result = read(saved(image, "png", transparency=3))
        assert result.alpha is not None
        assert same(result.alpha, np.where(np.asarray(image) == 3, 0, 255))

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_png_with_a_clear_colour(self, mode: str) -> None:
        image = Image.fromarray(photo()).convert(mode)
        colour: Any = image.getpixel((0, 0))
        result = read(saved(image, "png", transparency=colour))
        assert result.alpha is not None
        clear = (np.atleast_3d(np.asarray(image)) == colour).all(axis=2)
        assert same(result.alpha, np.where(clear, 0, 255))

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_jpeg(self, mode: str) -> None:
        data = saved(Image.fromarray(photo()).convert(mode), "jpeg", quality=95)
        assert furthest(read(data).pixels, opened(data).convert("RGB")) <= 3

    @pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": "4:4:4"}, {"keep_rgb": True}])
    def test_kinds_of_jpeg(self, options: dict[str, Any]) -> None:
        data = saved(Image.fromarray(photo()), "jpeg", quality=95, **options)
        assert furthest(read(data).pixels, opened(data)) <= 2

    @pytest.mark.parametrize("format_", ["png", "webp"])
    def test_the_first_frame_of_an_animation(self, format_: Format) -> None:
        second = Image.fromarray(photo()[::-1])
        data = saved(Image.fromarray(photo()), format_, save_all=True, append_images=[second], lossless=True)
        result = read(data)
        assert result.header.format == format_
        assert same(result.pixels, photo())

    def test_a_jpeg_with_a_second_picture_behind_it(self) -> None:
        # phones append gain maps and depth maps; the file is a JPEG all the same
        first = Image.fromarray(photo())
        data = saved(first, "mpo", save_all=True, append_images=[first.resize((20, 20))], quality=95)
        result = read(data)
        assert result.header.format == "jpeg"
        assert furthest(result.pixels, opened(saved(first, "jpeg", quality=95))) <= 2


def test_a_png_that_only_lacks_its_end_chunk_or_a_part_of_it_is_read() -> None:
    whole = saved(Image.fromarray(photo(300, 400)), "PNG")
    for end in range(1, 13):
        assert same(read(whole[:-end]).pixels, photo(300, 400))
    last = whole.rindex(b"IDAT") - 4
    with pytest.raises(MalformedPicture):
        read(whole[:last])
    with pytest.raises(MalformedPicture):
        read(whole[:-13])
    assert same(read(whole[:-12] + b"noise").pixels, photo(300, 400))


@pytest.mark.parametrize(
    "end",
    [
        whole_end := chunk(b"IEND", b""),
        chunk(b"IdND", b""),
        chunk(b"XXXX", b"abc") + whole_end,
        whole_end[:-1] + b"x",
        chunk(b"IEND", b"abc"),
        chunk(b"tEXt", b"Title\0x") + chunk(b"PLTE", bytes(3)) + whole_end,
    ],
    ids=["right", "another name", "unknown", "a wrong sum", "content", "a palette"],
)
def test_what_is_wrong_behind_the_samples_of_a_png_costs_nothing(end: bytes) -> None:
    data = saved(Image.fromarray(photo()), "PNG")[:-12] + end
    assert same(read(data).pixels, photo())
    assert same(opened(data).convert("RGB"), photo())


def test_a_palette_and_chunks_that_a_png_does_not_need_cost_nothing() -> None:
    whole = saved(Image.fromarray(photo()), "PNG")
    samples = whole.index(b"IDAT") - 4
    for extra in (chunk(b"PLTE", b"") * 2, chunk(b"PLTE", bytes(6)) * 2):
        data = whole[:samples] + extra + whole[samples:]
        assert same(read(data).pixels, photo())
        assert same(opened(data).convert("RGB"), photo())
    assert same(read(whole[:-12] + b"\0\0\0\0IDATxxxx").pixels, photo())


def test_a_profile_in_a_png_that_lacks_its_checksum_counts() -> None:
    profile = profiles.display_p3()
    for cut in (1, 4):
        said = chunk(b"iCCP", b"Photoshop ICC profile\0\0" + zlib.compress(profile)[:-cut])
        data = png(2, 1, b"\0" + bytes(6), before=said)
        assert opened(data).info["icc_profile"] == profile
        assert read(data).header.icc_profile == profile
    short = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)[:-40])
    assert read(png(2, 1, b"\0" + bytes(6), before=short)).header.icc_profile is None


def sixteen_bit_tiff(**options: Any) -> bytes:
    pixels = photo().astype(np.uint16) * 257
    written = io.BytesIO()
    if "planarconfig" in options:
        pixels = np.moveaxis(pixels, 2, 0)
    tifffile.imwrite(written, pixels, photometric="rgb", **options)
    return written.getvalue()


WAYS_TO_SAVE: dict[str, dict[str, Any]] = {
    "baseline": {},
    "4:4:4": {"subsampling": 0, "quality": 100},
    "optimized": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 1},
    "progressive with restarts": {"progressive": True, "restart_marker_blocks": 3},
}


def saved_jpeg(image: Image.Image, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **how)
    return file.getvalue()


def decoded(data: bytes) -> Pixels:
    return np.asarray(decode(data, read_header(data, PictureLimits(MAX_PIXELS))).pixels, np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("how", WAYS_TO_SAVE)
def test_a_jpeg_that_lacks_only_its_end_mark_is_whole(how: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved_jpeg(Image.fromarray(photo()).convert(mode), **WAYS_TO_SAVE[how])
    whole = decoded(data)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for ending in (b"", b"\xff", b"\xff\xff", bytes(1), bytes(5000)):
        cut = data[:-2] + ending
        np.testing.assert_array_equal(decoded(cut), whole)
        if mode != "CMYK":  # whose colours are not Pillow's
            with Image.open(io.BytesIO(cut)) as image:
                np.testing.assert_array_equal(np.asarray(image.convert("RGB")), whole)


@pytest.mark.parametrize("how", WAYS_TO_SAVE)
def test_a_jpeg_that_lacks_samples_is_refused_wherever_it_ends(how: str) -> None:
    data = saved_jpeg(Image.fromarray(photo()), **WAYS_TO_SAVE[how])
    first, last = data.index(b"\xff\xda") + 14, len(data) - 2
    for end in (*range(first, last, 97), *range(last - 40, last)):
        for filled in (b"", bytes(1000)):
            with pytest.raises(MalformedPicture):
                decoded(data[:end] + filled)


def test_a_progressive_jpeg_that_lacks_whole_scans_is_refused() -> None:
    data = saved_jpeg(Image.fromarray(photo()), progressive=True)
    scans = [place for place in range(len(data)) if data.startswith(b"\xff\xda", place)]
    tables = [data.rindex(b"\xff\xc4", 0, place) for place in scans[1:]]
    for place in (*scans[1:], *tables, *range(scans[-1], scans[-1] + 12)):
        for filled in (b"", bytes(1000)):
            with pytest.raises(MalformedPicture):
                decoded(data[:place] + filled)


# enough bytes that a cut falls into headers, tables and samples alike
WHOLE_FILES: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: saved(Image.fromarray(photo()), "jpeg", quality=90),
    "progressive jpeg": lambda: saved(Image.fromarray(photo()), "jpeg", quality=90, progressive=True),
    "jpeg with metadata": lambda: saved(
        Image.fromarray(photo()), "jpeg", exif=exif_with(6), icc_profile=srgb_profile()
    ),
    "grey jpeg": lambda: saved(Image.fromarray(photo()).convert("L"), "jpeg"),
    "png": lambda: saved(Image.fromarray(photo()), "png"),
    "png with metadata": lambda: saved(Image.fromarray(photo()), "png", exif=exif_with(3), icc_profile=srgb_profile()),
    "palette png": lambda: saved(Image.fromarray(photo()).quantize(16), "png"),
    "webp": lambda: saved(Image.fromarray(photo()), "webp"),
    "lossless webp": lambda: saved(Image.fromarray(photo()), "webp", lossless=True),
    "tiff": lambda: saved(Image.fromarray(photo()), "tiff", compression="tiff_lzw", exif=exif_with(6)),
    "plain tiff": lambda: saved(Image.fromarray(photo()), "tiff"),
    "16-bit tiff": lambda: sixteen_bit_tiff(compression="zlib"),
    "16-bit tiff in planes": lambda: sixteen_bit_tiff(planarconfig="separate"),
    "tiff in tiles": lambda: sixteen_bit_tiff(tile=(32, 32)),
    "bmp": lambda: saved(Image.fromarray(photo()), "bmp"),
    "palette bmp": lambda: saved(Image.fromarray(photo()).quantize(16), "bmp"),
    "avif": lambda: saved(Image.fromarray(photo()), "avif", exif=exif_with(6), icc_profile=srgb_profile()),
    "heic": lambda: encode(picture(photo(), metadata=Metadata(exif_with(1).tobytes()[6:])), "heic"),
    "webp with alpha": lambda: saved(Image.fromarray(photo()).convert("RGBA"), "webp", exif=exif_with(8)),
}


class TestDamaged:
    @pytest.mark.parametrize("kind", WHOLE_FILES)
    def test_a_file_that_ends_early_is_malformed(self, kind: str) -> None:
        whole = WHOLE_FILES[kind]()
        ends = {*range(12, 80), *range(80, len(whole), max(1, len(whole) // 150)), *range(len(whole) - 24, len(whole))}
        complete = read(whole)
        read_all_the_same = []
        for end in sorted(ends):
            try:
                result = read(whole[:end])
            except MalformedPicture:
                continue
            # a JPEG decoder may be done before it has seen the end marker
            assert same(result.pixels, complete.pixels), f"{end} of {len(whole)} bytes gave another picture"
            read_all_the_same.append(len(whole) - end)
        # and what a bitmap pads its last row with says nothing; nor does the end chunk of a PNG
        spare = {1, 2} if "jpeg" in kind or "bmp" in kind else set(range(1, 13)) if "png" in kind else set()
        assert set(read_all_the_same) <= spare

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"hello, I am no picture", id="text"),
            pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
            pytest.param(b"RIFF\x24\0\0\0WAVEfmt ", id="another RIFF file"),
            pytest.param(b"\0\0\0\x1cftypmp42\0\0\0\0isommp42miaf", id="mp4"),
            pytest.param(b"BMW builds cars, and this is no bitmap", id="text that begins as a bitmap"),
            *(pytest.param(saved(Image.fromarray(photo(20, 30)), kind), id=kind) for kind in ("gif", "ppm")),
        ],
    )
    def test_other_formats_are_unsupported(self, data: bytes) -> None:
        with pytest.raises(UnsupportedFormat):
            read_header(data, PictureLimits(MAX_PIXELS))

    @pytest.mark.parametrize("magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x24\0\0\0WEBP"])
    def test_a_beginning_alone_is_malformed(self, magic: bytes) -> None:
        with pytest.raises(MalformedPicture):
            read_header(magic + bytes(40), PictureLimits(MAX_PIXELS))

    def test_samples_that_do_not_fill_the_picture_are_malformed(self) -> None:
        with pytest.raises(MalformedPicture):
            read(png(30, 20, bytes(91) * 7))

    def test_a_header_of_another_size_is_malformed(self) -> None:
        data = saved(Image.fromarray(photo()), "png")
        with pytest.raises(MalformedPicture, match="size"):
            decode(data, replace(read_header(data, PictureLimits(MAX_PIXELS)), width=129))

    @settings(max_examples=150, deadline=None)
    @given(data=st.binary(max_size=300), magic=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"]))
    def test_random_bytes_raise_ours_alone(self, data: bytes, magic: bytes) -> None:
        with pytest.raises(OURS):
            read(magic + data)

    @settings(max_examples=400, deadline=None)
    @given(
        kind=st.sampled_from(sorted(WHOLE_FILES)),
        changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
        head=st.booleans(),
    )
    def test_corrupted_files_raise_ours_alone(self, kind: str, changes: list[tuple[float, int]], head: bool) -> None:
        data = bytearray(small_file(kind))
        for where, value in changes:
            data[int(where * (min(len(data), 120) if head else len(data)))] = value
        survives(bytes(data))

    @settings(max_examples=150, deadline=None)
    @given(
        changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
        kind=st.sampled_from(["png", "png with metadata", "palette png"]),
    )
    def test_png_with_wrong_content_and_right_checksums(self, kind: str, changes: list[tuple[float, int]]) -> None:
        data = bytearray(small_file(kind))
        for where, value in changes:
            data[int(where * len(data))] = value
        place = 8
        while place + 12 <= len(data):
            end = place + 8 + int.from_bytes(data[place : place + 4], "big")
            if end + 4 > len(data):
                break
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
            place = end + 4
        survives(bytes(data))


@cache
def small_file(kind: str) -> bytes:
    return WHOLE_FILES[kind]()


def survives(data: bytes) -> None:
    """Read a damaged file: it may pass, whole, or raise one of ours."""
    try:
        result = read(data, 4 * 90 * 130)
    except OURS:
        return
    assert result.pixels.shape == (result.header.height, result.header.width, 3)
    assert result.pixels.shape[0] * result.pixels.shape[1] <= 4 * 90 * 130
    encode(result, result.header.format)


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.fromarray(photo()), "jpeg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


class TestSize:
    @pytest.mark.parametrize("claim", [png, jpeg_claiming])
    def test_a_huge_claim_is_refused_unread(self, claim: Callable[[int, int], bytes]) -> None:
        with pytest.raises(PictureTooLarge) as error:
            read_header(claim(65_535, 65_535), PictureLimits(10**8))
        assert (error.value.pixels, error.value.limit) == (65_535**2, 10**8)

    @pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 2**31 - 1)])
    def test_the_largest_claim(self, size: tuple[int, int]) -> None:
        with pytest.raises(PictureTooLarge) as error:
            read_header(png(*size), PictureLimits(10**8))
        assert error.value.pixels == size[0] * size[1]

    @pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
    def test_a_chunk_that_claims_more_than_the_file_holds_costs_no_memory(self) -> None:
        data = bytearray(saved(Image.fromarray(photo()), "png"))
        data[33:37] = struct.pack(">I", 2**30)  # the length of its samples
        assert data[37:41] == b"IDAT"
        # in a process of its own: this one's peak may lie above already
        program = """if True:
            import pathlib, sys
            from service.codec import MalformedPicture, PictureLimits, decode, read_header

            def peak():  # in KiB
                status = pathlib.Path("/proc/self/status").read_text()
                return int(status.split("VmPeak:")[1].split()[0])

            data, before = sys.stdin.buffer.read(), peak()
            try:
                decode(data, read_header(data, PictureLimits(10**6)))
            except MalformedPicture:
                print(peak() - before)
        """
        done = subprocess.run([sys.executable, "-c", program], input=bytes(data), capture_output=True, check=True)
        assert int(done.stdout) < 2**19

    @each_format
    def test_the_limit_itself_is_allowed(self, format_: Format) -> None:
        data = encode(picture(photo(90, 100)), format_)
        assert read_header(data, PictureLimits(9000)).width == 100
        with pytest.raises(PictureTooLarge):
            read_header(data, PictureLimits(8999))

    @pytest.mark.parametrize("size", [(0, 20), (20, 0), (0, 0)])
    @pytest.mark.parametrize("claim", [png, jpeg_claiming])
    def test_no_pixels_are_malformed(self, claim: Callable[[int, int], bytes], size: tuple[int, int]) -> None:
        with pytest.raises(MalformedPicture):
            read_header(claim(*size), PictureLimits(MAX_PIXELS))

    @pytest.mark.parametrize(("format_", "limit"), [("jpeg", 65_500), ("webp", 16_383), ("png", 1_000_000)])
    def test_sides_that_a_format_can_hold(self, format_: Format, limit: int) -> None:
        for height, width in ((1, limit), (limit, 1)):
            assert read(encode(picture(np.zeros((height, width, 3), np.uint8)), format_)).pixels.shape[:2] == (
                height,
                width,
            )
        for height, width in ((1, limit + 1), (limit + 1, 1)):
            with pytest.raises(SideTooLong) as error:
                check_size(Header("png", height, width), format_)
            assert (error.value.side, error.value.limit, error.value.format) == (limit + 1, limit, format_)
            with pytest.raises(SideTooLong):
                encode(picture(np.zeros((height, width, 3), np.uint8)), format_)


@each_format
def test_media_type(format_: Format) -> None:
    assert media_type(format_) == Image.MIME[format_.upper()]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_spending_a_picture_gives_the_same_bytes(format_: Format, dtype: type[np.uint8 | np.uint16]) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (150, 70, 3), dtype)
    picture = Picture(pixels, Header("png", 150, 70))
    kept = pixels.copy()
    expected = encode(picture, format_)
    np.testing.assert_array_equal(pixels, kept)
    assert encode(picture, format_, spend=True) == expected
