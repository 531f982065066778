"""What the system may refuse a server: room for files, a place to write at all, descriptors."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from tests.e2e.conftest import COMMAND, Serve, Server, noise, pixels_of, png
from tests.e2e.test_faults_clients import descriptors, wait_until

LARGE = noise(1000, 1000)
"""As a PNG 3 MB: more than form parsers keep in memory of their own accord."""

MOUNTS = (
    shutil.which("unshare") is not None
    and not subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
)
needs_mounts = pytest.mark.skipif(not MOUNTS, reason="needs a mount namespace of its own: root, and unshare")


def through(path: Path, *lines: str) -> str:
    """A command that does some lines of shell first, then serves."""
    path.write_text("\n".join(["#!/bin/sh -e", *lines, f'exec {COMMAND} "$@"', ""]))
    path.chmod(0o755)
    return str(path)


def in_namespace(folder: Path, *lines: str) -> str:
    """The same in a mount namespace of its own."""
    return through(folder / "outer", f'exec unshare -m {through(folder / "inner", *lines)} "$@"')


def enhance(server: Server, pixels: npt.NDArray[np.uint8]) -> httpx.Response:
    with server.client() as client:
        return client.post("/enhance", files={"image": png(pixels)})


def is_right(answer: httpx.Response, pixels: npt.NDArray[np.uint8]) -> bool:
    return answer.status_code == 200 and np.array_equal(pixels_of(answer.content), pixels)


@needs_mounts
def test_a_full_disk_for_temporary_files(serve_session: Serve, identity_folder: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    # one page is left: where temporary files go is found out by writing a few bytes
    fill = f"head -c 61440 /dev/zero > {temporary}/full"
    command = in_namespace(tmp_path, f"mount -t tmpfs -o size=64k none {temporary}", fill, f"export TMPDIR={temporary}")
    server = serve_session(command=command, models=identity_folder)
    inside = Path(f"/proc/{server.process.pid}/root{temporary}")
    assert shutil.disk_usage(inside).free <= 4096
    for _ in range(3):
        full = enhance(server, LARGE)
        assert is_right(full, LARGE) or full.status_code in (503, 507), full.text
        with server.client() as client:
            raw = client.post("/enhance", content=png(LARGE), headers={"Content-Type": "image/png"})
        assert is_right(raw, LARGE), "a body needs no file"
        assert is_right(enhance(server, small := noise(40, 50)), small), "nor does a small form"
    assert not [line for line in server.log if "Traceback" in line]
    (inside / "full").unlink()
    assert is_right(enhance(server, small), small)
    assert server.stop() == 0


@needs_mounts
def test_nothing_can_be_written_anywhere(serve_session: Serve, identity_folder: Path, tmp_path: Path) -> None:
    """As in a container with a read-only root file system and no room for temporary files."""
    server = serve_session(
        command=in_namespace(
            tmp_path,
            # each mount, deepest last; what can't be made read-only is the kernel's own
            "for point in $(awk '{print $5}' /proc/self/mountinfo); do",
            '  case $point in /proc*|/sys*) ;; *) mount -o remount,bind,ro "$point" || : ;; esac',
            "done",
            "if touch /tmp/x || touch /var/tmp/x || touch /dev/shm/x; then echo writable >&2; exit 9; fi",
        ),
        models=identity_folder,
    )
    for _ in range(3):
        assert is_right(enhance(server, LARGE), LARGE)
    assert server.stop() == 0


@contextlib.contextmanager
def held(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that say nothing."""
    url = urlsplit(server.url)
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((url.hostname, url.port))
            made.append(one)
        yield made


@pytest.mark.parametrize("limit", [64, 128])
def test_descriptors_run_out(serve_session: Serve, identity_folder: Path, tmp_path: Path, limit: int) -> None:
    command = through(tmp_path / "limited", f"ulimit -n {limit}")
    server = serve_session(command=command, models=identity_folder)
    process = psutil.Process(server.process.pid)
    small = noise(40, 50)
    assert is_right(enhance(server, small), small)
    free, said = descriptors(server), len(server.log)
    with held(server, 250):
        wait_until(lambda: process.num_fds() >= free + 16, "it takes some of them")
        cpu, start = sum(process.cpu_times()[:2]), time.monotonic()
        wait_until(lambda: time.monotonic() > start + 3, "three seconds in which it could spin")
        assert sum(process.cpu_times()[:2]) - cpu < 1, "it waits instead of trying again and again"
    wait_until(lambda: process.num_fds() <= free, "all are given back")
    with server.client() as client:
        # those that still waited in the kernel are taken and found closed first
        wait_until(lambda: client.get("/readyz").status_code == 200, "it is ready")
    assert is_right(enhance(server, small), small)
    others = [line for line in server.log[said:] if "service.access" not in line]
    assert len(others) <= 1, "one line says it"
    assert [line for line in server.log if "open files" in line or "open more files" in line]
    assert server.stop() == 0
