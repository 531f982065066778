"""Whether an AVIF's coded pictures are as large as it says."""

import io
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from service.avif import sizes_agree
from service.codec import Header, MalformedPicture, Picture, PictureLimits, PictureTooLarge, decode, encode, read_header
from tests.avif_files import Pixels, cut, file, mirror, turn
from tests.hostile import good
from tests.hostile.heif import box, full, sized

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


def test_a_picture_that_is_too_large_for_any_decoder_is_said_to_be_too_large() -> None:
    with pytest.raises(PictureTooLarge, match="289000000"):
        read_header(sized(good.avif(), 17_000, 17_000), LIMITS)


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


Turn = Callable[[Pixels], Pixels]


def read(data: bytes) -> Picture:
    return decode(data, read_header(data, LIMITS))


def picture(height: int = 70, width: int = 90) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows * 2, columns * 2, (rows + columns) % 256]).astype(np.uint8)


TURNS: dict[str, tuple[list[bytes], Turn]] = {
    **{f"irot {n}": ([turn(n)], lambda pixels, n=n: np.rot90(pixels, n)) for n in range(4)},  # type: ignore[misc]
    "imir 0": ([mirror(0)], lambda pixels: pixels[::-1]),
    "imir 1": ([mirror(1)], lambda pixels: pixels[:, ::-1]),
    "irot and imir": ([turn(1), mirror(0)], lambda pixels: np.rot90(pixels)[::-1]),
    "imir and irot": ([mirror(0), turn(1)], lambda pixels: np.rot90(pixels[::-1])),
    "clap": ([cut(40, 30, 5, -10)], lambda pixels: pixels[39:69, 81:121]),
    "clap by fractions": ([cut(41, 31, "-1/2", "1/2")], lambda pixels: pixels[49:80, 75:116]),
    "clap and irot": ([cut(40, 30, 5, -10), turn(3)], lambda pixels: np.rot90(pixels[39:69, 81:121], 3)),
    "irot and clap": ([turn(3), cut(40, 30)], lambda pixels: np.rot90(pixels, 3)[81:111, 44:84]),
    "all": (
        [cut(40, 30, 5, -10), turn(1), mirror(1)],
        lambda pixels: np.rot90(pixels[39:69, 81:121])[:, ::-1],
    ),
    "clap outside": ([cut(40, 30, 100, 0)], lambda pixels: pixels),
    "clap of nothing": ([cut(0, 30)], lambda pixels: pixels),
    "clap by zero": ([box(b"clap", struct.pack(">8I", 40, 0, 30, 1, 0, 1, 0, 1))], lambda pixels: pixels),
}


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("tiles", [False, True])
def test_the_boxes_cut_and_turn_in_their_order(name: str, tiles: bool) -> None:
    properties, turned = TURNS[name]
    pixels = picture(128, 192)
    parts = [pixels[row : row + 64, column : column + 64] for row in (0, 64) for column in (0, 64, 128)]
    data = file([part.copy() for part in parts] if tiles else pixels, *properties, grid=(2, 3) if tiles else (0, 0))
    with Image.open(io.BytesIO(data)) as image:
        stored = np.asarray(image)
        if "clap" not in name and "all" not in name and name != "imir and irot":
            # Pillow turns by a tag, after the order that MIAF prescribes
            assert np.array_equal(read(data).pixels, np.asarray(ImageOps.exif_transpose(image)))
    assert stored.shape == pixels.shape
    result = read(data)
    assert (result.header.height, result.header.width) == result.pixels.shape[:2]
    assert result.header.orientation == 1
    assert np.abs(stored.astype(int) - pixels).max() <= 6
    assert np.array_equal(result.pixels, turned(stored))


def test_a_cut_does_not_hide_how_large_a_picture_is() -> None:
    data = file(picture(), cut(1, 1))
    assert read(data).pixels.shape == (1, 1, 3)
    with pytest.raises(PictureTooLarge):
        read_header(data, PictureLimits(1000))


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("brand", [b"avif", b"mif1"])
@pytest.mark.parametrize("grid", [(0, 0), (1, 2), (3, 1), (2, 2)])
def test_grids_and_orders(grid: tuple[int, int], brand: bytes, backwards: bool) -> None:
    tiles = [np.roll(picture(64, 64), 7 * number, axis=1) for number in range(max(1, grid[0] * grid[1]))]
    data = file(tiles if grid[0] else tiles[0], grid=grid, brand=brand, backwards=backwards)
    assert sizes_agree(data)
    result = read(data)
    assert result.header.icc_profile is not None
    assert (result.header.sampling, result.header.frames) == ("4:4:4", 1)
    rows = [np.hstack(tiles[row * grid[1] : (row + 1) * grid[1]]) for row in range(grid[0])]
    assert np.abs(result.pixels.astype(int) - (np.vstack(rows) if rows else tiles[0])).max() <= 6
    large = sized(data, 65, 64)
    assert not sizes_agree(large)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:0:0"])
def test_sampling_is_kept(subsampling: str) -> None:
    written = io.BytesIO()
    image = Image.fromarray(picture())
    if subsampling == "4:0:0":
        image = image.convert("L")
    image.save(written, "AVIF", quality=90, speed=10, subsampling=subsampling)
    result = read(written.getvalue())
    assert result.header.sampling == (None if subsampling == "4:0:0" else subsampling)
    again = read_header(encode(result, "avif"), LIMITS)
    assert again.sampling == ("4:4:4" if subsampling == "4:0:0" else subsampling)
    assert read_header(encode(Picture(picture(), Header("png", 70, 90)), "avif"), LIMITS).sampling == "4:4:4"


def test_sound_is_no_picture() -> None:
    data = good.animation("AVIF")
    # a second track, of sound, has no size
    start = data.index(b"trak") - 4
    track = data[start : start + int.from_bytes(data[start : start + 4], "big")]
    head = track.index(b"tkhd") - 4
    end = head + int.from_bytes(track[head : head + 4], "big")
    sound = track[: end - 8] + bytes(8) + track[end:].replace(b"av01", b"mp4a")
    assert not sizes_agree(data[:start] + track[: end - 8] + bytes(8) + track[end:] + data[start + len(track) :])
    assert sizes_agree(data[:start] + sound + data[start + len(track) :])


def test_extents_of_no_bytes_are_counted() -> None:
    # 65535 of them an item, each a step, would take minutes
    data = file(picture())
    place = data.index(b"iloc") - 4
    length = int.from_bytes(data[place : place + 4], "big")
    many = b"".join(struct.pack(">HHHH", 1, 0, 0, 65_535) for _ in range(4000))
    items = full(b"iloc", b"\0\0" + struct.pack(">H", 4000) + many, version=1)
    meta = data.index(b"meta") - 4
    size = int.from_bytes(data[meta : meta + 4], "big") - length + len(items)
    start = time.process_time()
    assert not sizes_agree(
        data[:meta] + struct.pack(">I", size) + data[meta + 4 : place] + items + data[place + length :]
    )
    assert time.process_time() - start < 2


def test_multiplied_alpha() -> None:
    alpha = np.linspace(40, 255, 90).astype(np.uint8)[None].repeat(70, 0)
    pixels = np.dstack([np.full((70, 90, 3), 200, np.uint8), alpha])
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "AVIF", quality=100, speed=10, alpha_premultiplied=True)
    result = read(written.getvalue())
    assert result.alpha is not None
    assert np.abs(result.alpha.astype(int) - alpha).max() <= 1
    assert np.abs(result.pixels.astype(int) - 200).max() <= 6
