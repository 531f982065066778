"""What a JPEG's markers claim."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from service.codec import MalformedPicture, PictureLimits, TooManyScans, UnsupportedSamples, decode, read_header
from service.jpeg import Unreadable, marks_of
from tests.hostile import good
from tests.hostile.jpeg import frame, many_scans, of_nothing, segment, with_segments

LIMITS = PictureLimits(100_000_000)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_the_marks_of_good_files() -> None:
    assert marks_of(good.jpeg(), 100).scans == 1
    marks = marks_of(good.jpeg(progressive=True), 100)
    assert (marks.bits, marks.height, marks.width) == (8, 40, 48)
    assert marks.scans == 10, "as libjpeg's own script has"
    assert marks.huffman
    assert marks.holds_enough


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 9), (1000, 1000), (1, 3000)])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_emptiest_pictures_hold_enough(size: tuple[int, int], progressive: bool, subsampling: int) -> None:
    plain = np.full((*size, 3), 128, np.uint8)
    data = good.saved(plain, "JPEG", quality=1, optimize=True, progressive=progressive, subsampling=subsampling)
    assert decode(data, read_header(data, LIMITS)).pixels.shape == plain.shape


def test_a_picture_that_holds_too_little_is_refused_by_its_header() -> None:
    with pytest.raises(MalformedPicture, match="too little"):
        read_header(of_nothing(2000, 2000), LIMITS)


def test_as_many_scans_as_are_allowed() -> None:
    data = many_scans(50, 40, 48)
    scans = marks_of(data, 100).scans
    assert read_header(data, PictureLimits(10_000, max_scans=scans)).height == 40
    with pytest.raises(TooManyScans, match=f"more than {scans - 1} scans"):
        read_header(data, PictureLimits(10_000, max_scans=scans - 1))


def test_scans_in_segments_and_behind_the_end_are_none() -> None:
    inside = segment(0xFE, b"\xff\xda\0\x0c" * 100)
    assert marks_of(with_segments(inside) + many_scans(20, 40, 48), 100).scans == 1


@pytest.mark.parametrize("bits", [2, 12, 16])
def test_bits_that_are_not_read(bits: int) -> None:
    with pytest.raises(UnsupportedSamples, match=f"of {bits} bits"):
        read_header(frame(good.jpeg(), bits, 40, 48), LIMITS)


@pytest.mark.parametrize(
    "between",
    [b"\xff" * 100_000, b"\xff\0" * 50_000, segment(0xFE, b"") * 30_000, b"x" * 70_000, segment(0xED, b"8BIM") * 65],
)
def test_too_much_between_the_markers(between: bytes) -> None:
    with pytest.raises(Unreadable):
        marks_of(with_segments(between), 100)


@pytest.mark.parametrize(
    "filling", [b"\xff", b"\xff\0", b"\xff\xd0", b"\xff\xda\0\2", b"\xff\xda\xff\xff", b"\xff\xfe\0\2", b"\0"]
)
def test_a_walk_takes_time_by_the_length_alone(filling: bytes) -> None:
    def seconds(count: int) -> float:
        data = good.jpeg()[:-2] + filling * (count // len(filling))
        began = time.perf_counter()
        try:
            marks_of(data, 100)
        except Unreadable:
            pass
        return time.perf_counter() - began

    # a square would take 64 times as long
    assert min(seconds(8_000_000) for _ in range(3)) < 32 * max(min(seconds(1_000_000) for _ in range(3)), 1e-3)


def broken_off(behind: bytes) -> bytes:
    """A baseline JPEG with half of its samples, and something else in the place of the rest."""
    data = good.jpeg()
    samples = data.rindex(b"\xff\xda") + 14
    half = data[: (samples + len(data)) // 2]
    return half.rstrip(b"\xff") + behind + b"\xff\xd9"


@pytest.mark.parametrize(
    "behind",
    [
        segment(0xCA, b"\x99" * 40),
        segment(0xC0, bytes(15)),
        segment(0xC4, b"\0" + b"\xff" * 300),
        segment(0xC4, b"\x07" * 17),
    ],
    ids=["a frame that is arithmetic-coded", "another frame", "more codes than there are", "a table too many"],
)
def test_samples_that_break_off_at_what_cannot_follow_are_damaged(behind: bytes) -> None:
    data = broken_off(behind)
    with pytest.raises(OSError, match="broken data stream"):
        opened(data).load()
    with pytest.raises(MalformedPicture, match="damaged or ends early"):
        read_header(data, LIMITS)


def test_codes_may_follow_samples() -> None:
    assert good.jpeg(progressive=True).count(b"\xff\xc4") > 4
    tables = segment(0xC4, bytes([0, 1]) + bytes(15) + b"\5" + bytes([0x11, 1]) + bytes(15) + b"\5")
    assert marks_of(broken_off(tables), 100).scans == 1


STUMBLES = {
    "an empty JFIF header": segment(0xE0, b"JFIF\0"),
    "an empty Adobe segment": segment(0xEE, b"Adobe"),
    "a profile's name alone": segment(0xE2, b"ICC_PROFILE\0\1"),
    "resources that break off": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"),
}


def in_mode(mode: str) -> bytes:
    file = io.BytesIO()
    opened(good.jpeg()).convert(mode).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", STUMBLES)
def test_what_the_picture_does_not_need_costs_nothing(kind: str, mode: str) -> None:
    base = in_mode(mode)
    with pytest.raises((OSError, SyntaxError, IndexError)):
        opened(with_segments(STUMBLES[kind], base=base)).load()
    expected, result = (
        decode(data, read_header(data, LIMITS)) for data in (base, with_segments(STUMBLES[kind], base=base))
    )
    np.testing.assert_array_equal(result.pixels, expected.pixels)
    assert result.header.sampling == expected.header.sampling
