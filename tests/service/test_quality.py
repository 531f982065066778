from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import deltaE_cie76, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from service.codec import Header
from service.quality import (
    SizesDiffer,
    TooSmall,
    colour_difference,
    psnr,
    require_same_size,
    seam_index,
    ssim,
)
from service.tiling import Axis, plan

Image = npt.NDArray[np.uint8]


def noisy(picture: Image, sigma: float) -> Image:
    noise = np.random.default_rng(0).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def tinted(picture: Image) -> Image:
    return np.clip(picture * [1.1, 0.95, 0.8] + 10, 0, 255).astype(np.uint8)


def part(name: str, height: int, width: int) -> Image:
    picture: Image = getattr(skimage.data, name)()
    return picture[:height, :width]


# strips have 256 rows: pictures of one strip, of several, and of one row more than that
PHOTOS = [
    pytest.param("chelsea", 300, 451, id="taller than a strip"),
    pytest.param("astronaut", 512, 512, id="two strips"),
    pytest.param("rocket", 257, 333, id="a strip and a row"),
    pytest.param("coffee", 101, 77, id="part of a strip"),
    pytest.param("astronaut", 267, 300, id="a row more than SSIM's first strip"),
    pytest.param("coffee", 11, 64, id="a window high"),
]


@pytest.mark.parametrize(("name", "height", "width"), PHOTOS)
@pytest.mark.parametrize(
    "change", [lambda p: noisy(p, 3), lambda p: noisy(p, 40), tinted], ids=["faint", "loud", "tint"]
)
class TestAgainstScikitImage:
    def test_psnr(self, name: str, height: int, width: int, change: Callable[[Image], Image]) -> None:
        reference = part(name, height, width)
        picture = change(reference)
        assert psnr(picture, reference) == pytest.approx(peak_signal_noise_ratio(reference, picture), abs=1e-4)

    def test_ssim(self, name: str, height: int, width: int, change: Callable[[Image], Image]) -> None:
        reference = part(name, height, width)
        picture = change(reference)
        expected = structural_similarity(
            picture, reference, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2
        )
        assert ssim(picture, reference) == pytest.approx(expected, abs=1e-4)

    def test_colour_difference(self, name: str, height: int, width: int, change: Callable[[Image], Image]) -> None:
        reference = part(name, height, width)
        picture = change(reference)
        expected = float(np.mean(deltaE_cie76(rgb2lab(picture), rgb2lab(reference))))
        assert colour_difference(picture, reference) == pytest.approx(expected, abs=1e-2)


@settings(deadline=None)
@given(difference=st.integers(1, 255), count=st.integers(1, 300))
def test_psnr_by_hand(difference: int, count: int) -> None:
    black = np.zeros((10, 10, 3), np.uint8)
    picture = black.copy()
    picture.reshape(-1)[:count] = difference
    assert psnr(picture, black) == pytest.approx(10 * np.log10(255**2 * 300 / (difference**2 * count)))
    assert psnr(black, picture) == psnr(picture, black)


def test_equal_pictures(photo: Image) -> None:
    assert psnr(photo, photo) == float("inf")
    assert ssim(photo, photo) == pytest.approx(1)
    assert colour_difference(photo, photo) == 0


def test_opposite_pictures() -> None:
    black, white = np.zeros((300, 20, 3), np.uint8), np.full((300, 20, 3), 255, np.uint8)
    assert psnr(black, white) == pytest.approx(0)
    assert ssim(black, white) < 0.001
    assert colour_difference(black, white) == pytest.approx(100, abs=0.1)


@settings(deadline=None)
@given(height=st.integers(1, 14), width=st.integers(1, 14))
def test_ssim_needs_a_window(height: int, width: int) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    if min(height, width) >= 11:
        assert ssim(picture, picture) == pytest.approx(1)
        return
    with pytest.raises(TooSmall) as error:
        ssim(picture, picture)
    assert error.value.limit == 11


@pytest.mark.parametrize("measure", [psnr, ssim, colour_difference, lambda a, b: seam_index(b, a, plan(300, 400))])
def test_sizes_that_differ_are_told(measure: Callable[[Image, Image], object]) -> None:
    with pytest.raises(SizesDiffer, match="the picture is 400x300, the reference 300x400") as error:
        measure(np.zeros((300, 400, 3), np.uint8), np.zeros((400, 300, 3), np.uint8))
    assert error.value.picture[:2] == (300, 400)
    assert error.value.reference[:2] == (400, 300)


def test_sizes_are_compared_before_decoding() -> None:
    require_same_size(Header("png", 20, 30), Header("jpeg", 20, 30))
    with pytest.raises(SizesDiffer, match="the picture is 30x20, the reference 20x30"):
        require_same_size(Header("png", 20, 30), Header("jpeg", 30, 20))


def edges(axis: Axis) -> set[int]:
    """Where tiles begin or end inside the picture."""
    return {edge for start in axis.starts for edge in (start, start + 128) if 0 < edge < axis.size}


def with_steps(source: Image, positions: tuple[set[int], set[int]], height: int = 3) -> Image:
    """Raise the picture by one step more at each of the given rows and columns."""
    rows, columns = (
        np.cumsum(np.isin(np.arange(size), list(where))) % 2
        for size, where in zip(source.shape, positions, strict=False)
    )
    return np.asarray(source + height * (rows[:, None] ^ columns[None])[:, :, None], np.uint8)


class TestSeamIndex:
    # one axis with several tiles, both, and sizes that need more than a strip of rows
    SIZES = pytest.mark.parametrize(("height", "width"), [(400, 600), (128, 500), (530, 128), (700, 301), (257, 300)])

    @SIZES
    def test_noise_has_no_seams(self, height: int, width: int) -> None:
        source = np.full((height, width, 3), 128, np.uint8)
        index = seam_index(source, noisy(source, 10), plan(height, width))
        assert index == pytest.approx(1, abs=0.05)

    @SIZES
    def test_steps_at_the_borders_show(self, height: int, width: int) -> None:
        source = noisy(np.full((height, width, 3), 128, np.uint8), 20)
        layout = plan(height, width)
        output = with_steps(source, (edges(layout.rows), edges(layout.columns)))
        output = (output + np.random.default_rng(1).integers(0, 2, output.shape)).astype(np.uint8)
        # the noise of one level has a mean gradient of a half, the steps of three
        index = seam_index(source, output, layout)
        assert index == pytest.approx(3 / 0.5, rel=0.1)

    @SIZES
    def test_steps_elsewhere_do_not_count_as_seams(self, height: int, width: int) -> None:
        source = noisy(np.full((height, width, 3), 128, np.uint8), 20)
        layout = plan(height, width)
        # neither at a border nor 8 or 16 pixels from one, where borders are compared with
        elsewhere = tuple(
            set(range(4, axis.size, 29)) - {edge + away for edge in edges(axis) for away in (-16, -8, 0, 8, 16)}
            for axis in (layout.rows, layout.columns)
        )
        output = with_steps(source, (elsewhere[0], elsewhere[1]), height=40)
        output = (output + np.random.default_rng(1).integers(0, 2, output.shape)).astype(np.uint8)
        assert seam_index(source, output, layout) == pytest.approx(1, abs=0.05)

    def test_the_blocks_of_a_jpeg_are_no_seams(self) -> None:
        # with this plan every border lies between two blocks
        source = noisy(np.full((320, 448, 3), 128, np.uint8), 20)
        layout = plan(320, 448, 64)
        assert all(edge % 8 == 0 for edge in edges(layout.rows) | edges(layout.columns))
        output = with_steps(source, (set(range(8, 320, 8)), set(range(8, 448, 8))), height=10)
        output = (output + np.random.default_rng(1).integers(0, 2, output.shape)).astype(np.uint8)
        assert seam_index(source, output, layout) == pytest.approx(1, abs=0.05)

    @SIZES
    def test_every_row_and_column_counts(self, height: int, width: int) -> None:
        source = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        output = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
        layout, at_borders, beside = plan(height, width), 0.0, 0.0
        for number, axis in enumerate((layout.rows, layout.columns)):
            across = np.abs(np.diff(output.astype(int) - source, axis=number)).sum(axis=(1 - number, 2))
            places = {edge - 1 for edge in edges(axis)}
            around = {place + away for place in places for away in (-16, -8, 8, 16)} - places
            around = {place for place in around if 0 <= place < axis.size - 1}
            if places:
                at_borders += across[sorted(places)].sum()
                beside += across[sorted(around)].mean() * len(places)
        assert seam_index(source, output, layout) == pytest.approx(at_borders / beside, rel=1e-9)

    @pytest.mark.parametrize("overlap", [0, 16, 32, 64])
    def test_follows_the_plan(self, overlap: int) -> None:
        source = noisy(np.full((300, 300, 3), 128, np.uint8), 20)
        layouts = {some: plan(300, 300, some) for some in (0, 16, 32, 64)}
        layout = layouts[overlap]
        output = with_steps(source, (edges(layout.rows), edges(layout.columns)))
        output = (output + np.random.default_rng(1).integers(0, 2, output.shape)).astype(np.uint8)
        found = {some: seam_index(source, output, layouts[some]) or 0 for some in layouts}
        assert max(found, key=lambda some: found[some]) == overlap

    @settings(deadline=None)
    @given(height=st.integers(1, 128), width=st.integers(1, 128))
    def test_one_tile_has_no_border(self, height: int, width: int) -> None:
        source = np.full((height, width, 3), 128, np.uint8)
        assert seam_index(source, noisy(source, 10), plan(height, width)) is None

    def test_where_nothing_changed_beside_the_borders_there_is_nothing_to_compare_with(self, photo: Image) -> None:
        layout = plan(*photo.shape[:2])
        assert seam_index(photo, photo, layout) is None
        source = photo // 2
        assert seam_index(source, with_steps(source, (edges(layout.rows), edges(layout.columns))), layout) is None
