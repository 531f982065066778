"""`python -m benchmarks`: times the service against named baselines in one run; prints a table, writes JSON and a plot.

These machines are noisy: only ratios within a run say something. What is compared is timed in turns, so that a slow
spell hits both, and medians are taken.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.load import Load, run_clients
from benchmarks.pictures import jpeg, of_megapixels, photo, png
from benchmarks.raw import Raw, all_cores
from benchmarks.report import Row, plot, table, write_json
from benchmarks.server import Server, naive_server, running_server
from model_export.contenders import Network, open_network
from model_export.export import Loaded, export
from model_export.networks import UNetGenerator
from service.model_files import record
from service.settings import SHIPPED_MODELS
from service.spec import CONTEXT, TILE
from service.tiling import plan

IPHONE = SHIPPED_MODELS / "iphone.onnx"


@dataclass
class Run:
    """What the sections share, and what they find.

    Attributes:
        raw: the shipped generator's own pace.
        networks: published ONNX networks to compare with, by name.
        folder: for files that last as long as the run.
        rounds: how often what is short is repeated.
        soak_s: seconds of the long load.
        rows, curves: the results.
    """

    raw: Raw
    networks: Mapping[str, Path]
    folder: Path
    rounds: int
    soak_s: float
    rows: list[Row] = field(default_factory=list)
    curves: dict[str, dict[float, float]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Keep a row, and say it at once."""
        self.rows.append(row)
        sys.stderr.write(f"{row.what}: {row.value:.1f} {row.unit}, {row.baseline}: {row.against:.1f} {row.unit}\n")


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int, uncounted: int = 1) -> dict[str, list[float]]:
    """Seconds of each call in each of `rounds`, after `uncounted` ones."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(uncounted + rounds):
        for name, call in calls.items():
            # the threads of the session before spin on for a while, and would take a core from this one
            time.sleep(0.1)
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: each[uncounted:] for name, each in seconds.items()}


def medians(calls: Mapping[str, Callable[[], object]], rounds: int, uncounted: int = 1) -> dict[str, float]:
    """The median of each of `in_turns`."""
    return {name: float(np.median(each)) for name, each in in_turns(calls, rounds, uncounted).items()}


def enhance(server: Server, data: bytes, camera: str = "iphone") -> None:
    """Post one picture."""
    with server.client() as client:
        client.post("/enhance", files={"image": data}, data={"camera": camera}).raise_for_status()


def textbook(folder: Path) -> Path:
    """Export an untrained `unet128`: what it costs does not depend on its weights."""
    path = folder / "unet128.onnx"
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (2, TILE, TILE, 3), np.uint8)
    contexts = rng.integers(0, 256, (2, CONTEXT, CONTEXT, 3), np.uint8)
    export(Loaded(UNetGenerator("unet128").eval(), "unet128", "none", "nothing", 32), path, tiles, contexts)
    return path


def section_networks(run: Run) -> None:
    """The networks alone."""
    other = Raw(textbook(run.folder))
    tiles = 8 * run.raw.lanes * run.raw.batch
    times = medians({"iphone": lambda: run.raw.seconds(tiles), "unet128": lambda: other.seconds(tiles)}, run.rounds)
    per_tile = {name: seconds / tiles * 1e3 for name, seconds in times.items()}
    run.add(Row("tile, iphone", "unet128, same lanes", "ms", per_tile["iphone"], per_tile["unet128"], reach=0.2,
                at_least=False))  # fmt: skip
    square = photo(1024, 1024)
    calls = {name: partial(open_network(path).run, square) for name, path in {"iphone": IPHONE, **run.networks}.items()}
    costs = medians(calls, run.rounds)
    for name in run.networks:
        run.add(Row(f"1 megapixel through {name}", "through iphone, in tiles", "ms", costs[name] * 1e3,
                    costs["iphone"] * 1e3))  # fmt: skip


def pieces_of(picture: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Cut a picture into the largest equal pieces on which a published network fits in memory.

    Such a network holds some 2 GB a megapixel at its widest. The pieces lap over each other by what it sees around a
    pixel.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    height, width = picture.shape[:2]
    count = math.ceil(height * width / 1e6 * 2e9 / (0.8 * free))
    tall = min(height, math.ceil(height / count) + 64)
    return [picture[top : top + tall] for top in np.linspace(0, height - tall, count).astype(int)]


def _run_all(network: Network, pieces: Sequence[npt.NDArray[np.uint8]]) -> None:
    for piece in pieces:
        network.run(piece)


def section_big(run: Run) -> None:
    """A 12-megapixel JPEG, by one client and by four."""
    data, tiles = jpeg(3000, 4000), plan(3000, 4000).tiles
    models = run.folder / "models"
    models.mkdir(exist_ok=True)
    for path in (IPHONE, textbook(run.folder)):
        (models / path.name).write_bytes(path.read_bytes())
        record(models / path.name)
    with running_server({"MODELS": str(models)}) as server:
        times = medians({"HTTP": lambda: enhance(server, data), "raw": lambda: run.raw.seconds(tiles)}, run.rounds)
        run.add(Row("12-megapixel JPEG, one client", "raw tiles", "s", times["HTTP"], times["raw"]))
        times = medians(
            {"iphone": lambda: enhance(server, data), "unet128": lambda: enhance(server, data, "unet128")}, 2
        )
        run.add(Row("12-megapixel JPEG by unet128", "by iphone", "s", times["unet128"], times["iphone"], reach=6))
        rates = []
        for _ in range(max(2, run.rounds // 2)):
            load = run_clients(server, [(data, tiles)], clients=4, requests=2)
            rates.append((load.tiles_per_second, load.tiles / run.raw.seconds(load.tiles)))
        value, against = np.median(np.array(rates), axis=0).tolist()
        run.add(Row("12-megapixel JPEGs, 4 clients", "raw tiles", "tiles/s", value, against, reach=0.9))
        picture = photo(3000, 4000)
        for name, path in run.networks.items():
            network, pieces = open_network(path), pieces_of(picture)
            # the one takes twenty times as long: a slow spell of the machine in it is met by ours before and after
            times = medians(
                {"ours": partial(enhance, server, data),
                 name: partial(_run_all, network, pieces),
                 "again": partial(enhance, server, data)}, 2, uncounted=0)  # fmt: skip
            ours = (times["ours"] + times["again"]) / 2
            wanted = 20 if name == "dped_iphone" else None
            run.add(Row(f"12 megapixels through {name}", "as JPEG over HTTP", "s", times[name], ours, reach=wanted))


def section_small(run: Run) -> None:
    """Small pictures: what HTTP adds, and what a large neighbour costs them."""
    thumbnail, small, huge = png(128, 128), jpeg(256, 256), jpeg(*of_megapixels(50))
    session = all_cores(IPHONE)
    one = np.zeros((1, TILE, TILE, 3), np.uint8), np.zeros((1, CONTEXT, CONTEXT, 3), np.uint8)
    with running_server() as server, server.client() as client:

        def post(data: bytes) -> None:
            client.post("/enhance", files={"image": data}).raise_for_status()

        times = medians({"HTTP": lambda: post(thumbnail), "raw": lambda: session(*one)}, run.rounds * 10)
        run.add(Row("128x128 PNG", "raw session.run on one tile, all cores", "ms", times["HTTP"] * 1e3,
                    times["raw"] * 1e3, "difference", reach=5, at_least=False))  # fmt: skip

        def p95(seconds: list[float]) -> float:
            return float(np.percentile(seconds, 95)) * 1e3

        alone = in_turns({"small": lambda: post(small)}, run.rounds * 12)["small"]
        neighbour = threading.Thread(target=enhance, args=(server, huge))
        neighbour.start()
        time.sleep(1.5)  # decoded by then
        beside: list[float] = []
        while neighbour.is_alive() and len(beside) < run.rounds * 12:
            start = time.perf_counter()
            post(small)
            beside.append(time.perf_counter() - start)
            time.sleep(0.1)
        assert neighbour.is_alive(), "the neighbour has to last longer than what it is to disturb"
        neighbour.join()
        run.add(Row("256x256 JPEG beside 50 megapixels, p95", "alone, p95", "ms", p95(beside), p95(alone), reach=3,
                    at_least=False))  # fmt: skip


def section_sizes(run: Run) -> None:
    """Time a megapixel, and memory, by size."""
    curve = {}
    middle = jpeg(*of_megapixels(12))
    with running_server() as server:
        enhance(server, jpeg(256, 256))
        idle = server.memory()
        for megapixels in (0.25, 1, 4, 50, 100):
            height, width = of_megapixels(megapixels)
            data = jpeg(height, width)
            server.forget_peak()
            calls = {"this": partial(enhance, server, data), "12": partial(enhance, server, middle)}
            times = medians(calls, run.rounds) if megapixels < 50 else medians(calls, 1, uncounted=0)
            curve[megapixels] = times["this"]
            if megapixels >= 1:
                run.add(Row(f"a megapixel of {megapixels}", "of 12", "ms", times["this"] / megapixels * 1e3,
                            times["12"] / 12 * 1e3, reach=1.15, at_least=False))  # fmt: skip
            if megapixels == 4:
                curve[12] = times["12"]
            peak = server.memory("VmHWM")
            pictures = 2 * height * width * 3 / 2**20
    run.add(Row("peak memory of 100 megapixels", "idle + decoded input + output", "MB", peak, idle + pictures,
                "difference", reach=96, at_least=False))  # fmt: skip
    run.curves["seconds: pix2dslr"] = curve


def section_start(run: Run) -> None:
    """From the process's start until it is ready."""
    imports = [sys.executable, "-c", "import cv2, fastapi, numpy, onnxruntime, PIL, pydantic_settings, uvicorn"]
    starts: list[float] = []

    def start() -> None:
        with running_server() as server:
            starts.append(server.start_s)

    calls = {"imports": lambda: subprocess.run(imports, check=True), "start and stop": start}
    measured = medians(calls, run.rounds)
    ready = float(np.median(starts[1:]))
    run.add(Row("start to ready", "importing the libraries alone", "s", ready, measured["imports"], "difference",
                reach=1.5, at_least=False))  # fmt: skip


def section_many(run: Run) -> None:
    """Many clients with pictures of many sizes, more than the queue holds."""
    sizes = [(128, 128), (256, 256), (480, 640), (768, 1024), (1080, 1920), (3000, 4000)]
    pictures = [(jpeg(*size), plan(*size).tiles) for size in sizes]
    parts, load = 3, Load()
    rates = []
    # 64 clients ask for 17000 tiles at once; this queue holds a fifth of that
    with running_server({"MAX_QUEUED_TILES": "3500"}) as server:
        before = run.raw.seconds(800) / 800
        for _ in range(parts):
            rate, more = _steady(server, pictures, run.soak_s / parts)
            after = run.raw.seconds(800) / 800
            rates.append((rate, 2 / (before + after)))
            before = after
            load.statuses += more.statuses
            load.refused += more.refused
    value, against = np.median(np.array(rates), axis=0).tolist()
    run.add(Row(f"64 clients, {parts} times {run.soak_s / parts:.0f} s, mixed sizes", "raw tiles before and after",
                "tiles/s", value, against, reach=0.85))  # fmt: skip
    errors = sum(count for status, count in load.statuses.items() if status not in (200, 429))
    run.add(Row("errors but 429", "none", "", errors, 0, "difference", reach=0, at_least=False))
    if load.refused:
        told, took = np.array(load.refused).T
        right = np.abs(took / told - 1) <= 0.3
        run.add(Row("Retry-After right within 30 %", "all that were refused", "", float(right.sum()), len(right),
                    reach=0.9))  # fmt: skip
    sys.stderr.write(f"statuses: {dict(load.statuses)}; told and taken after: {load.refused[:12]}\n")


def _steady(server: Server, pictures: Sequence[tuple[bytes, int]], seconds: float) -> tuple[float, Load]:
    """Tiles a second while 64 clients ask for so long, and what they saw in all."""
    loads: list[Load] = []
    clients = threading.Thread(target=lambda: loads.append(run_clients(server, pictures, 64, seconds=seconds + 5)))
    clients.start()
    time.sleep(5)  # until all have connected
    # counted by the server while all clients ask: in the end some still sleep as they were told to
    start, tiles = time.perf_counter(), server.tiles()
    time.sleep(seconds)
    rate = (server.tiles() - tiles) / (time.perf_counter() - start)
    clients.join()
    return rate, loads[0]


def section_naive(run: Run) -> None:
    """Throughput at 1, 8 and 64 clients, ours and a naive handler's, each in its own tiles."""
    height, width = 512, 512
    data = jpeg(height, width)
    # side by side, without overlap: it has fewer of them, and seams
    tiles = {"pix2dslr": plan(height, width).tiles, "naive": -(-height // TILE) * -(-width // TILE)}
    found: dict[str, dict[float, float]] = {name: {} for name in tiles}
    with running_server() as ours, naive_server(IPHONE) as naive:
        for clients in (1, 8, 64):
            rates: dict[str, list[float]] = {name: [] for name in tiles}
            for _ in range(3):
                for name, server in (("pix2dslr", ours), ("naive", naive)):
                    load = run_clients(server, [(data, tiles[name])], clients, max(2, 48 // clients))
                    assert set(load.statuses) == {200}, load.statuses
                    rates[name].append(load.tiles_per_second)
            for name, each in rates.items():
                found[name][clients] = float(np.median(each))
    for clients in (1, 8, 64):
        run.add(Row(f"512x512 JPEGs, {clients} clients", "naive handler", "tiles/s", found["pix2dslr"][clients],
                    found["naive"][clients], reach=1.3 if clients == 64 else 1.0))  # fmt: skip
    for name, curve in found.items():
        run.curves[f"tiles/s: {name}"] = curve


SECTIONS = {
    "networks": section_networks,
    "big": section_big,
    "small": section_small,
    "sizes": section_sizes,
    "start": section_start,
    "many": section_many,
    "naive": section_naive,
}


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=list(SECTIONS), help="some sections")
    parser.add_argument("--networks", type=Path, nargs="*", default=[], help="published ONNX networks to time as well")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="where .json and .png go, without suffix")
    parser.add_argument("--rounds", type=int, default=5, help="how often what is short is repeated")
    parser.add_argument("--soak", type=float, default=60, help="seconds of the load by 64 clients")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        networks = {path.stem: path for path in options.networks}
        run = Run(Raw(IPHONE), networks, Path(folder), options.rounds, options.soak)
        for name in options.only:
            SECTIONS[name](run)
    print(table(run.rows))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(run.rows, run.curves, options.out.with_suffix(".json"))
    if run.curves:
        plot(run.curves, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
