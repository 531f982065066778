"""Connections that are kept, and how many there may be: of one address, in all, and for probes."""

import contextlib
import dataclasses
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.e2e.conftest import Serve, Server, png
from tests.e2e.raw import Answer, head, is_closed, open_socket, read_answer, shake_hands, wait_until
from tests.e2e.test_live import open_live
from tests.e2e.test_problems import GOOD

MOST = 32
SHARE = 8
ATTACKERS = [f"127.0.0.{number}" for number in range(2, 2 + MOST // SHARE)]
OTHER = "127.0.0.99"
PICTURE = head(content_length=len(GOOD)) + GOOD


def connected(server: Server) -> HTTPConnection:
    """A connection that has had one answer."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.connect()
    asked(connection)
    return connection


def asked(connection: HTTPConnection) -> None:
    connection.request("GET", "/livez")
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()


def test_an_idle_connection_stays_open_for_as_long_as_it_is_set(server: Server, serve_session: Serve) -> None:
    by_default = connected(server)
    short = connected(serve_session(keep_alive_s=1))
    assert short.sock.recv(1) == b""  # waits for its closing
    short.close()
    by_default.auto_open = 0  # it has to be the same connection
    asked(by_default)  # a client that was told to come back in some seconds finds it open
    by_default.close()


def test_while_it_drains_each_answer_ends_its_connection(serve_session: Serve) -> None:
    server = serve_session()
    before = [connected(server) for _ in range(2)]
    with open_live(server) as live:
        live.send(png(np.zeros((1600, 1600, 3), np.uint8)))
        live.until("progress")  # what keeps it from ending at once
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("SIGTERM")
        for connection, (path, status) in zip(before, [("/livez", 200), ("/cameras", 503)], strict=True):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("connection")) == (status, "close")
            answer.read()
            connection.close()
        assert live.until("result")["frame"] == 1
    assert server.process.wait(60) == 0


@pytest.fixture(scope="module")
def small(serve_session: Serve, identity_folder: Path) -> Server:
    return serve_session(models=identity_folder, max_connections=MOST, trusted_proxies="127.0.0.90", metrics_port=0)


def beside(server: Server) -> Server:
    """The port with its metrics."""
    return dataclasses.replace(server, url=server.wait_for(r"metrics and health on (http://\S+)").group(1))


def ask(server: Server, request: bytes, source: str = OTHER) -> Answer:
    with open_socket(server, source=source) as connection:
        connection.sendall(request)
        return read_answer(connection)


@contextlib.contextmanager
def holding(server: Server, sources: list[str], count: int) -> Iterator[list[socket.socket]]:
    """WebSockets, which are never idle; after those that an address may have the next ones find no place."""
    with contextlib.ExitStack() as held:
        opened = []
        for source in sources:
            for _ in range(count):
                opened.append(held.enter_context(open_socket(server, source=source)))
                shake_hands(opened[-1])
        yield opened
    wait_until(lambda: beside(server).metric("pix2dslr_live_connections") == 0)


def test_one_address_leaves_the_others_most_connections(small: Server) -> None:
    with holding(small, ATTACKERS[:1], SHARE), contextlib.ExitStack() as more:
        for _ in range(MOST):
            connection = more.enter_context(open_socket(small, source=ATTACKERS[0]))
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert ask(small, head("GET", "/readyz")).status == 200
        assert ask(small, PICTURE).status == 200
        refused = ask(small, PICTURE, ATTACKERS[0])
        assert (refused.status, refused.problem) == (503, "too-many-connections")
        assert ask(small, head("GET", "/readyz"), ATTACKERS[0]).status == 200
    wait_until(lambda: ask(small, PICTURE, ATTACKERS[0]).status == 200)


def test_where_all_connections_are_taken_probes_are_answered(small: Server) -> None:
    with holding(small, ATTACKERS, SHARE):
        for path in ("/livez", "/readyz", "/healthz", "/readyz?verbose"):
            for source in (OTHER, "127.0.0.1", ATTACKERS[0]):
                probed = ask(small, head("GET", path), source)
                assert (probed.status, probed.headers["connection"]) == (200, "close")
        upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": 13}
        socket_ = head("GET", "/live", **upgrade, sec_websocket_key="AAAAAAAAAAAAAAAAAAAAAA==")
        for request in (PICTURE, head("GET", "/cameras"), head("GET", "/"), head(content_length=10_000_000), socket_):
            with open_socket(small, source=OTHER) as connection:
                connection.sendall(request)
                answer = read_answer(connection)
                assert (answer.status, answer.problem) == (503, "too-many-connections")
                assert int(answer.headers["retry-after"]) >= 1
                assert is_closed(connection)
    assert ask(small, PICTURE).status == 200


def test_silent_connections_keep_no_probe_out(small: Server) -> None:
    with holding(small, ATTACKERS, SHARE), contextlib.ExitStack() as silent:
        opened = [silent.enter_context(open_socket(small, source=f"127.0.1.{number}")) for number in range(1, 100)]
        assert ask(small, head("GET", "/readyz")).status == 200
        answer = read_answer(opened[0])  # its place was needed
        assert (answer.status, answer.problem) == (503, "too-many-connections")


def test_an_idle_connection_ends_where_a_new_one_finds_no_place(small: Server) -> None:
    with holding(small, ATTACKERS[:-1], SHARE), contextlib.ExitStack() as held:
        idle = [held.enter_context(open_socket(small, source=ATTACKERS[-1])) for _ in range(SHARE)]
        for connection in idle:
            connection.sendall(head("GET", "/livez"))
            assert read_answer(connection).status == 200
        idle[0].sendall(head("GET", "/livez"))
        assert read_answer(idle[0]).status == 200
        for source in (OTHER, ATTACKERS[-1]):
            new = held.enter_context(open_socket(small, source=source))
            new.sendall(PICTURE)
            answer = read_answer(new)
            assert (answer.status, answer.headers.get("connection")) == (200, None)
        assert is_closed(idle[1])
        for connection in (idle[0], *idle[4:]):
            connection.sendall(head("GET", "/livez"))
            assert read_answer(connection).status == 200


def test_a_trusted_proxy_has_the_connections_of_its_clients(small: Server) -> None:
    with holding(small, ["127.0.0.90"], MOST - SHARE):
        assert ask(small, PICTURE, "127.0.0.90").status == 200
        assert ask(small, PICTURE).status == 200


def test_the_port_for_metrics_is_nobodys_alone(small: Server) -> None:
    metrics = beside(small)
    with contextlib.ExitStack() as held:
        for _ in range(150):
            connection = held.enter_context(open_socket(metrics, source=ATTACKERS[0]))
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert ask(metrics, head("GET", "/metrics")).status == 200
        for number in range(1, 10):
            for _ in range(12):
                connection = held.enter_context(open_socket(metrics, source=f"127.0.2.{number}"))
                connection.sendall(b"GET / HTTP/1.1\r\n")
        assert ask(metrics, head("GET", "/readyz")).status == 200
