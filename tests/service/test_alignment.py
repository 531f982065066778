import cv2
import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from skimage.registration import phase_cross_correlation

from service.alignment import MIN_INLIERS, Aligned, NotAligned, align
from service.quality import psnr

Image = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def scene() -> Image:
    """A photo full of detail, uint8 (512, 512, 3)."""
    picture: Image = skimage.data.astronaut()
    return picture


def shift(down: float, right: float) -> Matrix:
    return np.array([[1, 0, -right], [0, 1, -down], [0, 0, 1]], np.float64)


def seen_by(homography: Matrix, scene: Image, size: tuple[int, int]) -> Image:
    """What a camera sees whose pixel `homography @ p` shows the scene's pixel p."""
    height, width = size
    return np.asarray(cv2.warpPerspective(scene, homography, (width, height), flags=cv2.INTER_CUBIC), np.uint8)


def dslr_colours(picture: Image) -> Image:
    tinted = np.clip(picture * [0.85, 0.9, 0.8] + [20, 10, 25], 0, 255)
    return np.asarray(tinted, np.uint8)


def phone_colours(picture: Image) -> Image:
    """Undo `dslr_colours`."""
    undone = np.clip((picture - np.array([20, 10, 25])) / [0.85, 0.9, 0.8], 0, 255)
    return np.asarray(undone, np.uint8)


def common_part(homography: Matrix, scene: Image, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Top, left, bottom, right of the largest upright part of the scene between the seen picture's corners."""
    height, width = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    x, y, w = np.linalg.inv(homography) @ np.column_stack([corners, np.ones(4)]).T
    upper_left, upper_right, lower_right, lower_left = np.column_stack([x / w, y / w])
    return (
        max(upper_left[1], upper_right[1], 0),
        max(upper_left[0], lower_left[0], 0),
        min(lower_left[1], lower_right[1], scene.shape[0]),
        min(upper_right[0], lower_right[0], scene.shape[1]),
    )


def assert_matches(scene: Image, aligned: Aligned, part: tuple[float, float, float, float]) -> None:
    """Check the crop's place, its likeness, and that all its corners lie where they should to a pixel."""
    height, width = aligned.reference.shape[:2]
    found = (aligned.top, aligned.left, aligned.top + height, aligned.left + width)
    # the crop leaves out a rim of a pixel or two
    assert np.abs(np.subtract(found, part)).max() < 4
    crop = scene[aligned.top : aligned.top + height, aligned.left : aligned.left + width]
    reference = phone_colours(aligned.reference)
    assert psnr(reference, crop) > 27
    grey, other = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64) for image in (crop, reference))
    middle, centre = height // 2, width // 2
    for rows in (slice(None, middle), slice(middle, None)):
        for columns in (slice(None, centre), slice(centre, None)):
            moved, _, _ = phase_cross_correlation(grey[rows, columns], other[rows, columns], upsample_factor=10)
            assert np.abs(moved).max() < 1
    assert aligned.inliers >= MIN_INLIERS


PERSPECTIVE = np.array([[0.93, 0.03, 12.0], [-0.02, 0.95, 9.0], [5e-5, -4e-5, 1.0]])


@pytest.mark.parametrize(
    ("homography", "size"),
    [
        pytest.param(np.eye(3), (512, 512), id="as it is"),
        pytest.param(shift(31, -17), (512, 512), id="whole pixels"),
        pytest.param(shift(-12.4, 40.7), (512, 512), id="parts of pixels"),
        pytest.param(np.diag([0.7, 0.7, 1.0]), (358, 358), id="smaller"),
        pytest.param(np.diag([1.9, 1.9, 1.0]), (973, 973), id="larger"),
        pytest.param(PERSPECTIVE, (512, 512), id="perspective"),
        pytest.param(shift(100, 60), (300, 350), id="a part of the scene"),
    ],
)
def test_a_warped_and_tinted_photo_aligns(scene: Image, homography: Matrix, size: tuple[int, int]) -> None:
    reference = dslr_colours(seen_by(homography, scene, size))
    assert_matches(scene, align(scene, reference), common_part(homography, scene, size))


def test_large_pictures_are_matched_smaller_and_warped_in_full(scene: Image) -> None:
    picture = np.asarray(cv2.resize(scene, (1800, 1800), interpolation=cv2.INTER_CUBIC), np.uint8)
    homography = shift(50, 30) @ np.diag([0.6, 0.6, 1.0])
    reference = dslr_colours(seen_by(homography, picture, (950, 1000)))
    assert_matches(picture, align(picture, reference), common_part(homography, picture, (950, 1000)))


def test_the_same_pictures_align_the_same_way(scene: Image) -> None:
    reference = dslr_colours(seen_by(PERSPECTIVE, scene, (512, 512)))
    first, second = align(scene, reference), align(scene, reference)
    assert (first.top, first.left, first.inliers) == (second.top, second.left, second.inliers)
    assert np.array_equal(first.reference, second.reference)


@pytest.mark.parametrize(("one", "other"), [("astronaut", "coffee"), ("chelsea", "rocket"), ("coffee", "chelsea")])
def test_unrelated_photos_do_not_align(one: str, other: str) -> None:
    with pytest.raises(NotAligned) as error:
        align(getattr(skimage.data, one)(), getattr(skimage.data, other)())
    assert 0 <= error.value.inliers < MIN_INLIERS
    assert error.value.needed == MIN_INLIERS
    assert str(error.value) == f"{error.value.inliers} matches agree, {MIN_INLIERS} are needed"


def test_flat_pictures_do_not_align(scene: Image) -> None:
    flat = np.full_like(scene, 120)
    for pictures in ((scene, flat), (flat, scene), (flat, flat)):
        with pytest.raises(NotAligned) as error:
            align(*pictures)
        assert error.value.inliers == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (9, 9)])
def test_tiny_pictures_do_not_align(scene: Image, size: tuple[int, int]) -> None:
    tiny = scene[100 : 100 + size[0], 100 : 100 + size[1]]
    for pictures in ((scene, tiny), (tiny, scene)):
        with pytest.raises(NotAligned):
            align(*pictures)


def test_a_sliver_in_common_is_not_enough(scene: Image) -> None:
    with pytest.raises(NotAligned) as error:
        align(scene, scene[:, 200:300])
    # hundreds of matches agree: it is not for want of them
    assert f"{MIN_INLIERS} are needed" not in str(error.value)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_photo_aligns_or_says_that_it_does_not(scene: Image, turns: int) -> None:
    reference = np.ascontiguousarray(np.rot90(scene, turns))
    try:
        aligned = align(scene, reference)
    except NotAligned:
        return
    height, width = aligned.reference.shape[:2]
    crop = scene[aligned.top : aligned.top + height, aligned.left : aligned.left + width]
    assert psnr(aligned.reference, crop) > 27
