"""`python -m benchmarks.soak`: the shipped service under a mixed load, as long as asked, with every answer checked.

Measures capacity by clients that wait for their answers, then sends requests at random times at parts of it, whatever
becomes of them, and measures capacity again. Bad input, clients that hang up, those that come back as they are told and
those that do not are among them. What each picture has to look like, `pix2dslr enhance` says beforehand, one tile at a
time. Prints a table with verdicts, writes JSON and a plot; exits with 1 where something that is wanted is missed.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.server import Server, running_server
from benchmarks.soak_clients import Clients
from benchmarks.soak_mix import make_mix
from benchmarks.soak_report import Phase, plot, table, verdicts, write_json

CLIENTS: Final = 24
"""Of the capacity: enough for every lane and thread, and few enough that none is refused."""

NICE: Final = 5
"""The load's own priority: what it takes must not be missed by the server."""


@contextmanager
def watched(server: Server, file: Path) -> Iterator[None]:
    """Watch the server from a process of its own, which writes to a file."""
    command = [sys.executable, "-m", "benchmarks.soak_watch", server.url, str(server.pid), str(os.getpid()), str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            yield
        finally:
            process.stdin.close()


def say(text: str) -> None:
    """Tell whoever waits."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def run(clients: Clients, tiles: float, loads: list[float], seconds: float, live: int, seed_s: float) -> list[Phase]:
    """Run all phases.

    Args:
        clients: who asks.
        tiles: of a request, on average.
        loads: parts of capacity.
        seconds: of each load.
        live: how many cameras send frames meanwhile.
        seed_s: seconds of each measuring of capacity.
    """
    phases: list[Phase] = []

    def capacity() -> float:
        begin = time.time()
        seen = asyncio.run(clients.closed(CLIENTS, seed_s))
        phases.append(Phase("capacity", begin, begin + seed_s, seen))
        say(f"capacity: {phases[-1].goodput()} pictures and tiles a second; {dict(seen.counts())}")
        good = phases[-1].goodput()[1]
        if not good:
            sys.exit(f"nothing is answered right; the first answer: {seen.answers[:1]}")
        return good

    rate = capacity() / tiles
    for load in loads:
        begin = time.time()
        say(f"{load:.0%}: {rate * load:.1f} requests a second")
        seen = asyncio.run(clients.opened(rate * load, seconds, live))
        phases.append(Phase(f"{load:.0%}", begin, begin + seconds, seen, load))
        say(f"{load:.0%}: {phases[-1].goodput()} pictures and tiles a second; {dict(seen.counts())}")
    capacity()
    return phases


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of each load")
    parser.add_argument("--load", default="0.8,3.0", help="parts of capacity, separated by commas")
    parser.add_argument("--capacity-seconds", type=float, help="of each measuring of capacity; a tenth where absent")
    parser.add_argument("--megapixels", type=float, default=24, help="of the largest picture")
    parser.add_argument("--live", type=int, default=3, help="cameras that send frames over WS /live")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="where .json, .png and .log go")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    options = parser.parse_args()
    settings = {"SLOW_STEP_S": "0.02", **dict(each.split("=", 1) for each in options.set)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        say("making pictures and their answers")
        mix = make_mix(Path(folder), options.megapixels)
        say(f"{len(mix.asks)} kinds of requests, {mix.tiles:.1f} tiles each on average")
        watch = Path(folder, "watch.jsonl")
        with running_server(settings) as server:
            with watched(server, watch):
                os.nice(NICE)  # once the server has the priority that this process began with
                clients = Clients(server.url, mix)
                loads = [float(load) for load in options.load.split(",")]
                length = options.capacity_seconds or max(20.0, options.seconds / 10)
                phases = run(clients, mix.tiles, loads, options.seconds, options.live, length)
                time.sleep(5)  # what is left when nobody asks
            samples: list[dict[str, Any]] = [json.loads(line) for line in watch.read_text().splitlines()]
    found = verdicts(phases, samples, server.log)
    print(table(found))
    for answer in [a for phase in phases for a in phase.seen.answers if a.what in ("wrong", "unexplained", "late")][
        :20
    ]:
        say(f"{answer.what}: {answer.name}: {answer.detail}")
    write_json(found, phases, samples, options.out.with_suffix(".json"))
    options.out.with_suffix(".log").write_text("".join(server.log))
    plot(phases, samples, options.out.with_suffix(".png"))
    sys.exit(any(each.reached is False for each in found))


if __name__ == "__main__":
    main()
