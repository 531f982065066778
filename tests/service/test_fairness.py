"""Hostile clients in the simulated queue: who behaves waits at most twice as long as beside ones that behave, too."""

import statistics

import pytest

from benchmarks.fairness import ATTACKS, HONEST, one_at_a_time, waits_beside

TILE_S = 0.00145


@pytest.mark.parametrize("others", [0.0, 0.5])
@pytest.mark.parametrize("name", ATTACKS)
def test_who_behaves_waits_at_most_twice_as_long(name: str, others: float) -> None:
    attack = ATTACKS[name]
    calm = waits_beside(one_at_a_time(attack), TILE_S, others, pictures=5)
    beside = waits_beside(attack, TILE_S, others, pictures=5)
    for size in HONEST:
        assert statistics.mean(beside[size]) <= 2 * statistics.mean(calm[size]), size
