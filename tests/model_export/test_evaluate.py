from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model_export.evaluate import Score, evaluate, markdown, open_network
from model_export.pairs import PairPaths
from service.generator import ModelUnusable
from service.quality import psnr, ssim
from tests.onnx_files import CONTEXT, METADATA, write_generator

PixelArray = npt.NDArray[np.uint8]
FloatNetwork = Callable[[str, list[int | str | None]], Path]


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


def test_networks_that_change_nothing_score_as_the_input_does(
    photo_pairs: list[PairPaths], float_identity: FloatNetwork, identity_model: Path
) -> None:
    nhwc = float_identity("channels-last", ["N", "H", "W", 3])
    nchw = float_identity("channels-first", [1, 3, None, None])
    scores = evaluate([nhwc, nchw, identity_model], photo_pairs)
    assert [one.name for one in scores] == ["input", "channels-last", "channels-first", "test"]
    pictures = [pair.load() for pair in photo_pairs]
    for one in scores:
        assert one.psnr == pytest.approx(np.mean([psnr(*pair) for pair in pictures]))
        assert one.ssim == pytest.approx(np.mean([ssim(*pair) for pair in pictures]))
    assert scores[0].ms_per_megapixel is None
    assert all(one.ms_per_megapixel is not None and one.ms_per_megapixel > 0 for one in scores[1:])


class TestOpenNetwork:
    def test_a_large_picture_runs_over_tiles_with_its_context(self, tmp_path: Path, photo: PixelArray) -> None:
        # answers each tile plus the mean of its context, of which every tile must get the same
        path = write_generator(tmp_path / "mean.onnx", context=CONTEXT, add_mean_of_context=True)
        dark = photo[:200, :300] // 4
        difference = open_network(path)(dark).astype(int) - dark
        assert difference.min() == difference.max() == round(dark.mean())

    def test_the_answers_of_tiles_are_put_in_place(self, tmp_path: Path, photo: PixelArray) -> None:
        path = write_generator(tmp_path / "negative.onnx", invert=True)
        assert np.array_equal(open_network(path)(photo), 255 - photo)

    @pytest.mark.parametrize("shape", [["N", "H", "W", 4], ["N", 3], ["N", "H", "W"], [3, "C", "H", "W"]])
    def test_other_shapes_are_refused(self, float_identity: FloatNetwork, shape: list[int | str | None]) -> None:
        path = float_identity("odd", shape)
        with pytest.raises(ModelUnusable, match=f"{path} takes neither"):
            open_network(path)

    def test_a_network_of_one_size_is_refused(self, float_identity: FloatNetwork) -> None:
        # pictures come in any size, and the one that is timed is 1024x1024
        path = float_identity("fixed", [1, 3, 100, 100])
        with pytest.raises(ModelUnusable, match=str(path)):
            open_network(path)

    def test_a_broken_contract_is_refused_by_clause(self, tmp_path: Path) -> None:
        path = write_generator(tmp_path / "old.onnx", metadata={**METADATA, "pix2dslr.version": "0"})
        with pytest.raises(ModelUnusable, match=r"pix2dslr\.version"):
            open_network(path)

    def test_any_other_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "other.onnx"
        with pytest.raises(ModelUnusable, match=f"{path} is missing"):
            open_network(path)
        path.write_bytes(b"no network")
        with pytest.raises(ModelUnusable, match=f"{path} is no ONNX model"):
            open_network(path)


def test_markdown() -> None:
    assert markdown([Score("input", 17.084, 0.70456, None), Score("iphone", 22.126, 0.8, 1234.5)]).splitlines() == [
        "| network | PSNR dB | SSIM | ms / megapixel |",
        "| --- | ---: | ---: | ---: |",
        "| input | 17.08 | 0.7046 |  |",
        "| iphone | 22.13 | 0.8000 | 1234 |",
    ]
