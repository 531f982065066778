import ctypes
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.catalogue import Catalogue, UnknownCamera
from service.generator import DeviceUnavailable, Generator, cpu_quota, cpu_threads
from service.model_files import ModelUnusable
from service.sessions import CUDA
from service.settings import SHIPPED_MODELS
from tests.onnx_files import CONTEXT, write_generator

CAMERAS = ("iphone", "blackberry", "sony")


def _gpu() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return CUDA in ort.get_available_providers()


def test_tiles_in_tiles_out(identity: Generator) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    enhanced = identity(tiles, np.zeros((3, 32, 32, 3), np.uint8))
    assert enhanced.dtype == np.float32
    np.testing.assert_allclose(enhanced, tiles / 255, atol=1e-7)


def test_the_context_is_fed_where_it_is_asked_for(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "m.onnx", context=CONTEXT, add_mean_of_context=True)
    enhanced = Generator(path, device="cpu")(
        np.zeros((2, 128, 128, 3), np.uint8), np.stack([np.full((32, 32, 3), level, np.uint8) for level in (51, 102)])
    )
    np.testing.assert_allclose(enhanced[:, 0, 0, 0], [0.2, 0.4], atol=1e-6)


def test_auto_runs_somewhere_and_says_where(identity_model: Path) -> None:
    generator = Generator(identity_model, device="auto")
    expected = "cuda" if generator.provider == CUDA else "cpu"
    assert generator.device == expected
    assert _gpu() or generator.device == "cpu"


@pytest.mark.skipif(_gpu(), reason="this machine has the GPU that the test wants missing")
def test_cuda_without_a_gpu_is_refused(identity_model: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="cuda"):
        Generator(identity_model, device="cuda")


def test_threads_follow_the_machine() -> None:
    assert cpu_threads() >= 1


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return Catalogue(SHIPPED_MODELS, "iphone", device="cpu")


class TestShipped:
    """The generators that travel in the package."""

    @pytest.mark.parametrize(
        ("camera", "psnr", "ssim"), [("iphone", 22.5, 0.8), ("blackberry", 30, 0.94), ("sony", 30, 0.94)]
    )
    def test_are_there_with_their_scores(self, shipped: Catalogue, camera: str, psnr: float, ssim: float) -> None:
        spec = shipped[camera].spec
        assert spec.camera == camera
        assert spec.architecture == "unet128-s2d"
        assert spec.takes_context
        assert spec.psnr is not None
        assert spec.psnr >= psnr
        assert spec.ssim is not None
        assert spec.ssim >= ssim
        assert shipped.file_bytes(camera) <= 20e6
        # who has no photos of a phone says what it learnt from instead
        assert ("published DPED" in spec.trained_on) == (camera != "iphone")

    @pytest.mark.parametrize("camera", CAMERAS)
    def test_a_tile_does_not_depend_on_the_others_of_its_batch(self, shipped: Catalogue, camera: str) -> None:
        rng = np.random.default_rng(0)
        tiles = rng.integers(0, 256, (4, 128, 128, 3), np.uint8)
        contexts = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
        together = shipped[camera](tiles, contexts)
        alone = np.concatenate([shipped[camera](tiles[i : i + 1], contexts[i : i + 1]) for i in range(4)])
        np.testing.assert_allclose(together, alone, atol=1e-5)

    @pytest.mark.parametrize("camera", CAMERAS)
    def test_answers_lie_in_0_to_1(self, shipped: Catalogue, camera: str) -> None:
        extremes = np.stack([np.zeros((128, 128, 3), np.uint8), np.full((128, 128, 3), 255, np.uint8)])
        enhanced = shipped[camera](extremes, extremes[:, :32, :32])
        assert enhanced.min() >= 0
        assert enhanced.max() <= 1

    def test_an_unknown_camera_is_refused(self, shipped: Catalogue) -> None:
        with pytest.raises(UnknownCamera, match="iphone"):
            shipped["kodak"]


def test_a_catalogue_without_its_default_is_refused(tmp_path: Path) -> None:
    write_generator(tmp_path / "other.onnx")
    with pytest.raises(ModelUnusable, match=r"iphone\.onnx is missing"):
        Catalogue(tmp_path, "iphone", device="cpu")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_cpu_quota_is_read(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == expected
