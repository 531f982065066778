import math

from hypothesis import given
from hypothesis import strategies as st

from service.turns import Turns, choose_batch


class TestTurns:
    def test_one_each_in_turn(self) -> None:
        turns: Turns[str, str] = Turns()
        turns.add("big", "iphone", [f"b{i}" for i in range(5)])
        turns.add("small", "iphone", ["s0"])
        assert turns.take(4) == ["b0", "s0", "b1", "b2"]
        turns.add("late", "iphone", ["l0", "l1"])
        assert turns.take(4) == ["b3", "l0", "b4", "l1"]
        assert len(turns) == 0

    def test_a_batch_holds_one_group(self) -> None:
        turns: Turns[str, int] = Turns()
        turns.add("a", "iphone", [1, 2])
        turns.add("b", "sony", [3])
        turns.add("c", "iphone", [4])
        assert turns.waiting_with_next() == 3
        assert turns.take(8) == [1, 4, 2]
        assert turns.take(8) == [3]

    def test_drop_takes_out_what_waits(self) -> None:
        turns: Turns[str, int] = Turns()
        turns.add("a", "g", [1, 2])
        turns.add("b", "g", [3])
        assert turns.drop("a") == [1, 2]
        assert turns.drop("a") == []
        assert len(turns) == 1
        assert turns.take(8) == [3]

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), max_size=60), st.integers(1, 16))
    def test_nobody_starves_and_nothing_is_lost(self, arrivals: list[tuple[int, int]], most: int) -> None:
        turns: Turns[int, tuple[int, int]] = Turns()
        for number, (key, count) in enumerate(arrivals):
            turns.add(key, "g", [(key, number * 100 + i) for i in range(count)])
        expected = {(key, number * 100 + i) for number, (key, count) in enumerate(arrivals) for i in range(count)}
        waiting = {key for key, _ in arrivals}
        taken: list[tuple[int, int]] = []
        while len(turns):
            batch = turns.take(most)
            assert 0 < len(batch) <= most
            taken += batch
        assert set(taken) == expected
        assert len(taken) == len(expected)
        # everyone who waits has a turn before anyone has a second one
        assert {key for key, _ in taken[: len(waiting)]} == waiting
        for key in waiting:
            own = [item for owner, item in taken if owner == key]
            assert own == sorted(own), "a key's own items keep their order"


@given(st.integers(0, 1000), st.sets(st.integers(2, 64)), st.integers(1, 16))
def test_a_batch_is_the_largest_size_that_a_lanes_share_fills(waiting: int, others: set[int], idle: int) -> None:
    sizes = sorted({1, *others})
    chosen = choose_batch(waiting, sizes, idle)
    share = math.ceil(waiting / idle)
    assert chosen in (0, *sizes)
    assert all(size <= chosen or size > share for size in sizes)
    assert (chosen == 0) == (waiting == 0), "no lane idles while tiles wait"
