"""Ends of every kind: in the middle of work, twice, and by SIGKILL."""

import io
import json
import random
import signal
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest

from tests.e2e.conftest import Serve, Server, noise, pixels_of, png
from tests.e2e.test_live import open_live
from tests.e2e.test_problems import GOOD, problem

REQUESTS = 20


def enhance(server: Server, picture: bytes) -> httpx.Response:
    with server.client() as client:
        return client.post("/enhance", files={"image": picture}, data={"format": "png"})


def evaluate(server: Server, picture: bytes) -> httpx.Response:
    with server.client() as client:
        return client.post("/evaluate", files={"image": picture, "reference": picture})


def enhance_several(server: Server, pictures: list[bytes]) -> httpx.Response:
    with server.client() as client:
        return client.post("/enhance", files=[("image", (f"{i}.png", each)) for i, each in enumerate(pictures)])


def wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sigterm_in_the_middle_of_twenty_requests(serve_session: Serve) -> None:
    server = serve_session()
    dice = random.Random(0)
    pictures = [noise(dice.randrange(500, 1300), dice.randrange(500, 1300), i) for i in range(REQUESTS - 4)]
    zipped = [png(noise(300, 300, 100 + i)) for i in range(8)]
    with ThreadPoolExecutor(REQUESTS) as pool, open_live(server) as live:
        live.send(png(np.zeros((1600, 1600, 3), np.uint8)))
        answers: list[Future[httpx.Response]] = [pool.submit(enhance, server, png(each)) for each in pictures]
        answers += [pool.submit(evaluate, server, png(noise(400, 400, i))) for i in range(2)]
        several = pool.submit(enhance_several, server, zipped)
        live.until("progress")
        # each with a connection of its own, and the one that asks
        wait_until(lambda: server.metric("pix2dslr_requests_in_flight") > REQUESTS)
        assert not any(answer.done() for answer in answers[: REQUESTS // 2])
        server.process.send_signal(signal.SIGTERM)
        told = server.wait_for(r"\[-\] SIGTERM: requests to finish: (\d+)")
        assert int(told.group(1)) >= REQUESTS // 2
        with server.client() as client:
            refused = client.post("/enhance", files={"image": GOOD})
            problem(refused, "not-ready", 503)
            assert int(refused.headers["retry-after"]) >= 1
            assert client.get("/readyz").json()["reasons"] == ["shutting down"]
            assert client.get("/livez").status_code == 200
        assert live.until("result")["frame"] == 1
        for answer in answers:
            assert answer.result().status_code == 200, answer.result().text
        for answer, picture in zip(answers, pictures, strict=False):
            assert pixels_of(answer.result().content).shape == picture.shape
        with zipfile.ZipFile(io.BytesIO(several.result().content)) as entries:
            assert entries.testzip() is None
            assert json.loads(entries.read("errors.json"))["errors"] == []
            assert len(entries.namelist()) == len(zipped) + 1
    assert server.process.wait(60) == 0


def children_of(server: Server) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(server.process.pid).children(recursive=True)
    return found


def test_a_second_signal_ends_it_at_once(serve_session: Serve) -> None:
    server = serve_session()
    with ThreadPoolExecutor(1) as pool:
        big = pool.submit(enhance, server, png(np.zeros((4000, 4000, 3), np.uint8)))
        wait_until(lambda: server.metric("pix2dslr_queue_tiles") > 100)
        workers = children_of(server)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("SIGTERM: requests to finish")
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == -signal.SIGTERM
        assert time.monotonic() - start < 5, "not the seconds that the picture would take"
        with pytest.raises(httpx.TransportError):
            big.result()
    server.wait_for("again: ending at once")
    assert psutil.wait_procs(workers, 30)[1] == [], "its workers end with it"


def test_after_sigkill_nothing_has_to_be_cleaned_up(serve_session: Serve) -> None:
    server = serve_session()
    port = httpx.URL(server.url).port
    with ThreadPoolExecutor(1) as pool:
        big = pool.submit(enhance, server, png(np.zeros((1600, 1600, 3), np.uint8)))
        wait_until(lambda: server.metric("pix2dslr_queue_tiles") > 0)
        workers = children_of(server)
        server.process.kill()
        with pytest.raises(httpx.TransportError):
            big.result()
    server.process.wait(60)
    assert psutil.wait_procs(workers, 30)[1] == []
    again = serve_session(port=port)
    assert httpx.URL(again.url).port == port, "the port is free at once"
    assert enhance(again, GOOD).status_code == 200
    assert again.stop() == 0
