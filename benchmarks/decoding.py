"""`python -m benchmarks.decoding`: what it costs to decode in worker processes, at 12 megapixels.

Two services on the shipped generator, one with decode workers and one that decodes in its own process, are asked in
turns, so that a slow spell hits both; medians are taken.
"""

import argparse
import re
import statistics
from collections.abc import Mapping

from benchmarks.pictures import jpeg, of_megapixels
from benchmarks.server import running_server

KINDS: Mapping[str, Mapping[str, str]] = {"workers": {}, "own process": {"DECODE_WORKERS": "0"}}
STAGES = ("decode", "total")


def milliseconds(timing: str, stage: str) -> float:
    """Read one stage of a `Server-Timing` header."""
    found = re.search(rf"\b{stage};dur=([\d.]+)", timing)
    assert found, timing
    return float(found[1])


def measure(rounds: int) -> Mapping[str, Mapping[str, float]]:
    """Ask both services in turns.

    Returns:
        Median milliseconds by kind and stage.
    """
    file = jpeg(*of_megapixels(12))
    seen: dict[str, dict[str, list[float]]] = {kind: {stage: [] for stage in STAGES} for kind in KINDS}
    with (
        running_server(KINDS["workers"]) as one,
        running_server(KINDS["own process"]) as other,
        one.client() as first,
        other.client() as second,
    ):
        for round_ in range(rounds + 1):
            for kind, client in zip(KINDS, (first, second), strict=True):
                answer = client.post("/enhance", files={"image": file})
                answer.raise_for_status()
                for stage in STAGES if round_ else ():  # the first one warms up
                    seen[kind][stage].append(milliseconds(answer.headers["server-timing"], stage))
    return {kind: {stage: statistics.median(values) for stage, values in seen[kind].items()} for kind in KINDS}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Times decoding in worker processes against the service's own.")
    parser.add_argument("--rounds", type=int, default=9, help="requests to each service")
    found = measure(parser.parse_args().rounds)
    print("| 12-megapixel JPEG | decoding, ms | whole request, ms |")
    print("| --- | ---: | ---: |")
    for kind, stages in found.items():
        print(f"| {kind} | {stages['decode']:.0f} | {stages['total']:.0f} |")
    workers, own = found["workers"], found["own process"]
    more = workers["decode"] - own["decode"]
    print(f"\nworkers take {more:.0f} ms more, {more / own['total']:.1%} of a request")


if __name__ == "__main__":
    main()
