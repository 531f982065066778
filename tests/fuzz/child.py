"""The process in which inputs are run, one after the other; it may crash, hang or run out of memory.

It writes a line `begin TARGET NUMBER` before each input and `end TARGET NUMBER JSON` behind it: the outcome, and
what was found.
"""

import gc
import io
import json
import logging
import os
import random
import re
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, Final, TextIO

MEMORY: Final = 1 << 30
"""Bytes of address space beyond those that the process has once all is imported."""
RESIDENT: Final = 420 << 20
"""Bytes that one input may add to the resident memory: several copies of the largest picture in 16 bits with alpha."""
_PYTHONS: Final = re.compile(r"[A-Za-z]Warning\b|Traceback|Exception|[A-Za-z]Error\b")
"""What Python writes; of libpng's and libtiff's words nothing is expected."""
CPU_S: Final = 4.0
"""Seconds of processor time for one input: the largest pictures take one."""


def input_of(target: str, seed: int, number: int) -> bytes:
    """Make an input anew: the same for the same arguments."""
    from tests.fuzz import everything

    if target == "itself":
        return everything.WAYS[number]
    return everything.target(target).make(random.Random(f"{target} {seed} {number}"))


class _Heard(logging.Handler):
    """Keeps what is logged: a hostile file must not fill the service's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


_HEARD: Final = _Heard()


def run_one(target: str, data: bytes, noise: TextIO) -> dict[str, Any]:
    """Run an input.

    Args:
        target: its name.
        data: the input.
        noise: what the process writes to its standard output and error, which are pointed at it.

    Returns:
        `outcome`, and `finding` where a promise was not kept.
    """
    from tests.fuzz import everything

    noise.seek(0)
    noise.truncate()
    _HEARD.lines.clear()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = _resident("VmRSS"), time.process_time()
    finding = None
    outcome = "raised"
    try:
        outcome = everything.target(target).run(data)
    except Exception:  # noqa: BLE001
        finding = traceback.format_exc()
    took = time.process_time() - began
    grown = _resident("VmHWM") - before
    if finding is None and took > CPU_S:
        finding = f"it took {took:.1f} s of processor time"
    if finding is None and grown > RESIDENT:
        finding = f"it took {grown >> 20} MiB of memory"
    sys.stderr.flush()
    noise.seek(0)
    said = noise.read(2000)
    if finding is None and _PYTHONS.search(said):
        finding = f"it wrote to standard error: {said}"
    if finding is None and _HEARD.lines:
        finding = f"it logged {_HEARD.lines[:5]}"
    return {"outcome": outcome} | ({} if finding is None else {"finding": finding})


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    return 0


def prepare() -> TextIO:
    """Limit this process, turn warnings into errors and standard error into a file that is looked at."""
    from tests.fuzz import everything

    everything.all_targets()
    warnings.simplefilter("error")
    logging.getLogger().addHandler(_HEARD)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own, descriptor = os.fdopen(os.dup(2), "w", buffering=1), os.memfd_create("noise")
    sys.excepthook = lambda *error: traceback.print_exception(*error, file=own)  # a fault of the fuzzer itself
    os.dup2(descriptor, 2)
    os.dup2(descriptor, 1)  # what a library prints is noise as well
    return io.TextIOWrapper(os.fdopen(os.dup(descriptor), "r+b", buffering=0), errors="replace", write_through=True)


def main(names: str, seed: int, first: int, last: int) -> None:
    """Run inputs by their numbers: of the first target, then of the second and so on, `last` of each.

    Args:
        names: the targets', with commas between.
        seed: the inputs' own.
        first: how many, counted through all targets, are passed over.
        last: how many each target has.
    """
    out = os.fdopen(os.dup(1), "w", buffering=1)
    noise = prepare()
    targets = names.split(",")
    for place in range(first, last * len(targets)):
        target, number = targets[place // last], place % last
        data = input_of(target, seed, number)
        out.write(f"begin {target} {number}\n")
        out.write(f"end {target} {number} {json.dumps(run_one(target, data, noise))}\n")
        if number % 64 == 0:
            gc.collect()


def main_file(target: str, path: Path) -> None:
    """Run one input of a file."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    noise = prepare()
    out.write(f"begin {target} 0\n")
    out.write(f"end {target} 0 {json.dumps(run_one(target, path.read_bytes(), noise))}\n")


if __name__ == "__main__":
    if sys.argv[2] == "file":
        main_file(sys.argv[1], Path(sys.argv[3]))
    else:
        main(sys.argv[1], *map(int, sys.argv[2:5]))
