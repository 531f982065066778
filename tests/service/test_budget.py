"""Who may hold how many bytes, who gives way, and who waits."""

from collections import Counter
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.caller import Cancelled
from service.edge.budget import ByteBudget
from service.edge.errors import NoRoom
from service.edge.rooms import Rooms

MB = 1 << 20
MOST = 8 * MB


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Sender:
    """A body that comes, and what became of it."""

    def __init__(self, budget: ByteBudget, client: str) -> None:
        self.gave_way = 0
        self.room = budget.open(client, self._give_way)

    def _give_way(self) -> None:
        self.gave_way += 1

    def has(self, bytes_: int) -> "Sender":
        self.room.need(bytes_)
        return self


STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 3 * MB), st.sampled_from(["new", "grow", "finish", "leave"])),
    max_size=80,
)


@given(STEPS)
def test_room_is_never_exceeded_and_all_comes_back(steps: list[tuple[str, int, str]]) -> None:
    budget, clock = ByteBudget(MOST, clock=(clock := Clock())), clock
    held: list[Sender] = []
    for client, size, what in steps:
        clock.now += 0.7
        if what == "new" or not held:
            held.append(Sender(budget, client))
        who = held[size % len(held)]
        if what == "finish":
            who.room.finish()
        elif what == "leave":
            who.room.close()
            held.remove(who)
        else:
            before = {each: each.room.bytes for each in held}
            try:
                who.has(who.room.bytes + size)
            except NoRoom:
                assert all(each.room.bytes == before[each] for each in held), "who found no room moved nobody"
                continue
            shares: Counter[str] = Counter()
            for each in held:
                shares[each.room.client] += each.room.bytes
            others = budget.taken - who.room.bytes
            assert budget.taken <= MOST or not others
            own = shares[who.room.client]
            if size and others and own != who.room.bytes:
                assert own <= MOST - budget.taken, "it leaves as much for others as it has"
        assert budget.taken == sum(each.room.bytes for each in held)
        assert all(each.gave_way <= 1 and not (each.gave_way and each.room.bytes) for each in held)
    for each in held:
        each.room.close()
        each.room.close()
    assert budget.taken == budget.counted == 0


def test_a_body_that_is_alone_always_has_room() -> None:
    budget = ByteBudget(1000)
    room = budget.open("a")
    room.need(5000)
    room.need(6000)
    budget.open("b").check(0)
    with pytest.raises(NoRoom):
        budget.open("b").need(1)
    room.close()
    budget.open("b").need(1)


@pytest.mark.parametrize(("clients", "share"), [(1, 1 / 2), (2, 1 / 3), (3, 1 / 4), (7, 1 / 8)])
def test_each_gets_as_much_as_is_left_for_others(clients: int, share: float) -> None:
    budget = ByteBudget(MOST)
    taken: Counter[str] = Counter()
    for _ in range(1000):
        for client in map(str, range(clients)):
            try:
                budget.open(client).need(10_000)
            except NoRoom:
                continue
            taken[client] += 10_000
    assert all(abs(each / MOST - share) < 0.02 for each in taken.values())


def test_who_holds_more_gives_way_the_slowest_first() -> None:
    budget = ByteBudget(MOST, clock=(clock := Clock()))
    slow = Sender(budget, "a").has(2 * MB)
    clock.now += 10
    fast = Sender(budget, "a").has(MB)
    other = Sender(budget, "b").has(3 * MB)
    clock.now += 2
    photo = Sender(budget, "c").has(2 * MB)
    assert (slow.gave_way, fast.gave_way, other.gave_way) == (1, 0, 0)
    assert budget.taken == 6 * MB
    with pytest.raises(NoRoom):
        slow.has(2 * MB + 1)
    assert photo.room.bytes == 2 * MB


def test_nobody_gives_way_to_who_would_hold_more() -> None:
    budget = ByteBudget(64 * MB, clock=(clock := Clock()))
    small = [Sender(budget, str(i)).has(4 * MB) for i in range(13)]
    clock.now += 1000
    with pytest.raises(NoRoom):
        Sender(budget, "much").has(16 * MB)
    assert not any(each.gave_way for each in small)


def test_a_photo_goes_before_ever_so_many_that_come_slowly() -> None:
    budget = ByteBudget(MOST, clock=(clock := Clock()))
    slow = [Sender(budget, str(i)).has(MB) for i in range(7)]
    clock.now += 100
    photo = Sender(budget, "photo")
    for part in range(1, 21):
        clock.now += 0.1
        photo.has(part * 100_000)
    assert sum(each.gave_way for each in slow) == 2


def test_what_is_whole_gives_way_to_nobody_and_neither_does_the_clients_own() -> None:
    budget = ByteBudget(MOST, clock=(clock := Clock()))
    whole, own = Sender(budget, "a").has(3 * MB), Sender(budget, "b").has(3 * MB)
    whole.room.finish()
    clock.now += 1000
    with pytest.raises(NoRoom):
        Sender(budget, "b").has(2 * MB)
    assert not whole.gave_way
    assert not own.gave_way


def test_what_is_certain_is_refused_before_it_comes() -> None:
    budget = ByteBudget(MOST)
    whole = Sender(budget, "a").has(6 * MB)
    comes = Sender(budget, "b")
    comes.room.check(MB)
    whole.room.finish()
    with pytest.raises(NoRoom):
        comes.room.check(2 * MB)
    assert not comes.room.bytes


def test_answers_count_for_their_client_and_keep_nobody_else_out() -> None:
    budget = ByteBudget(MOST)
    reader = budget.open("a")
    reader.count(100 * MB)
    assert budget.counted == 100 * MB
    Sender(budget, "b").has(2 * MB)
    with pytest.raises(NoRoom):
        Sender(budget, "a").has(MB)
    reader.uncount(99 * MB)
    Sender(budget, "a").has(MB)
    reader.close()
    assert budget.counted == budget.taken == 3 * MB


def in_turn(budget: ByteBudget, *waiters: tuple[str, int]) -> list[tuple[str, int]]:
    """Let clients wait while the budget is full; return in which order they are let in, each to leave again at once."""
    order: list[tuple[str, int]] = []

    async def main() -> None:
        full = budget.open("full")
        full.add(budget.most * 7 // 8)
        async with anyio.create_task_group() as group:

            async def one(client: str, more: int) -> None:
                room = budget.open(client)
                await room.wait(more)
                order.append((client, more))
                room.close()

            for client, more in waiters:
                group.start_soon(one, client, more)
                await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            full.close()

    with_deadline(main)
    assert budget.taken == budget.waiting == 0
    return order


def with_deadline(main: Callable[[], object]) -> None:
    async def go() -> None:
        with anyio.fail_after(20):
            await main()  # type: ignore[misc]

    anyio.run(go)


def test_who_waits_goes_in_turn_by_client() -> None:
    order = in_turn(ByteBudget(100, small=0), *[("a", 60)] * 4, *[("b", 60)] * 2)
    assert "".join(client for client, _ in order) == "ababaa"


def test_more_than_there_is_goes_in_alone_and_keeps_its_place() -> None:
    order = in_turn(ByteBudget(100, small=0), ("a", 40), ("b", 40), ("giant", 500), ("c", 20), ("d", 20))
    assert order.index(("giant", 500)) == 2


def test_small_ones_need_not_wait_for_large_ones() -> None:
    assert in_turn(ByteBudget(800, small=10), ("a", 600), ("b", 600), ("c", 5))[0] == ("c", 5)


def test_who_waits_and_is_cancelled_or_has_no_reason_any_more_leaves() -> None:
    budget = ByteBudget(100, small=0)

    async def main() -> None:
        first = budget.open("a")
        await first.wait(90)
        with anyio.move_on_after(0.05):
            await budget.open("b").wait(90)
        assert budget.waiting == 0

        def gone() -> None:
            raise Cancelled

        with pytest.raises(Cancelled):
            await budget.open("c").wait(90, gone)
        assert budget.waiting == 0
        first.close()
        await budget.open("d").wait(90)

    with_deadline(main)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 150)), max_size=30))
def test_everybody_gets_in_at_last(waiters: list[tuple[str, int]]) -> None:
    assert sorted(in_turn(ByteBudget(100, small=10), *waiters)) == sorted(waiters)


def test_an_answer_that_nobody_reads_gives_way_to_a_picture_that_waits() -> None:
    budget, ended = ByteBudget(100 * MB, small=0, clock=(clock := Clock())), []

    async def main() -> None:
        for client in ("a", "b"):
            budget.open(client, lambda client=client: ended.append(client)).add(50 * MB)  # type: ignore[misc]
            clock.now += 9.5
        await budget.open("c").wait(20 * MB)

    with_deadline(main)
    assert ended == ["a"], "the other one is not old yet"


def test_a_small_picture_does_not_wait_for_giants() -> None:
    rooms = Rooms(MOST, MOST, 64 * MB)

    async def main() -> None:
        def check() -> None:
            pass

        async with rooms.picture("a", 10**12, check), rooms.picture("b", 30 * MB, check):
            assert rooms.picture_bytes == 56 * MB
            async with rooms.picture("c", 100_000, check):
                pass
            with anyio.move_on_after(0.05) as waits:
                async with rooms.picture("c", 30 * MB, check):
                    pass
            assert waits.cancelled_caught
        assert rooms.picture_bytes == 0

    with_deadline(main)


def test_what_is_held_for_a_request() -> None:
    rooms = Rooms(MOST, MOST, 64 * MB)

    async def main() -> None:
        held = rooms.open("a")
        held.body.need(1000)
        async with held.unzipped(500), held.unzipped(0):
            assert (held.bytes, rooms.bodies.counted, rooms.unzipped.taken) == (1500, 1500, 500)
            held.answer(200)
            assert (held.bytes, rooms.bodies.counted, rooms.picture_bytes) == (1700, 1700, 200)
        held.sent(200)
        assert (held.bytes, rooms.picture_bytes) == (1000, 0)
        held.answered(300)
        assert (held.bytes, held.answers, rooms.bodies.taken) == (300, 300, 0)
        held.close()
        held.close()
        assert rooms.bodies.counted == rooms.picture_bytes == rooms.unzipped.taken == 0

    with_deadline(main)
