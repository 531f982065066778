"""Whether an AVIF's coded pictures are as large as it says."""

import io

import numpy as np
import pytest
from PIL import Image

from service.avif import sizes_agree
from service.codec import MalformedPicture, PictureLimits, read_header
from tests.hostile import good
from tests.hostile.heif import sized

LIMITS = PictureLimits(100_000_000)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 64), (200, 300), (1, 2000)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_good_ones(size: tuple[int, int], mode: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((*size, 3), np.uint8)).convert(mode).save(file, "AVIF", speed=10)
    assert sizes_agree(file.getvalue())
    assert sizes_agree(file.getvalue() + b"what a phone puts behind it")


def test_a_good_sequence() -> None:
    assert sizes_agree(good.animation("AVIF"))


@pytest.mark.parametrize("size", [(9999, 9999), (64, 65), (1, 1), (65, 64), (128, 128)])
def test_other_sizes(size: tuple[int, int]) -> None:
    data = sized(good.avif(), *size)
    assert not sizes_agree(data)
    with pytest.raises(MalformedPicture, match="differs in size"):
        read_header(data, LIMITS)


def test_every_cut_is_told() -> None:
    data = good.avif()
    mdat = data.index(b"mdat") + 4
    for place in range(mdat):
        assert not sizes_agree(data[:place])


def test_a_sequence_of_another_size() -> None:
    data = good.animation("AVIF")
    head = data.index(b"tkhd")
    end = head - 4 + int.from_bytes(data[head - 4 : head], "big")
    assert not sizes_agree(data[: end - 8] + (9999 << 16).to_bytes(4, "big") * 2 + data[end:])
