from http.client import HTTPConnection
from urllib.parse import urlsplit

from tests.e2e.conftest import Serve, Server


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
