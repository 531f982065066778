"""What one client sends costs another no more than its turn: a real server, and clients of several addresses."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.tiling import plan
from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.raw import wait_until
from tests.e2e.test_problems import problem
from tests.onnx_files import write_generator

PICTURE = png(noise(400, 400))
TILES = plan(400, 400).tiles


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator that takes some 10 ms for a tile."""
    folder = tmp_path_factory.mktemp("slow")
    write_generator(folder / "iphone.onnx", convolutions=20)
    return folder


def black(height: int, width: int) -> bytes:
    return png(np.zeros((height, width, 3), np.uint8))


def post(server: Server, who: str, body: bytes = PICTURE) -> httpx.Response:
    with server.client() as client:
        return client.post("/enhance", content=body, headers={"X-Forwarded-For": who, "Content-Type": "image/png"})


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as made:
        yield made


def test_one_picture_is_done_before_most_of_24_of_another_client(
    serve_session: Serve, slow_folder: Path, pool: ThreadPoolExecutor
) -> None:
    server = serve_session(models=slow_folder, trusted_proxies="127.0.0.1")
    many: list[Future[httpx.Response]] = [pool.submit(post, server, "10.0.0.1") for _ in range(24)]
    wait_until(lambda: server.metric("pix2dslr_queue_tiles") > 20 * TILES)
    done_before = sum(each.done() for each in many)
    assert post(server, "10.0.0.2").status_code == 200
    done = sum(each.done() for each in many)
    assert done - done_before <= 8, "24 pictures of one client count as one"
    wait(many)
    assert {each.result().status_code for each in many} == {200}
    assert server.stop() == 0


def test_what_one_client_is_told_keeps_no_other_out(
    serve_session: Serve, slow_folder: Path, pool: ThreadPoolExecutor
) -> None:
    server = serve_session(models=slow_folder, trusted_proxies="127.0.0.1", max_queued_tiles=1000)
    too_large = [black(3100, 3100 + 8 * number) for number in range(30)]  # ever new sizes, which never come again
    under_way = pool.submit(post, server, "10.0.0.1", png(noise(1800, 3600)))
    wait_until(lambda: server.metric("pix2dslr_tiles_total") > 8)
    with server.client() as client:
        for body in too_large:
            headers = {"X-Forwarded-For": "10.0.0.1", "Content-Type": "image/png"}
            problem(client.post("/enhance", content=body, headers=headers), "queue-full", 429)
    assert not under_way.done()
    assert post(server, "10.0.0.2", png(noise(1300, 1300))).status_code == 200
    assert under_way.result().status_code == 200
    assert server.stop() == 0


def test_a_rate_in_tiles(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_session(models=identity_folder, trusted_proxies="127.0.0.1", rate_limit_tiles=3 * TILES)
    ask = partial(post, server)
    assert [ask("10.0.0.1").status_code for _ in range(3)] == [200] * 3
    refused = ask("10.0.0.1")
    told = problem(refused, "rate-limited", 429)
    assert f"{3 * TILES} tiles a minute" in told["detail"]
    assert 15 <= int(refused.headers["retry-after"]) <= 20
    assert ask("10.0.0.2", black(2000, 2000)).status_code == 200, "more than a minute's takes the whole minute"
    refused = ask("10.0.0.2", black(100, 100))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) <= 2
    assert ask("10.0.0.3").status_code == 200
    assert server.metric("pix2dslr_queue_tiles") == 0
    assert server.stop() == 0
