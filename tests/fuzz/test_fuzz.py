"""A bounded run of every target, the same inputs each time; `make fuzz` goes on with others."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import child, runner
from tests.fuzz.everything import all_targets
from tests.fuzz.mutations import mutated
from tests.fuzz.structure import structure_of

INPUTS = 150


@pytest.mark.parametrize("target", sorted(all_targets()))
def test_every_promise_is_kept(target: str) -> None:
    tally = runner.fuzz(target, seed=0, first=0, last=INPUTS)
    assert tally.findings == []
    assert tally.inputs == INPUTS
    assert len(tally.outcomes) > 1  # some get further than others
