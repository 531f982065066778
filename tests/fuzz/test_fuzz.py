"""A bounded run of every target, the same inputs each time; `make fuzz` goes on with others."""

from pathlib import Path

from tests.fuzz import __main__ as command
from tests.fuzz import child, everything, runner

INPUTS = 60


def test_every_promise_is_kept() -> None:
    names = sorted(everything.all_targets())
    tally = runner.fuzz(names, seed=0, first=0, last=INPUTS)
    assert tally.findings == []
    assert {name: outcomes.total() for name, outcomes in tally.outcomes.items()} == dict.fromkeys(names, INPUTS)
    # the inputs reach different ends: neither all valid nor all refused at the door
    assert all(len(outcomes) > 1 for outcomes in tally.outcomes.values())


def test_inputs_are_the_same_again() -> None:
    assert (
        child.input_of("codec-jpeg", 3, 7) == child.input_of("codec-jpeg", 3, 7) != child.input_of("codec-jpeg", 3, 8)
    )


def test_what_breaks_a_promise_is_found_and_the_rest_goes_on() -> None:
    ways = everything.WAYS
    tally = runner.fuzz(["itself"], 0, 0, len(ways))
    assert tally.outcomes["itself"].total() == len(ways)
    found = {ways[each.number]: each.words for each in tally.findings}
    assert found.keys() == set(everything.WAYS) - {b"nothing"}
    assert "SIGSEGV" in found[b"crash"]
    assert "MiB of memory" in found[b"memory"]
    assert "MemoryError" in found[b"too much memory"]
    assert "UserWarning" in found[b"warning"]
    assert "standard error" in found[b"noise"]
    assert "processor time" in found[b"slow"]


def test_an_input_that_was_kept_runs_again(tmp_path: Path) -> None:
    path = tmp_path / "itself.0.1"
    path.write_bytes(b"crash")
    assert command.replay(path) == 1
    path.write_bytes(b"nothing")
    assert command.replay(path) == 0
