"""Runs children, takes note of what they find, and begins anew behind an input that one of them died of."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).parents[2]
PATIENCE_S: Final = 60.0
"""Wall seconds for one input; far beyond what the child allows in processor time, since machines are busy."""


@dataclass(frozen=True)
class Finding:
    """An input that broke a promise.

    Attributes:
        target: its target's name.
        seed, number: what it is made of.
        words: what happened.
    """

    target: str
    seed: int
    number: int
    words: str


@dataclass
class Tally:
    """What a run came to: of each target how many inputs ended how, and what was found."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    findings: list[Finding] = field(default_factory=list)


def fuzz(targets: Sequence[str], seed: int, first: int, last: int, until: float = float("inf")) -> Tally:
    """Run inputs of one target after the other.

    Args:
        targets: their names.
        seed: the inputs' own.
        first: the number of the first target's first input.
        last: each target's inputs end before this number.
        until: when to stop at the latest, by `time.monotonic()`.
    """
    tally, place = Tally(), first
    while place < last * len(targets) and time.monotonic() < until:
        child = _started(",".join(targets), str(seed), str(place), str(last))
        try:
            for target, number, told in _lines(child, until):
                place = targets.index(target) * last + number + 1
                if "finding" in told:
                    tally.findings.append(Finding(target, seed, number, told["finding"]))
                tally.outcomes[target][told["outcome"]] += 1
        finally:
            _end(child)
    return tally


def run_file(target: str, path: Path) -> str | None:
    """Run one input from a file; return what was found."""
    child = _started(target, "file", str(path))
    try:
        ((_, _, told),) = _lines(child, float("inf"))
    finally:
        _end(child)
    found: str | None = told.get("finding")
    return found


def _started(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.child", *arguments],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
    )


def _lines(child: "subprocess.Popen[bytes]", until: float) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Give what each input came to; one that the child dies of or hangs on is the last."""
    assert child.stdout is not None
    begun: tuple[str, int] | None = None
    buffer = b""
    while True:
        patience = min(PATIENCE_S, max(until - time.monotonic(), 0))
        if not select.select([child.stdout], [], [], patience)[0]:
            if begun is not None and patience == PATIENCE_S:
                yield *begun, {"outcome": "hung", "finding": f"no end within {PATIENCE_S:g} s"}
            return
        piece = os.read(child.stdout.fileno(), 1 << 16)
        if not piece:
            break
        buffer += piece
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            word, target, number, *rest = line.decode().split(" ", 3)
            if word == "begin":
                begun = target, int(number)
            else:
                begun = None
                yield target, int(number), json.loads(rest[0])
    status = child.wait()
    if status != 0:
        how = signal.Signals(-status).name if status < 0 else f"exit {status}"
        if begun is None:
            raise RuntimeError(f"a child ended by {how} between two inputs")
        yield *begun, {"outcome": "crashed", "finding": f"the process died: {how}"}


def _end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()
