"""`python -m benchmarks.telemetry`: what traces cost a request, and a scrape of the metrics everybody.

Servers that differ in that alone answer the same pictures of one tile in turns; what is counted is the processor time
of each server's own process, which others on the machine disturb less than the time of day. Prints a table.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import psutil

from benchmarks.pictures import png
from benchmarks.server import Server, running_server

_SETTINGS = {
    "as shipped": {},
    "traces, all sampled": {"TRACES": "otlp"},
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="What traces and scrapes cost.")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each server")
    parser.add_argument("--requests", type=int, default=200, help="requests in a turn")
    options = parser.parse_args()
    picture = png(100, 100)
    with ExitStack() as stack:
        collector = stack.enter_context(_collector())
        servers = {
            name: stack.enter_context(running_server(settings, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector}))
            for name, settings in _SETTINGS.items()
        }
        costs: dict[str, list[float]] = {name: [] for name in servers}
        for turn in range(1 + options.rounds):
            for name, server in servers.items():
                cost = _cost(server, picture, options.requests)
                if turn:  # the first warms up
                    costs[name].append(cost)
        print(f"| server | CPU ms a request of one tile, median of {options.rounds} turns | of the one before |")
        print("| --- | ---: | ---: |")
        before: list[float] = []
        for name, seconds in costs.items():
            ratio = statistics.median(a / b for a, b in zip(seconds, before, strict=True)) if before else None
            print(f"| {name} | {statistics.median(seconds) * 1000:.2f} | {'' if ratio is None else f'{ratio:.2f}'} |")
            before = seconds
        _scrapes(servers["as shipped"], picture, options.requests)


def _cost(server: Server, picture: bytes, requests: int) -> float:
    """Seconds of processor time a request, the process's own."""
    process = psutil.Process(server.pid)
    with server.client() as client:
        start = process.cpu_times()
        for _ in range(requests):
            client.post("/enhance", content=picture).raise_for_status()
        end = process.cpu_times()
    return float(end.user + end.system - start.user - start.system) / requests


def _scrapes(server: Server, picture: bytes, requests: int) -> None:
    """Print how long a scrape takes, and what ten a second do to others."""
    stop = threading.Event()

    def scrape() -> None:
        with server.client() as client:
            while not stop.wait(0.1):
                client.get("/metrics").raise_for_status()

    def median_and_99th(client: httpx.Client) -> tuple[float, float]:
        seconds = []
        for _ in range(requests):
            start = time.perf_counter()
            client.post("/enhance", content=picture).raise_for_status()
            seconds.append((time.perf_counter() - start) * 1000)
        cuts = statistics.quantiles(seconds, n=100)
        return cuts[49], cuts[98]

    with server.client() as client:
        start = time.perf_counter()
        for _ in range(100):
            text = client.get("/metrics").text
        each = (time.perf_counter() - start) / 100
        print(f"\na scrape: {each * 1000:.1f} ms, {len(text):,} bytes, {text.count(chr(10))} lines")
        alone = median_and_99th(client)
        scraper = threading.Thread(target=scrape)
        scraper.start()
        beside = median_and_99th(client)
        stop.set()
        scraper.join()
    for name, (middle, most) in (("alone", alone), ("beside ten scrapes a second", beside)):
        print(f"a request {name}: median {middle:.1f} ms, 99th percentile {most:.1f} ms")


@contextmanager
def _collector() -> Iterator[str]:
    """A collector that takes whatever comes, and its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    main()
