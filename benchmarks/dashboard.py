"""Draws the Grafana dashboard without Grafana: `python -m benchmarks.dashboard --out dashboard.png`.

Starts the service and a real Prometheus, drives a mixed load, asks Prometheus for every query of every panel as Grafana
does, and draws the curves at the places that the dashboard's grid gives them.
"""

import argparse
import itertools
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.dashboard_picture import Drawn, draw
from benchmarks.panels import fill, read_panels
from benchmarks.pictures import jpeg, of_megapixels
from benchmarks.prometheus import Prometheus, running_prometheus
from benchmarks.server import Server, running_server

REPLICAS: Final = 2
CLIENTS: Final = (1, 4, 16)
"""For each server, in as many parts of the time; the last is more than the queue takes."""

SETTINGS: Final = {"THREADS": "1", "MAX_QUEUED_TILES": "400", "DEVICE": "cpu"}
STEP_S: Final = 1.0
RATE_OVER: Final = "10s"
AFTERWARDS_S: Final = 6.0


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (default 60)")
    parser.add_argument("--out", type=Path, default=Path("runs/dashboard.png"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = [stack.enter_context(running_server(SETTINGS)) for _ in range(REPLICAS)]
        targets = [server.url.removeprefix("http://") for server in servers]
        running = stack.enter_context(running_prometheus(targets, Path(folder)))
        start = time.time()
        drive(servers, asked.seconds)
        time.sleep(AFTERWARDS_S)  # the curves come down again
        drawn = list(ask(running, start, time.time()))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    draw(drawn, asked.out)
    empty = [each.panel.title for each in drawn if each.panel.queries and not each.series]
    print(f"{asked.out}: {asked.out.stat().st_size / 1000:.0f} kB, {len(drawn)} panels, without a curve: {empty}")


def drive(servers: Sequence[Server], seconds: float) -> None:
    """Let each server have clients of every kind, more of them in each part of the time."""
    pictures = [jpeg(*size) for size in ((256, 256), of_megapixels(0.5), (64, 64), of_megapixels(1))]
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(beside(server))
        for clients in CLIENTS:
            until = time.monotonic() + seconds / len(CLIENTS)
            with ThreadPoolExecutor(clients * len(servers)) as threads:
                asked = [threads.submit(_client, s, pictures, until) for s in servers for _ in range(clients)]
            print(f"{clients} clients each: {dict(sum((each.result() for each in asked), Counter[int]()))}")


def _client(server: Server, pictures: Sequence[bytes], until: float) -> Counter[int]:
    """Send pictures one after the other, and come back after a second where there is no room, whatever is said."""
    statuses = Counter[int]()
    with server.client() as connection:
        for picture in itertools.cycle(pictures):
            if time.monotonic() >= until:
                return statuses
            status = connection.post("/enhance", files={"image": picture}).status_code
            statuses[status] += 1
            if status == 429:
                time.sleep(1)
    return statuses


@contextmanager
def beside(server: Server) -> Iterator[None]:
    """Frames over WS /live and requests that are refused, five a second each."""
    enough = threading.Event()
    frame = jpeg(180, 320)

    def live() -> None:
        while not enough.is_set():
            try:
                with connect(server.url.replace("http", "ws") + "/live", max_size=None, proxy=None) as socket:
                    socket.send(json.dumps({"mode": "live"}))
                    while not enough.wait(0.2):
                        socket.send(frame)
                        _read_all(socket)
            except (OSError, ConnectionClosed):
                enough.wait(1)

    def refused() -> None:
        with server.client() as client:
            for kind in itertools.cycle(("body", "option", "path")):
                if enough.wait(0.2):
                    return
                match kind:
                    case "body":
                        client.post("/enhance", files={"image": b"no picture"})
                    case "option":
                        client.post("/enhance", files={"image": frame}, data={"strength": "7"})
                    case _:
                        client.get("/nothing")

    threads = [threading.Thread(target=each) for each in (live, refused)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def _read_all(socket: Any) -> None:
    while True:
        try:
            socket.recv(timeout=0)
        except TimeoutError:
            return


def ask(running: Prometheus, start: float, end: float) -> Iterator[Drawn]:
    """Ask for each panel's series over that time, as Grafana would."""
    for panel in read_panels():
        series: list[tuple[str, dict[str, Any]]] = []
        for query in panel.queries:
            expr = fill(query.expr, rate_interval=RATE_OVER)
            series += [(query.legend, each) for each in running.between(expr, start, end, STEP_S)]
        yield Drawn(panel, series, start)


if __name__ == "__main__":
    main()
