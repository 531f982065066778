import threading

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.generator import Generator, cpu_threads
from service.warmup import best_size, find_batch_sizes, lanes_for, warm_up


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 3.0, 2: 2.0, 4: 1.5, 8: 1.0}, 8),
        ({1: 3.0, 2: 2.02, 4: 2.0, 8: 1.99}, 2),  # no more than a hair is gained by waiting for more
        ({1: 1.0, 2: 1.5, 4: 2.0}, 1),
        ({1: 1.0}, 1),
    ],
)
def test_the_smallest_of_the_best_is_chosen(seconds: dict[int, float], best: int) -> None:
    assert best_size(seconds) == best


@given(st.dictionaries(st.integers(1, 64), st.floats(1e-4, 1), min_size=1))
def test_the_chosen_one_is_close_to_the_best(seconds: dict[int, float]) -> None:
    assert seconds[best_size(seconds)] <= 1.03 * min(seconds.values())


class Recorder:
    """The real identity generator, and what it was asked to run."""

    def __init__(self, generator: Generator) -> None:
        self.device = generator.device
        self._generator = generator
        self._lock = threading.Lock()
        self.sizes: list[int] = []
        self.running = 0
        self.most_running = 0

    def __call__(self, tiles: npt.NDArray[np.uint8], context: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
        with self._lock:
            self.sizes.append(len(tiles))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        answer = self._generator(tiles, context)
        with self._lock:
            self.running -= 1
        return answer

    def warm_up(self, size: int) -> None:
        self.sizes.append(size)


@pytest.mark.parametrize("lanes", [1, 3])
def test_sizes_are_powers_of_two_that_were_run(identity: Generator, lanes: int) -> None:
    recorder = Recorder(identity)
    sizes = find_batch_sizes(recorder, lanes)  # type: ignore[arg-type]
    assert sizes == tuple(2**k for k in range(len(sizes)))
    assert 4 <= sizes[-1] <= 8
    assert set(sizes) <= set(recorder.sizes)
    assert recorder.most_running <= lanes


def test_every_generator_is_run_at_every_size(identity: Generator) -> None:
    both = [Recorder(identity), Recorder(identity)]
    warm_up(both, (1, 2, 8), 2)  # type: ignore[arg-type]
    assert [sorted(recorder.sizes) for recorder in both] == [[1, 2, 8]] * 2


def test_a_lane_a_thread_on_a_cpu(identity: Generator) -> None:
    assert lanes_for(identity, 3) == 3
    assert lanes_for(identity, 0) == cpu_threads()
