"""Fuzzes for as long as asked: `python -m tests.fuzz --minutes 10`; see CONTRIBUTING.md."""

import argparse
import itertools
import re
import sys
import time
from collections import Counter
from pathlib import Path

from tests.fuzz import child, runner
from tests.fuzz.everything import all_targets

FOLDER = runner.PROJECT / ".fuzz"
_SLICE = 400
"""Inputs of one target before the next one's turn."""


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--target", action="append", choices=sorted(all_targets()), help="only this one; may be repeated"
    )
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() // 1_000_000_000, help="the inputs' own; by the clock"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run an input that was kept")
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.replay)
    return _fuzz(arguments.target or sorted(all_targets()), arguments.seed, arguments.minutes)


def replay(path: Path) -> int:
    """Run an input that was kept, by the target that its name begins with; return the exit code."""
    found = runner.run_file(path.name.partition(".")[0], path)
    print(found or "all promises kept")
    return int(found is not None)


def _fuzz(names: list[str], seed: int, minutes: float) -> int:
    until = time.monotonic() + 60 * minutes
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in names}
    known: Counter[str] = Counter()
    print(f"seed {seed}, {minutes:g} minutes, {len(names)} targets")
    for turn in itertools.count():
        for name in names:
            if time.monotonic() >= until:
                return _report(outcomes, known)
            tally = runner.fuzz([name], seed, turn * _SLICE, (turn + 1) * _SLICE, until)
            outcomes[name] += tally.outcomes[name]
            for finding in tally.findings:
                # the same end of two tracebacks is most often the same bug
                last = f"{name}: {re.sub('[0-9]+(x[0-9a-f]+)?', '#', finding.words.strip().splitlines()[-1])[:200]}"
                known[last] += 1
                if known[last] <= 3:
                    _keep(finding)
    raise AssertionError


def _keep(finding: runner.Finding) -> None:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{finding.target}.{finding.seed}.{finding.number}"
    path.write_bytes(child.input_of(finding.target, finding.seed, finding.number))
    path.with_name(path.name + ".txt").write_text(finding.words + "\n")
    print(
        f"{finding.words.strip()}\n  again: python -m tests.fuzz --replay {path.relative_to(runner.PROJECT)}\n",
        flush=True,
    )


def _report(outcomes: dict[str, Counter[str]], known: Counter[str]) -> int:
    for name, counts in outcomes.items():
        told = ", ".join(f"{kind} {count}" for kind, count in counts.most_common(6))
        print(f"{name:12} {counts.total():8} inputs: {told}")
    for words, count in known.most_common():
        print(f"FOUND {count} times: {words}")
    print(f"{sum(counts.total() for counts in outcomes.values())} inputs, {len(known)} kinds of findings")
    return int(bool(known))


if __name__ == "__main__":
    sys.exit(main())
