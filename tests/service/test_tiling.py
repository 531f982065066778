import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.spec import TILE
from service.tiling import Blender, Plan, context_of, cut_row, pad_reflect, plan, to_8_bit

sizes = st.integers(1, 1200)
overlaps = st.integers(0, 64)


@given(sizes, overlaps)
def test_windows_sum_to_one_at_every_pixel(size: int, overlap: int) -> None:
    axis = plan(size, 1, overlap).rows
    total = np.zeros(size)
    for start, window in zip(axis.starts, axis.windows, strict=True):
        inside = np.arange(TILE)[max(-start, 0) : size - start]
        total[start + inside] += window[inside]
        outside = np.setdiff1d(np.arange(TILE), inside)
        assert not window[outside].any()
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(sizes, overlaps)
def test_neighbours_share_at_least_the_overlap_and_starts_are_even(size: int, overlap: int) -> None:
    starts = np.array(plan(size, 1, overlap).rows.starts)
    strides = np.diff(starts)
    assert (TILE - strides >= overlap).all()
    if len(strides):
        assert strides.max() - strides.min() <= 1
        assert starts[0] <= 0
        assert starts[-1] + TILE >= size


@given(sizes, overlaps)
def test_no_tile_more_than_needed(size: int, overlap: int) -> None:
    count = len(plan(size, 1, overlap).rows.starts)
    fewer = count - 1
    assert count == 1 or fewer * TILE - (fewer - 1) * overlap < size


@pytest.mark.parametrize("overlap", [16, 32, 64])
def test_inner_rims_have_no_weight(overlap: int) -> None:
    axis = plan(1000, 1, overlap).rows
    rim = overlap // 8
    for i, window in enumerate(axis.windows):
        if i > 0:
            assert not window[:rim].any()
        if i < len(axis.windows) - 1:
            assert not window[TILE - rim :].any()


def test_a_picture_of_one_tile_is_one_tile_in_the_middle() -> None:
    layout = plan(100, TILE)
    assert layout.tiles == 1
    assert layout.rows.starts == (-14,)
    assert layout.columns.starts == (0,)


@pytest.mark.parametrize(("height", "width", "overlap"), [(0, 5, 32), (5, 0, 32), (5, 5, -1), (5, 5, 65)])
def test_impossible_plans_are_refused(height: int, width: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=r"pixels|overlap"):
        plan(height, width, overlap)


def _identity(picture: npt.NDArray[np.uint8 | np.uint16], layout: Plan) -> npt.NDArray[np.uint8 | np.uint16]:
    blender = Blender(picture, layout)
    for row in range(len(layout.rows.starts)):
        blender.add(cut_row(picture, layout, row).astype(np.float32) / np.float32(255))
    return blender.output


@given(
    st.integers(1, 500), st.integers(1, 500), overlaps, st.sampled_from([np.uint8, np.uint16]), st.integers(0, 2**32)
)
@example(637, 1, 0, np.uint8, 0)  # two rows of tiles that share no pixel
def test_what_is_cut_blends_back_bit_for_bit(
    height: int, width: int, overlap: int, dtype: type[np.uint8 | np.uint16], seed: int
) -> None:
    top = np.iinfo(dtype).max
    picture = np.random.default_rng(seed).integers(0, top, (height, width, 3), dtype, endpoint=True)
    np.testing.assert_array_equal(_identity(picture, plan(height, width, overlap)), picture)


def test_a_tile_holds_the_pictures_own_pixels_and_its_reflection() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    layout = plan(300, 200)
    assert min(layout.rows.starts) < 0, "this size leaves room around the picture"
    around = np.pad(picture, ((TILE, TILE), (TILE, TILE), (0, 0)), "reflect")
    for row, top in enumerate(layout.rows.starts):
        for tile, left in zip(cut_row(picture, layout, row), layout.columns.starts, strict=True):
            np.testing.assert_array_equal(tile, around[TILE + top :, TILE + left :][:TILE, :TILE])


def test_what_is_too_small_to_reflect_is_replicated() -> None:
    picture = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)
    padded = pad_reflect(picture, 2, 1, 3, 0)
    assert padded.shape == (4, 5, 3)
    np.testing.assert_array_equal(padded, np.broadcast_to(picture[0, [0, 0, 0, 0, 1]], (4, 5, 3)))


@given(st.floats(0, 1))
def test_strength_scales_the_change(strength: float) -> None:
    picture = np.full((150, 150, 3), 100, np.uint8)
    layout = plan(150, 150)
    blender = Blender(picture, layout, strength)
    for _ in layout.rows.starts:
        blender.add(np.full((len(layout.columns.starts), TILE, TILE, 3), 200 / 255, np.float32))
    assert np.abs(blender.output.astype(float) - (100 + 100 * strength)).max() <= 0.5 + 1e-3


def test_blending_is_smooth_between_tiles_that_disagree() -> None:
    picture = np.full((TILE, 400, 3), 100, np.uint8)
    layout = plan(TILE, 400, 32)
    blender = Blender(picture, layout)
    levels = np.arange(len(layout.columns.starts)) % 2 * 40 + 100
    blender.add(np.ones((len(levels), TILE, TILE, 3), np.float32) * (levels / 255)[:, None, None, None])
    steps = np.abs(np.diff(blender.output[64, :, 0].astype(int)))
    assert blender.output.max() == 140
    assert blender.output.min() == 100
    assert steps.max() <= 4, "40 levels are spread over the overlap"


def test_16_bits_round_to_the_nearest_of_8() -> None:
    samples = np.arange(65_536, dtype=np.uint16)
    np.testing.assert_array_equal(to_8_bit(samples), np.rint(samples / 257).astype(np.uint8))


def test_context_is_the_area_average() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    blocks = picture.reshape(32, 2, 32, 3, 3).mean((1, 3))
    assert np.abs(context_of(picture) - blocks).max() <= 0.5 + 1e-6
    assert context_of(picture[:1, :1]).shape == (32, 32, 3)
