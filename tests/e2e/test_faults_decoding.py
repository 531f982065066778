"""Decode workers that are killed under the running service, kept busy, or taken over by a file."""

import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from service.decoding.pool import DecodePool
from tests import standin
from tests.e2e.conftest import Serve, Server, noise, pixels_of, png
from tests.e2e.raw import head, open_socket, wait_until

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


def another_client(server: Server, number: int = 9) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=f"127.0.0.{number}")
    return httpx.Client(base_url=server.url, timeout=60, trust_env=False, transport=transport)


def send_and_hang_up(server: Server, body: bytes, kind: str) -> None:
    with open_socket(server) as connection:
        connection.sendall(head(content_type=kind, content_length=len(body)))
        connection.sendall(body)
        time.sleep(0.2)


LOOPBACK = pytest.mark.skipif(sys.platform != "linux", reason="other systems have but one address of loopback")


@LOOPBACK
def test_bodies_that_claim_much_cost_another_client_nothing(identity_server: Server) -> None:
    """A JPEG of three bytes and zeros, alone and in zips, by clients that hang up and by those that do not."""
    zeros, packed = b"\xff\xd8\xff" + bytes(32 << 20), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        for number in range(7):
            zipped.writestr(f"{number}.jpg", zeros)
    ended, slowest = identity_server.metric("pix2dslr_decode_workers_ended_total"), 0.0
    with another_client(identity_server) as client, ThreadPoolExecutor(12) as threads:
        hostile = [threads.submit(send_and_hang_up, identity_server, zeros, "image/jpeg") for _ in range(6)]
        hostile += [
            threads.submit(send_and_hang_up, identity_server, packed.getvalue(), "application/zip") for _ in range(3)
        ]
        rounds = 0
        while rounds < 5 or not all(each.done() for each in hostile):
            rounds, began = rounds + 1, time.monotonic()
            assert client.post("/enhance", files={"image": png(noise(20, 30))}).status_code == 200
            slowest = max(slowest, time.monotonic() - began)
        for each in hostile:
            each.result()
    print(f"{slowest:.2f} s")
    assert slowest < 8, "it was a minute"
    assert identity_server.metric("pix2dslr_decode_workers_ended_total") == ended, "none took too long"


@LOOPBACK
def test_work_whose_client_is_gone_ends_and_takes_no_workers_of_others(
    serve_session: Serve, identity_folder: Path, tmp_path: Path
) -> None:
    server = serve_session(models=identity_folder, variables=standin.write(tmp_path))
    wait_until(lambda: server.metric("pix2dslr_decode_workers") >= 3)
    slow = standin.file_that("spins", seconds=1.5)
    with another_client(server) as client, ThreadPoolExecutor(12) as threads:
        hostile = [threads.submit(send_and_hang_up, server, slow, "image/jpeg") for _ in range(12)]
        slowest = 0.0
        while not all(each.done() for each in hostile):
            began = time.monotonic()
            assert client.post("/enhance", files={"image": png(noise(20, 30))}).status_code == 200
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 5
    # those that waited are gone too: left alone, they would have taken 9 s
    time.sleep(1)
    workers = decode_workers(server)
    used = sum(sum(each.cpu_times()[:2]) for each in workers)
    time.sleep(1)
    assert sum(sum(each.cpu_times()[:2]) for each in workers if each.is_running()) - used < 0.5
    assert server.metric('pix2dslr_decode_workers_ended_total{reason="cancelled"}') >= 1
    assert server.metric('pix2dslr_decode_workers_ended_total{reason="timeout"}') == 0


@pytest.mark.skipif(sys.platform != "linux", reason="there are no such bounds on other systems")
def test_a_worker_that_is_taken_over_learns_no_keys(
    serve_session: Serve, identity_folder: Path, tmp_path: Path
) -> None:
    keys, folder = tmp_path / "keys", tmp_path / "folder"
    folder.mkdir()
    keys.write_text("ann:secret-0123456789abcdef\n")
    server = serve_session(
        models=identity_folder,
        api_keys_file=keys,
        api_keys="bob:secret-9876543210fedcba",
        variables=standin.write(tmp_path) | {"AWS_SECRET_ACCESS_KEY": "secret"},
    )
    assert not [line for line in server.log if "less contained" in line]
    workers = [each.pid for each in decode_workers(server)]
    goal = {"keys": str(keys), "folder": str(folder), "workers": workers}
    with server.client() as client:
        answer = client.post(
            "/enhance",
            content=standin.file_that(**goal),
            headers={"content-type": "image/jpeg", "x-api-key": "secret-0123456789abcdef"},
        )
    told = answer.json()["detail"]
    done = json.loads(told[told.index("{") : told.rindex("}") + 1])
    assert len(done) > 20
    assert not {name: result for name, result in done.items() if result == "done"}


@pytest.mark.skipif(sys.platform != "linux", reason="there is no such bound on other systems")
def test_the_service_hides_its_memory_and_dumps_no_core(identity_server: Server) -> None:
    """From its own user, as whom workers and who knows what else run."""
    process = identity_server.process.pid
    # of what can't be dumped all belongs to root (proc(5)); as another user, root's own rights aside
    assert Path(f"/proc/{process}/environ").stat().st_uid == 0
    limits = Path(f"/proc/{process}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    program = (
        "import ctypes, pathlib, sys\n"
        "from service.decoding.containment import _C, _MOST_CAPABILITIES\n"
        "[_C.prctl(24, each, 0, 0, 0) for each in range(_MOST_CAPABILITIES)]\n"
        "import struct; _C.capset(struct.pack('=Ii', 0x20080522, 0), bytes(24))\n"
        f"for name in ('environ', 'mem'):\n"
        f"    try: open(f'/proc/{process}/{{name}}', 'rb').read(1); print('read', name)\n"
        "    except OSError as error: print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["PermissionError"] * 2
