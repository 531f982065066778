"""The edge's pure parts: rate and places, room, pace, hosts, who a client is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.edge.bodies import Pace
from service.edge.clients import ClientLimits, client_of, name_client
from service.edge.errors import RateLimited, TooManyAtOnce
from service.edge.headers import host_in


class Clock:
    """Milliseconds that pass when they are told to."""

    now = 1_000_000

    def __call__(self) -> int:
        return self.now


def test_a_client_may_send_so_many_a_minute() -> None:
    clock = Clock()
    limits = ClientLimits(60, clock=clock)
    limits.count("a", 60)
    with pytest.raises(RateLimited) as caught:
        limits.count("a", 10)
    assert caught.value.retry_after == 10
    limits.count("b")
    clock.now += 9_999
    with pytest.raises(RateLimited):
        limits.count("a", 10)
    clock.now += 1
    limits.count("a", 10)


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 20)), max_size=60))
def test_never_more_than_twice_the_rate_in_any_minute_and_after_the_wait_it_works(steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    limits = ClientLimits(20, clock=clock)
    let_in: list[tuple[int, int]] = []
    for passed, pictures in steps:
        clock.now += passed
        try:
            limits.count("a", pictures)
        except RateLimited as refused:
            clock.now += refused.retry_after * 1000
            limits.count("a", pictures)
        let_in.append((clock.now, pictures))
        assert sum(count for at, count in let_in if at > clock.now - 60_000) <= 40


def test_tiles_have_a_rate_of_their_own_and_a_large_picture_takes_the_minute() -> None:
    clock = Clock()
    limits = ClientLimits(60, tiles_a_minute=600, clock=clock)
    limits.count_tiles("a", 16_265)
    with pytest.raises(RateLimited, match="600 tiles a minute") as caught:
        limits.count_tiles("a", 100)
    assert caught.value.retry_after == 10
    limits.count("a", 60)
    limits.count_tiles("b", 600)
    clock.now += 10_000
    limits.count_tiles("a", 100)


def test_no_limit_is_no_limit() -> None:
    limits = ClientLimits()
    limits.count("a", 10**9)
    limits.count_tiles("a", 10**9)
    assert limits.most_pictures(1000) == 1000
    assert ClientLimits(60).most_pictures(1000) == 60
    with limits.place("a"), limits.place("a"):
        pass


def test_a_place_is_given_back_whatever_happens() -> None:
    limits = ClientLimits(0, 1)

    def fail() -> None:
        with limits.place("a"), limits.place("b"):
            with pytest.raises(TooManyAtOnce), limits.place("a"):
                pass
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fail()


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("10.0.0.1", "address 10.0.0.1"),
        ("::ffff:10.0.0.1", "address 10.0.0.1"),
        ("2001:db8:1:2:3::4", "address 2001:db8:1:2::/64"),
        ("fe80::1%eth0", "address fe80::/64"),
        ("nonsense", "address unknown"),
    ],
)
def test_who_a_client_is(host: str, client: str) -> None:
    assert client_of({"type": "http", "client": (host, 1)}) == client


def test_a_key_goes_before_the_address() -> None:
    scope = {"type": "http", "client": ("10.0.0.1", 1)}
    name_client(scope, "ann")
    assert client_of(scope) == "key ann"
    assert client_of({"type": "http", "client": None}) == "address unknown"


@pytest.mark.parametrize("rate", [0, 100])
def test_pace(rate: int) -> None:
    pace = Pace(10.0, rate, 0.0)
    assert pace.add(rate * 10, 1.0)
    assert pace.add(1, 10.0), "enough came in the first span"
    assert pace.ends == 20.0
    assert pace.add(0, 19.9), "it has not ended"
    assert not pace.add(0, 20.0), "nothing came"
    assert pace.add(max(1, rate * 10), 30.0)


def test_a_long_body_has_to_come_faster() -> None:
    for length, a_span, enough in ((60_000, 1000, True), (600_000, 9_000, False), (600_000, 10_000, True)):
        assert Pace(10.0, 100, 0.0, length).add(a_span, 10.0) == enough, (length, a_span)


def test_what_says_no_length_has_to_come_faster_the_more_there_is() -> None:
    pace = Pace(10.0, 100, 0.0)
    assert pace.add(6_000_000, 10.0)
    assert not pace.add(99_000, 20.0)


def test_any_body_ends() -> None:
    pace, now, whole = Pace(30.0, 1000, 0.0), 0.0, 0
    while pace.add(50_000, now := now + 30.0):
        whole += 50_000
    assert now == 600.0


@pytest.mark.parametrize(
    ("header", "host"),
    [("A.example:80", "a.example"), ("a.example.", "a.example"), ("[::1]:80", "::1"), ("", ""), (" a ", "a")],
)
def test_the_host_in_a_header(header: str, host: str) -> None:
    assert host_in(header) == host
