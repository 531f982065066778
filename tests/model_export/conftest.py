"""What the tests of the offline half share: pairs on disk, configurations, and exported files made once a run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from accelerate.state import AcceleratorState
from onnx import TensorProto, helper
from PIL import Image
from skimage import data

from model_export import export as exporting
from model_export.batches import MixedBatches, PatchPairs
from model_export.config import SourceConfig, TrainConfig
from model_export.pairs import PairPaths, match_folders
from model_export.train import Trainer
from tests.model_export.pictures import Writer, coordinates

PixelArray = npt.NDArray[np.uint8]
Transform = Callable[[PixelArray], PixelArray]
PatchMaker = Callable[..., list[PairPaths]]
FloatNetwork = Callable[[str, list[int | str | None]], Path]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # batches of two gain little from a second one, and take ten times as long with it where the cores are busy
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _accelerate_anew() -> None:
    # a process has one precision for good, which a training is and a test run is not
    AcceleratorState._reset_state(reset_partial_state=True)


@dataclass(frozen=True)
class Exported:
    """One architecture, from a fresh checkpoint to its ONNX file."""

    loaded: exporting.Loaded
    checkpoint: Path
    path: Path
    match: exporting.Match
    tiles: PixelArray
    contexts: PixelArray


@pytest.fixture(scope="session")
def real_tiles() -> tuple[PixelArray, PixelArray]:
    """Five tiles of real photos, and the whole photos at 32x32."""
    photos = [data.chelsea(), data.coffee(), data.astronaut(), data.rocket(), data.coffee()[:, ::-1]]
    tiles = np.stack([picture[80:208, 120:248] for picture in photos])
    contexts = np.stack([np.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.BOX)) for p in photos])
    return tiles, contexts


@pytest.fixture
def make_patches(tmp_path: Path, photo: PixelArray) -> PatchMaker:
    """A function that cuts `count` patches out of a photo and writes them, with their targets, as PNG pairs."""

    def darker(pixels: PixelArray) -> PixelArray:
        return np.asarray(pixels * 0.6 + 20, np.uint8)

    def make(
        count: int = 4,
        size: tuple[int, int] = (100, 100),
        target: Transform = darker,
        phone_folder: str = "phone",
        target_folder: str = "target",
    ) -> list[PairPaths]:
        folders = tmp_path / phone_folder, tmp_path / target_folder
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(5)
        for number in range(count):
            top = int(rng.integers(photo.shape[0] - size[0]))
            left = int(rng.integers(photo.shape[1] - size[1]))
            patch = photo[top : top + size[0], left : left + size[1]]
            for folder, pixels in zip(folders, (patch, target(patch)), strict=True):
                Image.fromarray(pixels).save(folder / f"{number}.png")
        return match_folders(*folders)

    return make


def tiny_config(**changes: object) -> TrainConfig:
    """A run of a few steps on the folders `phone` and `target`."""
    pairs = SourceConfig("pairs", phone="phone", target="target")
    config = TrainConfig(
        camera="toy",
        trained_on="a cat, darkened",
        sources=(pairs,),
        validation=pairs,
        batch=2,
        steps=4,
        learning_rate=2e-3,
        weights={"l1": 1.0},
        average=0.5,
        validate_every=2,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(name="tiny_config", scope="session")
def _tiny_config() -> Callable[..., TrainConfig]:
    return tiny_config


def fresh_trainer(config: TrainConfig, pairs: Sequence[PairPaths]) -> Trainer:
    return Trainer(config, MixedBatches([PatchPairs(pairs)], [1.0], config.batch, config.seed))


@pytest.fixture(name="fresh_trainer", scope="session")
def _fresh_trainer() -> Callable[[TrainConfig, Sequence[PairPaths]], Trainer]:
    return fresh_trainer


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, real_tiles: tuple[PixelArray, PixelArray]
) -> Iterator[Callable[[str], Exported]]:
    """A function that gives an architecture's fresh checkpoint and the float32 file exported from it, made once."""
    folder = tmp_path_factory.mktemp("exported")
    made: dict[str, Exported] = {}

    def get(architecture: str) -> Exported:
        if architecture not in made:
            checkpoint, path = folder / f"{architecture}.pt", folder / f"{architecture}.onnx"
            fresh_trainer(tiny_config(architecture=architecture, overlap=24), []).save(checkpoint)
            loaded = exporting.load(checkpoint)
            _, match = exporting.export(loaded, path, *real_tiles)
            made[architecture] = Exported(loaded, checkpoint, path, match, *real_tiles)
        return made[architecture]

    yield get
    for one in made.values():  # hundreds of megabytes, and pytest keeps the folders of three runs
        one.checkpoint.unlink()
        one.path.unlink()


@pytest.fixture
def float_identity(tmp_path: Path) -> FloatNetwork:
    """A function that writes an ONNX identity of one float input of the given shape."""

    def write(name: str, shape: list[int | str | None]) -> Path:
        graph = helper.make_graph(
            [helper.make_node("Identity", ["picture"], ["output"])],
            "identity",
            [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        )
        path = tmp_path / f"{name}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
        return path

    return write


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """A function that writes a picture below tmp_path without loss and returns its path."""

    def write_(name: str, pixels: PixelArray, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".webp":
            options = {"lossless": True, **options}
        Image.fromarray(pixels).save(path, **options)
        return path

    return write_


@pytest.fixture
def write_photos(write: Writer) -> Callable[..., list[PairPaths]]:
    """A function that writes photos that say where their pixels are, with the negatives as targets."""

    def write_(*sizes: tuple[int, int], suffixes: tuple[str, str] = ("png", "webp")) -> list[PairPaths]:
        pairs = []
        for number, size in enumerate(sizes):
            picture = coordinates(*size)
            phone = write(f"photos/{number}.{suffixes[0]}", picture)
            target = write(f"enhanced/{number}.{suffixes[1]}", 255 - picture)
            pairs.append(PairPaths(phone, target))
        return pairs

    return write_
