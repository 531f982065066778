import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from service.codec import MalformedPicture, PictureLimits, UnsupportedFormat, UnsupportedSamples, decode, read_header
from service.picture import Picture
from tests.hostile import good

LIMITS = PictureLimits(100_000_000, 1000, 100)
SAMPLES = np.random.default_rng(3).integers(0, 256, (7, 5, 4), np.uint8)


def bmp(
    masks: tuple[int, ...],
    bits: int = 32,
    header: int = 40,
    samples: npt.NDArray[np.uint8] = SAMPLES,
    *,
    top_down: bool = False,
    compression: int | None = None,
) -> bytes:
    """Write samples, uint8 (H, W, 4), into bit fields: the topmost bits of each."""
    height, width = samples.shape[:2]
    values = np.zeros((height, width), np.uint64)
    for channel, mask in enumerate(masks):
        low = mask & -mask
        wide = (mask // low).bit_length() if mask else 0
        values += (samples[:, :, channel].astype(np.uint64) * (2**wide - 1) // 255) * low if mask else 0
    rows = np.zeros((height, (width * bits + 31) // 32 * 4), np.uint8)
    rows[:, : width * bits // 8] = values.astype(f"<u{bits // 8}").view(np.uint8)
    lines = rows if top_down else rows[::-1]
    kind = (6 if header == 40 and len(masks) == 4 else 3) if compression is None else compression
    words = struct.pack(f"<{len(masks)}I", *masks)
    head = struct.pack("<IiiHHIIiiII", header, width, -height if top_down else height, 1, bits, kind, 0, 0, 0, 0, 0)
    head = head + words if header == 40 else (head + words).ljust(header, b"\0")
    return b"BM" + struct.pack("<III", 14 + len(head) + lines.nbytes, 0, 14 + len(head)) + head + lines.tobytes()


def read(data: bytes) -> Picture:
    return decode(data, read_header(data, LIMITS))


def in_steps(samples: npt.NDArray[np.uint8], mask: int) -> npt.NDArray[Any]:
    """Samples as a field of these bits holds them, 0 to 255."""
    most = mask // (mask & -mask)
    return np.rint(samples.astype(np.uint64) * most // 255 * 255 / most)


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF00, 0xF0, 0xF)),
        (16, (0xF800, 0x7E0, 0x1F)),
        (16, (0x30, 0xE, 0x1)),
        (16, (0xFF00, 0xFF, 0)),
        (32, (0xFF000000, 0xFF0, 0xFF0000)),
        (32, (0xFFE00000, 0x1FFC00, 0x3FF)),
        (32, (0xFE000000, 0x1FFFF80, 0x7F)),
        (32, (0xFF0000, 0xFF00, 0xFF)),
    ],
)
def test_bit_fields_of_any_widths_are_read(bits: int, masks: tuple[int, ...], top_down: bool) -> None:
    picture = read(bmp(masks, bits, top_down=top_down))
    assert picture.alpha is None
    for channel, mask in enumerate(masks):
        expected = in_steps(SAMPLES[:, :, channel], mask) if mask else 0
        assert np.abs(picture.pixels[:, :, channel] - expected).max() <= 1


@pytest.mark.parametrize("header", [40, 56, 108, 124])
@pytest.mark.parametrize(
    ("bits", "masks"), [(16, (0xF00, 0xF0, 0xF, 0xF000)), (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000))]
)
def test_alpha_in_a_bit_field_is_read(bits: int, masks: tuple[int, ...], header: int) -> None:
    picture = read(bmp(masks, bits, header))
    assert picture.alpha is not None
    assert np.abs(picture.alpha - in_steps(SAMPLES[:, :, 3], masks[3])).max() <= 1
    clear = np.dstack([SAMPLES[:, :, :3], np.zeros(SAMPLES.shape[:2], np.uint8)])
    assert read(bmp(masks, bits, header, clear)).alpha is None


@pytest.mark.parametrize("masks", [(0, 0, 0), (0xF0F, 0xF0, 0xF000), (0xF0000, 0xF0, 0xF)])
def test_fields_that_make_no_sense_are_refused(masks: tuple[int, ...]) -> None:
    data = bmp((0xF00, 0xF0, 0xF), 16)
    with pytest.raises(MalformedPicture, match="bit fields"):
        read(data[:54] + struct.pack("<3I", *masks) + data[66:])


def test_bit_fields_that_end_early_are_damaged() -> None:
    with pytest.raises(MalformedPicture, match="ends early"):
        read(bmp((0xF00, 0xF0, 0xF), 16)[:-1])
    with pytest.raises(MalformedPicture):
        read(bmp((0xF00, 0xF0, 0xF), 16)[:60])


@pytest.mark.parametrize(
    ("header", "bits", "compression"), [(124, 0, 4), (124, 0, 5), (64, 1, 3), (64, 24, 4), (40, 2, 0)]
)
def test_what_is_not_read_is_not_called_damaged(header: int, bits: int, compression: int) -> None:
    data = bytearray(bmp((0xFF0000, 0xFF00, 0xFF, 0), 32, header, compression=compression))
    data[28:30] = bits.to_bytes(2, "little")
    with pytest.raises(UnsupportedSamples):
        read(bytes(data))


def test_a_hotspot_of_os2_is_no_text() -> None:
    data = bytearray(good.bmp())
    data[6:10] = b"\x29\0\x38\0"
    assert np.array_equal(read(bytes(data)).pixels, good.pixels())
    with pytest.raises(UnsupportedFormat):
        read(b"BM is how this text begins, and nothing else of it is like a picture at all.")
