"""`deploy/ray_serve.py` on a real local Ray Serve: the same app, two replicas, one of which is killed."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from tests.e2e.conftest import Server, environment_with, noise, png

pytest.importorskip("ray.serve", reason="pip install 'pix2dslr[ray]'")

PROJECT: Final = Path(__file__).parents[2]
REPLICAS: Final = 2
SCRIPT: Final = f"""
import sys
import ray
from ray import serve
from deploy.ray_serve import Options, app
ray.init("local", num_cpus=4, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
serve.start(http_options={{"host": "127.0.0.1", "port": int(sys.argv[1])}})
serve.run(app(Options(min_replicas={REPLICAS}, max_replicas={REPLICAS})))
print("running", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


class Served:
    """Ray Serve in processes of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = environment_with({}) | {
            "PYTHONPATH": str(PROJECT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(),
        }
        self._log = (folder / "log").open("wb+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(port)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=environment,
        )
        self.url = f"http://127.0.0.1:{port}"

    def said(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def replicas(self) -> set[int]:
        found = set()
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::ServeReplica"):
                    found.add(child.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def stop(self) -> None:
        tree = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in tree:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        self._log.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("serve"))
    try:
        until(lambda: "running" in running.said() or running.process.poll() is not None, 120)
        assert running.process.poll() is None, running.said()
        yield running
    finally:
        running.stop()


@pytest.fixture
def through(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as client:
        yield client


def test_it_answers_as_the_server_does(through: httpx.Client, server: Server) -> None:
    assert through.get("/readyz").json()["ready"] is True
    data = png(noise(200, 300))
    answer = through.post("/enhance", files={"image": data}, data={"strength": "0.5"})
    with server.client() as client:
        expected = client.post("/enhance", files={"image": data}, data={"strength": "0.5"})
    assert answer.status_code == expected.status_code == 200
    assert answer.content == expected.content
    refused = through.post("/enhance", files={"image": b"no picture"})
    assert (refused.status_code, refused.json()["type"]) == (415, "urn:pix2dslr:problem:unsupported-format")


def test_replicas_share_the_load_and_a_killed_one_is_replaced(served: Served, through: httpx.Client) -> None:
    before = served.replicas()
    assert len(before) == REPLICAS

    def counts() -> set[float]:
        """What the replicas say, whichever of them is asked."""
        told = [through.get("/metrics").text.splitlines() for _ in range(20)]
        tiles = [[line for line in lines if line.startswith("pix2dslr_tiles_total")] for lines in told]
        return {sum(float(line.rpartition(" ")[2]) for line in lines) for lines in tiles}

    pictures = 31  # of one tile each: odd, so that the two tell different numbers
    with ThreadPoolExecutor(8) as clients:
        statuses = list(
            clients.map(
                lambda seed: through.post("/enhance", files={"image": png(noise(100, 100, seed))}).status_code,
                range(pictures),
            )
        )
    assert statuses == [200] * pictures
    until(lambda: len(counts()) == REPLICAS)
    shares = counts()
    print(f"\ntiles by replica: {sorted(shares)}")
    assert min(shares) >= pictures // 4

    victim = min(before)
    os.kill(victim, 9)
    until(lambda: victim not in served.replicas())
    until(lambda: through.post("/enhance", files={"image": png(noise(50, 50))}).status_code == 200)
    until(lambda: len(served.replicas()) == REPLICAS)
    # the new one takes pictures, too: it has counted none before
    until(lambda: len(counts()) == REPLICAS and through.get("/readyz").status_code == 200)
    assert before - served.replicas() == {victim}
