"""`python -m benchmarks.scaling`: what a picture costs here, and what loads need from it, as in `docs/scaling.md`.

Measured: seconds of a core by tile, megapixel and request, and bytes, on the real server. Computed from it: cores and
network of some loads. Simulated with the scheduler's decision code: how long pictures wait by utilization and by the
number of replicas; and, where the same arrivals are sent to the real server, how near the simulation is.
"""

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import httpx
import numpy as np
import psutil

from benchmarks.cost import Cost, Workload, table
from benchmarks.load import run_clients
from benchmarks.pictures import jpeg, of_megapixels
from benchmarks.raw import Raw
from benchmarks.server import Server, running_server
from benchmarks.simulation import Arrival, Device, Machine, Simulation, least_connections
from service.generator import cpu_threads
from service.settings import SHIPPED_MODELS
from service.tiling import plan
from tests.onnx_files import write_generator

DAY_S = 86_400
PHOTO = of_megapixels(12)
FRAME = 480, 640
SMALL = 32, 32
IPHONE = SHIPPED_MODELS / "iphone.onnx"


def say(words: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(words + "\n")


def cpu_s(server: Server) -> float:
    """Seconds of a core that a server and its workers took so far."""
    process = psutil.Process(server.pid)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def each_takes(server: Server, size: tuple[int, int], requests: int, clients: int = 2) -> float:
    """Seconds of a core that a JPEG of a size takes the server."""
    data = jpeg(*size)
    before = cpu_s(server)
    load = run_clients(server, [(data, plan(*size, 32).tiles)], clients, requests)
    return (cpu_s(server) - before) / load.statuses[200]


def measure(rounds: int) -> Cost:
    """Measure the cost model's figures; inference and requests take turns, and medians are taken."""
    raw = Raw(IPHONE)
    tiles = raw.lanes * raw.batch * 20
    tile_s, photo_s, frame_s, small_s = [], [], [], []
    with running_server() as server:
        with server.client() as client:
            answer = client.post("/enhance", files={"image": jpeg(*PHOTO)}).raise_for_status()
        each_takes(server, FRAME, 10)
        for _ in range(rounds):
            before = time.process_time()
            raw.seconds(tiles)
            tile_s.append((time.process_time() - before) / tiles)
            photo_s.append(each_takes(server, PHOTO, 2))
            frame_s.append(each_takes(server, FRAME, 10))
            small_s.append(each_takes(server, SMALL, 50))
    tile, photo = statistics.median(tile_s), statistics.median(photo_s)
    megapixels = PHOTO[0] * PHOTO[1] / 1e6
    request = max(0.0, statistics.median(small_s) - tile)
    around = max(0.0, photo - plan(*PHOTO, 32).tiles * tile - request) / megapixels
    cost = Cost(tile, around, request, len(jpeg(*PHOTO)) / megapixels, len(answer.content) / megapixels)
    frame = statistics.median(frame_s)
    print("| figure | measured |")
    print("| --- | ---: |")
    print(f"| a tile's inference, seconds of a core x1000 | {tile * 1e3:.2f} |")
    print(f"| tiles a second a core | {1 / tile:.0f} |")
    print(f"| a megapixel besides, seconds of a core x1000 | {around * 1e3:.1f} |")
    print(f"| a request besides, seconds of a core x1000 | {request * 1e3:.1f} |")
    print(f"| bytes of a megapixel, in and out | {cost.bytes_in / 1e6:.2f} MB, {cost.bytes_out / 1e6:.2f} MB |")
    print(f"| 640x480 JPEG, by these figures and measured | {cost.core_s(*FRAME):.3f} s, {frame:.3f} s |")
    return cost


def without_inference() -> None:
    """Print what two cores move where an identity stands for the generator, as beside a GPU that costs nothing."""
    with tempfile.TemporaryDirectory() as folder:
        write_generator(Path(folder, "iphone.onnx"))
        tiles = plan(*PHOTO, 32).tiles
        with running_server({"MODELS": folder}) as server:
            data = [(jpeg(*PHOTO), tiles)]
            run_clients(server, data, 2, 2)
            before, process = cpu_s(server), psutil.Process(server.pid)
            own = sum(process.cpu_times()[:2])
            load = run_clients(server, data, 4, 24)
            took, own = cpu_s(server) - before, sum(process.cpu_times()[:2]) - own
    each = f"{took / load.tiles * 1e3:.2f} ms of a core a tile, {own / load.tiles * 1e3:.2f} in the main process"
    print(f"\nwithout inference: {load.tiles_per_second:.0f} tiles/s on {psutil.cpu_count()} cores, {each}")


def workloads() -> list[Workload]:
    """Return the loads of the table, each ten times the one before."""
    photos = [
        Workload(f"{count:,} photos of 12 MP a day", *PHOTO, count / DAY_S)
        for count in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    ]
    frames = [Workload(f"{rate:,} frames of 640x480 a second", *FRAME, rate) for rate in (1, 10, 100, 1_000)]
    return photos + frames


def poisson(rate: float, seconds: float, tiles: Callable[[random.Random], int], seed: int) -> list[Arrival]:
    """Draw arrivals at random times, on average `rate` a second."""
    dice = random.Random(seed)
    now = 0.0
    arrivals: list[Arrival] = []
    while (now := now + dice.expovariate(rate)) < seconds:
        arrivals.append((now, tiles(dice)))
    return arrivals


def waits(simulations: Iterable[Simulation]) -> tuple[float, float, float]:
    """Seconds to the answer, median and 95th percentile, and the part of the pictures that was refused."""
    clients = [client for simulated in simulations for client in simulated.clients]
    seconds = [client.finished - client.arrived for client in clients if client.finished is not None]
    refused = sum(client.finished is None for client in clients)
    return float(np.median(seconds)), float(np.percentile(seconds, 95)), refused / len(clients)


def on_cpu(cost: Cost, cores: int, size: tuple[int, int]) -> Machine:
    """One replica of so many cores, where decoding and encoding take their part of the cores from inference."""
    return Machine((Device(0.0, cost.core_s(*size) / plan(*size, 32).tiles, cores),))


def queueing(cost: Cost, pictures: int) -> None:
    """Print how long photos wait by utilization, in one replica and in several of the same cores together."""
    tiles = plan(*PHOTO, 32).tiles
    print("\n| cores | replicas | utilization | seconds, median | 95 % | refused |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for cores, replicas in ((2, 1), (8, 1), (32, 1), (32, 4)):
        for load in (0.5, 0.7, 0.9, 1.5):
            machine = on_cpu(cost, cores // replicas, PHOTO)
            rate = load * machine.rate * replicas / tiles
            arrivals = poisson(rate, pictures / rate, lambda _: tiles, seed=1)
            fleet = [Simulation(machine, seed=number) for number in range(replicas)]
            least_connections(fleet, arrivals)
            median, late, refused = waits(fleet)
            print(f"| {cores} | {replicas} | {load:.0%} | {median:.1f} | {late:.1f} | {refused:.0%} |")


def send(server: Server, arrivals: Sequence[Arrival], files: dict[int, bytes]) -> tuple[list[float], int]:
    """Send files to a server at set times, whether others are answered or not.

    Args:
        server: whom.
        arrivals: when, and how many tiles.
        files: by their tiles.

    Returns:
        Seconds to each answer with status 200, and how many got 429.
    """
    seconds: list[float] = []
    statuses: list[int] = []
    with httpx.Client(base_url=server.url, timeout=600, limits=httpx.Limits(max_connections=None)) as client:

        def ask(tiles: int) -> None:
            start = time.perf_counter()
            answer = client.post("/enhance", files={"image": files[tiles]})
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                seconds.append(time.perf_counter() - start)

        threads = []
        start = time.perf_counter()
        for when, tiles, *_ in arrivals:
            time.sleep(max(0.0, start + when - time.perf_counter()))
            threads.append(threading.Thread(target=ask, args=(tiles,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
    assert set(statuses) <= {200, 429}, statuses
    return seconds, statuses.count(429)


def validate(seconds: float) -> None:
    """Print what the simulation foretells and what the real server does with the same arrivals."""
    sizes = [FRAME, (720, 1280)]
    files = {plan(*size, 32).tiles: jpeg(*size) for size in sizes}
    settings = {"MAX_QUEUED_TILES": "1500"}
    lanes = cpu_threads()
    print("\n| load | | seconds, median | 95 % | refused |")
    print("| ---: | --- | ---: | ---: | ---: |")
    with running_server(settings) as server:
        pictures = [(data, tiles) for tiles, data in files.items()]
        for load in (0.6, 1.5):
            # the machine's pace changes by the minute: it is asked anew just before
            pace = run_clients(server, pictures, 8, seconds=max(5.0, seconds / 6)).tiles_per_second
            machine = Machine((Device(0.0, lanes / pace, lanes),), max_tiles=1500)
            mean = statistics.mean(files)
            arrivals = poisson(load * pace / mean, seconds, lambda dice: dice.choice(list(files)), seed=int(load * 10))
            simulated = Simulation(machine, seed=1)
            simulated.run(arrivals)
            median, late, refused = waits([simulated])
            print(f"| {load:.0%} | simulated | {median:.2f} | {late:.2f} | {refused:.0%} |")
            answered, refusals = send(server, arrivals, files)
            print(f"| {load:.0%} | measured | {np.median(answered):.2f} | {np.percentile(answered, 95):.2f} "
                  f"| {refusals / len(arrivals):.0%} |", flush=True)  # fmt: skip


def main() -> None:
    """Measure, compute, simulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of the measured figures")
    parser.add_argument("--pictures", type=int, default=3000, help="of each simulated row")
    parser.add_argument("--seconds", type=float, default=60, help="of each load that is simulated and sent")
    options = parser.parse_args()
    say("measuring")
    cost = measure(options.rounds)
    without_inference()
    print("\n" + table(workloads(), cost))
    say("simulating")
    queueing(cost, options.pictures)
    say("sending what was simulated")
    validate(options.seconds)


if __name__ == "__main__":
    main()
