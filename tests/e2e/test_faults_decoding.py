"""Decode workers that are killed under the running service."""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from service.decoding.pool import DecodePool
from tests.e2e.conftest import Serve, Server, noise, pixels_of, png

pytestmark = pytest.mark.skipif(not DecodePool.possible(), reason="files are decoded in the service's own process here")


def decode_workers(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [each for each in children if each.status() != psutil.STATUS_ZOMBIE]


def test_killing_decode_workers_under_load_costs_nobody_anything(identity_server: Server) -> None:
    all_of_them, enough = decode_workers(identity_server), threading.Event()
    with identity_server.client() as client, ThreadPoolExecutor(4) as threads:

        def enhance(first_seed: int) -> int:
            for seed in range(first_seed, first_seed + 1000):
                picture = noise(200, 300, seed)
                answer = client.post("/enhance", files={"image": png(picture)})
                assert answer.status_code == 200
                np.testing.assert_array_equal(pixels_of(answer.content), picture)
                if enough.is_set():
                    return seed - first_seed + 1
            raise AssertionError("not replaced in time")

        answered = [threads.submit(enhance, 1000 * number) for number in range(4)]
        for _ in range(5):
            # one at a time: a file that three workers die over is taken for the cause
            while len(workers := decode_workers(identity_server)) < len(all_of_them):
                assert not any(each.done() for each in answered)
            workers[0].kill()
            workers[0].wait(10)
        enough.set()
        assert sum(each.result() for each in answered) >= 4
        assert client.get("/readyz").status_code == 200
    # others die while they start
    assert identity_server.metric('pix2dslr_decode_workers_ended_total{reason="died"}') >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't limit another process")
def test_a_service_without_a_process_that_decodes_is_not_ready(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_session(models=identity_folder)
    process, picture = psutil.Process(server.process.pid), noise(20, 30)
    with server.client() as asking, server.client() as sending, ThreadPoolExecutor() as threads:
        for client in (asking, sending):  # their connections stay: there will be no others
            client.get("/livez").raise_for_status()
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (3, hard))  # so that no new process can be given a socket
        for worker in decode_workers(server):
            worker.kill()
        answer = threads.submit(sending.post, "/enhance", files={"image": png(picture)})
        while (ready := asking.get("/readyz")).status_code == 200:
            assert not answer.done(), answer.result().text
        assert ready.json()["reasons"] == ["without a process that decodes pictures"]
        assert asking.get("/livez").status_code == 200
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        assert answer.result().status_code == 200
        np.testing.assert_array_equal(pixels_of(answer.result().content), picture)
        assert asking.get("/readyz").status_code == 200


def test_no_decode_worker_outlives_a_service_that_is_killed(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_session(models=identity_folder)
    workers = decode_workers(server)
    assert len(workers) >= 2
    server.process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, 30)
    assert not alive
