import signal
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np

from tests.e2e.conftest import Serve, Server, png
from tests.e2e.test_live import open_live


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
