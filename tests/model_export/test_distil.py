from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data

from model_export.distil import Plan, distil
from model_export.pairs import PairsError, match_folders

PixelArray = npt.NDArray[np.uint8]


class Inverter:
    """A network whose answer is easy to check, and which counts the pictures that it is given."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, picture: PixelArray) -> PixelArray:
        self.seen += 1
        return 255 - picture


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "in" / f"{name}.png" for name in ("coffee", "cat")]
    paths[0].parent.mkdir()
    for path, pixels in zip(paths, (data.coffee(), data.chelsea()), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def test_pairs_are_what_the_network_makes_of_them(photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert list(distil(Inverter(), photos, out, Plan(tiles=3, side=256))) == photos
    tiles = match_folders(out / "tiles/phone", out / "tiles/target")
    assert len(tiles) == 6
    for pair in tiles:
        phone, target = pair.load()
        assert phone.shape == (128, 128, 3)
        assert np.array_equal(target, 255 - phone)
        name, top, left = pair.phone.stem.split("_")
        source = {"coffee": data.coffee(), "cat": data.chelsea()}[name]
        assert np.array_equal(phone, source[int(top) : int(top) + 128, int(left) : int(left) + 128])
    whole = match_folders(out / "photos/phone", out / "photos/target")
    assert sorted(max(pair.load()[0].shape) for pair in whole) == [256, 256]


def test_shots_are_degraded_and_differ(photos: list[Path], tmp_path: Path) -> None:
    list(distil(Inverter(), photos[:1], tmp_path / "out", Plan(tiles=1, side=200, shots=3)))
    whole = match_folders(tmp_path / "out/photos/phone", tmp_path / "out/photos/target")
    assert [pair.phone.stem for pair in whole] == ["coffee-0", "coffee-1", "coffee-2"]
    means = {round(float(pair.load()[0].mean()), 2) for pair in whole}
    assert len(means) == 3


def test_a_stopped_run_goes_on(photos: list[Path], tmp_path: Path) -> None:
    plan = Plan(tiles=2, side=0, shots=1)
    first = Inverter()
    whole = {p.name: p.read_bytes() for p in _run(first, photos, tmp_path / "whole", plan)}
    assert first.seen == 4
    next(distil(Inverter(), photos, tmp_path / "cut", plan))
    second = Inverter()
    assert {p.name: p.read_bytes() for p in _run(second, photos, tmp_path / "cut", plan)} == whole
    assert second.seen == 2


def _run(network: Inverter, photos: list[Path], out: Path, plan: Plan) -> list[Path]:
    list(distil(network, photos, out, plan))
    return sorted((out / "tiles/target").iterdir())


def test_a_photo_smaller_than_a_tile_is_named(tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    Image.fromarray(data.coffee()[:100, :300]).save(small)
    with pytest.raises(PairsError, match=r"small\.png"):
        list(distil(Inverter(), [small], tmp_path / "out", Plan()))
