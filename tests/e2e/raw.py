"""Clients that misbehave: plain sockets."""

import base64
import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.conftest import Server


@dataclass(frozen=True)
class Answer:
    """What came on a connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        told: dict[str, Any] = json.loads(self.body)
        assert told["status"] == self.status
        assert told["request_id"] == self.headers["x-request-id"]
        return str(told["type"]).rpartition(":")[2]


def open_socket(server: Server, *, receive_buffer: int = 0, timeout: float = 30, source: str = "") -> socket.socket:
    """Connect, perhaps from another address of loopback, such as 127.0.0.2."""
    address = urlsplit(server.url)
    made = socket.socket()
    made.settimeout(timeout)
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        made.bind((source, 0))
    made.connect((address.hostname, address.port))
    return made


def head(method: str = "POST", path: str = "/enhance", /, **headers: object) -> bytes:
    told = {"host": "localhost", "content-type": "image/png"} | {k.replace("_", "-"): v for k, v in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items()), "", ""]
    return "\r\n".join(lines).encode()


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer with its Content-Length, and no more."""
    came = b""
    while b"\r\n\r\n" not in came:
        more = connection.recv(65_536)
        assert more, came
        came += more
    told, _, body = came.partition(b"\r\n\r\n")
    first, *lines = told.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        more = connection.recv(65_536)
        assert more
        body += more
    return Answer(int(first.split()[1]), headers, body)


def is_closed(connection: socket.socket) -> bool:
    """Read to the end, whichever way it comes; False where the connection stays open."""
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def pump(connection: socket.socket, seconds: float) -> int:
    """Send bytes until the server ends the connection; return how many, or fail where it takes them for ever."""
    sent, until = 0, time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while time.monotonic() < until:
            sent += connection.send(b"\0" * 65_536)
    assert time.monotonic() < until, "the server drains for ever"
    return sent


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def shake_hands(connection: socket.socket, **headers: object) -> bytes:
    """Open /live; return what came so far."""
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": 13, "sec_websocket_key": key}
    connection.sendall(head("GET", "/live", **upgrade, **headers))
    came = b""
    while b"\r\n\r\n" not in came:
        more = connection.recv(65_536)
        assert more
        came += more
    assert b" 101 " in came
    return came


def frame(data: bytes, *, opcode: int = 2, final: bool = True, claimed: int | None = None) -> bytes:
    """One masked frame, perhaps with less in it than it claims; the mask is zero."""
    length = len(data) if claimed is None else claimed
    return struct.pack("!BBQI", (0x80 if final else 0) | opcode, 0xFF, length, 0) + data


@contextlib.contextmanager
def watching(server: Server, source: str = "127.0.0.9") -> Iterator[list[float]]:
    """Ask for /livez every 20 ms meanwhile, from another address; give the seconds that each answer took."""
    took: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        with open_socket(server, source=source) as connection:
            while not stop.wait(0.02):
                start = time.monotonic()
                connection.sendall(head("GET", "/livez"))
                assert read_answer(connection).status == 200
                took.append(time.monotonic() - start)

    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(watch)
        try:
            wait_until(lambda: len(took) >= 5)
            took.clear()  # the first ones of a new server take longer
            yield took
        finally:
            stop.set()
        watched.result()
