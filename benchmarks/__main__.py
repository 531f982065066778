"""`python -m benchmarks`: times the service against named baselines in one run, prints a table and writes JSON.

These machines are noisy: only the ratios say something. Every row's parts are timed in turns, so that a slow spell
hits both; medians are taken.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import httpx
import numpy as np
import numpy.typing as npt

from benchmarks.server import running_server
from model_export.contenders import open_network
from model_export.export import Loaded, export
from model_export.networks import UNetGenerator
from service.generator import Generator
from service.settings import SHIPPED_MODELS
from service.spec import CONTEXT, TILE
from service.tiling import plan

IPHONE = SHIPPED_MODELS / "iphone.onnx"


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call over `rounds`, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            time.sleep(
                0.1
            )  # the threads of the session before spin on for a while, and would take a core from this one
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(each[1:])) for name, each in seconds.items()}


def textbook(folder: Path) -> Path:
    """Export an untrained `unet128`: what it costs does not depend on its weights."""
    path = folder / "unet128.onnx"
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (2, TILE, TILE, 3), np.uint8)
    contexts = rng.integers(0, 256, (2, CONTEXT, CONTEXT, 3), np.uint8)
    export(Loaded(UNetGenerator("unet128").eval(), "unet128", "none", "nothing", 32), path, tiles, contexts)
    return path


def photo(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture with detail at every scale, so that JPEG has its usual work."""
    rng = np.random.default_rng(0)
    layers = [
        cv2.resize(rng.integers(0, 256, (height // k + 1, width // k + 1, 3), np.uint8), (width, height)).astype(float)
        for k in (1, 4, 16, 64, 256)
    ]
    return np.asarray(np.mean(layers, axis=0), np.uint8)


def main() -> None:
    """Run every benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=Path, nargs="*", default=[], help="published ONNX networks to time as well")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"), help="where the JSON goes")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows: list[tuple[str, str, float, float]] = []

    with tempfile.TemporaryDirectory() as folder:
        networks = {path.stem: path for path in (IPHONE, textbook(Path(folder)), *options.networks)}
        square = photo(1024, 1024)
        calls = {name: partial(open_network(path).run, square) for name, path in networks.items()}
        costs = in_turns(calls, options.rounds)
        per_batch = {name: Generator(networks[name]) for name in ("iphone", "unet128")}
        batch = np.zeros((8, TILE, TILE, 3), np.uint8), np.zeros((8, CONTEXT, CONTEXT, 3), np.uint8)
        tiled = in_turns({name: partial(net, *batch) for name, net in per_batch.items()}, options.rounds * 4)
    rows.append(("8 tiles through unet128", "iphone", tiled["unet128"], tiled["iphone"]))
    rows += [
        (f"1 megapixel through {name}", "iphone", costs[name], costs["iphone"]) for name in costs if name != "iphone"
    ]

    generator = Generator(IPHONE)
    tiles = plan(3000, 4000).tiles
    _, big = cv2.imencode(".jpg", photo(3000, 4000))
    _, thumbnail = cv2.imencode(".png", photo(128, 128))
    one = batch[0][:1], batch[1][:1]
    with running_server() as url, httpx.Client(base_url=url, timeout=600, trust_env=False) as client:

        def post(data: npt.NDArray[np.uint8]) -> None:
            client.post("/enhance", files={"image": data.tobytes()}).raise_for_status()

        def raw() -> None:
            for _ in range(tiles // 8):
                generator(*batch)

        times = in_turns({"HTTP": lambda: post(big), "raw": raw}, max(options.rounds // 2, 1))
        rows.append(("12-megapixel JPEG over HTTP", "session.run over as many tiles", times["HTTP"], times["raw"]))
        times = in_turns({"HTTP": lambda: post(thumbnail), "raw": lambda: generator(*one)}, options.rounds * 10)
        rows.append(("128x128 PNG over HTTP", "session.run on one tile", times["HTTP"], times["raw"]))

    print("| what | ms | baseline | ms | ratio |\n| --- | ---: | --- | ---: | ---: |")
    for what, baseline, seconds, against in rows:
        print(f"| {what} | {seconds * 1e3:.1f} | {baseline} | {against * 1e3:.1f} | {seconds / against:.2f} |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    names = ("what", "baseline", "seconds", "baseline_seconds")
    options.out.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1))


if __name__ == "__main__":
    main()
