"""Devices that fail, run out of memory or never answer: real graphs in the real ONNX Runtime, seen over HTTP."""

import io
import json
import resource
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil

from tests.e2e.conftest import Serve, Server, noise, pixels_of, png
from tests.e2e.test_problems import problem
from tests.onnx_files import write_generator

GOOD = png(noise(20, 20))
FAILED = "pix2dslr_failed_batches_total"


def until(met: Callable[[], bool], server: Server, seconds: float = 60) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + seconds
    while not met():
        assert server.process.poll() is None, "".join(server.log)
        assert time.monotonic() < deadline, "".join(server.log[-20:])
        time.sleep(0.02)


def enhance(server: Server, picture: bytes) -> httpx.Response:
    with server.client() as client:
        return client.post("/enhance", files={"image": picture}, data={"format": "png"})


def is_well(server: Server) -> None:
    """Check that nothing is left of what was, and that the next picture is enhanced."""
    with server.client() as client:
        assert client.get("/livez").json() == {"alive": True}
        assert client.get("/readyz").status_code == 200
        until(lambda: server.metric("pix2dslr_queue_tiles") == 0, server)
        black = png(np.zeros((40, 40, 3), np.uint8))
        assert client.post("/enhance", files={"image": black}).status_code == 200


def test_a_device_that_fails_now_and_then_is_noticed_by_nobody(serve_session: Serve, tmp_path: Path) -> None:
    # small batches, so that there are enough for some to fail; the first numbers of this seed let it start
    write_generator(tmp_path / "iphone.onnx", fails=0.1, seed=1)
    server = serve_session(models=tmp_path, batch_sizes="[1,2]")
    pictures = [noise(300 + 50 * i, 400, i) for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda picture: enhance(server, png(picture)), pictures))
    for answer, picture in zip(answers, pictures, strict=True):
        assert answer.status_code == 200
        np.testing.assert_array_equal(pixels_of(answer.content), picture)
    assert server.metric(FAILED) > 0
    is_well(server)
    assert server.stop() == 0


def test_a_picture_that_the_device_fails_on_costs_the_others_nothing(serve_session: Serve, tmp_path: Path) -> None:
    write_generator(tmp_path / "iphone.onnx", fail_on_light=True)
    server = serve_session(models=tmp_path)
    black, spot = np.zeros((700, 900, 3), np.uint8), np.zeros((700, 900, 3), np.uint8)
    spot[600, 800] = 1  # one tile of many, and not the first
    pictures = [png(spot if i % 3 == 0 else black) for i in range(18)]
    with ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(lambda picture: enhance(server, picture), pictures))
    for i, answer in enumerate(answers):
        if i % 3 == 0:
            problem(answer, "inference-failed", 500)
        else:
            assert answer.status_code == 200
            np.testing.assert_array_equal(pixels_of(answer.content), black)
    is_well(server)
    with server.client() as client:
        files = [("image", (f"{i}.png", picture)) for i, picture in enumerate(pictures[:6])]
        answer = client.post("/enhance", files=files)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as entries:
        errors = json.loads(entries.read("errors.json"))["errors"]
        assert [error["index"] for error in errors] == [0, 3]
        assert all(error["type"].endswith("inference-failed") for error in errors)
        assert len(entries.namelist()) == 5
    assert server.stop() == 0


def test_a_device_that_always_fails_is_told_by_the_probes_and_to_all_who_wait(
    serve_session: Serve, tmp_path: Path
) -> None:
    # the only batch that is warmed up is done, and none after it
    write_generator(tmp_path / "iphone.onnx", fails=0.9999, seed=1)
    server = serve_session(models=tmp_path, batch_sizes="[1]", threads=1)
    with ThreadPoolExecutor(6) as pool, server.client() as client:
        assert client.get("/readyz").status_code == 200
        answers = [pool.submit(enhance, server, png(noise(300, 300, i))) for i in range(6)]
        until(lambda: client.get("/readyz").status_code == 503, server)
        assert client.get("/readyz").json()["reasons"] == ["without a working device"]
        lives = client.get("/livez")
        assert (lives.status_code, lives.json()) == (503, {"alive": False})
        for answer in answers:
            problem(answer.result(), "not-ready", 503)
            assert answer.result().headers["retry-after"]
        problem(client.post("/enhance", files={"image": GOOD}), "not-ready", 503)
        assert client.get("/metrics").status_code == 200
        assert server.metric("pix2dslr_queue_tiles") == 0
    server.wait_for("fails whatever it is given")
    assert server.stop() == 0


def limit_memory(server: Server, more: int) -> None:
    """Let the server's address space grow by so many bytes from now on, and no further."""
    pid = server.process.pid
    resource.prlimit(pid, resource.RLIMIT_AS, (psutil.Process(pid).memory_info().vms + more, resource.RLIM_INFINITY))


def test_where_memory_runs_out_batches_shrink_and_the_answer_is_right(serve_session: Serve, tmp_path: Path) -> None:
    write_generator(tmp_path / "iphone.onnx", bytes_a_light_tile=256 << 20)
    server = serve_session(models=tmp_path, batch_sizes="[1,2,4,8]", threads=1)
    picture = noise(500, 500, 3)
    assert enhance(server, png(picture[:60, :60])).status_code == 200
    limit_memory(server, 1_100 << 20)  # enough for four tiles at most
    answer = enhance(server, png(picture))
    assert answer.status_code == 200
    np.testing.assert_array_equal(pixels_of(answer.content), picture)
    failed = server.metric(FAILED)
    assert failed > 0
    server.wait_for("a batch of 8 tiles failed for want of memory")
    assert enhance(server, png(picture)).status_code == 200
    assert server.metric(FAILED) == failed, "the size is remembered"
    is_well(server)
    assert server.stop() == 0


def test_a_picture_for_which_there_is_no_memory_at_all_fails_alone(serve_session: Serve, tmp_path: Path) -> None:
    write_generator(tmp_path / "iphone.onnx", bytes_a_light_tile=2 << 30)
    server = serve_session(models=tmp_path, batch_sizes="[1,2]", threads=1)
    limit_memory(server, 1_100 << 20)
    problem(enhance(server, png(noise(200, 200))), "inference-failed", 500)
    is_well(server)
    assert server.stop() == 0


def test_a_device_that_never_answers_is_told_by_the_probes(serve_session: Serve, tmp_path: Path) -> None:
    write_generator(tmp_path / "iphone.onnx", convolutions=10_000_000)
    server = serve_session(models=tmp_path, threads=1, batch_timeout_s=1, request_timeout_s=8, drain_timeout_s=1)
    with ThreadPoolExecutor(1) as pool, server.client() as client:
        answer = pool.submit(enhance, server, GOOD)
        until(lambda: client.get("/livez").status_code == 503, server)
        reasons = client.get("/readyz").json()["reasons"]
        assert reasons == ["waiting for a device that does not answer"]
        problem(client.post("/enhance", files={"image": GOOD}), "not-ready", 503)
        problem(answer.result(), "deadline-exceeded", 504)
        assert client.get("/livez").status_code == 503, "still"
        until(lambda: server.metric("pix2dslr_requests_in_flight") == 1, server)  # this very one
    assert server.stop() == 0, "not the days that the batch would take"


def test_a_device_that_never_answers_keeps_no_request_from_a_problem_at_the_end(
    serve_session: Serve, tmp_path: Path
) -> None:
    write_generator(tmp_path / "iphone.onnx", convolutions=10_000_000)
    server = serve_session(models=tmp_path, threads=1, batch_timeout_s=1, drain_timeout_s=2)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(enhance, server, GOOD)
        until(lambda: server.metric("pix2dslr_queue_tiles") > 0, server)
        assert server.stop() == 0
        problem(answer.result(), "not-ready", 503)
