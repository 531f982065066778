import gc
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.caller import Cancelled
from service.codec import Header, Picture
from service.enhancer import Enhancement, Enhancer
from service.generator import Generator
from service.scheduler import QueueFull, Scheduler
from service.tiling import plan
from tests.onnx_files import CONTEXT, write_generator


def picture_of(pixels: npt.NDArray[np.uint8 | np.uint16]) -> Picture:
    return Picture(pixels, Header("png", pixels.shape[0], pixels.shape[1]))


def enhance(
    scheduler: Scheduler, pixels: npt.NDArray[np.uint8 | np.uint16], overlap: int = 32, strength: float = 1.0
) -> Enhancement:
    enhancer = Enhancer(scheduler)
    with enhancer.admit(pixels.shape[0], pixels.shape[1], "test", overlap, 60) as job:
        return enhancer.enhance(picture_of(pixels), job, overlap, strength)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    overlap=st.integers(0, 64),
    batches=st.sampled_from([(1,), (1, 3), (1, 2, 4, 8), (1, 16)]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    seed=st.integers(0, 1000),
)
def test_an_identity_generator_gives_back_any_picture_bit_for_bit(
    identity: Generator,
    height: int,
    width: int,
    overlap: int,
    batches: tuple[int, ...],
    dtype: type[np.uint8 | np.uint16],
    seed: int,
) -> None:
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)
    scheduler = Scheduler([lambda _: identity], batch_sizes=batches)
    try:
        result = enhance(scheduler, pixels, overlap)
    finally:
        scheduler.close()
    assert result.picture.pixels.dtype == dtype
    np.testing.assert_array_equal(result.picture.pixels, pixels)


def test_every_tile_sees_the_whole_pictures_context(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "m.onnx", context=CONTEXT, add_mean_of_context=True)
    generator = Generator(path, device="cpu", threads=1)
    scheduler = Scheduler([lambda _: generator])
    pixels = np.zeros((500, 500, 3), np.uint8)
    pixels[:250] = 100  # no tile's own mean is the picture's, 50
    output = enhance(scheduler, pixels).picture.pixels
    scheduler.close()
    np.testing.assert_array_equal(output, pixels + 50)


def test_strength_0_is_the_source_and_half_is_half(tmp_path: Path) -> None:
    generator = Generator(write_generator(tmp_path / "m.onnx", invert=True), device="cpu", threads=1)
    scheduler = Scheduler([lambda _: generator])
    pixels = np.full((300, 200, 3), 200, np.uint8)
    answers = [enhance(scheduler, pixels, strength=s) for s in (0, 0.001, 0.5, 1)]
    scheduler.close()
    assert [int(answer.picture.pixels[150, 100, 0]) for answer in answers] == [200, 200, 128, 55]
    assert [answer.tiles for answer in answers] == [0, *[plan(300, 200).tiles] * 3], "at 0 nothing is computed"


def test_strength_0_needs_no_room_in_the_queue(tmp_path: Path) -> None:
    generator = Generator(write_generator(tmp_path / "m.onnx"), device="cpu", threads=1)
    scheduler = Scheduler([lambda _: generator], max_tiles=1)
    enhancer, picture = Enhancer(scheduler), picture_of(np.full((300, 200, 3), 200, np.uint8))
    with scheduler.admit(1, "test", 60):
        with pytest.raises(QueueFull):
            enhancer.admit(300, 200, "test", 32, 60)
        with enhancer.admit(300, 200, "test", 32, 60, strength=0) as job:
            assert enhancer.enhance(picture, job, strength=0).picture is picture
            assert scheduler.waiting == 1
    scheduler.close()


def test_progress_counts_every_tile(identity_scheduler: Scheduler, photo: npt.NDArray[np.uint8]) -> None:
    enhancer = Enhancer(identity_scheduler)
    told: list[tuple[int, int]] = []
    with enhancer.admit(400, 600, "test", 32, 60) as job:
        enhancer.enhance(picture_of(photo), job, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (job.tiles, job.tiles)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_cancelled_picture_stops(identity_scheduler: Scheduler, photo: npt.NDArray[np.uint8]) -> None:
    enhancer = Enhancer(identity_scheduler)
    with enhancer.admit(400, 600, "test", 32, 60) as job, pytest.raises(Cancelled):
        enhancer.enhance(picture_of(photo), job, progress=lambda *_: job.cancel())
    assert identity_scheduler.waiting == 0


def test_a_picture_that_is_given_up_is_let_go_of_at_once(identity: Generator) -> None:
    """Not when the garbage collector finds it some day: large ones would pile up until then."""

    own = threading.get_ident()

    def generator_of(_: str) -> Generator:
        while sys._current_frames()[own].f_code is not threading.Condition.wait.__code__:
            pass  # until the picture's own thread waits for its first tiles
        job.cancel()
        return identity

    scheduler = Scheduler([generator_of], batch_sizes=(1,))
    enhancer = Enhancer(scheduler)
    pixels = np.zeros((600, 600, 3), np.uint8)
    held = weakref.ref(pixels)
    gc.collect()
    gc.disable()
    try:
        # the one lane is busy with another's tile, so that all of the picture's wait
        with scheduler.admit(1, "test", 60) as other, enhancer.admit(600, 600, "test", 32, 60) as job:
            other.submit(1, lambda _, tile: tile.fill(0))
            with pytest.raises(Cancelled) as given_up:
                enhancer.enhance(picture_of(pixels), job)
        scheduler.close()
        del pixels, given_up
        assert held() is None
    finally:
        gc.enable()
