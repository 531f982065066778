"""The edge's pure parts: rate and places, room, pace, hosts, who a client is, what a request may cost."""

import asyncio
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.edge.bodies import Pace
from service.edge.clients import ClientLimits, Forwarded, client_of, name_client
from service.edge.errors import RateLimited, TooManyAtOnce
from service.edge.headers import host_in, hosts_at
from service.edge.requests import Connection
from service.edge.wire import Pieces


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


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.0.2.1", False),
        ("photos.example", False),
    ],
)
def test_what_listens_on_loopback_is_asked_for_by_few_names(address: str, loopback: bool) -> None:
    assert set(hosts_at(address)) == ({"localhost", "127.0.0.1", "::1", address} if loopback else set())


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.5", ["192.0.2.7"], "address 192.0.2.7"),
        ("10.0.0.5", ["192.0.2.7:5678"], "address 192.0.2.7"),
        ("10.0.0.5", ["[2001:db8::1]:443"], "address 2001:db8::/64"),
        ("10.0.0.5", ["[2001:db8::1]"], "address 2001:db8::/64"),
        ("10.0.0.5", ["2001:db8::1"], "address 2001:db8::/64"),
        ("10.0.0.5", ["198.51.100.1, 192.0.2.7:5678 , 10.0.0.6:80"], "address 192.0.2.7"),
        ("10.0.0.5", ["198.51.100.1", "192.0.2.7"], "address 192.0.2.7"),
        ("10.0.0.5", ["unknown"], "address unknown of 10.0.0.5"),
        ("10.0.0.6", ["unix:"], "address unknown of 10.0.0.6"),
        ("10.0.0.5", ["192.0.2.7:x"], "address unknown of 10.0.0.5"),
        ("10.0.0.5", [], "address 10.0.0.5"),
        ("203.0.113.1", ["192.0.2.7"], "address 203.0.113.1"),
    ],
)
def test_who_a_client_behind_a_proxy_is(peer: str, forwarded: list[str], client: str) -> None:
    seen = []

    async def app(scope: Any, *_: Any) -> None:
        seen.append(client_of(scope))

    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    scope = {"type": "http", "client": (peer, 1), "headers": headers, "scheme": "http"}
    asyncio.run(Forwarded(app, ["10.0.0.0/8"])(scope, None, None))
    assert seen == [client]


def test_pieces_have_a_grace_and_then_an_average() -> None:
    pieces = Pieces(100)
    assert pieces.add(500, 0)
    assert not pieces.add(1, 0)
    pieces = Pieces(100)
    assert all(pieces.add(1, 100) for _ in range(10_000))
    assert all(pieces.add(1, 0) for _ in range(499))
    assert not pieces.add(1, 99)
    pieces = Pieces(1000, 20.0, now=5.0)
    assert pieces.add(500, 0, 5.0)
    assert pieces.add(20, 0, 6.0)
    assert not pieces.add(1, 0, 6.0)
    assert pieces.add(500, 0, 1000.0), "no more is saved up than the grace"


HEAD = b"POST /enhance HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def events(data: bytes) -> tuple[list[Any], Connection]:
    connection = Connection(h11.SERVER, 16 << 10)
    connection.receive_data(data)
    found = []
    while (event := connection.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
        found.append(event)
    return found, connection


@pytest.mark.parametrize("fields", [99, 100])
def test_a_head_has_a_hundred_fields_at_most(fields: int) -> None:
    data = HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(fields))
    if fields == 99:  # and Host
        assert len(events(data + b"\r\n")[0][0].headers) == 100
        assert events(data)[0] == []
        return
    for end in (b"", b"\r\n", b"\r\n" + b"\n" * 1000):
        with pytest.raises(h11.RemoteProtocolError, match="100 header fields"):
            events(data + end)


def test_what_follows_a_head_is_not_counted_as_fields() -> None:
    found, connection = events(HEAD + b"Content-Length: 1000\r\n\r\n" + b"\n" * 900)
    assert [type(event) for event in found] == [h11.Request, h11.Data]
    assert (connection.came, connection.left) == (900, 100)


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_has_16_kb_at_most_whole_or_not(end: bytes) -> None:
    with pytest.raises(h11.RemoteProtocolError, match="more than 16384 bytes"):
        events(HEAD + b"X: " + b"y" * (16 << 10) + end)
    assert events(HEAD + b"X: " + b"y" * (15 << 10) + b"\r\n\r\n")


def chunks(count: int, size: int) -> bytes:
    return (b"%x\r\n%s\r\n" % (size, b"x" * size)) * count


@pytest.mark.parametrize("size", [1, 20, 90])
def test_a_body_of_tiny_chunks_is_refused_after_few(size: int) -> None:
    assert events(CHUNKED + chunks(500, size) + chunks(1, 100_000) + chunks(400, size))
    with pytest.raises(h11.RemoteProtocolError, match="too small"):
        events(CHUNKED + chunks(10_000, size))


def test_chunks_of_a_client_that_streams_pass() -> None:
    found, connection = events(CHUNKED + chunks(10_000, 1000) + b"0\r\n\r\n")
    assert (len(found), connection.came) == (10_002, 10_000_000)
    found, _ = events(CHUNKED + (chunks(3, 20) + chunks(1, 65_536)) * 500 + b"0\r\n\r\n")
    assert isinstance(found[-1], h11.EndOfMessage), "as a form of many files comes"


def test_a_trailer_has_a_hundred_fields_at_most() -> None:
    def trailer(fields: int) -> bytes:
        return CHUNKED + chunks(1, 10) + b"0\r\n" + b"X: y\r\n" * fields + b"\r\n"

    assert isinstance(events(trailer(100))[0][-1], h11.EndOfMessage)
    with pytest.raises(h11.RemoteProtocolError, match="100 trailer fields"):
        events(trailer(101))
