"""Clients that are slow, silent or many, against a real server with short patience."""

import contextlib
import io
import resource
import socket
import time
import zipfile

import numpy as np
import psutil
import pytest

from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.raw import Answer, frame, head, is_closed, open_socket, read_answer, shake_hands, wait_until
from tests.e2e.test_problems import GOOD

PATIENCE_S = 1.0
MIN_RATE = 10_000
MOST = 40
LARGE = png(np.zeros((2000, 2000, 3), np.uint8))
"""12 MB once answered as BMP: more than the kernel holds for a client that does not read."""


@pytest.fixture(scope="module")
def strict(serve_session: Serve, identity_folder: object) -> Server:
    return serve_session(
        models=identity_folder,
        header_timeout_s=PATIENCE_S,
        body_timeout_s=PATIENCE_S,
        send_timeout_s=PATIENCE_S,
        min_rate=MIN_RATE,
        max_connections=MOST,
    )


@pytest.fixture(autouse=True)
def _others_are_served(strict: Server) -> None:
    """Before and after whatever a test does."""
    assert post(strict).status == 200


def post(server: Server) -> Answer:
    with open_socket(server) as connection:
        connection.sendall(head(content_length=len(GOOD)) + GOOD)
        return read_answer(connection)


def connections(server: Server) -> int:
    process = psutil.Process(server.process.pid)
    return sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))


def busy(server: Server) -> float:
    return server.metric("pix2dslr_requests_in_flight") - 1  # this one


def test_who_says_nothing_is_let_go(strict: Server) -> None:
    with open_socket(strict) as connection:
        start = time.monotonic()
        assert is_closed(connection)
        assert time.monotonic() - start >= PATIENCE_S * 0.9
    assert post(strict).status == 200


@pytest.mark.parametrize("first", [b"", head(content_length=len(GOOD)) + GOOD], ids=["fresh", "kept alive"])
def test_a_head_that_trickles_in_gets_408(strict: Server, first: bytes) -> None:
    """A header a moment, each well before any idle limit: slowloris."""
    with open_socket(strict) as connection:
        if first:
            connection.sendall(first)
            assert read_answer(connection).status == 200
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        for i in range(40):
            connection.settimeout(PATIENCE_S / 5)
            with contextlib.suppress(TimeoutError):
                answer = read_answer(connection)
                break
            connection.sendall(b"X-%d: a\r\n" % i)
        else:
            pytest.fail("it trickles on")
        assert (answer.status, answer.problem) == (408, "too-slow")
        connection.settimeout(30)
        assert is_closed(connection)


@pytest.mark.parametrize("framing", [{"content_length": "1000000"}, {"transfer_encoding": "chunked"}])
@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=b"])
def test_a_body_that_trickles_in_gets_408(strict: Server, framing: dict[str, str], kind: str) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    with open_socket(strict) as connection:
        connection.sendall(head(**{"content_type": kind, **framing}))
        trickle = iter(part * 100) if "multipart" in kind else iter(b"\0" * 10_000)
        for byte in trickle:
            piece = bytes([byte])
            connection.sendall(piece if "content_length" in framing else b"1\r\n" + piece + b"\r\n")
            connection.settimeout(PATIENCE_S / 10)
            with contextlib.suppress(TimeoutError):
                answer = read_answer(connection)
                break
        else:
            pytest.fail("it trickles on")
        assert (answer.status, answer.problem) == (408, "too-slow")
        connection.settimeout(30)
        assert is_closed(connection)
    wait_until(lambda: not busy(strict))


def test_a_bad_line_that_keeps_the_least_rate_is_served(strict: Server) -> None:
    data = png(noise(60, 120))  # of 20 kB, over more than one span
    with open_socket(strict) as connection:
        connection.sendall(head(content_length=len(data)))
        start = time.monotonic()
        for at in range(0, len(data), 1000):
            connection.sendall(data[at : at + 1000])
            time.sleep(1000 / (2 * MIN_RATE))
        assert time.monotonic() - start > PATIENCE_S
        assert read_answer(connection).status == 200


def ask_for_much(server: Server, body: bytes, kind: str) -> socket.socket:
    connection = open_socket(server, receive_buffer=4096)
    request = head("POST", "/enhance?format=bmp", content_type=kind, content_length=len(body)) + body
    connection.sendall(request)
    return connection


def of_a_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(6):
            archive.writestr(f"{i}.png", png(noise(800, 800, i)))
    return buffer.getvalue()


@pytest.mark.parametrize("rate", [0, 1000], ids=["not at all", "1 kB/s"])
@pytest.mark.parametrize("kind", ["image/png", "application/zip"])
def test_who_does_not_read_the_answer_is_dropped(strict: Server, rate: int, kind: str) -> None:
    body = LARGE if kind == "image/png" else of_a_zip()
    with ask_for_much(strict, body, kind) as connection:
        wait_until(lambda: b"HTTP" in connection.recv(4, socket.MSG_PEEK))
        got, end = 0, time.monotonic() + 30
        with contextlib.suppress(OSError):
            while connections(strict) and time.monotonic() < end:
                assert post(strict).status == 200, "others are served meanwhile"
                if rate:
                    got += len(connection.recv(rate // 5))
                time.sleep(0.2)
        assert not busy(strict)
        wait_until(lambda: not connections(strict))
        connection.settimeout(30)
        with contextlib.suppress(OSError):
            while more := len(connection.recv(1 << 20)):
                got += more
        assert got < 7_600_000, "what was not sent yet was let go"


def test_who_reads_slowly_but_enough_gets_it_all(strict: Server) -> None:
    with open_socket(strict, receive_buffer=65_536) as connection:
        connection.sendall(head("POST", "/enhance?format=bmp", content_length=len(LARGE)) + LARGE)
        wait_until(lambda: b"HTTP" in connection.recv(4, socket.MSG_PEEK))
        start, came = time.monotonic(), 0
        while came < 2000 * 2000 * 3:
            more = len(connection.recv(65_536))
            assert more
            came += more
            time.sleep(0.01)
        assert time.monotonic() - start > PATIENCE_S * 1.5


def test_who_holds_much_has_to_read_fast(serve_session: Serve, identity_folder: object) -> None:
    """12 MB have to be read in 10 minutes, so 40 kB in 2 s: 10 kB are too little, though a byte a second would do."""
    server = serve_session(models=identity_folder, send_timeout_s=2, min_rate=1)
    with ask_for_much(server, LARGE, "image/png") as connection:
        wait_until(lambda: b"HTTP" in connection.recv(4, socket.MSG_PEEK))
        end = time.monotonic() + 30
        while busy(server):
            assert time.monotonic() < end
            connection.recv(1000)
            time.sleep(0.2)
    assert server.stop() == 0


def test_a_websocket_that_does_not_read_is_dropped(strict: Server) -> None:
    with open_socket(strict, receive_buffer=4096) as connection:
        shake_hands(connection)
        connection.sendall(frame(b'{"format": "bmp"}', opcode=1) + frame(LARGE))
        wait_until(lambda: not busy(strict))
        wait_until(lambda: not connections(strict))


@pytest.mark.parametrize("pieces", [False, True])
def test_a_message_that_trickles_in_ends_the_websocket(strict: Server, pieces: bool) -> None:
    with open_socket(strict) as connection:
        shake_hands(connection)
        connection.sendall(frame(b"", final=False) if pieces else frame(b"", claimed=1_000_000))
        came = b""
        connection.settimeout(PATIENCE_S / 10)
        for _ in range(200):
            try:
                connection.sendall(frame(b"\0", opcode=0, final=False) if pieces else b"\0")
                more = connection.recv(65_536)
            except TimeoutError:
                continue
            except OSError:
                break
            came += more
            if not more or b"too slowly" in came:
                break
        assert b"too slowly" in came
    wait_until(lambda: not busy(strict))


def test_a_message_that_stops_in_the_middle_ends_the_websocket(strict: Server) -> None:
    with open_socket(strict) as connection:
        shake_hands(connection)
        connection.sendall(frame(b"\0" * 100_000, claimed=1_000_000))
        came = b""
        with contextlib.suppress(OSError):
            while more := connection.recv(65_536):
                came += more
        assert b"too slowly" in came


def test_a_websocket_between_messages_may_be_silent(strict: Server) -> None:
    with open_socket(strict) as connection:
        shake_hands(connection)
        time.sleep(PATIENCE_S * 2.5)
        connection.sendall(frame(GOOD))
        came = b""
        while b'"result"' not in came:
            more = connection.recv(65_536)
            assert more
            came += more


def test_of_many_pings_only_the_last_is_answered_to_who_does_not_read(strict: Server) -> None:
    with open_socket(strict, receive_buffer=4096) as connection:
        shake_hands(connection)
        connection.sendall(frame(b'{"format": "bmp", "mode": "live"}', opcode=1) + frame(LARGE))
        wait_until(lambda: b"result" in connection.recv(1 << 16, socket.MSG_PEEK))
        for number in range(200):
            connection.sendall(frame(b"ping %03d" % number, opcode=9))
        came = b""
        while b"ping 199" not in came[-12_000_000:]:
            more = connection.recv(1 << 20)
            assert more
            came += more
        assert came.count(b"ping ") < 10


def test_a_message_in_endless_pieces_ends_the_websocket(strict: Server) -> None:
    with open_socket(strict) as connection:
        shake_hands(connection)
        connection.sendall(frame(b"", final=False))
        with contextlib.suppress(OSError):
            connection.sendall(frame(b"", opcode=0, final=False) * 20_000)
        assert is_closed(connection)


def test_no_file_descriptors_left_is_survived_without_spinning(serve_session: Serve, identity_folder: object) -> None:
    server = serve_session(models=identity_folder)
    process = psutil.Process(server.process.pid)
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (process.num_fds() + 20, before[1]))
    with contextlib.ExitStack() as held:
        for _ in range(100):
            held.enter_context(open_socket(server))
        server.wait_for("new connections wait")
        used = sum(process.cpu_times()[:2])
        time.sleep(2)
        assert sum(process.cpu_times()[:2]) - used < 0.5
    assert post(server).status == 200
    wait_until(lambda: not connections(server))
    assert server.stop() == 0
