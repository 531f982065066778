"""Fuzzes for as long as asked: `python -m tests.fuzz --minutes 10`; see CONTRIBUTING.md."""

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz import child, runner, schema
from tests.fuzz.everything import all_targets

FOLDER = runner.PROJECT / ".fuzz"
_SLICE = 150
"""Inputs of one target before the next one's turn."""
_KEPT = 3
"""Inputs that are kept of one kind of finding."""


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
    if arguments.target:
        return _fuzz(arguments.target, arguments.seed, arguments.minutes)
    share = arguments.minutes / 4  # of the time
    failed = _ask_the_server(arguments.seed, share)
    return _fuzz(sorted(all_targets()), arguments.seed, arguments.minutes - share) or failed


def replay(path: Path) -> int:
    """Run an input that was kept, by the target that its name begins with; return the exit code."""
    found = runner.run_file(path.name.partition(".")[0], path)
    print(found or "all promises kept")
    return int(found is not None)


def _fuzz(names: list[str], seed: int, minutes: float) -> int:
    until = time.monotonic() + 60 * minutes
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in names}
    known: Counter[str] = Counter()
    print(f"seed {seed}, {minutes:g} minutes, {len(names)} targets", flush=True)
    turn = seed
    while time.monotonic() < until:
        tally = runner.fuzz(names, turn, 0, _SLICE, until)
        turn += 1
        for name, counts in tally.outcomes.items():
            outcomes[name] += counts
        for finding in tally.findings:
            # the same end of two tracebacks is most often the same bug
            last = f"{finding.target}: {re.sub('[0-9]+(x[0-9a-f]+)?', '#', finding.words.strip().splitlines()[-1])}"
            known[last[:200]] += 1
            if known[last[:200]] <= _KEPT:
                _keep(finding)
    return _report(outcomes, known)


def _ask_the_server(seed: int, minutes: float) -> int:
    """Let schemathesis loose on a server of our own; return the exit code."""
    with tempfile.TemporaryDirectory() as folder, schema.running_server(Path(folder)) as url:
        found = schema.check_schema(url, Path(folder), seed=seed, examples=200, seconds=max(int(60 * minutes), 1))
    print(found or "schemathesis: every answer was as documented")
    return int(found is not None)


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
