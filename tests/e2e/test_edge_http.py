"""Framing that is refused, targets of every form, paths with a slash, and clients that close their sending half."""

import contextlib
import io
import json
import socket
import struct
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from service.tiling import plan
from tests.e2e.conftest import Serve, Server, noise, pixels_of, png
from tests.e2e.raw import frame, head, is_closed, open_socket, read_answer, shake_hands, wait_until, watching
from tests.e2e.test_faults_clients import form

PIXELS = noise(60, 90)
GOOD = png(PIXELS)
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
SMUGGLED = head("GET", "/smuggled")


def lines(*headers: str, target: str = "/enhance", method: str = "POST", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", *headers, "", ""]).encode()


def everything(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("headers", "version", "body"),
    [
        ((f"Content-Length: {len(CHUNKED)}", "Transfer-Encoding: chunked"), "1.1", CHUNKED),
        (("Transfer-Encoding: chunked", "Content-Length: 4"), "1.1", CHUNKED),
        (("Transfer-Encoding: chunked", "Content-Length: 0"), "1.1", CHUNKED),
        (("Transfer-Encoding: Chunked",), "1.0", CHUNKED),
        (("Transfer-Encoding: chunked", f"Content-Length: {len(CHUNKED)}"), "1.0", CHUNKED),
        (("Transfer-Encoding: gzip",), "1.1", GOOD),
        (("Transfer-Encoding: chunked, gzip",), "1.1", CHUNKED),
        (("Transfer-Encoding: identity", f"Content-Length: {len(GOOD)}"), "1.1", GOOD),
        (("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), "1.1", CHUNKED),
        ((f"Content-Length: {len(GOOD)}", "Content-Length: 5"), "1.1", GOOD),
        ((f"Content-Length: {len(GOOD)}, 5",), "1.1", GOOD),
        ((f"Content-Length: +{len(GOOD)}",), "1.1", GOOD),
    ],
)
def test_ambiguous_framing_is_refused_and_ends_the_connection(
    identity_server: Server, headers: Sequence[str], version: str, body: bytes
) -> None:
    with open_socket(identity_server) as connection:
        request = lines("Host: localhost", "Content-Type: image/png", *headers, version=version)
        connection.sendall(request + body + SMUGGLED)
        answer = read_answer(connection)
        assert (answer.status, answer.problem, answer.headers["connection"]) == (400, "malformed-request", "close")
        assert everything(connection) == b"", "nothing that follows is read as a request"


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
def test_plain_framing_keeps_the_connection(identity_server: Server, framing: str) -> None:
    length = f"Content-Length: {len(GOOD)}" if framing == "Content-Length" else "Transfer-Encoding: chunked"
    with open_socket(identity_server) as connection:
        for _ in range(2):
            connection.sendall(lines("Host: localhost", "Content-Type: image/png", length))
            connection.sendall(GOOD if framing == "Content-Length" else CHUNKED)
            answer = read_answer(connection)
            assert (answer.status, answer.headers.get("connection")) == (200, None)


@pytest.fixture(scope="module")
def named(serve_session: Serve, identity_folder: Path) -> Server:
    """A service that answers for one host."""
    return serve_session(models=identity_folder, trusted_hosts="photos.example.org")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://photos.example.org/enhance?format=webp", "other.example.org", 200),
        ("HTTPS://Photos.Example.Org:443/enhance?format=webp", "x", 200),
        ("http://photos.example.org/enhance/?format=webp", "x", 200),
        ("http://photos.example.org/nothing", "photos.example.org", 404),
        ("http://photos.example.org", "photos.example.org", 405),
        ("http://photos.example.org?format=webp", "photos.example.org", 405),
        ("http://other.example.org/enhance", "photos.example.org", 421),
        ("http:///enhance", "photos.example.org", 400),
        ("http://user@photos.example.org/enhance", "photos.example.org", 400),
        ("http://photos.example.org/enhance#part", "photos.example.org", 400),
        ("ftp://photos.example.org/enhance", "photos.example.org", 400),
        ("photos.example.org:80", "photos.example.org", 400),
        ("enhance", "photos.example.org", 400),
        ("*", "photos.example.org", 400),
    ],
)
def test_targets_of_every_form(named: Server, target: str, host: str, status: int) -> None:
    with open_socket(named) as connection:
        length = f"Content-Length: {len(GOOD)}"
        connection.sendall(lines(f"Host: {host}", "Content-Type: image/png", length, target=target) + GOOD)
        answer = read_answer(connection)
        assert answer.status == status
        if status == 200:
            assert answer.headers["content-type"] == "image/webp", "the query counts"


@pytest.mark.parametrize("target", ["*", "http://photos.example.org"])
def test_options_of_the_whole_server(named: Server, target: str) -> None:
    with open_socket(named) as connection:
        connection.sendall(lines("Host: photos.example.org", method="OPTIONS", target=target))
        answer = read_answer(connection)
        assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, POST, OPTIONS")


def test_connect_is_refused(named: Server) -> None:
    with open_socket(named) as connection:
        target = "photos.example.org:80"
        connection.sendall(lines("Host: photos.example.org", method="CONNECT", target=target) + SMUGGLED)
        assert read_answer(connection).status == 400
        assert everything(connection) == b""


def test_a_slash_at_the_end_changes_nothing(identity_server: Server) -> None:
    with identity_server.client() as client:
        for path in ("/enhance", "/evaluate", "/cameras", "/livez", "/readyz", "/metrics", "/openapi.json"):
            assert client.options(f"{path}/").headers["allow"] == client.options(path).headers["allow"], path
        answer = client.post("/enhance/", files={"image": GOOD}, params={"format": "png"})
        assert answer.status_code == 200
        np.testing.assert_array_equal(pixels_of(answer.content), PIXELS)
        assert client.get("/cameras/").json() == client.get("/cameras").json()
        # the page's links are relative: from there they would lead to /docs/page
        moved = client.get("/docs/?x=1")
        assert (moved.status_code, moved.headers["location"]) == (308, "../docs?x=1")
        assert client.get("/page").status_code == 404, "and no address with a host in it"
    assert identity_server.metric('pix2dslr_requests_total{route="/enhance",status="200"}') >= 1


def raw(data: bytes, query: str = "") -> bytes:
    return head("POST", f"/enhance{query}", content_length=len(data)) + data


@pytest.mark.parametrize("edge", [40, 1500])
@pytest.mark.parametrize("kept_alive", [False, True])
def test_who_closes_the_sending_half_gets_the_answer(identity_server: Server, edge: int, kept_alive: bool) -> None:
    pixels = noise(edge, edge + 1)
    with open_socket(identity_server, timeout=120) as connection:
        if kept_alive:
            connection.sendall(raw(GOOD))
            assert read_answer(connection).status == 200
        connection.sendall(raw(png(pixels)))
        connection.shutdown(socket.SHUT_WR)
        answer = read_answer(connection)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        np.testing.assert_array_equal(pixels_of(answer.body), pixels)
        assert everything(connection) == b""


def test_all_requests_before_the_half_was_closed_are_answered(identity_server: Server) -> None:
    pictures = [noise(200 + each, 300, each) for each in range(3)]
    with open_socket(identity_server) as connection:
        connection.sendall(b"".join(raw(png(each)) for each in pictures) + raw(GOOD)[:-1])
        connection.shutdown(socket.SHUT_WR)
        answers = everything(connection).split(b"HTTP/1.1 200 OK\r\n")
        assert answers[0] == b""
        bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers[1:]]
        for body, pixels in zip(bodies, pictures, strict=True):  # of the last request a byte is missing
            np.testing.assert_array_equal(pixels_of(body), pixels)


def test_an_evaluation_and_a_zip_are_answered_too(identity_server: Server) -> None:
    body = b"".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode() + GOOD + b"\r\n"
        for name in ("image", "reference")
    )
    kind = "multipart/form-data; boundary=x"
    with open_socket(identity_server) as connection:
        body += b"--x--\r\n"
        connection.sendall(head("POST", "/evaluate", content_type=kind, content_length=len(body)) + body)
        connection.shutdown(socket.SHUT_WR)
        assert json.loads(read_answer(connection).body)["output"]["psnr"] is None
    with open_socket(identity_server) as connection:
        request = form(GOOD, png(noise(700, 900)), GOOD).replace(
            b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n", 1
        )
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        told, _, chunks = everything(connection).partition(b"\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 200 ")
        with zipfile.ZipFile(io.BytesIO(unchunked(chunks))) as archive:
            assert len(archive.namelist()) == 4
            assert json.loads(archive.read("errors.json")) == {"errors": []}


def unchunked(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        whole, data = whole + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return whole


def test_problems_reach_who_closed_the_sending_half(identity_server: Server) -> None:
    for request, status in ((raw(b"nothing"), 415), (raw(GOOD, "?strength=2"), 422), (head("GET", "/nothing"), 404)):
        with open_socket(identity_server) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            assert read_answer(connection).status == status
            assert is_closed(connection)


@pytest.mark.parametrize("how", ["closed", "half first", "reset"])
def test_work_ends_where_the_client_closed_the_connection(serve_session: Serve, how: str) -> None:
    server = serve_session(workers=1)
    big = np.zeros((2000, 2000, 3), np.uint8)
    with open_socket(server) as connection:
        connection.sendall(raw(png(big)))
        wait_until(lambda: server.metric("pix2dslr_queue_tiles") > 0)
        if how == "half first":
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.6)  # it waits a while, and gives up then
            assert server.metric("pix2dslr_queue_tiles") > 0
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: server.metric("pix2dslr_requests_in_flight") == 1, 2)
    assert server.metric("pix2dslr_queue_tiles") == 0
    assert server.metric("pix2dslr_tiles_total") < plan(2000, 2000).tiles


def test_half_a_request_is_no_request(identity_server: Server) -> None:
    with open_socket(identity_server) as connection:
        connection.sendall(raw(GOOD)[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b""


STOP_S = 0.4
"""Of the loop, on a machine that others use too; without these bounds it is up to 0.6 s for each request."""


def one_byte_chunks(count: int) -> bytes:
    return head(transfer_encoding="chunked") + b"1\r\n\0\r\n" * count


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (one_byte_chunks(40_000), "chunks are too small"),
        (head("GET", "/", **{f"x{number}": "y" for number in range(3000)}), "100 header fields"),
        (head("GET", "/", x="y" * 200_000), "16384 bytes"),
        (head("GET", "/" + "x" * 200_000), "16384 bytes"),
        (head(transfer_encoding="chunked") + b"0\r\n" + b"x: y\r\n" * 2000 + b"\r\n", "100 trailer fields"),
    ],
    ids=["tiny chunks", "many fields", "a long field", "a long target", "a long trailer"],
)
def test_what_takes_long_to_parse_is_refused_early(identity_server: Server, request_: bytes, why: str) -> None:
    with watching(identity_server) as took:
        for _ in range(20):
            with open_socket(identity_server) as connection:
                with contextlib.suppress(OSError):
                    connection.sendall(request_)
                answer = read_answer(connection)
                assert (answer.status, answer.problem) == (400, "malformed-request")
                assert why in json.loads(answer.body)["detail"]
        assert max(took, default=0) < STOP_S


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/page/" + "a/" * 7000, {}, 404),
        ("/page/" + "../" * 5000, {}, 404),
        ("/" + "%41" * 5000, {}, 404),
        ("/cameras", {"accept": "*/*," * 3700}, 200),
        ("/cameras", {"connection": "a," * 7500}, 200),
        ("/live", {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_protocol": "a," * 7000}, 400),
        ("/live", {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_extensions": "a;b," * 3500}, 400),
        ("/live", {"connection": "Upgrade", "upgrade": "websocket", "cookie": "a" * 9000}, 431),
    ],
    ids=[
        "parts of a path",
        "parts that lead up",
        "escapes",
        "accept",
        "connection",
        "protocols",
        "extensions",
        "cookie",
    ],
)
def test_16_kb_of_anything_are_answered_soon(
    identity_server: Server, path: str, headers: dict[str, str], status: int
) -> None:
    process = psutil.Process(identity_server.process.pid)
    used = sum(process.cpu_times()[:2])
    for _ in range(20):
        with open_socket(identity_server) as connection:
            connection.sendall(head("GET", path, **headers))
            assert read_answer(connection).status == status
    assert sum(process.cpu_times()[:2]) - used < 20 * 0.03


def test_chunks_of_a_kilobyte_are_taken(identity_server: Server) -> None:
    body = png(noise(600, 600))
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    with open_socket(identity_server) as connection, watching(identity_server) as took:
        connection.sendall(head(transfer_encoding="chunked"))
        connection.sendall(b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n")
        answer = read_answer(connection)
        assert answer.status == 200
        np.testing.assert_array_equal(pixels_of(answer.body), noise(600, 600))
        assert max(took, default=0) < STOP_S


@pytest.mark.parametrize("opcode", [0, 9, 10], ids=["pieces", "pings", "pongs"])
def test_tiny_frames_end_the_websocket(identity_server: Server, opcode: int) -> None:
    with watching(identity_server) as took, open_socket(identity_server) as connection:
        shake_hands(connection)
        connection.sendall(frame(b"", final=False))
        with contextlib.suppress(OSError):
            connection.sendall((bytes([opcode | (0x80 if opcode else 0), 0x80]) + bytes(4)) * 100_000)
        assert is_closed(connection)
        assert max(took, default=0) < STOP_S


def test_pipelined_requests_are_answered_in_their_order(identity_server: Server) -> None:
    paths = ["/livez", "/nowhere", "/cameras"] * 300
    with open_socket(identity_server) as connection, watching(identity_server) as took:
        answers = b""
        sent = b"".join(head("GET", path) for path in paths)
        connection.sendall(sent + head("GET", "/livez", connection="close"))
        while more := connection.recv(1 << 20):
            answers += more
        statuses = [int(each[:3]) for each in answers.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [200, 404, 200] * 300 + [200]
        assert max(took, default=0) < STOP_S
