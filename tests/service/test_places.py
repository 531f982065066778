"""Which connections a listener has: shares, what is idle, and the spare places."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.edge.places import Place, Places


def nothing() -> None:
    pytest.fail("it is not idle")


def ended(places: list[str], name: str) -> Callable[[], None]:
    return lambda: places.append(name)


def busy(places: Places, address: str, count: int = 1) -> list[Place]:
    taken = [places.take(address, nothing) for _ in range(count)]
    for each in taken:
        places.wake(each)
    return taken


def test_one_address_has_an_eighth_and_a_proxy_all() -> None:
    places = Places(800)
    assert not any(place.spare for place in busy(places, "a", 100))
    assert places.take("a", nothing).spare
    assert not places.take("b", nothing).spare
    assert not any(places.take("proxy", nothing, shares=False).spare for _ in range(300))


@pytest.mark.parametrize(("most", "share"), [(1, 1), (2, 1), (8, 4), (16, 8), (64, 8), (4096, 512)])
def test_few_connections_are_enough_for_a_browser(most: int, share: int) -> None:
    places = Places(most)
    assert [place.spare for place in busy(places, "a", share)] == [False] * share
    assert places.take("a", nothing).spare


def test_what_was_idle_for_longest_ends_for_a_new_one() -> None:
    places, gone = Places(16), list[str]()
    first, second = (places.take(name, ended(gone, name)) for name in ("a", "b"))
    busy(places, "c", 7)
    busy(places, "d", 7)
    places.wake(first)
    places.rest(first)
    assert not places.take("e", ended(gone, "e")).spare
    assert gone == ["b"]
    places.rest(second)  # too late
    places.leave(second)
    assert not places.take("f", ended(gone, "f")).spare
    assert gone == ["b", "a"]


def test_a_share_ends_what_is_idle_of_its_own() -> None:
    places, gone = Places(64), list[str]()
    places.take("other", nothing)
    for number in range(8):
        places.take("a", ended(gone, str(number)))
    for _ in range(2):
        assert not places.take("a", nothing).spare
    assert gone == ["0", "1"]


def test_spare_places_are_few_for_one_and_the_oldest_ends() -> None:
    places, gone = Places(8), list[str]()
    for address in "ab":
        busy(places, address, 4)
    spare = [places.take("a", ended(gone, f"a{number}")) for number in range(6)]
    assert all(place.spare for place in spare)
    assert gone == ["a0", "a1"]
    for number in range(60):
        places.take(f"x{number}", ended(gone, f"x{number}"))
    assert gone == ["a0", "a1"]
    places.take("y", nothing)
    assert gone[2:] == ["a2"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["take", "wake", "rest", "leave"]), st.integers(0))))
def test_there_are_never_more_than_there_may_be(steps: list[tuple[str, str, int]]) -> None:
    places, open_ = Places(16), list[Place]()

    def end_of(box: list[Place]) -> Callable[[], None]:
        return lambda: open_.remove(box[0])

    for address, what, number in steps:
        if what == "take":
            box: list[Place] = []
            box.append(places.take(address, end_of(box)))
            open_.append(box[0])
        elif open_:
            place = open_[number % len(open_)]
            getattr(places, what)(place)
            if what == "leave":
                open_.remove(place)
        counted = [place for place in open_ if not place.spare]
        assert len(counted) <= 16
        assert all(sum(place.address == name for place in counted) <= 8 for name in "abcd")
        assert sum(place.spare for place in open_) <= 16
    for place in open_:
        places.leave(place)
    assert [place.spare for place in busy(places, "z", 8)] == [False] * 8
