"""What one client may take, and what all may together: rate, places, memory, and forms within bounds."""

import contextlib
import io
import json
import resource
import zipfile
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.raw import frame, head, open_socket, read_answer, shake_hands, wait_until
from tests.e2e.test_live import open_live
from tests.e2e.test_problems import GOOD, problem

RATE = 6
PLACES = 3
ROOM = 8 << 20
TWO_MB = png(noise(820, 820))
FORM = "multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def shared(serve_session: Serve, identity_folder: object) -> Server:
    """Behind a proxy, which is the test."""
    return serve_session(
        models=identity_folder,
        rate_limit=RATE,
        client_concurrency=PLACES,
        max_buffered_bytes=ROOM,
        max_body_bytes=ROOM // 2,
        trusted_proxies="127.0.0.1, ::1",
        cors_origins="https://photos.example",
    )


def post(server: Server, who: str, body: bytes = GOOD, kind: str = "image/png", **headers: str) -> httpx.Response:
    with server.client() as client:
        told = {"X-Forwarded-For": who, "Content-Type": kind, **headers}
        return client.post("/enhance", content=body, headers=told)


def zip_of(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(count):
            archive.writestr(f"{i}.png", GOOD)
    return buffer.getvalue()


def test_too_many_pictures_a_minute_get_429_and_others_do_not(shared: Server) -> None:
    for _ in range(RATE):
        assert post(shared, "10.1.0.1").status_code == 200
    refused = post(shared, "10.1.0.1", Origin="https://photos.example")
    problem(refused, "rate-limited", 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60 / RATE
    assert refused.headers["access-control-allow-origin"] == "https://photos.example"
    assert post(shared, "10.1.0.2").status_code == 200
    with shared.client() as client:
        for path in ("/livez", "/readyz", "/metrics", "/cameras", "/"):
            assert client.get(path, headers={"X-Forwarded-For": "10.1.0.1"}).status_code == 200
    forged = post(shared, "10.99.99.99, 10.1.0.1")
    problem(forged, "rate-limited", 429)  # what the client itself wrote there is not believed


def test_a_household_is_one_client(shared: Server) -> None:
    statuses = [post(shared, f"2001:db8::{i}").status_code for i in range(RATE + 1)]
    assert statuses == [200] * RATE + [429]
    assert post(shared, "2001:db8:0:1::1").status_code == 200


def test_a_zip_counts_as_what_it_holds(shared: Server) -> None:
    problem(post(shared, "10.2.0.1", zip_of(RATE + 1), "application/zip"), "too-many-files", 413)
    assert post(shared, "10.2.0.2", zip_of(RATE - 1), "application/zip").status_code == 200
    assert post(shared, "10.2.0.2").status_code == 200
    problem(post(shared, "10.2.0.2"), "rate-limited", 429)


def test_frames_of_a_websocket_count(shared: Server) -> None:
    with open_live(shared, additional_headers={"X-Forwarded-For": "10.3.0.1"}) as live:
        for _ in range(RATE):
            live.send(GOOD)
            live.until("result")
        live.send(GOOD)
        event = live.until("problem")
    assert event["problem"]["type"].endswith(":rate-limited")
    assert 1 <= event["retry_after"] <= 60 / RATE


def test_without_trusted_proxies_nobody_chooses_their_address(serve_session: Serve, identity_folder: object) -> None:
    server = serve_session(models=identity_folder, rate_limit=2)
    assert [post(server, f"10.4.0.{i}").status_code for i in range(3)] == [200, 200, 429]
    assert server.stop() == 0


@contextlib.contextmanager
def uploading(server: Server, who: str, size: int) -> Iterator[None]:
    """A client that has said how much will come."""
    with open_socket(server) as connection:
        before = server.metric("pix2dslr_requests_in_flight")
        connection.sendall(head(content_length=size, x_forwarded_for=who) + b"\0")
        wait_until(lambda: server.metric("pix2dslr_requests_in_flight") > before)
        yield
    wait_until(lambda: server.metric("pix2dslr_requests_in_flight") <= before)


def test_too_many_requests_at_once_get_429_and_others_do_not(shared: Server) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(PLACES - 1):
            held.enter_context(uploading(shared, "10.5.0.1", 1000))
        with open_live(shared, additional_headers={"X-Forwarded-For": "10.5.0.1"}):
            refused = post(shared, "10.5.0.1")
            problem(refused, "too-many-at-once", 429)
            assert refused.headers["retry-after"] == "1"
            assert post(shared, "10.5.0.2").status_code == 200
        wait_until(lambda: post(shared, "10.5.0.1").status_code == 200)
    assert post(shared, "10.5.0.1").status_code == 200


def test_half_a_message_of_a_websocket_is_counted_and_given_back(shared: Server) -> None:
    with open_socket(shared) as connection:
        shake_hands(connection, x_forwarded_for="10.9.0.1")
        connection.sendall(frame(b"\0" * 1_000_000, claimed=2_000_000))
        wait_until(lambda: shared.metric("pix2dslr_body_bytes") >= 1_000_000)
    wait_until(lambda: shared.metric("pix2dslr_body_bytes") == 0)


def test_websockets_of_one_client_leave_room_for_anothers(shared: Server) -> None:
    half = 1_900_000
    with contextlib.ExitStack() as held:
        for _ in range(2):
            connection = held.enter_context(open_socket(shared))
            shake_hands(connection, x_forwarded_for="10.9.1.1")
            connection.sendall(frame(b"\0" * half, claimed=3_000_000))
        wait_until(lambda: shared.metric("pix2dslr_body_bytes") >= half)
        with open_live(shared, additional_headers={"X-Forwarded-For": "10.9.1.2"}) as live:
            live.send(TWO_MB)
            live.until("result")
        problem(post(shared, "10.9.1.1", TWO_MB + TWO_MB), "no-room", 503)
    wait_until(lambda: shared.metric("pix2dslr_body_bytes") == 0)


@pytest.mark.parametrize("pieces", [1, 30])
def test_a_long_text_message_ends_before_it_is_whole(shared: Server, pieces: int) -> None:
    text = b"x" * 45_000
    size = len(text) // pieces
    with open_socket(shared) as connection:
        shake_hands(connection, x_forwarded_for="10.9.2.1")
        for number in range(pieces):
            opcode = 0 if number else 1
            with contextlib.suppress(OSError):
                connection.sendall(frame(text[:size], opcode=opcode, final=number == pieces - 1))
        came = b""
        with contextlib.suppress(OSError):
            while more := connection.recv(1000):
                came += more
        assert (1009).to_bytes(2, "big") + b"A text message" in came


def part(headers: str, data: bytes = b"x") -> bytes:
    return b"--b\r\n" + headers.encode() + b"\r\n\r\n" + data + b"\r\n"


FIELD = 'Content-Disposition: form-data; name="f%d"'
FILE = 'Content-Disposition: form-data; name="image"; filename="a.png"'
END = b"--b--\r\n"
MB = 1 << 20

FORMS: dict[str, tuple[str, bytes]] = {
    "a thousand fields": (FORM, b"".join(part(FIELD % i) for i in range(1000)) + END),
    "a text field of 3 MB": (FORM, part(FIELD % 1, b"x" * 3 * MB) + END),
    "a header of 3 MB": (FORM, part(FILE + "\r\nX: " + "y" * 3 * MB) + END),
    "a file name of 3 MB": (FORM, part(FILE.replace("a.png", "y" * 3 * MB)) + END),
    "a hundred thousand headers": (FORM, part(FILE + "\r\nX: y" * 100_000) + END),
    "no boundary named": ("multipart/form-data", part(FILE, GOOD) + END),
    "an empty boundary": ("multipart/form-data; boundary=", part(FILE, GOOD) + END),
    "a boundary of 10 kB": (f"multipart/form-data; boundary={'b' * 10_000}", part(FILE, GOOD) + END),
    "another boundary": ("multipart/form-data; boundary=c", part(FILE, GOOD) + END),
    "no end": (FORM, part(FILE, GOOD)),
    "an end in the middle of a header": (FORM, b"--b\r\nContent-Dispo"),
    "no name": (FORM, part("Content-Disposition: form-data", GOOD) + END),
    "no disposition": (FORM, part("Content-Type: image/png", GOOD) + END),
    "two references": (FORM, part(FILE.replace("image", "reference"), GOOD) * 2 + END),
    "only boundaries": (FORM, b"--b\r\n\r\n" * 300_000 + END),
    "what is nearly a boundary, over and over": (FORM, part(FILE, b"\r\n--\r\n-" * 400_000) + END),
    "carriage returns": (FORM, part(FILE, b"\r" * 3 * MB) + END),
    "nothing": (FORM, b""),
    "an option of another kind": (FORM, part(FIELD % 1) + part(FILE, GOOD) + END),
    "an unknown charset": (FORM + "; charset=\xff", part(FILE) + END),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_is_none_costs_little(server: Server, name: str) -> None:
    kind, body = FORMS[name]
    process = psutil.Process(server.process.pid)
    used = sum(process.cpu_times()[:2])
    with open_socket(server) as connection:
        with contextlib.suppress(OSError):  # it may be answered before all is sent
            connection.sendall(head(content_type=kind, content_length=len(body)).replace(b"\xc3\xbf", b"\xff") + body)
        answer = read_answer(connection)
    assert 400 <= answer.status < 500
    assert answer.problem in ("malformed-request", "unsupported-format", "invalid-parameter", "malformed-picture")
    assert sum(process.cpu_times()[:2]) - used < 2
    with server.client() as client:
        assert client.post("/enhance", files={"image": GOOD}).status_code == 200


def test_files_of_a_form_need_no_disk(serve_session: Serve, identity_folder: object) -> None:
    """A process that may write no file of any size."""
    server = serve_session(models=identity_folder)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    large = png(noise(1000, 1000))
    assert len(large) > 2 * MB
    with server.client() as client:
        answer = client.post("/enhance", files=[("image", large), ("image", large)])
    assert answer.status_code == 200
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert json.loads(archive.read("errors.json")) == {"errors": []}
    assert server.stop() == 0
