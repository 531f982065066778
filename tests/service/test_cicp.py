"""Colours by numbers, and by PNG's gamma and chromaticities: each space against its own formula and Little CMS."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
from PIL import Image, ImageCms

from service import cicp
from service.codec import Format, Picture, PictureLimits, UnsupportedSamples, as_srgb, decode, encode, read_header
from service.problems import words_for
from tests import profiles
from tests.png_files import chunk, with_chunks

Array = npt.NDArray[Any]
Points = list[tuple[float, float]]

D65, C = (0.3127, 0.3290), (0.310, 0.316)
PRIMARIES: dict[int, Points] = {
    1: [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65],
    4: [(0.67, 0.33), (0.21, 0.71), (0.14, 0.08), C],
    5: [(0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65],
    6: [(0.63, 0.34), (0.31, 0.595), (0.155, 0.07), D65],
    7: [(0.63, 0.34), (0.31, 0.595), (0.155, 0.07), D65],
    8: [(0.681, 0.319), (0.243, 0.692), (0.145, 0.049), C],
    9: [(0.708, 0.292), (0.17, 0.797), (0.131, 0.046), D65],
    11: [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.314, 0.351)],
    12: [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06), D65],
    22: [(0.63, 0.34), (0.295, 0.605), (0.155, 0.077), D65],
}
"""H.273, table 2."""
SRGB = PRIMARIES[1]
ADOBE = [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65]


def srgb_curve(x: Array) -> Array:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


CURVES: dict[int, Callable[[Array], Array]] = {
    **dict.fromkeys((1, 6, 11, 12, 13, 14, 15), srgb_curve),
    4: lambda x: x**2.2,
    5: lambda x: x**2.8,
    7: lambda x: np.where(x < 0.0913, x / 4, ((x + 0.1115) / 1.1115) ** (1 / 0.45)),
    8: lambda x: x,
    9: lambda x: np.where(x > 0, 10 ** (2 * (x - 1)), 0),
    10: lambda x: np.where(x > 0, 10 ** (2.5 * (x - 1)), 0),
    17: lambda x: 52.37 / 48 * x**2.6,
}
"""H.273, table 3, from samples to light."""


def white(point: tuple[float, float]) -> Array:
    x, y = point
    return np.array([x / y, 1, (1 - x - y) / y])


def in_srgb(samples: Array, points: Points, curve: Callable[[Array], Array]) -> Array:
    """What an sRGB display shows of samples in 0..1: levels of 8 bits, not rounded."""
    to_xyz = profiles.primaries_to_xyz(points[:3], white(points[3]))
    from_xyz = np.linalg.inv(profiles.primaries_to_xyz(SRGB[:3], white(D65)))
    linear = np.clip(curve(samples) @ (from_xyz @ to_xyz).T, 0, 1)
    return np.asarray(255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


def chart(levels: int = 9) -> Array:
    steps = np.linspace(0, 255, levels).round().astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, levels, 3)


def saved(pixels: Array, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format_, **options)
    return file.getvalue()


def gamma(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


def chromaticities(points: Points) -> bytes:
    values = [round(100_000 * value) for point in (points[3], *points[:3]) for value in point]
    return chunk(b"cHRM", struct.pack(">8I", *values))


def numbers(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, matrix, full]))


def avif(primaries: int, transfer: int, pixels: Array | None = None) -> bytes:
    data = saved(chart().repeat(4, 0).repeat(4, 1) if pixels is None else pixels, "AVIF", quality=100, speed=10)
    place = data.index(b"nclx") + 4
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


def heic(primaries: int, transfer: int, pixels: Array | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    options = {"quality": -1, "chroma": 444, "matrix_coefficients": 6, "color_primaries": 1} | options
    image = Image.fromarray(chart().repeat(8, 0).repeat(8, 1) if pixels is None else pixels)
    pillow_heif.from_pillow(image).save(file, **options)
    data = file.getvalue()
    place = data.index(b"nclx") + 4
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


def read(data: bytes) -> Picture:
    return decode(data, read_header(data, PictureLimits(10**6)))


def managed(data: bytes) -> Array:
    """What Little CMS shows of a file, sRGB."""
    image = Image.open(io.BytesIO(data))
    given = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    mode = "RGB" if image.mode == "RGB" else "L"
    relative, no_black_point = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.NOCACHE
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(given, srgb, mode, "RGB", relative, no_black_point)
    return np.asarray(transform.apply(image), int)


def check(data: bytes, points: Points, curve: Callable[[Array], Array]) -> None:
    """The network and whoever opens the answer see what the formula says, and the samples are the file's own."""
    picture = read(data)
    most = np.iinfo(picture.pixels.dtype).max
    expected = in_srgb(picture.pixels / most, points, curve)
    assert np.abs(as_srgb(picture) - expected).max() <= 1
    answer = encode(picture, "png")
    assert np.array_equal(read(answer).pixels, picture.pixels)
    assert read(answer).header.icc_profile == picture.header.icc_profile
    if most == 255:
        assert np.abs(managed(answer) - expected).max() <= 1.5


@pytest.mark.parametrize("transfer", CURVES)
@pytest.mark.parametrize("primaries", PRIMARIES)
def test_a_png_by_numbers(primaries: int, transfer: int) -> None:
    data = with_chunks(saved(chart(), "PNG"), numbers(primaries, transfer))
    if primaries == 1 and CURVES[transfer] is srgb_curve:
        assert read(data).header.icc_profile is None
    else:
        check(data, PRIMARIES[primaries], CURVES[transfer])


def test_xyz_by_its_number() -> None:
    profile = cicp.profile_of(10, 17)
    assert profile is not None
    picture = read(with_chunks(saved(chart(), "PNG"), numbers(10, 17)))
    assert picture.header.icc_profile == profile
    # equal X, Y and Z are white, which is adapted to
    grey = np.full((4, 4, 3), 200, np.uint8)
    assert np.ptp(as_srgb(read(with_chunks(saved(grey, "PNG"), numbers(10, 17))))) <= 1


@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 14), (9, 1), (5, 6), (1, 8), (11, 17), (22, 4)])
@pytest.mark.parametrize("make", [avif, heic])
def test_other_formats_by_numbers(make: Callable[..., bytes], primaries: int, transfer: int) -> None:
    check(make(primaries, transfer), PRIMARIES[primaries], CURVES[transfer])


@pytest.mark.parametrize("target", ["jpeg", "webp", "tiff", "heic", "avif"])
def test_the_profile_goes_along(target: Format) -> None:
    picture = read(avif(9, 14))
    assert picture.header.icc_profile is not None
    assert read(encode(picture, target)).header.icc_profile == picture.header.icc_profile


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("make", [avif, heic, lambda *of: with_chunks(saved(chart(), "PNG"), numbers(*of))])
def test_high_dynamic_range_is_refused(make: Callable[..., bytes], transfer: int) -> None:
    with pytest.raises(UnsupportedSamples, match="of high dynamic range") as error:
        read_header(make(9, transfer), PictureLimits(10**6))
    assert "They are of high dynamic range (" in words_for(error.value)
    assert "save the picture in standard dynamic range" in words_for(error.value)


@pytest.mark.parametrize("pair", [(1, 13), (2, 2), (1, 2), (2, 13), (1, 1), (1, 6), (3, 13), (0, 0), (255, 255)])
@pytest.mark.parametrize("make", [avif, heic])
def test_what_means_srgb_stays_without_a_profile(make: Callable[..., bytes], pair: tuple[int, int]) -> None:
    assert read(make(*pair)).header.icc_profile is None


def test_a_profile_wins_over_numbers() -> None:
    # Pillow writes its numbers beside a profile
    data = saved(chart(), "AVIF", icc_profile=profiles.adobe_rgb())
    place = data.index(b"nclx") + 4
    data = data[:place] + struct.pack(">HH", 9, 16) + data[place + 4 :]
    assert read(data).header.icc_profile == profiles.adobe_rgb()
    broken = data.replace(profiles.adobe_rgb(), bytes(len(profiles.adobe_rgb())))
    with pytest.raises(UnsupportedSamples):
        read(broken)


@pytest.mark.parametrize("full", [1, 0])
@pytest.mark.parametrize(("mode", "worst"), [("RGB", 2), ("RGB;16", 1)])
def test_heic_in_bt2020s_own_matrix(full: int, mode: str, worst: int) -> None:
    pixels = chart().repeat(8, 0).repeat(8, 1)
    deep = pixels if mode == "RGB" else pixels.astype(np.uint16) * 257
    file = io.BytesIO()
    pillow_heif.from_bytes(mode, pixels.shape[1::-1], deep.tobytes()).save(
        file, quality=-1, chroma=444, matrix_coefficients=9, color_primaries=9, full_range_flag=full
    )
    picture = read(file.getvalue())
    scale = np.iinfo(picture.pixels.dtype).max / 255
    assert np.abs(picture.pixels / scale - pixels).max() <= worst
    check(file.getvalue(), PRIMARIES[9], srgb_curve)


@pytest.mark.parametrize("make", [avif, heic])
def test_grey_by_numbers(make: Callable[..., bytes]) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 64, 0)
    picture = read(make(9, 4, ramp))
    assert picture.header.grey
    expected = in_srgb(picture.pixels / 255, SRGB, CURVES[4])
    assert np.abs(as_srgb(picture) - expected).max() <= 1
    answer = encode(picture, "png")
    assert Image.open(io.BytesIO(answer)).mode == "L"
    assert np.abs(managed(answer) - expected).max() <= 1.5
    assert read(make(9, 13, ramp)).header.icc_profile is None


@pytest.mark.parametrize("still", [True, False])
def test_avif_by_its_sequence_header_alone(still: bool) -> None:
    pixels = chart().repeat(4, 0).repeat(4, 1)
    options = {} if still else {"save_all": True, "append_images": [Image.fromarray(pixels[::-1])]}
    data = saved(pixels, "AVIF", quality=100, speed=10, **options).replace(b"colr", b"free")
    assert read(data).header.icc_profile is None
    count, bits = 0, int.from_bytes(data, "big")
    whole = f"{bits:0{8 * len(data)}b}"
    for matrix in (6, 0, 1, 2, 5):
        before = f"{1:08b}{13:08b}{matrix:08b}"
        count += whole.count(before)
        whole = whole.replace(before, f"{12:08b}{13:08b}{matrix:08b}")
    assert count
    check(int(whole, 2).to_bytes(len(data), "big"), PRIMARIES[12], srgb_curve)


class TestPng:
    """The order of PNG's chunks, third edition, 4.3."""

    @pytest.mark.parametrize("value", [100_000, 55_556, 45_470, 40_000, 20_000])
    @pytest.mark.parametrize("points", [SRGB, ADOBE, PRIMARIES[9], None])
    def test_gamma_and_chromaticities(self, value: int, points: Points | None) -> None:
        chunks = [gamma(value)] + ([chromaticities(points)] if points else [])
        data = with_chunks(saved(chart(), "PNG"), *chunks)
        if value == 45_470 and points in (SRGB, None):
            assert read(data).header.icc_profile is None
        else:
            check(data, points or SRGB, lambda x: x ** (100_000 / value))

    def test_sixteen_bits(self) -> None:
        deep = encode(Picture(chart().astype(np.uint16) * 257, read(saved(chart(), "PNG")).header), "png")
        check(with_chunks(deep, gamma(45_470), chromaticities(ADOBE)), ADOBE, lambda x: x ** (100_000 / 45_470))
        low, high = 4096 / 65_535, 60_160 / 65_535
        narrow = with_chunks(deep, numbers(12, 13, full=0))
        check(narrow, PRIMARIES[12], lambda x: srgb_curve(np.clip((x - low) / (high - low), 0, 1)))

    @pytest.mark.parametrize("primaries", [1, 9])
    def test_narrow_range(self, primaries: int) -> None:
        data = with_chunks(saved(chart(), "PNG"), numbers(primaries, 13, full=0))
        check(data, PRIMARIES[primaries], lambda x: srgb_curve(np.clip((x * 255 - 16) / 219, 0, 1)))

    def test_a_palette(self) -> None:
        image = Image.fromarray(chart()).quantize(64)
        file = io.BytesIO()
        image.save(file, "PNG")
        data = with_chunks(file.getvalue(), gamma(55_556))
        assert np.array_equal(read(data).pixels, np.asarray(image.convert("RGB")))
        check(data, SRGB, lambda x: x**1.8)

    @pytest.mark.parametrize("mode", ["L", "LA", "1"])
    def test_grey(self, mode: str) -> None:
        image = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None], 8, 0)).convert(mode)
        file = io.BytesIO()
        image.save(file, "PNG")
        picture = read(with_chunks(file.getvalue(), gamma(55_556), chromaticities(ADOBE)))
        assert picture.header.icc_profile is not None
        assert picture.header.icc_profile[16:20] == b"GRAY"
        expected = in_srgb(picture.pixels / 255, SRGB, lambda x: x**1.8)
        assert np.abs(as_srgb(picture) - expected).max() <= 1
        assert read(with_chunks(file.getvalue(), gamma(45_455))).header.icc_profile is None

    def test_the_order(self) -> None:
        plain, p3 = saved(chart(), "PNG"), profiles.display_p3()
        iccp = chunk(b"iCCP", b"any\0\0" + zlib.compress(p3))
        srgb, wide = chunk(b"sRGB", b"\0"), gamma(100_000)
        by_gamma = read(with_chunks(plain, wide)).header.icc_profile
        for chunks, expected in (
            ((wide, srgb, iccp, numbers(9, 13)), cicp.profile_of(9, 13)),
            ((wide, iccp, numbers(1, 13)), None),
            ((wide, srgb, iccp), p3),
            ((wide, srgb), None),
            ((wide, chromaticities(SRGB)), by_gamma),
            ((chromaticities(ADOBE),), None),
            ((iccp, numbers(2, 2)), p3),
            ((iccp, numbers(9, 13, matrix=9)), p3),
            ((iccp, numbers(9, 13, full=2)), p3),
            ((iccp, numbers(3, 77)), p3),
            ((iccp, chunk(b"cICP", b"\x09\x0d\0")), p3),
            ((wide, chunk(b"iCCP", b"any\0\0broken")), by_gamma),
        ):
            assert read(with_chunks(plain, *chunks)).header.icc_profile == expected

    @pytest.mark.parametrize(
        "broken",
        [
            chunk(b"gAMA", bytes(4)),
            chunk(b"gAMA", b"\xff" * 4),
            chunk(b"gAMA", b"\0\0\1"),
            chunk(b"gAMA", b""),
            gamma(100_000)[:-1] + b"?",
            chunk(b"sRGB", b""),
            chunk(b"cICP", b""),
            chunk(b"iCCP", b""),
            chunk(b"tRNS", b"\1"),
            chunk(b"tRNS", bytes(7)),
            chunk(b"acTL", b"\1"),
            chunk(b"acTL", b"\xff" * 8),
            chunk(b"pHYs", b"\1"),
            chunk(b"cHRM", b"\1"),
        ],
    )
    def test_what_is_broken_is_passed_over(self, broken: bytes) -> None:
        picture = read(with_chunks(saved(chart(), "PNG"), broken))
        assert np.array_equal(picture.pixels, chart())
        assert (picture.header.icc_profile, picture.alpha, picture.header.frames) == (None, None, 1)

    @pytest.mark.parametrize(
        "broken",
        [
            [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.0)],
            [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.0, 0.0)],
            [(0.1, 0.1), (0.2, 0.2), (0.3, 0.3), D65],
            [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.8, 0.1)],
            [(0.0, 0.0)] * 4,
            [(42_949.0, 42_949.0), (0.30, 0.60), (0.15, 0.06), D65],
            [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3, 0.00001)],
        ],
    )
    def test_broken_chromaticities_do_not_cost_the_gamma(self, broken: Points) -> None:
        data = with_chunks(saved(chart(), "PNG"), gamma(55_556), chromaticities(broken))
        check(data, SRGB, lambda x: x**1.8)
