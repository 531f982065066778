"""A real nginx with the configuration that ships, on loopback, and clients that send through it."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import Server, pixels_of

SHIPPED: Final = Path(__file__).parents[2] / "deploy" / "nginx"
_PATH: Final = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
PROGRAM: Final = shutil.which("nginx", path=_PATH)

needs_nginx = pytest.mark.skipif(PROGRAM is None, reason="no nginx: apt-get install nginx-light")


@dataclass
class Nginx(Server):
    """A running nginx, asked as the service itself is.

    Attributes:
        folder: all that it writes.
    """

    folder: Path = Path()

    def lines(self) -> list[dict[str, str]]:
        """What its access log has."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]

    def line_of(self, request_id: str) -> dict[str, str]:
        """The line of one request, which is written after the answer, waited for."""
        deadline = time.monotonic() + 30
        while True:
            found = [line for line in self.lines() if line["request_id"] == request_id]
            if found:
                return found[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def render(folder: Path, port: int, upstream: str) -> Path:
    """Write the shipped configuration for loopback, but for upstream.conf; return its path.

    Only where it listens and writes differs.
    """
    text = (SHIPPED / "nginx.conf").read_text()
    for shipped, here in (
        (" /tmp/", f" {folder}/"),
        ("listen 8080 ", f"listen 127.0.0.1:{port} "),
        ("access_log /dev/stdout ", f"access_log {folder}/access.log "),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    (folder / "upstream.conf").write_text(upstream)
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


def upstream_of(replicas: Sequence[str]) -> str:
    """The shipped upstream.conf with replicas by their addresses, since there is no Docker here to ask for the name."""
    found_by_name = re.compile(r"^    server (\S+) resolve( .*)?;$", re.MULTILINE)
    upstream = re.sub(r"^resolver .*\n", "", (SHIPPED / "upstream.conf").read_text(), flags=re.MULTILINE)
    servers = "\n".join(f"    server {url.removeprefix('http://')}\\2;" for url in replicas)
    upstream, count = found_by_name.subn(servers, upstream)
    assert count == 1
    return upstream


@contextmanager
def running_nginx(folder: Path, replicas: Sequence[str] | str, **directives: str) -> Iterator[Nginx]:
    """Start nginx in front of replicas, and stop it again.

    Args:
        folder: for all that it writes.
        replicas: their addresses, or a whole upstream.conf.
        directives: to be other than they ship.
    """
    assert PROGRAM is not None
    port = free_port()
    configuration = render(folder, port, replicas if isinstance(replicas, str) else upstream_of(replicas))
    for name, value in directives.items():
        text, count = re.subn(rf"\b{name} [^;]+;", f"{name} {value};", configuration.read_text())
        assert count == 1
        configuration.write_text(text)
    # started by root it would give its workers another user, who may not write here
    more = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    command = [PROGRAM, "-p", str(folder), "-c", str(configuration), "-e", "stderr", "-g", more]
    with (folder / "error.log").open("w") as errors:
        process = subprocess.Popen(command, stderr=errors, text=True)
        try:
            deadline = time.monotonic() + 30
            while True:
                assert process.poll() is None, (folder / "error.log").read_text()
                assert time.monotonic() < deadline
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)
            yield Nginx(process, f"http://127.0.0.1:{port}", folder=folder)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class Clients:
    """Clients that each send one picture after the other over a connection of their own, until they are stopped.

    They take 429 at its word and come back after its Retry-After; everything else that is not the picture, enhanced by
    a generator that changes nothing, is a failure.

    Attributes:
        url: where they send.
        pictures: what they send, PNG.
        told: how many answers had each status; `None` stands for none at all.
        failures: each in words.
    """

    url: str
    pictures: Sequence[bytes]
    told: Counter[int | None] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def answered(self) -> int:
        with self._lock:
            return self.told.total()

    @contextmanager
    def sending(self, count: int) -> Iterator["Clients"]:
        threads = [threading.Thread(target=self._send, args=(i,), daemon=True) for i in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(180)
                assert not thread.is_alive()

    def wait_for(self, more: int) -> None:
        """Wait until so many more have been answered."""
        enough, deadline = self.answered + more, time.monotonic() + 120
        while self.answered < enough:
            assert time.monotonic() < deadline, self.told
            time.sleep(0.02)

    def _send(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=120, trust_env=False) as client:
            turn = number
            while not self._stop.is_set():
                picture = self.pictures[turn % len(self.pictures)]
                try:
                    answer = client.post("/enhance", files={"image": picture}, data={"format": "png"})
                except httpx.TransportError as error:
                    self._note(None, f"{type(error).__name__}: {error}")
                    continue
                if answer.status_code == 429:
                    self._note(429)
                    self._stop.wait(float(answer.headers["retry-after"]))
                    continue
                whole = answer.status_code == 200 and np.array_equal(pixels_of(answer.content), pixels_of(picture))
                self._note(answer.status_code, "" if whole else answer.text[:300])
                turn += 1

    def _note(self, status: int | None, failure: str = "") -> None:
        with self._lock:
            self.told[status] += 1
            if failure:
                self.failures.append(f"{status}: {failure}")


def passed_on(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that more than one replica was asked for."""
    return [line for line in lines if "," in line["tried"]]
