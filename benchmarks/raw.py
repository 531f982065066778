"""The baseline of most rows: `session.run` and nothing around it."""

import threading
import time
from pathlib import Path

import numpy as np

from service.generator import Generator
from service.spec import CONTEXT, TILE
from service.warmup import find_batch_sizes, lanes_for


class Raw:
    """A generator's own pace: batches of the best size, as many at a time as the service runs."""

    def __init__(self, path: Path) -> None:
        self.generator = Generator(path, device="cpu", threads=1)
        self.lanes = lanes_for(self.generator, 0)
        self.batch = find_batch_sizes(self.generator, self.lanes)[-1]
        rng = np.random.default_rng(0)
        self._tiles = rng.integers(0, 256, (self.batch, TILE, TILE, 3), np.uint8)
        self._contexts = rng.integers(0, 256, (self.batch, CONTEXT, CONTEXT, 3), np.uint8)

    def seconds(self, tiles: int) -> float:
        """Seconds for `tiles` tiles; a last batch that is not full counts as the part that it is."""
        batches = max(1, round(tiles / self.batch))
        left = iter(range(batches))
        lock = threading.Lock()

        def lane() -> None:
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                self.generator(self._tiles, self._contexts)

        threads = [threading.Thread(target=lane) for _ in range(self.lanes)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (time.perf_counter() - start) * tiles / (batches * self.batch)


def all_cores(path: Path) -> Generator:
    """A session with as many threads as there are cores, which a single tile is fastest on."""
    return Generator(path, device="cpu")
