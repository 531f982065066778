"""What clients make the service hold, against a real server: slow bodies, zips that unzip to much, unread answers."""

import contextlib
import io
import re
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest

from service.edge.house import memory_of
from service.settings import Settings
from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.raw import frame, head, is_closed, read_answer, shake_hands, wait_until
from tests.e2e.test_problems import GOOD

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
MB = 1 << 20
PHOTO = png(noise(820, 820))
"""Of 2 MB."""
ROOM = 8 * MB
BLACK = png(np.zeros((2000, 2000, 3), np.uint8))
"""A few kB, and 12 MB as BMP: more than the kernel holds for a client that does not read."""
BOMB_ENTRIES = 15
BOMBS = 10


def connected(server: Server, client: int, *, receive_buffer: int = 0) -> socket.socket:
    """Connect from 127.0.0.`client`."""
    made = socket.socket()
    made.settimeout(30)
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.bind((f"127.0.0.{client}", 0))
    made.connect(("127.0.0.1", urlsplit(server.url).port))
    return made


def post(server: Server, client: int, body: bytes, kind: str = "image/png", path: str = "/enhance") -> httpx.Response:
    transport = httpx.HTTPTransport(local_address=f"127.0.0.{client}")
    with httpx.Client(transport=transport, base_url=server.url, timeout=120) as made:
        return made.post(path, content=body, headers={"Content-Type": kind})


def held(server: Server) -> float:
    return server.metric("pix2dslr_body_bytes")


def is_idle(server: Server) -> bool:
    return server.metric("pix2dslr_requests_in_flight") == 1 and not held(server)


@contextlib.contextmanager
def stalled(server: Server, client: int, size: int, claimed: int | None = None) -> Iterator[socket.socket]:
    """A client that has sent so many bytes of a body that it claims to be longer."""
    with connected(server, client) as connection:
        before = held(server)
        connection.sendall(head(content_length=claimed or size + 1) + b"\0" * size)
        wait_until(lambda: held(server) >= before + size)
        yield connection


@pytest.fixture(scope="module")
def small(serve_session: Serve, identity_folder: object) -> Server:
    """Little room, and longer bodies than would fit twice."""
    return serve_session(models=identity_folder, max_buffered_bytes=ROOM, max_body_bytes=ROOM // 2)


def test_a_photo_beside_two_clients_that_hold_bodies_at_a_kilobyte_a_second(identity_server: Server) -> None:
    stop = threading.Event()
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(connected(identity_server, client)) for client in (2, 3) for _ in range(7)]
        for connection in slow:
            connection.sendall(head(content_length=64 * MB) + b"\0")

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(1):
                    for connection in slow:
                        connection.sendall(b"\0" * 1100)

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            for _ in range(5):
                assert post(identity_server, 4, PHOTO).status_code == 200
                time.sleep(0.5)
            assert held(identity_server) < 14 * 2 * MB, "what came is held, and not what was claimed"
        finally:
            stop.set()
            thread.join()
    wait_until(lambda: is_idle(identity_server))


def test_what_is_long_has_to_come_faster(serve_session: Serve, identity_folder: object) -> None:
    server = serve_session(models=identity_folder, body_timeout_s=1)
    with connected(server, 2) as long, connected(server, 2) as short:
        long.sendall(head(content_length=64 * MB))
        short.sendall(head(content_length=MB))
        for _ in range(15):  # 20 kB/s: 52 s for the one, an hour for the other
            with contextlib.suppress(OSError):
                long.sendall(b"\0" * 2000)
            short.sendall(b"\0" * 2000)
            time.sleep(0.1)
        answer = read_answer(long)
        assert (answer.status, answer.problem) == (408, "too-slow")
        short.setblocking(False)
        with pytest.raises(BlockingIOError):
            short.recv(1)
    assert server.stop() == 0


def test_who_holds_much_gives_way_to_a_photo(small: Server) -> None:
    with stalled(small, 2, 27 * ROOM // 64) as one, stalled(small, 3, 27 * ROOM // 64) as other:
        time.sleep(1.1)
        assert held(small) == 2 * (27 * ROOM // 64)
        assert post(small, 4, PHOTO).status_code == 200
        answer = read_answer(one)  # both are as large, and this one is the slower
        assert (answer.status, answer.problem) == (503, "no-room")
        assert int(answer.headers["retry-after"]) >= 1
        assert is_closed(one)
        assert post(small, 4, GOOD).status_code == 200
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)
    wait_until(lambda: is_idle(small))


def test_one_clients_bodies_leave_as_much_for_others(small: Server) -> None:
    with stalled(small, 2, 3 * MB):
        refused = post(small, 2, PHOTO)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:pix2dslr:problem:no-room")
        assert post(small, 3, PHOTO).status_code == 200
        with connected(small, 2) as chunked:
            chunked.sendall(head(transfer_encoding="chunked"))
            with contextlib.suppress(OSError):  # it is answered before all is sent
                for _ in range(40):
                    chunked.sendall(b"10000\r\n" + b"\0" * 65_536 + b"\r\n")
            answer = read_answer(chunked)
        assert (answer.status, answer.problem) == (503, "no-room")
    wait_until(lambda: is_idle(small))


def test_a_websockets_message_counts_until_it_is_answered_and_no_longer(small: Server) -> None:
    with connected(small, 2) as connection:
        shake_hands(connection)
        connection.sendall(frame(b"\0" * MB, claimed=2 * MB))
        wait_until(lambda: held(small) >= MB)
        connection.sendall(b"\0" * MB)
        came = b""
        while b"unsupported-format" not in came:
            came += connection.recv(65_536)
        wait_until(lambda: not held(small))
        connection.sendall(frame(GOOD))
        while b'"result"' not in came:
            came += connection.recv(65_536)
        wait_until(lambda: not held(small))


def test_an_answer_of_a_websocket_counts_until_it_is_read(small: Server) -> None:
    with connected(small, 2, receive_buffer=4096) as connection:
        shake_hands(connection)
        text = b'{"format": "bmp"}'
        connection.sendall(frame(text, opcode=1) + frame(BLACK))
        wait_until(lambda: held(small) >= 12_000_000)
        refused = post(small, 2, PHOTO)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:pix2dslr:problem:no-room")
        assert post(small, 3, PHOTO).status_code == 200
        before = held(small)
        connection.sendall(frame(b"\0" * MB))
        came = b""
        while piece := connection.recv(65_536):
            came += piece
        assert (1013).to_bytes(2, "big") in came[-200:], "closed: try again later"
        assert held(small) <= before
    wait_until(lambda: is_idle(small))


@pytest.mark.parametrize("several", [False, True], ids=["picture", "zip"])
def test_an_answer_counts_for_its_client_until_it_is_read(small: Server, *, several: bool) -> None:
    body, kind = (zipped([BLACK]), "application/zip") if several else (BLACK, "image/png")
    with connected(small, 2, receive_buffer=4096) as reader:
        reader.sendall(head("POST", "/enhance?format=bmp", content_length=len(body), content_type=kind) + body)
        wait_until(lambda: held(small) >= 12_000_000)
        refused = post(small, 2, PHOTO)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:pix2dslr:problem:no-room")
        assert post(small, 3, PHOTO).status_code == 200
        came = 0
        while came < 12_000_000:
            came += len(reader.recv(MB))
    wait_until(lambda: is_idle(small))
    assert post(small, 2, PHOTO).status_code == 200


def memory_limits() -> dict[str, int]:
    """What the shipped deployments allow a container, in bytes."""
    compose = (ROOT / "docker-compose.yml").read_text()
    found = {"compose": int(re.search(r"MEMORY:-(\d+)g", compose)[1])}  # type: ignore[index]
    for name in ("base/deployment.yaml", "overlays/gpu/deployment.yaml"):
        text = (ROOT / "deploy/kubernetes" / name).read_text()
        found[name] = int(re.search(r"limits:[^}]*?memory: (\d+)Gi", text)[1])  # type: ignore[index]
    return {name: gib << 30 for name, gib in found.items()}


@pytest.mark.parametrize("workers", range(2, 10))
@pytest.mark.parametrize(("name", "limit"), memory_limits().items())
def test_the_documented_limits_add_up_to_less_than_the_containers(name: str, limit: int, workers: int) -> None:
    parts = memory_of(Settings(decode_workers=workers), limit)
    assert sum(parts.values()) <= limit, name
    assert parts["pictures and answers"] >= GIB, "some pictures of 12 megapixels at a time"


def test_the_documented_limits_hold_when_all_are_reached(serve_session: Serve, identity_folder: object) -> None:
    """Everything at once that clients can make the service hold, with a tenth of the usual limits."""
    settings = {"max_buffered_bytes": 100 * MB, "max_picture_bytes": 200 * MB, "max_body_bytes": 8 * MB}
    server = serve_session(models=identity_folder, decode_workers=2, decode_timeout_s=1, **settings)
    assert post(server, 2, PHOTO).status_code == 200
    idle_mb = resident_mb(server)
    parts = memory_of(Settings(decode_workers=2, max_buffered_bytes=100 * MB, max_picture_bytes=200 * MB), 0)
    held_mb = sum(parts[name] for name in ("bodies", "files of zips", "pictures and answers")) / 1e6
    bomb = zipped([b"\xff\xd8\xff".ljust(8 * MB, b"\0")] * 50, 9)
    deep = png(noise(1000, 1000))
    with Watch(server) as watch, contextlib.ExitStack() as opened:
        for client in range(10, 40):
            kind, path, body, size = [
                ("image/png", "/enhance", b"\0" * 7 * MB, 8 * MB),  # it stalls
                ("application/zip", "/enhance", bomb, len(bomb)),
                ("image/png", "/enhance?format=bmp", BLACK, len(BLACK)),  # nobody reads the answer
                ("image/png", "/enhance?format=tiff", deep, len(deep)),
                ("application/zip", "/enhance?format=png", zipped([deep, BLACK] * 4), 0),
            ][client % 5]
            connection = opened.enter_context(connected(server, client, receive_buffer=4096))
            with contextlib.suppress(OSError):  # some are refused
                connection.sendall(head("POST", path, content_type=kind, content_length=size or len(body)) + body)
        time.sleep(10)
        assert post(server, 2, PHOTO).status_code == 200
    print(f"{idle_mb:.0f} MB idle, {held_mb:.0f} MB for clients, {watch.peak_mb:.0f} MB at most")
    assert (
        watch.peak_mb < idle_mb + held_mb + 2 * 2 * 8.4 + 50
    )  # files of which headers are read, with what libraries keep
    wait_until(lambda: is_idle(server), 60)
    assert server.stop() == 0


def zipped(files: list[bytes], level: int = 6) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for i, data in enumerate(files):
            archive.writestr(f"{i}.jpg", data)
    return buffer.getvalue()


def resident_mb(server: Server) -> float:
    """Memory of the service and of all its workers."""
    process, bytes_ = psutil.Process(server.process.pid), 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            bytes_ += each.memory_info().rss
    return bytes_ / 1e6


class Watch:
    """The largest memory while it is watched."""

    def __init__(self, server: Server) -> None:
        self.peak_mb = 0.0
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self.peak_mb = max(self.peak_mb, resident_mb(self._server))


@pytest.mark.parametrize("start", [b"", b"\xff\xd8\xff"], ids=["zeros", "JPEG of zeros"])
def test_zip_bombs_take_a_gigabyte_at_most_and_leave_nothing(
    serve_session: Serve, identity_folder: object, start: bytes
) -> None:
    server = serve_session(models=identity_folder, decode_timeout_s=1)
    assert post(server, 2, PHOTO).status_code == 200
    idle_mb = resident_mb(server)
    bomb = zipped([start.ljust(64 * MB, b"\0")] * BOMB_ENTRIES, 9)
    assert len(bomb) < 1.1 * MB
    with Watch(server) as watch, contextlib.ExitStack() as opened:
        for client in range(3, 3 + BOMBS):
            connection = opened.enter_context(connected(server, client))
            connection.sendall(head(content_type="application/zip", content_length=len(bomb)) + bomb)
        time.sleep(8)
        assert post(server, 2, PHOTO).status_code == 200
        opened.close()
        wait_until(lambda: is_idle(server), 60)
    print(f"{idle_mb:.0f} MB idle, {watch.peak_mb:.0f} MB at most, {resident_mb(server):.0f} MB at the end")
    assert watch.peak_mb < 1000, f"{watch.peak_mb:.0f} MB, {idle_mb:.0f} MB before"
    wait_until(lambda: resident_mb(server) < idle_mb + 100, 30)
    assert server.stop() == 0
