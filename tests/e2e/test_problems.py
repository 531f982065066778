"""Every problem that the service documents, from a real server."""

import io
import json
import re
import signal
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.generator import cpu_threads
from service.problems import MEDIA_TYPE, all_problems
from service.tiling import plan
from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.raw import head
from tests.hostile.good import jpeg
from tests.hostile.jpeg import frame, many_scans
from tests.hostile.tiff import chain
from tests.onnx_files import write_generator
from tests.png_files import chunk, with_chunks

GOOD = png(noise(20, 20))
BIG = png(np.zeros((1600, 1600, 3), np.uint8))
BIG_TILES = plan(1600, 1600).tiles
"""289 tiles, about a second's work for two cores."""
MOST_ON_DEVICE = cpu_threads() * 8
"""A batch a thread, each of no more than the 8 tiles that the start-up tries at most."""


def problem(answer: httpx.Response, name: str, status: int) -> dict[str, Any]:
    assert answer.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = answer.json()
    assert (body["type"], body["status"]) == (f"urn:pix2dslr:problem:{name}", status)
    assert answer.status_code == status
    assert body.keys() == {"type", "title", "status", "detail", "request_id"}
    assert body["request_id"] == answer.headers["x-request-id"]
    for leak in ("/", "Traceback", "cv2", "onnx", "Pillow", "starlette"):
        assert leak not in body["detail"].replace("/docs", "").replace("multipart/form-data", "").replace("image/", "")
    return body


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and which holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PROBLEMS: list[tuple[str, int, str, dict[str, Any]]] = [
    ("malformed-request", 400, "/enhance", {}),
    ("malformed-request", 400, "/enhance", {"data": {"image": "text"}, "files": {"reference": GOOD}}),
    ("malformed-request", 400, "/enhance", {"files": {"image": b""}}),
    ("malformed-request", 400, "/enhance", {"files": {"picture": GOOD}}),
    ("malformed-request", 400, "/enhance", {"files": [("image", GOOD), ("reference", GOOD), ("reference", GOOD)]}),
    ("malformed-request", 400, "/evaluate", {"files": [("image", GOOD), ("image", GOOD), ("reference", GOOD)]}),
    ("malformed-request", 400, "/enhance", {"files": {"image": GOOD, "reference": b""}}),
    ("unsupported-media-type", 415, "/enhance", {"json": {"image": "x"}}),
    ("unsupported-media-type", 415, "/evaluate", {"data": {"image": "x"}}),
    ("unsupported-media-type", 415, "/enhance", {"content": b"x", "headers": {"Content-Encoding": "gzip"}}),
    ("malformed-request", 400, "/enhance", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}),
    (
        "malformed-request",
        400,
        "/enhance",
        {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
    ),
    ("malformed-request", 400, "/evaluate", {"files": {"image": GOOD}}),
    ("malformed-picture", 400, "/enhance", {"files": {"image": GOOD[: len(GOOD) // 2]}}),
    ("malformed-picture", 400, "/enhance", {"files": {"image": b"\xff\xd8\xff\xe0 and no more"}}),
    ("malformed-picture", 400, "/enhance", {"files": {"image": png_claiming(100, 100)}}),
    ("malformed-picture", 400, "/evaluate", {"files": {"image": GOOD, "reference": GOOD[:40]}}),
    ("body-too-large", 413, "/enhance", {"files": {"image": b"x" * 3_000_000}}),
    ("unsupported-format", 415, "/enhance", {"files": {"image": b"GIF89a" + b"\0" * 100}}),
    ("unsupported-format", 415, "/enhance", {"files": {"image": b"<svg/>"}}),
    ("picture-too-large", 422, "/enhance", {"files": {"image": png_claiming(65_535, 65_535)}}),
    ("too-many-frames", 422, "/enhance", {"files": {"image": chain(1001)}}),
    ("too-many-scans", 422, "/enhance", {"files": {"image": many_scans(101, 40, 48)}}),
    ("unsupported-samples", 422, "/enhance", {"files": {"image": frame(jpeg(), 12, 40, 48)}}),
    ("side-too-long", 422, "/enhance", {"files": {"image": png(noise(1, 17_000))}, "data": {"format": "webp"}}),
    ("unknown-camera", 422, "/enhance", {"files": {"image": GOOD}, "data": {"camera": "kodak"}}),
    ("sizes-differ", 422, "/enhance", {"files": {"image": GOOD, "reference": png(noise(20, 21))}}),
    ("sizes-differ", 422, "/evaluate", {"files": {"image": GOOD, "reference": png(noise(20, 21))}}),
    ("too-small", 422, "/evaluate", {"files": {"image": png(noise(9, 9)), "reference": png(noise(9, 9))}}),
    (
        "not-aligned",
        422,
        "/evaluate",
        {"files": {"image": png(noise(300, 300)), "reference": png(noise(300, 300, 1))}, "data": {"align": "true"}},
    ),
    # in the query it can't be used, though the form's own would win
    (
        "invalid-parameter",
        422,
        "/enhance",
        {"params": {"strength": "much"}, "data": {"strength": "1"}, "files": {"image": GOOD}},
    ),
    ("invalid-parameter", 422, "/enhance", {"files": {"image": GOOD}, "data": {"strength": "1.5"}}),
    ("invalid-parameter", 422, "/enhance", {"files": {"image": GOOD}, "data": {"strength": "nan"}}),
    ("invalid-parameter", 422, "/enhance", {"files": {"image": GOOD}, "data": {"overlap": "huge"}}),
    ("invalid-parameter", 422, "/enhance", {"files": {"image": GOOD}, "data": {"format": "gif"}}),
    ("invalid-parameter", 422, "/enhance", {"files": {"image": GOOD}, "data": {"encoder_quality": "0"}}),
    ("invalid-parameter", 422, "/enhance", {"files": {"image": GOOD}, "data": {"strenght": "1"}}),
    ("not-found", 404, "/nowhere", {}),
    ("method-not-allowed", 405, "/cameras", {}),
]


@pytest.fixture(scope="module")
def limited(serve_session: Serve, identity_folder: Path) -> Server:
    return serve_session(models=identity_folder, max_body_bytes=2_000_000)


@pytest.mark.parametrize(("name", "status", "path", "request_"), PROBLEMS)
def test_problem(limited: Server, name: str, status: int, path: str, request_: dict[str, Any]) -> None:
    with limited.client() as client:
        problem(client.post(path, **request_), name, status)
        assert client.post("/enhance", files={"image": GOOD}).status_code == 200, "and the next request is served"


def test_every_documented_problem_is_met_by_a_test() -> None:
    here = {name for name, *_ in PROBLEMS}
    below = {"queue-full", "deadline-exceeded", "not-ready", "inference-failed", "decoding-too-costly"}
    below |= {"malformed-zip", "too-many-files", "unzipped-too-large", "unusable-entry"}  # in test_batch.py
    below |= {
        "other-origin",  # test_http.py
        "unauthorized",
        "too-slow",
        "unknown-host",
        "rate-limited",
        "too-many-at-once",
        "no-room",
    }  # the others in test_edge_*.py
    below |= {"too-many-connections"}  # test_connections.py
    # tests/service meets them, since no request is known that does in every installation
    elsewhere = {"internal-error", "not-writable"}
    assert {each.type for each in all_problems()} == here | below | elsewhere


def test_a_full_queue_and_a_small_picture_wait_for_no_thread(serve_session: Serve) -> None:
    narrow = serve_session(workers=1, max_queued_tiles=2 * BIG_TILES + 100)
    with ThreadPoolExecutor() as pool, narrow.client() as client:
        under_way = [in_flight(narrow, pool), pool.submit(client.post, "/enhance", files={"image": BIG})]
        while narrow.metric("pix2dslr_queue_tiles") <= BIG_TILES:  # the second has its place, and no thread
            assert not under_way[0].done()
        problem(client.post("/enhance", files={"image": BIG}), "queue-full", 429)
        assert client.post("/enhance", files={"image": GOOD}).status_code == 200
        assert not under_way[1].done()
        assert [each.result().status_code for each in under_way] == [200, 200]


def test_no_more_wait_for_a_thread_than_work_in_one(serve_session: Serve) -> None:
    narrow = serve_session(workers=1)
    with ThreadPoolExecutor() as pool, narrow.client() as client:
        under_way = [in_flight(narrow, pool), pool.submit(client.post, "/enhance", files={"image": BIG})]
        while narrow.metric("pix2dslr_queue_tiles") <= BIG_TILES:
            assert not under_way[0].done()
        told = client.post("/enhance", files={"image": BIG})
        problem(told, "queue-full", 429)
        assert 1 <= int(told.headers["retry-after"]) <= 60
        as_it_came = client.post("/enhance", files={"image": BIG}, data={"strength": "0"})
        assert (as_it_came.status_code, as_it_came.headers["x-pix2dslr-tiles"]) == (200, "0")
        assert not {"queue", "inference"} & set(re.findall(r"(\w+);dur", as_it_came.headers["server-timing"]))
        assert narrow.metric("pix2dslr_queue_tiles") <= 2 * BIG_TILES, "its place is given back"
        assert [each.result().status_code for each in under_way] == [200, 200]


def test_who_hangs_up_before_a_thread_is_free_gives_the_place_back(serve_session: Serve) -> None:
    narrow = serve_session(workers=1)
    with ThreadPoolExecutor() as pool:
        first = in_flight(narrow, pool)
        with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=narrow.url, timeout=0.2, trust_env=False) as gone:
            gone.post("/enhance", files={"image": BIG})
        while narrow.metric("pix2dslr_queue_tiles") > BIG_TILES:
            assert not first.done()
        assert first.result().status_code == 200


def test_decoding_that_takes_too_long(serve_session: Serve, identity_folder: Path) -> None:
    hasty = serve_session(models=identity_folder, decode_timeout_s=1e-4)
    # inflating its text takes a hundred times as long, however quickly the answer is fetched on a busy machine
    slow = with_chunks(GOOD, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes((1 << 24) - 1))))
    with hasty.client() as client:
        told = problem(client.post("/enhance", files={"image": slow}), "decoding-too-costly", 422)
        assert "more than 0.000" in told["detail"], "a header has a fifth, and 10 ms a MB"
        assert client.get("/readyz").status_code == 200
    assert hasty.metric('pix2dslr_decode_workers_ended_total{reason="timeout"}') >= 1


def test_a_body_without_a_length_is_counted_as_it_comes(limited: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65_536

    with limited.client() as client:
        headers = {"Content-Type": "image/png"}
        problem(client.post("/enhance", content=endless(), headers=headers), "body-too-large", 413)


def in_flight(server: Server, pool: ThreadPoolExecutor) -> Future[httpx.Response]:
    """Send a big picture and return once its tiles wait."""

    def send() -> httpx.Response:
        with server.client() as client:
            return client.post("/enhance", files={"image": BIG})

    future = pool.submit(send)
    while not server.metric("pix2dslr_queue_tiles"):
        assert not future.done(), future.result().text
    return future


def test_a_full_queue_answers_429_with_a_time(serve_session: Serve) -> None:
    server = serve_session(max_queued_tiles=10)
    with ThreadPoolExecutor(1) as pool, server.client() as client:
        big = in_flight(server, pool)
        answer = client.post("/enhance", files={"image": GOOD})
        body = problem(answer, "queue-full", 429)
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["retry-after"] in body["detail"]
        assert big.result().status_code == 200, "what was admitted is finished"
        assert client.post("/enhance", files={"image": GOOD}).status_code == 200
    assert server.stop() == 0


def test_a_picture_that_takes_too_long_answers_504(serve_session: Serve) -> None:
    server = serve_session(request_timeout_s=0.2)
    with server.client() as client:
        problem(client.post("/enhance", files={"image": BIG}), "deadline-exceeded", 504)
        assert client.post("/enhance", files={"image": GOOD}).status_code == 200
    assert server.stop() == 0


def test_a_failing_device_answers_500_and_the_next_request_is_served(serve_session: Serve, tmp_path: Path) -> None:
    write_generator(tmp_path / "iphone.onnx", fail_on_light=True)
    server = serve_session(models=tmp_path)
    with server.client() as client:
        problem(client.post("/enhance", files={"image": GOOD}), "inference-failed", 500)
        black = png(np.zeros((50, 50, 3), np.uint8))
        assert client.post("/enhance", files={"image": black}).status_code == 200
    assert server.stop() == 0


def test_what_outlives_the_drain_is_answered_503(serve_session: Serve) -> None:
    server = serve_session(drain_timeout_s=0.1)
    with ThreadPoolExecutor(1) as pool:
        big = in_flight(server, pool)
        server.process.send_signal(signal.SIGTERM)
        problem(big.result(), "not-ready", 503)
    assert server.process.wait(60) == 0


def test_a_client_that_hangs_up_costs_nothing_more(serve_session: Serve) -> None:
    server = serve_session()
    host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
    assert port is not None
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head(content_length=len(BIG)) + BIG)
        while not server.metric("pix2dslr_tiles_total"):
            pass
    while server.metric("pix2dslr_queue_tiles"):
        pass
    done = server.metric("pix2dslr_tiles_total")
    with server.client() as client:
        assert client.post("/enhance", files={"image": GOOD}).status_code == 200
    after = server.metric("pix2dslr_tiles_total")
    assert after - done <= MOST_ON_DEVICE + 1, "only what was on the device, and this request"
    assert after < BIG_TILES, "the rest was dropped"
    assert server.stop() == 0


def test_the_request_id_is_the_clients_where_it_is_plain(server: Server) -> None:
    with server.client() as client:
        assert client.get("/livez", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
        assert client.get("/livez", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"] != "a b\tc"


def test_the_documents(server: Server) -> None:
    with server.client() as client:
        document = json.loads(client.get("/openapi.json").text)
        assert client.get("/docs").status_code == 200
    operations = document["paths"]
    assert operations.keys() >= {"/enhance", "/evaluate", "/cameras", "/livez", "/readyz", "/healthz", "/metrics"}
    form = operations["/enhance"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"image", "reference", "camera", "strength", "overlap", "format", "encoder_quality", "metadata"} == set(
        form["properties"]
    )
    query = {each["name"] for each in operations["/enhance"]["post"]["parameters"] if each["in"] == "query"}
    assert query == {"camera", "strength", "overlap", "format", "encoder_quality", "metadata"}
    assert {"400", "413", "415", "422", "429", "503", "504"} <= operations["/enhance"]["post"]["responses"].keys()
    assert "ProblemDetails" in document["components"]["schemas"]


def test_cameras_and_health(server: Server) -> None:
    with server.client() as client:
        (camera,) = [each for each in client.get("/cameras").json()["cameras"] if each["default"]]
        assert camera["name"] == "iphone"
        assert camera["loaded"]
        assert client.get("/livez").json() == client.get("/healthz").json() == {"alive": True}
        ready = client.get("/readyz").json()
        assert ready["ready"]
        assert ready["provider"] in ("CPUExecutionProvider", "CUDAExecutionProvider")


def test_metrics_count_by_route_and_status(limited: Server) -> None:
    sample = 'pix2dslr_requests_total{route="/enhance",status="415"}'
    with limited.client() as client:
        client.post("/enhance", files={"image": b"GIF89a"})
        before = limited.metric(sample)
        client.post("/enhance", files={"image": b"GIF89a"})
    assert limited.metric(sample) == before + 1
    for stage in ("decode", "queue", "inference", "blend", "encode", "total"):
        assert limited.metric(f'pix2dslr_stage_seconds_count{{stage="{stage}"}}') > 0


def test_an_animated_picture_gives_its_first_frame(limited: Server) -> None:
    frames = [Image.fromarray(noise(30, 40, seed)) for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    with limited.client() as client:
        answer = client.post("/enhance", files={"image": buffer.getvalue()}, data={"format": "png"})
    with Image.open(io.BytesIO(answer.content)) as image:
        np.testing.assert_array_equal(np.asarray(image), noise(30, 40, 0))
