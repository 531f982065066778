import math
import time

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

    def test_clients_take_turns_and_for_each_its_pictures(self) -> None:
        turns: Turns[str, str] = Turns()
        for i in range(24):
            turns.add(f"many{i}", "g", [f"{i}.{tile}" for tile in range(9)], "many")
        turns.add("one", "g", list("abcd"), "one")
        assert turns.take(8) == ["0.0", "a", "1.0", "b", "2.0", "c", "3.0", "d"]
        turns.add("two", "g", list("ef"), "two")
        assert turns.take(4) == ["4.0", "e", "5.0", "f"]

    def test_a_client_with_pictures_for_all_cameras_has_no_more_turns(self) -> None:
        turns: Turns[str, str] = Turns()
        for camera in ("iphone", "sony", "blackberry"):
            turns.add(camera, camera, ["many"] * 1000, "many")
        turns.add("one", "iphone", ["one"] * 1000, "one")
        taken = [turns.take(8) for _ in range(100)]
        counted = sum(batch.count("one") for batch in taken)
        assert 380 <= counted <= 420
        assert sum("many" in batch for batch in taken) > 50

    def test_pictures_of_a_client_for_a_rare_camera_have_their_turn_and_no_more(self) -> None:
        turns: Turns[int, int] = Turns()
        for i in range(40):
            turns.add(i, "iphone", [i] * 100)
        turns.add(40, "sony", [40] * 100)
        taken = [item for _ in range(60) for item in turns.take(8)]
        assert 60 <= taken.count(40) <= 100, "a batch of its own whenever it has its turn"

    def test_overdue_pictures_of_one_client_leave_the_others_their_part(self) -> None:
        turns: Turns[str, str] = Turns()
        hoard = [f"old{i}" for i in range(50)]
        for key in hoard:
            turns.add(key, "g", ["many"] * 100, "many")
        for client in ("a", "b"):
            turns.add(client, "g", [client] * 1000, client)
        overdue = [*hoard, "b"]
        taken = [item for _ in range(100) for item in turns.take(8, overdue)]
        assert 230 <= taken.count("a") <= 270
        assert taken.count("b") >= 260

    def test_overdue_pictures_for_one_camera_leave_the_others_every_second_batch(self) -> None:
        turns: Turns[str, str] = Turns()
        turns.add("old", "sony", ["old"] * 1000, "many")
        turns.add("new", "iphone", ["new"] * 1000, "a")
        taken = [turns.take(8, ["old"])[0] for _ in range(20)]
        assert taken.count("new") == 10

    def test_a_batch_costs_no_more_where_thousands_wait(self) -> None:
        def seconds(keys: int) -> float:
            turns: Turns[int, int] = Turns()
            for key in range(keys):
                turns.add(key, "iphone", [0] * 60, f"client {key % 1000}")
            turns.add(keys, "sony", [0] * 60, "rare")
            start = time.process_time()
            for _ in range(200):
                turns.waiting_with_next()
                turns.take(8)
            return time.process_time() - start

        seconds(2_000)
        assert seconds(40_000) < 10 * seconds(400)


@given(st.integers(0, 1000), st.sets(st.integers(2, 64)), st.integers(1, 16))
def test_a_batch_is_the_largest_size_that_a_lanes_share_fills(waiting: int, others: set[int], idle: int) -> None:
    sizes = sorted({1, *others})
    chosen = choose_batch(waiting, sizes, idle)
    share = math.ceil(waiting / idle)
    assert chosen in (0, *sizes)
    assert all(size <= chosen or size > share for size in sizes)
    assert (chosen == 0) == (waiting == 0), "no lane idles while tiles wait"
