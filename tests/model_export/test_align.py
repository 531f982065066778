import cv2
import numpy as np
import numpy.typing as npt
import pytest

from model_export.align import MIN_CORRELATION, PATCH, Patch, correlation, homography, patch_pairs
from service.alignment import MIN_INLIERS, BarelyOverlaps, NotAligned
from tests.model_export.scenes import Matrix, PixelArray, photo, seen_by_dslr, view


def through(matrix: Matrix, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(cv2.perspectiveTransform(points[None], matrix)[0], np.float64)


def distance(patch: Patch, laid: PixelArray) -> float:
    """Pixels between a patch of the DSLR's and where a rightly laid photo of its shows it."""
    row, column = max(patch.row - 8, 0), max(patch.column - 8, 0)
    around = laid[row : patch.row + PATCH + 8, column : patch.column + PATCH + 8]
    differences = cv2.matchTemplate(around, np.ascontiguousarray(patch.dslr), cv2.TM_SQDIFF)
    y, x = np.unravel_index(int(differences.argmin()), differences.shape)
    return float(np.hypot(row + y - patch.row, column + x - patch.column))


def corners(picture: PixelArray) -> npt.NDArray[np.float64]:
    height, width = picture.shape[:2]
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


VIEWS = [
    pytest.param("astronaut", 1.5, 1.0, 0, 0, id="moved"),
    pytest.param("astronaut", 1.5, 0.7, 4, 0, id="smaller"),
    pytest.param("chelsea", 1.5, 1.4, -3, 0, id="larger"),
    pytest.param("coffee", 1.3, 1.0, 2, 0.06, id="tilted"),
    pytest.param("rocket", 1.2, 1.2, -5, 0.05, id="turned and tilted"),
    # beyond what SIFT is shown, where a pixel of its is several of the photo's
    pytest.param("chelsea", 5.0, 1.1, 2, 0.05, id="large"),
]


@pytest.mark.parametrize(("name", "factor", "scale", "degrees", "tilt"), VIEWS)
def test_warped_and_tinted_photos_are_cut_where_they_match(
    name: str, factor: float, scale: float, degrees: float, tilt: float
) -> None:
    phone = photo(name, factor)
    matrix = view(scale, degrees, tilt, (phone.shape[0], phone.shape[1]))
    dslr = seen_by_dslr(phone, matrix, scale)

    found, inliers = homography(phone, dslr)
    assert inliers >= MIN_INLIERS
    truth = np.asarray(np.linalg.inv(matrix), np.float64)
    off = np.subtract(through(found, corners(dslr)), through(truth, corners(dslr)))
    assert np.linalg.norm(off, axis=1).max() < 1

    cut = patch_pairs(phone, dslr)
    assert len(cut.patches) > 15
    # the DSLR's photo laid over the phone's by the truth: each DSLR patch is sought in it
    height, width = phone.shape[:2]
    laid = cv2.warpPerspective(dslr, truth, (width, height), flags=cv2.INTER_CUBIC)
    for patch in cut.patches:
        assert np.array_equal(patch.phone, phone[patch.row : patch.row + PATCH, patch.column : patch.column + PATCH])
        assert distance(patch, np.asarray(laid, np.uint8)) <= 2
        assert patch.dslr.shape == (PATCH, PATCH, 3)
        assert patch.correlation > MIN_CORRELATION


def test_patches_do_not_overlap_and_fill_the_common_part() -> None:
    phone = photo("chelsea", 2)
    cut = patch_pairs(phone, seen_by_dslr(phone, np.eye(3), 1))
    seen = np.zeros(phone.shape[:2], int)
    for patch in cut.patches:
        seen[patch.row : patch.row + PATCH, patch.column : patch.column + PATCH] += 1
    assert seen.max() == 1
    assert seen.sum() == len(cut.patches) * PATCH**2
    # 902x600 less the rims
    assert len(cut.patches) + cut.dropped == 8 * 5


def test_the_same_photos_are_cut_the_same_way() -> None:
    phone = photo("chelsea", 1)
    dslr = seen_by_dslr(phone, view(1.2, 1, 0, (300, 451)), 1.2)
    first, second = patch_pairs(phone, dslr), patch_pairs(phone, dslr)
    assert [patch.dslr.tobytes() for patch in first.patches] == [patch.dslr.tobytes() for patch in second.patches]
    assert len(first.patches) > 0


def test_patches_of_a_changed_scene_are_dropped() -> None:
    phone = photo("chelsea", 2)
    dslr = seen_by_dslr(phone, np.eye(3), 1)
    places = {(patch.row, patch.column) for patch in patch_pairs(phone, dslr).patches}
    assert len(places) == 8 * 5
    someone = dslr.copy()
    # a bird flew in
    cv2.ellipse(someone, (450, 250), (110, 70), 20, 0, 360, (250, 240, 30), -1)
    changed = (someone != dslr).any(axis=2)

    def share(row: int, column: int) -> float:
        return float(changed[row : row + PATCH, column : column + PATCH].mean())

    cut = patch_pairs(phone, someone)
    assert max(share(patch.row, patch.column) for patch in cut.patches) < 0.3
    # what the bird does not touch stays
    assert 2 <= cut.dropped <= sum(share(*place) > 0 for place in places)
    assert len(cut.patches) + cut.dropped == len(places)


def test_a_patch_without_detail_is_dropped() -> None:
    # to OpenCV a flat template matches everything; here both skies are burnt out
    phone = photo("chelsea", 2)
    phone[:320, :420] = 255
    cut = patch_pairs(phone, seen_by_dslr(phone, np.eye(3), 1))
    assert cut.dropped >= 9
    assert all(patch.phone.std() > 1 for patch in cut.patches)


@pytest.mark.parametrize("down", [-4, 4])
def test_a_part_that_lies_off_the_homography_is_followed(down: int) -> None:
    phone = photo("chelsea", 2.5)
    dslr = seen_by_dslr(phone, np.eye(3), 1)
    # the right third stands nearer to the cameras and moves by parallax
    moved = dslr.copy()
    moved[10:-10, 750:] = dslr[10 - down : dslr.shape[0] - 10 - down, 750:]
    on_the_right = [patch for patch in patch_pairs(phone, moved).patches if patch.column > 760]
    assert len(on_the_right) > 5
    assert max(distance(patch, dslr) for patch in on_the_right) <= 2


@pytest.mark.parametrize(("one", "other"), [("astronaut", "coffee"), ("chelsea", "rocket")])
def test_unrelated_photos_are_refused_with_their_inliers(one: str, other: str) -> None:
    with pytest.raises(NotAligned) as error:
        patch_pairs(photo(one, 1), photo(other, 1))
    assert 0 <= error.value.inliers < MIN_INLIERS
    assert error.value.needed == MIN_INLIERS
    assert str(error.value.inliers) in str(error.value)


@pytest.mark.parametrize(
    ("rows", "columns"), [(slice(None), slice(300, 300 + PATCH + 5)), (slice(200, 200 + PATCH), slice(None))]
)
def test_too_small_a_common_part_is_refused_with_its_inliers(rows: slice, columns: slice) -> None:
    phone = photo("astronaut", 1.5)
    for pictures in ((phone, phone[rows, columns]), (phone[rows, columns], phone)):
        with pytest.raises(BarelyOverlaps) as error:
            patch_pairs(*pictures)
        assert error.value.inliers >= MIN_INLIERS


def test_correlation() -> None:
    ramp = np.arange(12, dtype=np.uint8).reshape(3, 4)
    flat = np.full((3, 4), 7, np.uint8)
    assert correlation(ramp, ramp * 3 + 5) == pytest.approx(1)
    assert correlation(ramp, 200 - ramp) == pytest.approx(-1)
    assert correlation(ramp, flat) == correlation(flat, ramp) == correlation(flat, flat) == 0
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 4))
    expected = np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]
    assert correlation(noise[0], noise[1]) == pytest.approx(expected)
