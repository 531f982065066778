from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner, Result

from model_export.align import (
    MIN_CORRELATION,
    PATCH,
    Patch,
    check_out,
    correlation,
    cut_photos,
    homography,
    patch_pairs,
)
from model_export.cli import app
from model_export.config import SourceConfig
from model_export.data import open_pairs
from model_export.pairs import PairPaths, PairsError, match_folders, read_rgb
from service.alignment import MIN_INLIERS, BarelyOverlaps, NotAligned

PixelArray = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


def photo(name: str, factor: float) -> PixelArray:
    """A packaged photo, enlarged, with a sensor's noise."""
    large = cv2.resize(getattr(skimage.data, name)(), None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(large + np.random.default_rng(0).normal(0, 1, large.shape), 0, 255), np.uint8)


def view(scale: float, degrees: float, tilt: float, size: tuple[int, int]) -> Matrix:
    """Where a DSLR that is turned, tilted and moved a little sees the pixels of a phone's photo, height and width."""
    height, width = size
    turn = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1), [0, 0, 1]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [tilt / width, -tilt / height, 1]])
    moved = np.array([[1, 0, 6.3], [0, 1, -4.6], [0, 0, 1]])
    matrix: Matrix = np.diag([scale, scale, 1]) @ perspective @ turn @ moved
    return matrix


def seen_by_dslr(scene: PixelArray, matrix: Matrix, scale: float) -> PixelArray:
    """Warp a photo and give it another tone curve, gains, offsets and noise."""
    size = (round(scene.shape[1] * scale), round(scene.shape[0] * scale))
    colours = (cv2.warpPerspective(scene, matrix, size, flags=cv2.INTER_CUBIC) / 255) ** 1.5
    colours = colours * [1.05, 0.85, 0.7] + [0.02, 0.05, 0.08]
    noise = np.random.default_rng(1).normal(0, 0.01, colours.shape)
    return np.clip((colours + noise) * 255, 0, 255).round().astype(np.uint8)


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


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, PixelArray], Path]:
    def write_(name: str, pixels: PixelArray) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return write_


Writer = Callable[[str, PixelArray], Path]


@pytest.fixture
def folders(tmp_path: Path, write: Writer) -> tuple[Path, Path]:
    """Two pairs of one scene each, 7 and cat, and a pair of two scenes, 12."""
    for name, scene in (("7", photo("astronaut", 1)), ("cat", photo("chelsea", 1))):
        write(f"phones/{name}.png", scene)
        size = (scene.shape[0], scene.shape[1])
        write(f"canon/{name}.png", seen_by_dslr(scene, view(1.2, 2, 0, size), 1.2))
    write("phones/12.png", photo("coffee", 0.7))
    write("canon/12.png", photo("rocket", 0.7))
    return tmp_path / "phones", tmp_path / "canon"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["patches", *(str(argument) for argument in arguments)])


class TestCommand:
    @pytest.mark.parametrize("jobs", ["1", "3"])
    def test_cuts_what_matches_and_names_what_does_not(
        self, tmp_path: Path, folders: tuple[Path, Path], jobs: str
    ) -> None:
        out = tmp_path / "new/patches"
        done = call(*folders, out, "--jobs", jobs)
        assert done.exit_code == 0, done.output
        # what a trainer would open
        pairs = open_pairs(SourceConfig(kind="pairs", phone="phone", target="dslr"), out)
        dropped = 0
        for stem in ("7", "cat"):
            phone = read_rgb(folders[0] / f"{stem}.png")
            cut = patch_pairs(phone, read_rgb(folders[1] / f"{stem}.png"))
            dropped += cut.dropped
            assert len(cut.patches) > 3
            for patch in cut.patches:
                name = f"{stem}_{patch.row:04}_{patch.column:04}.png"
                assert np.array_equal(read_rgb(out / "phone" / name), patch.phone)
                assert np.array_equal(read_rgb(out / "dslr" / name), patch.dslr)
                pairs.remove(PairPaths(out / "phone" / name, out / "dslr" / name))
        assert pairs == []
        count = len(list((out / "phone").iterdir()))
        assert done.stdout == (f"3 photos, {count} patches, {dropped} dropped by correlation, 1 photos without match\n")
        with pytest.raises(NotAligned) as error:
            patch_pairs(read_rgb(folders[0] / "12.png"), read_rgb(folders[1] / "12.png"))
        assert done.stderr == f"12.png shows no scene in common: {error.value}\n"

    def test_nothing_at_all_is_an_error(self, tmp_path: Path, write: Writer) -> None:
        write("a/1.png", photo("coffee", 0.7))
        write("b/1.png", photo("rocket", 0.7))
        done = call(tmp_path / "a", tmp_path / "b", tmp_path / "out")
        assert done.exit_code == 1
        assert done.stdout == "1 photos, 0 patches, 0 dropped by correlation, 1 photos without match\n"
        assert "1.png" in done.stderr

    def test_an_unreadable_photo_is_named_and_the_rest_go_on(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        bad = folders[1] / "7.png"
        bad.write_bytes(b"no picture")
        done = call(*folders, tmp_path / "out")
        assert done.exit_code == 0, done.output
        assert str(bad) in done.stderr
        assert done.stdout.endswith("1 photos without match, 1 unreadable\n")
        assert all(path.name.startswith("cat_") for path in (tmp_path / "out/phone").iterdir())

    def test_a_photo_without_partner_is_named(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        (folders[1] / "cat.png").unlink()
        done = call(*folders, tmp_path / "out")
        assert done.exit_code == 1
        assert f"{folders[0] / 'cat.png'} has no partner" in done.stderr
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("out", ["phones", "canon", "phones/../canon"])
    def test_writing_among_the_photos_is_refused(self, tmp_path: Path, folders: tuple[Path, Path], out: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        done = call(*folders, tmp_path / out)
        assert done.exit_code == 1
        assert "where photos are read from" in done.stderr
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(("phone", "dslr"), [("phone", "canon"), ("iphone", "dslr")])
    def test_a_folder_whose_patches_would_lie_among_the_photos_is_refused(
        self, tmp_path: Path, phone: str, dslr: str
    ) -> None:
        with pytest.raises(PairsError, match="where photos are read from"):
            check_out(tmp_path, tmp_path / phone, tmp_path / dslr)


def test_a_second_run_leaves_nothing_of_a_killed_one(tmp_path: Path, write: Writer) -> None:
    scene = photo("chelsea", 1)
    write("a/cat.png", scene)
    write("b/cat.png", seen_by_dslr(scene, np.eye(3), 1))
    out = tmp_path / "out"
    photos = match_folders(tmp_path / "a", tmp_path / "b")
    (first,) = cut_photos(photos, out, 1)
    made = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")}
    assert len(made) == 2 * first.patches > 0

    some = next(iter((out / "dslr").iterdir()))
    some.rename(some.with_name(f"{some.name}.part"))
    write("out/phone/cat_9000_0000.png", scene)  # of an earlier photo of this name
    write("out/dslr/dog_0000_0000.png", scene)  # a half that a killed run left
    for half in ("phone", "dslr"):  # whole pairs and other files are none of this run's business
        write(f"out/{half}/bird_0100_0000.png", scene)
        write(f"out/{half}/holiday.png", scene)
    assert list(cut_photos(photos, out, 1)) == [first]
    after = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")}
    rest = {path for path in after if path not in made}
    assert rest == {Path(half) / name for half in ("phone", "dslr") for name in ("bird_0100_0000.png", "holiday.png")}
    assert {path: data for path, data in after.items() if path in made} == made
