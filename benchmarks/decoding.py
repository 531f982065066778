"""`python -m benchmarks.decoding`: what it costs to decode in worker processes, at 12 megapixels.

Services on the shipped generator, one with decode workers and one that decodes in its own process, are asked in turns,
so that a slow spell hits all of them; medians are taken. With `--against CHECKOUT` the service of another checkout is
asked too, with workers.
"""

import argparse
import contextlib
import re
import statistics
from collections.abc import Mapping
from pathlib import Path

from benchmarks.pictures import jpeg, of_megapixels
from benchmarks.server import running_server

WORKERS, OWN, OTHER = "workers", "own process", "workers of the other checkout"
STAGES = ("decode", "total")


def milliseconds(timing: str, stage: str) -> float:
    """Read one stage of a `Server-Timing` header."""
    found = re.search(rf"\b{stage};dur=([\d.]+)", timing)
    assert found, timing
    return float(found[1])


def measure(rounds: int, against: Path | None) -> Mapping[str, Mapping[str, float]]:
    """Ask all services in turns.

    Returns:
        Median milliseconds by kind and stage.
    """
    file = jpeg(*of_megapixels(12))
    starts: dict[str, tuple[dict[str, str], dict[str, str]]] = {WORKERS: ({}, {}), OWN: ({"DECODE_WORKERS": "0"}, {})}
    if against is not None:
        starts[OTHER] = ({}, {"PYTHONPATH": str(against.resolve()), "PYTHONSAFEPATH": "1"})
    seen: dict[str, dict[str, list[float]]] = {kind: {stage: [] for stage in STAGES} for kind in starts}
    with contextlib.ExitStack() as stack:
        clients = {
            kind: stack.enter_context(stack.enter_context(running_server(*start)).client())
            for kind, start in starts.items()
        }
        for round_ in range(rounds + 1):
            for kind, client in clients.items():
                answer = client.post("/enhance", files={"image": file})
                answer.raise_for_status()
                for stage in STAGES if round_ else ():  # the first one warms up
                    seen[kind][stage].append(milliseconds(answer.headers["server-timing"], stage))
    return {kind: {stage: statistics.median(values) for stage, values in of.items()} for kind, of in seen.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Times decoding in worker processes against the service's own.")
    parser.add_argument("--rounds", type=int, default=9, help="requests to each service")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout, whose service is asked too")
    options = parser.parse_args()
    found = measure(options.rounds, options.against)
    print("| 12-megapixel JPEG | decoding, ms | whole request, ms |")
    print("| --- | ---: | ---: |")
    for kind, stages in found.items():
        print(f"| {kind} | {stages['decode']:.0f} | {stages['total']:.0f} |")
    workers, own = found[WORKERS], found[OWN]
    more = workers["decode"] - own["decode"]
    print(f"\nworkers take {more:.0f} ms more, {more / own['total']:.1%} of a request")
    if OTHER in found:
        print(f"decoding takes {workers['decode'] / found[OTHER]['decode']:.3f} of what the other checkout's takes")


if __name__ == "__main__":
    main()
