"""What a JPEG's markers claim."""

import time

import numpy as np
import pytest

from service.codec import MalformedPicture, PictureLimits, TooManyScans, UnsupportedSamples, decode, read_header
from service.jpeg import Unreadable, marks_of
from tests.hostile import good
from tests.hostile.jpeg import frame, many_scans, of_nothing, segment, with_segments

LIMITS = PictureLimits(100_000_000)


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
