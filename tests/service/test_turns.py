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

    def test_who_is_overdue_gets_half_before_the_others_take_turns(self) -> None:
        turns: Turns[str, str] = Turns()
        turns.add("new", "g", [f"n{i}" for i in range(9)])
        turns.add("old", "g", [f"o{i}" for i in range(5)])
        turns.add("oldest", "g", ["p0", "p1"])
        assert turns.waiting_with_next(["gone", "oldest", "old"]) == 16
        assert turns.take(8, ["gone", "oldest", "old"]) == ["p0", "p1", "o0", "o1", "n0", "o2", "n1", "o3"]
        assert turns.take(1, ["old"]) == ["o4"]
        assert turns.take(2, ["old"]) == ["n2", "n3"]
        assert len(turns) == 5

    def test_who_is_overdue_says_which_group_is_next(self) -> None:
        turns: Turns[str, int] = Turns()
        turns.add("a", "iphone", [1, 2])
        turns.add("b", "sony", [3, 4, 5])
        turns.add("c", "iphone", [6])
        assert turns.waiting_with_next(["b", "c"]) == 3
        assert turns.take(4, ["b", "c"]) == [3, 4, 5]
        assert turns.take(4, ["b", "c"]) == [6, 1, 2]
        assert len(turns) == 0

    def test_what_is_given_back_goes_first_in_its_order(self) -> None:
        turns: Turns[str, int] = Turns()
        turns.add("a", "g", [1, 2, 3])
        turns.add("b", "g", [4])
        assert turns.take(3) == [1, 4, 2]
        turns.give_back("a", "g", [1, 2])
        turns.give_back("b", "g", [4])
        turns.give_back("c", "g", [])
        assert len(turns) == 4
        assert turns.take(8) == [1, 4, 2, 3]

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
