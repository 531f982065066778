"""`python -m tests.hostile.clients`: attacks a real server as hostile clients do, and says what that costs the others.

Each attack starts a server of its own and comes from 127.0.0.2; who behaves comes from another address. Prints a table
with what is to be reached, writes JSON, and exits with 1 where something is missed. With `--against CHECKOUT` the same
is done to the service of another checkout in the same run, and what all of it costs a well-behaved client is measured
by turns.
"""

import argparse
import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.pictures import jpeg, of_megapixels
from tests.e2e.conftest import Server
from tests.hostile.attacked import HONEST, ask, serving
from tests.hostile.attacks import ATTACKS, Outcome

HERE: Final = Path(__file__).parents[2]


def cost(here: Path, before: Path, rounds: int = 7) -> list[Outcome]:
    """What a well-behaved client pays for it all: a 12-megapixel photo, and 64 clients at once, by turns."""
    large, small = jpeg(*of_megapixels(12)), jpeg(256, 256)
    with serving(before) as old, serving(here) as new:

        def one(server: Server) -> None:
            assert ask(server, HONEST, large).status == 200

        return [
            _compared("cost to a 12-megapixel photo", one, old, new, rounds),
            _compared("cost to 64 clients at once", lambda server: _many(server, small), old, new, rounds),
        ]


def _many(server: Server, data: bytes, clients: int = 64, each: int = 2) -> None:
    """Clients of an address each, which send the next picture as soon as one is answered."""

    def client(number: int) -> None:
        for _ in range(each):
            statuses[ask(server, f"127.0.1.{1 + number}", data).status] += 1

    statuses = Counter[int]()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses[200] == clients * each, statuses


def _compared(what: str, work: Callable[[Server], None], old: Server, new: Server, rounds: int) -> Outcome:
    """Time both by turns, each first as often as the other; the median of the rounds' ratios less 1, in percent."""
    taken: list[tuple[float, float]] = []
    for number in range(-1, rounds):
        pair: dict[bool, float] = {}
        for is_new in (False, True) if number % 2 else (True, False):
            time.sleep(0.2)  # threads of the session before spin on for a while
            start = time.perf_counter()
            work(new if is_new else old)
            pair[is_new] = time.perf_counter() - start
        if number >= 0:  # the first round is not counted
            taken.append((pair[False], pair[True]))
    percent = [100 * (after / before - 1) for before, after in taken]
    low, median, high = np.percentile(percent, (25, 50, 75))
    before, after = np.median(taken, axis=0)
    found = {"before, s": before, "here, s": after, "first quartile, %": low, "third quartile, %": high}
    return Outcome(what, float(median), 1.0, "%", {name: float(value) for name, value in found.items()})


def table(here: Sequence[Outcome], before: Sequence[Outcome]) -> str:
    """Lay outcomes out in Markdown; `before` is empty, or has those of the same names of another checkout."""
    others = {each.what: each for each in before}

    def shown(outcome: Outcome | None) -> str:
        return "" if outcome is None else f"{outcome.value:.3g} {outcome.unit}".rstrip()

    lines = ["| attack | before | here | reach | |", "| --- | ---: | ---: | ---: | --- |"]
    lines += [
        f"| {each.what} | {shown(others.get(each.what))} | {shown(each)} | {each.reach:g} {each.unit} "
        f"| {'kept' if each.kept else '**missed**'} |"
        for each in here
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the attacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*ATTACKS, "cost"], help="one attack; may be given again")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout, to compare with")
    parser.add_argument("--out", type=Path, default=Path("runs/clients.json"), help="where the JSON goes")
    parser.add_argument("--verbose", action="store_true", help="say each case's figure")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers end
    here, before = list[Outcome](), list[Outcome]()

    def keep(found: Sequence[Outcome], where: str, kept: list[Outcome]) -> None:
        kept += found
        for each in found:
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {where}: {each.what}: {each.value:.3g} {each.unit}\n")
            if options.verbose:
                sys.stderr.writelines(f"    {name}: {value:.3g}\n" for name, value in each.details.items())

    for name in options.only or [*ATTACKS, "cost"]:
        if name == "cost":
            if options.against is not None:
                keep(cost(HERE, options.against.resolve()), "here", here)
            continue
        if options.against is not None:
            keep(ATTACKS[name](options.against.resolve()), "before", before)
        keep(ATTACKS[name](HERE), "here", here)
    print(table(here, before))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    told = {"here": [{**asdict(each), "kept": each.kept} for each in here], "before": [asdict(each) for each in before]}
    options.out.write_text(json.dumps(told, indent=1))
    sys.exit(not all(each.kept for each in here))


if __name__ == "__main__":
    main()
