"""Coverage-guided fuzzing by atheris, for the parsers in Python.

`python -m tests.fuzz.guided TARGET -max_total_time=600`; what follows the target is for libFuzzer. It ends at the first
finding, which it keeps in .fuzz/ for `python -m tests.fuzz --replay`. `pip install atheris` has wheels for Linux on
x86-64 alone, and so is in no extra.
"""

import random
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["service", "PIL", "zipfile"]):
    from tests.fuzz import runner, targets
    from tests.fuzz.mutations import mutated

_BEGIN_WITH = 200
"""Inputs that it begins with."""


def main() -> None:
    """Run until libFuzzer's own limits."""
    name, *options = sys.argv[1:]
    target = targets.targets()[name]
    warnings.simplefilter("error")
    found = runner.PROJECT / ".fuzz"
    found.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        begin_with = [target.make(random.Random(number)) for number in range(_BEGIN_WITH)]
        for number, data in enumerate(begin_with):
            (Path(corpus) / str(number)).write_bytes(data)

        def change(data: bytes, largest: int, seed: int) -> bytes:
            chance = random.Random(seed)
            return bytes(mutated(data, (chance.choice(begin_with),), chance)[:largest])

        options += [f"-artifact_prefix={found}/{name}.", "-max_len=200000", "-rss_limit_mb=3000", "-timeout=30"]
        atheris.Setup([sys.argv[0], *options, corpus], target.run, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
