"""Who gets the next decode worker."""

import pytest

from service.decoding.line import Line, Place


def served(line: Line[Place], free: int) -> list[Place]:
    """Those that get a worker now, while some are free."""
    found = []
    while free and (place := line.next(free)) is not None:
        found.append(place)
        free -= 1
    return found


def waiting(line: Line[Place], count: int, client: str = "", *, pixels: bool = False) -> list[Place]:
    places = [Place(client, pixels=pixels) for _ in range(count)]
    for place in places:
        line.add(place)
    return places


@pytest.mark.parametrize("workers", [2, 3, 4, 9])
def test_one_client_leaves_a_worker_for_the_next(workers: int) -> None:
    line = Line[Place](workers)
    hostile = waiting(line, 20, "hostile")
    assert served(line, workers) == hostile[: workers - 1]
    (stranger,) = waiting(line, 1, "stranger")
    assert served(line, 1) == [stranger]
    line.done(stranger)
    assert served(line, 1) == []
    line.done(hostile[0])
    assert served(line, 2) == [hostile[workers - 1]]


def test_others_at_once_leave_one_too() -> None:
    line = Line[Place](4)
    for client in ("a", "b", "c"):
        waiting(line, 5, client)
    assert [place.client for place in served(line, 4)] == ["a", "b", "c"]
    (stranger,) = waiting(line, 1, "stranger")
    assert served(line, 1) == [stranger]


def test_clients_take_turns() -> None:
    line = Line[Place](3)
    waiting(line, 3, "a")
    waiting(line, 3, "b")
    taken = []
    while list(line):
        (place,) = served(line, 1)
        taken.append(place.client)
        line.done(place)
    assert taken == ["a", "b"] * 3


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_pixels_leave_one_for_headers(workers: int) -> None:
    line = Line[Place](workers)
    for number in range(9):
        waiting(line, 1, str(number), pixels=True)
    assert len(served(line, workers)) == workers - 1
    waiting(line, 1, "0")
    (header,) = waiting(line, 1, "another")
    assert served(line, 1) == [header]


def test_a_clients_own_headers_do_not_wait_for_its_pixels() -> None:
    line = Line[Place](4)
    pixels = waiting(line, 9, "one", pixels=True)
    assert served(line, 4) == pixels[:2]
    (header,) = waiting(line, 1, "one")
    assert served(line, 2) == [header]


def test_places_of_no_client_are_not_one() -> None:
    line = Line[Place](3)
    headers = waiting(line, 3)
    assert served(line, 3) == headers
    for place in headers:
        line.done(place)
    pixels = waiting(line, 3, pixels=True)
    assert served(line, 3) == pixels[:2]


def test_who_leaves_the_line_is_passed_over() -> None:
    line = Line[Place](2)
    first, second = waiting(line, 1, "a")[0], waiting(line, 1, "b")[0]
    line.drop(first)
    assert list(line) == [second]
    assert served(line, 2) == [second]
    assert list(line) == []
