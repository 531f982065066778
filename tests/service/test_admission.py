"""The queue without threads: costs, admission, and whole days of arrivals in simulated time."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulation import Device, Machine, Simulation
from service.admission import LONGEST_S, Admission, Cost, whole_seconds

SIZES = (1, 2, 4, 8)


class TestCost:
    def test_finds_the_line(self) -> None:
        cost = Cost()
        for n in (1, 2, 4, 8) * 5:
            cost.observe(n, 0.002 + 0.003 * n)
        assert cost.fixed == pytest.approx(0.002)
        assert cost.per_tile == pytest.approx(0.003)
        assert cost.batch(16) == pytest.approx(0.05)

    def test_of_one_size_is_proportional(self) -> None:
        cost = Cost()
        for seconds in (0.03, 0.05):
            cost.observe(8, seconds)
        assert cost.fixed == 0
        assert cost.batch(8) == pytest.approx(0.04, rel=0.02)

    def test_follows_a_device_that_slows_down(self) -> None:
        cost = Cost()
        for n in SIZES * 100:
            cost.observe(n, 0.001 + 0.003 * n)
        for n in SIZES * 50:
            cost.observe(n, 0.002 + 0.006 * n)
        assert cost.batch(8) == pytest.approx(0.05, rel=0.05)

    @given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 10)), min_size=1, max_size=50))
    def test_is_never_negative_nor_falling(self, batches: list[tuple[int, float]]) -> None:
        cost = Cost()
        for tiles, seconds in batches:
            cost.observe(tiles, seconds)
        assert cost.fixed >= 0
        assert cost.per_tile > 0


def admission(max_tiles: int = 100, lanes: int = 1) -> Admission[str]:
    """A queue whose device takes 10 ms a tile in each lane."""
    made: Admission[str] = Admission(max_tiles, 8, lanes)
    made.cost.observe(8, 0.08)
    return made


class TestAdmission:
    def test_counts_what_waits(self) -> None:
        queue = admission()
        queue.join("a", 10)
        queue.join("b", 5)
        queue.done("a", 4)
        assert queue.waiting == 11
        queue.leave("a")
        queue.done("a", 1)  # a batch that was under way when it left
        assert queue.waiting == 5

    def test_an_empty_queue_takes_any_picture(self) -> None:
        assert admission(max_tiles=1).wait(1000, 0.001, now=0) is None

    @pytest.mark.parametrize("lanes", [1, 2])
    def test_a_full_one_says_when_there_is_room(self, lanes: int) -> None:
        queue = admission(100, lanes)
        queue.join("a", 90)
        assert queue.wait(10, 60, now=0) is None
        assert queue.wait(40, 60, now=0) == pytest.approx(30 * 0.01 / lanes)

    def test_more_than_fits_waits_until_all_is_done(self) -> None:
        queue = admission(100)
        queue.join("a", 90)
        assert queue.wait(500, 60, now=0) == pytest.approx(0.9)

    def test_those_told_later_are_sent_behind_those_told_before(self) -> None:
        queue = admission(100)
        queue.join("a", 100)
        assert queue.wait(10, 60, now=0) == pytest.approx(0.1)
        assert queue.wait(20, 60, now=0) == pytest.approx(0.3)
        queue.done("a", 10)
        assert queue.wait(10, 60, now=0.09) is not None, "too early, and there is no room"
        queue.done("a", 20)
        assert queue.wait(20, 60, now=0.2) is not None, "the room is promised to the first"
        assert queue.wait(1, 60, now=0.2) is None, "what is small passes"
        assert queue.wait(10, 60, now=0.2) is None

    def test_room_is_not_kept_for_ever(self) -> None:
        queue = admission(100)
        queue.join("a", 100)
        assert queue.wait(10, 60, now=0) == pytest.approx(0.1)
        queue.done("a", 20)
        assert queue.wait(15, 60, now=1) is not None
        assert queue.wait(15, 60, now=9) is None

    def test_a_thumbnail_does_not_wait_for_all_of_a_large_photo(self) -> None:
        queue = admission(100_000)
        queue.join("photo", 10_000)  # 100 s
        assert queue.wait(4, 0.1, now=0) is None
        assert queue.wait(4, 0.07, now=0) is not None

    def test_in_time_again_once_others_are_nearly_done(self) -> None:
        queue = admission(100_000)
        queue.join("a", 20)
        queue.join("b", 100)
        # 50 of its own, 20 of a and 50 of b make 1.2 s; after 40 rounds, 60 tiles, 50 of its own and 60 of b
        wait = queue.wait(50, 1.1, now=0)
        assert wait is not None
        for key, tiles in (("a", 20), ("b", round(wait / 0.01) - 20)):
            queue.done(key, tiles)
        assert queue.wait(50, 1.1, now=wait) is None

    @given(st.lists(st.integers(1, 300), max_size=12))
    def test_a_client_always_finds_an_equal_part(self, held: list[int]) -> None:
        queue = admission(1000)
        for number, tiles in enumerate(held):
            queue.join(f"picture {number}", tiles, client=f"client {number}")
        assert queue.wait(1000 // (len(held) + 1), 1e6, now=0, client="new") is None

    def test_one_alone_fills_the_queue_and_the_next_finds_room(self) -> None:
        queue = admission(100)
        queue.join("a", 60, client="a")
        assert queue.wait(40, 60, now=0, client="a") is None
        queue.join("a2", 40, client="a")
        assert queue.wait(10, 60, now=0, client="a") is not None
        assert queue.wait(50, 60, now=0, client="b") is None
        queue.join("b", 50, client="b")
        assert queue.wait(1, 60, now=0, client="b") is not None
        assert queue.wait(33, 60, now=0, client="c") is None
        queue.done("a", 60)
        assert queue.wait(1, 60, now=0, client="b") is None
        assert queue.wait(1, 60, now=0, client="a") is None, "what the others leave it may have"

    def test_what_one_client_is_told_keeps_no_other_out(self) -> None:
        queue = admission(1000)
        queue.join("a", 900, client="a")
        for second in range(600):
            assert queue.wait(600 + second, 60, now=second, client="hostile") is not None
            assert queue.wait(100, 60, now=second, client="b") is None
        wait = queue.wait(2000, 60, now=600, client="b")
        assert wait is not None
        assert wait <= 20, "of what the other was told no more than one picture counts"

    def test_who_comes_back_when_told_is_let_in_whoever_came_meanwhile(self) -> None:
        queue = admission(100)
        queue.join("a", 100, client="a")
        wait = queue.wait(60, 60, now=0, client="b")
        assert wait is not None
        assert wait == pytest.approx(0.6), "until the other has left so many"
        queue.done("a", 60)
        queue.join("c", 50, client="c")
        assert queue.wait(60, 60, now=wait - 0.01, client="b") is not None, "too early"
        assert queue.wait(60, 60, now=wait, client="d") is not None, "told to another"
        assert queue.wait(60, 60, now=wait, client="b") is None

    def test_many_pictures_of_one_client_count_as_one_in_time(self) -> None:
        queue = admission(100_000)
        for i in range(24):
            queue.join(f"many{i}", 1000, client="many")
        assert queue.wait(100, 2.0, now=0, client="b") is None, "100 of its own, as many of the other's"
        assert queue.wait(100, 1.9, now=0, client="b") is not None
        assert queue.wait(100, 10.0, now=0, client="many") is not None, "those of its own are before it"

    @pytest.mark.parametrize(("wait", "expected"), [(0.0, 1), (0.2, 1), (1.2, 2), (1e9, 3600)])
    def test_retry_after_is_in_whole_seconds(self, wait: float, expected: int) -> None:
        assert whole_seconds(wait) == expected


def machine(lanes: int, max_tiles: int) -> Machine:
    return Machine((Device(0.002, 0.003, lanes),), SIZES, max_tiles=max_tiles, timeout_s=60.0)


def day(seed: int, count: int, load: float, lanes: int) -> list[tuple[float, int]]:
    """Random arrivals of thumbnails and photos that take `load` of what the lanes can do."""
    dice = random.Random(seed)
    sizes = [dice.choice((1, 1, 4, 9, 12, 100, 1344)) for _ in range(count)]
    span = sum(sizes) * 0.00325 / lanes / load
    return sorted((dice.uniform(0, span), size) for size in sizes)


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("load", [0.5, 0.95, 3.0])
def test_thousands_of_arrivals_starve_nobody_and_waste_nothing(lanes: int, load: float) -> None:
    simulated = Simulation(machine(lanes, 16_384), seed=1)
    simulated.run(day(seed=2, count=3000, load=load, lanes=lanes))
    refused = {client.name for client in simulated.refused}
    for client in simulated.clients:
        assert (client.finished is not None) == (client.name not in refused)
    assert simulated.most_waiting <= 16_384, "the queue is bounded"
    assert max(size for _, size in simulated.batches) <= SIZES[-1]
    assert all(size in SIZES for _, size in simulated.batches)
    assert simulated.queue.waiting == 0
    # the queue holds a minute of work; what is small passes through it in the time of a few tiles of each of the
    # others, while up to half of each batch is for those that are overdue
    small = [c.finished - c.arrived for c in simulated.clients if c.finished is not None and c.tiles <= 12]
    assert max(small) < 6
    if load == 3.0:
        assert refused
    if load == 0.5:
        assert not refused


@pytest.mark.parametrize("comes_back", [False, True])
def test_with_ever_new_small_pictures_large_ones_are_still_done_in_time(comes_back: bool) -> None:
    dice = random.Random(1)
    sizes = [
        dice.choice((1,) * 8 + (4,) * 6 + (12,) * 6 + (35,) * 4 + (88,) * 3 + (660, 660, 2600)) for _ in range(4000)
    ]
    device = Device(0.002, 0.0105, lanes=2)
    span = sum(sizes) / device.rate(SIZES[-1]) / 3  # three times what it can do
    simulated = Simulation(Machine((device,), SIZES, timeout_s=300.0), seed=1, comes_back=comes_back)
    simulated.run(sorted((dice.uniform(0, span), size) for size in sizes))
    seconds = []
    for client in simulated.clients:
        taken = client.arrived
        if client.told and comes_back:
            now, wait = client.told[-1]
            taken = now + whole_seconds(wait)
        if client.finished is not None:
            seconds.append(client.finished - taken)
    assert len(simulated.refused) > 100
    assert max(seconds) < 300
    assert max(seconds) > 150, "some came so far that they were put first"


def test_a_thumbnail_beside_large_photos_is_served_in_a_few_batches() -> None:
    simulated = Simulation(machine(2, 100_000), seed=1)
    simulated.run([(0.0, 5600), (0.0, 5600), *((1.0 + i * 0.1, 9) for i in range(100))])
    waits = [c.finished - c.arrived for c in simulated.clients if c.tiles == 9 and c.finished is not None]
    assert len(waits) == 100
    # its 9 tiles share batches with two others, and a batch under way has to end first
    assert max(waits) < 5 * (0.002 + 0.003 * 8)


@pytest.mark.parametrize("lanes", [1, 2])
def test_who_comes_back_when_told_is_taken(lanes: int) -> None:
    simulated = Simulation(machine(lanes, 3000), seed=3, comes_back=True)
    simulated.run(day(seed=4, count=600, load=1.5, lanes=lanes))
    assert all(client.finished is not None for client in simulated.clients)
    told = [client for client in simulated.clients if client.told]
    assert len(told) > 50
    again = [client for client in told if len(client.told) > 1]
    assert len(again) / len(told) < 0.3


def test_the_wait_that_is_told_proves_right() -> None:
    # no one else arrives: the room that was promised must be there when it was promised, and not long before
    simulated = Simulation(machine(2, 3000), seed=5)
    late = [(1.0 + 0.01 * i, 1344) for i in range(4)]
    simulated.run([(0.0, 1344), (0.0, 1344), *late])
    assert len(simulated.refused) == 4
    first = simulated.refused[0]
    (now, wait) = first.told[0]
    # room for 1344 is there once no more than 3000 - 1344 wait
    done, room = 0, None
    for when, size in simulated.batches:
        done += size
        if room is None and 2 * 1344 - done <= 3000 - 1344:
            room = when
    assert room is not None
    assert wait == pytest.approx(room - now, rel=0.3)


@pytest.mark.parametrize("lanes", [1, 2])
def test_each_of_many_clients_is_taken_when_it_comes_back(lanes: int) -> None:
    simulated = Simulation(machine(lanes, 3000), seed=3, comes_back=True)
    for number, arrival in enumerate(day(seed=4, count=600, load=1.5, lanes=lanes)):
        simulated.add(arrival, f"client {number}")
    simulated.advance()
    assert all(client.finished is not None for client in simulated.clients)
    told = [client for client in simulated.clients if client.told]
    assert len(told) > 20
    again = [client for client in told if len(client.told) > 1]
    assert len(again) / len(told) < 0.3


def test_impatient_clients_put_nobody_off_by_the_hour() -> None:
    admission: Admission[int] = Admission(100, 10, 1)
    admission.cost.observe(10, 1.0)
    admission.join(0, 100)
    told = [admission.wait(50, 1e6, 0.0) or 0.0 for _ in range(10_000)]
    assert 0 < told[0] < max(told) == LONGEST_S
    assert admission.wait(50, 1e6, 0.0) == LONGEST_S


def test_no_device_idles_for_those_who_are_expected_later() -> None:
    admission: Admission[int] = Admission(100, 10, 1)
    admission.cost.observe(10, 1.0)
    admission.join(0, 100)
    for _ in range(200):
        assert admission.wait(50, 1e6, 0.0) is not None
    admission.done(0, 90)
    assert admission.wait(20, 1e6, 9.0) is None, "it is done before most of them come"
