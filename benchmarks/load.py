"""Clients that ask again as soon as they are answered."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np

from benchmarks.server import Server


@dataclass
class Load:
    """What some clients saw.

    Attributes:
        seconds: from the first request to the last answer.
        tiles: how many were enhanced.
        latencies: seconds of each answer with status 200.
        statuses: how many answers had which status; 0 where the connection broke.
        refused: for each 429 whose client was taken in the end: seconds that `Retry-After` said, and seconds until
            it was taken.
    """

    seconds: float = 0.0
    tiles: int = 0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refused: list[tuple[float, float]] = field(default_factory=list)

    @property
    def tiles_per_second(self) -> float:
        """Enhanced tiles a second over all clients."""
        return self.tiles / self.seconds

    def percentile(self, which: float) -> float:
        """Seconds within which `which` percent of the answers came."""
        return float(np.percentile(self.latencies, which))


def run_clients(
    server: Server,
    pictures: Sequence[tuple[bytes, int]],
    clients: int,
    requests: int | None = None,
    seconds: float | None = None,
) -> Load:
    """Let clients send pictures in a closed loop; one that gets a 429 comes back when it is told to.

    Args:
        server: whom they ask.
        pictures: files and their numbers of tiles; each client begins at another one and goes round.
        clients: how many at a time.
        requests: how many answers each client waits for, or
        seconds: for how long new requests are sent.
    """
    load, lock = Load(), threading.Lock()
    begin = time.perf_counter()

    def client(number: int) -> None:
        with server.client() as connection:
            turn = 0
            while (requests is None or turn < requests) and (seconds is None or time.perf_counter() - begin < seconds):
                data, tiles = pictures[(number + turn) % len(pictures)]
                turn += 1
                first: float | None = None
                told = 0.0
                while True:
                    start = time.perf_counter()
                    status, retry_after = _ask(connection, data)
                    took = time.perf_counter() - start
                    with lock:
                        load.statuses[status] += 1
                    if status != 429:
                        break
                    if first is None:
                        first, told = start, retry_after
                    time.sleep(retry_after)
                with lock:
                    if status == 200:
                        load.tiles += tiles
                        load.latencies.append(took)
                    if first is not None:
                        load.refused.append((told, start - first))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - begin
    return load


def _ask(connection: httpx.Client, data: bytes) -> tuple[int, float]:
    try:
        answer = connection.post("/enhance", files={"image": data})
    except httpx.TransportError:
        return 0, 0.0
    return answer.status_code, float(answer.headers.get("Retry-After", 0))
