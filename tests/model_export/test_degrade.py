from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from skimage import data

from model_export.degrade import Camera, degrade, random_camera
from service.quality import psnr

PixelArray = npt.NDArray[np.uint8]

NEUTRAL = Camera(
    exposure=1.0, gains=(1.0, 1.0, 1.0), blur=0.01, shot_noise=0.0, read_noise=0.0, contrast=1.0, jpeg_quality=100
)


@pytest.fixture(scope="module")
def scene() -> PixelArray:
    return np.asarray(data.coffee()[:256, :384], np.uint8)


def shoot(scene: PixelArray, camera: Camera, seed: int = 0) -> PixelArray:
    return degrade(scene, camera, np.random.default_rng(seed))


def test_a_perfect_camera_changes_little(scene: PixelArray) -> None:
    shot = shoot(scene, NEUTRAL)
    assert shot.shape == scene.shape
    assert shot.dtype == np.uint8
    assert psnr(shot, scene) > 30  # what demosaicing loses
    # no channel is another's, and none is shifted
    np.testing.assert_allclose(shot.mean((0, 1)), scene.mean((0, 1)), atol=1.0)
    for y, x in ((0, 1), (1, 0), (1, 1)):
        shifted = scene[y:, x:]
        assert psnr(shot[: shifted.shape[0], : shifted.shape[1]], shifted) < psnr(shot, scene) - 1


def test_odd_sizes_stay(scene: PixelArray) -> None:
    assert shoot(scene[:101, :77], NEUTRAL).shape == (101, 77, 3)


def test_a_stop_is_half_the_light() -> None:
    grey = np.full((64, 64, 3), 188, np.uint8)  # sRGB 188 is half the light of 255
    assert shoot(np.full_like(grey, 255), replace(NEUTRAL, exposure=0.5)).mean() == pytest.approx(188, abs=1)
    assert shoot(grey, replace(NEUTRAL, exposure=0.5)).mean() == pytest.approx(137, abs=1)


def test_gains_cast_a_colour(scene: PixelArray) -> None:
    warm = shoot(scene, replace(NEUTRAL, gains=(1.15, 1.0, 0.87))).astype(float).mean((0, 1)) - scene.mean((0, 1))
    assert warm[0] > 2
    assert abs(warm[1]) < 1
    assert warm[2] < -2


def test_noise_grows_with_the_light() -> None:
    noisy = replace(NEUTRAL, shot_noise=1e-3, read_noise=1e-6)
    dark, bright = (shoot(np.full((128, 128, 3), level, np.uint8), noisy, seed=3).astype(float) for level in (60, 200))

    def linear(pixels: npt.NDArray[np.float64]) -> float:
        return float((((pixels / 255 + 0.055) / 1.055) ** 2.4)[..., 1].std())

    assert linear(bright) > 2 * linear(dark)


def test_blur_contrast_and_jpeg_each_take_something(scene: PixelArray) -> None:
    perfect = shoot(scene, NEUTRAL).astype(float)
    soft = shoot(scene, replace(NEUTRAL, blur=1.4)).astype(float)
    assert np.abs(np.diff(soft, axis=1)).mean() < 0.8 * np.abs(np.diff(perfect, axis=1)).mean()
    dull = shoot(scene, replace(NEUTRAL, contrast=0.75)).astype(float)
    assert dull.std() == pytest.approx(0.75 * perfect.std(), rel=0.03)
    assert psnr(shoot(scene, replace(NEUTRAL, jpeg_quality=70)), scene) < psnr(shoot(scene, NEUTRAL), scene) - 0.5


def test_the_seed_decides(scene: PixelArray) -> None:
    rng = np.random.default_rng(1)
    cameras = [random_camera(rng) for _ in range(50)]
    assert random_camera(np.random.default_rng(1)) == cameras[0]
    assert len({camera.jpeg_quality for camera in cameras}) > 10
    assert all(0.4 < camera.exposure < 1.25 and 0 < camera.read_noise < 1e-3 for camera in cameras)
    assert np.array_equal(shoot(scene, cameras[0], 7), shoot(scene, cameras[0], 7))
    assert not np.array_equal(shoot(scene, cameras[0], 7), shoot(scene, cameras[0], 8))


def test_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="7x9"):
        shoot(np.zeros((9, 7, 3), np.uint8), NEUTRAL)
