"""What several tests share: pictures, exact generators, a scheduler on one of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from hypothesis import settings

from service.generator import Generator
from service.scheduler import Scheduler
from tests.onnx_files import write_generator

# a busy machine is no reason to fail; on CI hypothesis draws the same examples every time of its own accord
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def identity_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_generator(tmp_path_factory.mktemp("models") / "test.onnx")


@pytest.fixture(scope="session")
def identity(identity_model: Path) -> Generator:
    return Generator(identity_model, device="cpu", threads=1)


@pytest.fixture(scope="session")
def identity_scheduler(identity: Generator) -> Iterator[Scheduler]:
    scheduler = Scheduler([lambda _: identity], batch_sizes=(1, 2, 4, 8))
    yield scheduler
    scheduler.close()


@pytest.fixture(scope="session")
def photo() -> npt.NDArray[np.uint8]:
    """A real photo, uint8 (400, 600, 3), RGB."""
    coffee: npt.NDArray[np.uint8] = skimage.data.coffee()
    return coffee
