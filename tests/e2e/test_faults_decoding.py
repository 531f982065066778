"""Decode workers that are killed under the running service."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
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
    pictures = [noise(200, 300, seed) for seed in range(40)]
    files = [png(each) for each in pictures]
    with identity_server.client() as client, ThreadPoolExecutor(8) as threads:

        def enhance(file: bytes) -> httpx.Response:
            return client.post("/enhance", files={"image": file})

        all_of_them = len(decode_workers(identity_server))
        answers = [threads.submit(enhance, file) for file in files]
        killed = 0
        while not all(answer.done() for answer in answers):
            # one at a time: a file that three workers die over is taken for the cause
            if len(workers := decode_workers(identity_server)) == all_of_them:
                workers[0].kill()
                killed += 1
                workers[0].wait(10)
        for picture, answer in zip(pictures, answers, strict=True):
            assert answer.result().status_code == 200
            np.testing.assert_array_equal(pixels_of(answer.result().content), picture)
        assert killed >= 2
        assert client.get("/readyz").status_code == 200
    assert identity_server.metric('pix2dslr_decode_workers_ended_total{reason="died"}') >= 2


def test_no_decode_worker_outlives_a_service_that_is_killed(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_session(models=identity_folder)
    workers = decode_workers(server)
    assert len(workers) >= 2
    server.process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, 30)
    assert not alive
