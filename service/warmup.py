"""Before the first request: how many batches run at a time, of which sizes, and every one of them run once."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from service.generator import Generator, cpu_threads
from service.spec import CONTEXT, TILE

LARGEST_ON_GPU: Final = 128
_LARGEST: Final = {"cpu": 8, "cuda": LARGEST_ON_GPU}
_LEAST: Final = 4
"""No largest batch is smaller: on two cores the same size takes 2.9 ms a tile in one process and 3.6 in the next, by
how its buffers happen to lie, and to make a batch costs 0.1 ms that is not measured here."""

_TIMES: Final = 3
_CLOSE: Final = 0.03
"""A smaller batch that is slower by less than this part is preferred: who comes next waits for no longer than it."""


def lanes_for(generator: Generator, threads: int, devices: int = 1) -> int:
    """How many batches should run at a time on each device.

    Args:
        generator: a loaded one.
        threads: CPU threads to use; 0 is as many as the container may.
        devices: how many devices there are; on a CPU they share the threads.

    Returns:
        On a CPU one a thread; on a GPU two, so that one batch is brought and fetched while the other is computed.
    """
    return max(1, (threads or cpu_threads()) // devices) if generator.device == "cpu" else 2


def find_batch_sizes(generator: Generator, lanes: int) -> tuple[int, ...]:
    """Measure which batch is best, all lanes running at once, and return the powers of two up to it.

    Takes half a second on a CPU: sizes are doubled until that gains nothing any more. Each is timed a few times and its
    best time counts, or one disturbed moment at the start would decide for as long as the process lives.
    """
    seconds: dict[int, float] = {}
    size = 1
    with ThreadPoolExecutor(lanes) as pool:
        while size <= _LARGEST[generator.device]:
            batch = np.zeros((size, TILE, TILE, 3), np.uint8), np.zeros((size, CONTEXT, CONTEXT, 3), np.uint8)
            runs = lanes * max(1, 4 // size)
            times = []
            for _ in range(1 + _TIMES):  # the first one allocates
                start = time.perf_counter()
                list(pool.map(lambda _, batch=batch: generator(*batch), range(runs)))
                times.append((time.perf_counter() - start) / (runs * size))
            seconds[size] = min(times[1:])
            if size >= 4 * max(best_size(seconds), _LEAST):
                break
            size *= 2
    best = max(best_size(seconds), _LEAST)
    return tuple(size for size in seconds if size <= best)


def best_size(seconds: Mapping[int, float]) -> int:
    """Choose the smallest size whose seconds a tile are within 3 % of the best.

    Args:
        seconds: seconds a tile by batch size, at least one.
    """
    good = min(seconds.values()) * (1 + _CLOSE)
    return min(size for size, each in seconds.items() if each <= good)


def warm_up(generators: Sequence[Generator], batch_sizes: Sequence[int], lanes: int) -> None:
    """Run every generator once at every size, so that the first request finds everything allocated."""
    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(lambda pair: pair[0].warm_up(pair[1]), [(g, s) for g in generators for s in batch_sizes]))
