from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model_export.contenders import OutputFolder, open_network
from model_export.evaluate import Photo, evaluate
from model_export.features import pooled_features
from model_export.kid import kid
from model_export.pairs import PairPaths, PairsError
from service.generator import cpu_threads
from service.model_files import ModelUnusable
from service.quality import colour_difference, psnr, seam_index, ssim
from service.tiling import plan
from tests.onnx_files import write_generator

PixelArray = npt.NDArray[np.uint8]
FloatNetwork = Callable[[str, list[int | str | None]], Path]
PatchMaker = Callable[..., list[PairPaths]]


def blurred(pixels: PixelArray) -> PixelArray:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 3), np.uint8)


@pytest.fixture
def photo_pairs(tmp_path: Path, photo: PixelArray) -> list[PairPaths]:
    """Two pairs, one of them larger than a tile."""
    pairs = []
    for name, part in (("small", photo[100:190, 200:311]), ("large", photo[30:230, 50:395])):
        pair = PairPaths(tmp_path / f"{name}-phone.png", tmp_path / f"{name}-target.png")
        Image.fromarray(part).save(pair.phone)
        Image.fromarray((part * 0.8).astype(np.uint8)).save(pair.target)
        pairs.append(pair)
    return pairs


@pytest.fixture
def phone_photo(tmp_path: Path, photo: PixelArray) -> Photo:
    """A photo of many tiles and its target, which is a little darker."""
    found = Photo(tmp_path / "photo.png", tmp_path / "photo-target.png")
    Image.fromarray(photo).save(found.picture)
    assert found.target is not None
    Image.fromarray((photo * 0.9).astype(np.uint8)).save(found.target)
    return found


def test_networks_that_change_nothing_score_as_the_input_does(
    photo_pairs: list[PairPaths], phone_photo: Photo, float_identity: FloatNetwork, identity_model: Path
) -> None:
    nhwc = float_identity("channels-last", ["N", "H", "W", 3])
    nchw = float_identity("channels-first", [1, 3, None, None])
    report = evaluate([nhwc, nchw, identity_model], photo_pairs, [phone_photo])
    assert [row.name for row in report.rows] == ["input", "channels-last", "channels-first", "test"]
    assert report.pair_names == ("small-phone", "large-phone")
    assert report.photo_names == ("photo",)
    assert report.machine.threads == cpu_threads()
    pictures = [pair.load() for pair in photo_pairs]
    gap = kid(*(pooled_features(half) for half in zip(*pictures, strict=True)))
    whole, target = phone_photo.load()
    assert target is not None
    for row in report.rows:
        assert [one.name for one in row.pairs] == ["small-phone", "large-phone"]
        assert [one.psnr for one in row.pairs] == [psnr(*pair) for pair in pictures]
        assert row.psnr == pytest.approx(np.mean([psnr(*pair) for pair in pictures]))
        assert row.ssim == pytest.approx(np.mean([ssim(*pair) for pair in pictures]))
        assert row.colour_difference == pytest.approx(np.mean([colour_difference(*pair) for pair in pictures]))
        assert row.kid == gap
        assert row.photo_psnr == psnr(whole, target)
        assert row.seam_mean is row.seam_worst is None  # nothing changed, so nothing shows
    assert [row.parameters for row in report.rows] == [None, 0, 0, 0]
    assert report.rows[0].ms_per_megapixel is None
    assert all(row.ms_per_megapixel is not None and row.ms_per_megapixel > 0 for row in report.rows[1:])


def test_a_worse_network_scores_worse_in_every_column(make_patches: PatchMaker, tmp_path: Path) -> None:
    pairs = make_patches(4, (64, 64), target=lambda pixels: pixels)
    for name, change in (("equal", lambda x: x), ("soft", blurred), ("dark", lambda x: (x * 0.5).astype(np.uint8))):
        (tmp_path / name).mkdir()
        for pair in pairs:
            Image.fromarray(change(pair.load()[0])).save(tmp_path / name / pair.phone.name)
    outputs = [OutputFolder(name, tmp_path / name) for name in ("equal", "soft", "dark")]
    report = evaluate([], pairs, outputs=outputs)
    same, equal, soft, dark = report.rows
    assert [row.name for row in report.rows] == ["input", "equal", "soft", "dark"]
    assert same.psnr == equal.psnr == float("inf")
    assert same.kid == equal.kid
    assert equal.kid is not None
    assert equal.kid.value == pytest.approx(0, abs=1e-9)
    for row in (soft, dark):
        assert (row.ms_per_megapixel, row.parameters, row.photos) == (None, None, ())
        assert row.psnr is not None
        assert row.psnr < 40
        assert row.ssim is not None
        assert row.ssim < 0.99
        assert row.kid is not None
        assert row.kid.error is not None
        assert row.kid.value > row.kid.error > 0
    assert soft.colour_difference is not None
    assert dark.colour_difference is not None
    assert dark.colour_difference > 2 * soft.colour_difference > 0


def test_seams_of_a_network_on_tiles_and_of_one_without_them(
    tmp_path: Path, phone_photo: Photo, photo: PixelArray
) -> None:
    tiled = write_generator(tmp_path / "negative.onnx", invert=True)
    report = evaluate([tiled], [], [phone_photo, Photo(phone_photo.picture)])
    row = report.rows[1]
    expected = seam_index(photo, 255 - photo, plan(photo.shape[0], photo.shape[1], 32))
    assert expected is not None
    assert [one.seam_index for one in row.photos] == [expected, expected]
    assert row.seam_mean == row.seam_worst == pytest.approx(expected)
    assert not row.seam_control
    # the second photo has no target
    assert row.photos[0].psnr == row.photo_psnr == pytest.approx(psnr(255 - photo, (photo * 0.9).astype(np.uint8)))
    assert row.photos[1].psnr is None
    assert (row.psnr, row.kid, row.pairs) == (None, None, ())


def test_a_network_of_one_size_is_timed_at_it_and_refused_elsewhere(
    float_identity: FloatNetwork, make_patches: PatchMaker, phone_photo: Photo
) -> None:
    fixed, pairs = float_identity("fixed", [1, 3, 100, 100]), make_patches(1)
    row = evaluate([fixed], pairs).rows[1]
    assert row.seam_control
    assert row.kid is None  # one pair has no distance
    assert row.ms_per_megapixel is not None
    with pytest.raises(ModelUnusable, match=f"{fixed} takes pictures of 100x100 alone, not of 600x400"):
        evaluate([fixed], pairs, [phone_photo])
    assert open_network(fixed).size == (100, 100)


def test_each_step_is_told(identity_model: Path, make_patches: PatchMaker, phone_photo: Photo) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate([identity_model], make_patches(3), [phone_photo], progress=lambda *step: told.append(step))
    assert told == [
        *(("timing", done, 4) for done in range(1, 5)),
        *(("pairs", done, 6) for done in range(1, 7)),
        ("photos", 1, 1),
    ]


def test_pairs_below_the_window_are_named(make_patches: PatchMaker, identity_model: Path) -> None:
    pairs = make_patches(1, (10, 40))
    with pytest.raises(PairsError, match=f"{pairs[0].phone} is too small to be scored"):
        evaluate([identity_model], pairs)
