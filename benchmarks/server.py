"""Real servers on loopback for the time of a benchmark."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

COMMAND = str(Path(sys.executable).with_name("pix2dslr"))


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        url: its address.
        pid: its process id.
        start_s: seconds from its start until it said that it was ready.
        log: the lines that it has written since.
    """

    url: str
    pid: int
    start_s: float
    log: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        """A client of its own connection."""
        return httpx.Client(base_url=self.url, timeout=1800, trust_env=False)

    def memory(self, what: str = "VmRSS") -> float:
        """Its resident memory in MB (2^20 bytes), `VmRSS` now or `VmHWM` at its highest."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"{what}:\s+(\d+) kB", status)
        assert found, status
        return int(found[1]) / 1024

    def tiles(self) -> float:
        """How many tiles it has enhanced since its start."""
        with self.client() as client:
            found = re.findall(r"^pix2dslr_tiles_total\S* (\S+)", client.get("/metrics").text, re.MULTILINE)
        return sum(map(float, found))

    def forget_peak(self) -> None:
        """Let `VmHWM` begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def running_server(settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start `pix2dslr serve` on a free port, wait until it is ready, and stop it again.

    Args:
        settings: by name without the prefix, such as `{"MODELS": "folder"}`.
    """
    environment = os.environ | {f"PIX2DSLR_{name}": value for name, value in (settings or {}).items()}
    start = time.perf_counter()
    with subprocess.Popen(
        [COMMAND, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            if "listening on " in line:
                url = line.partition("listening on ")[2].split()[0]
            if line.rstrip().endswith("] ready"):
                break
        else:
            raise RuntimeError(f"the server ended before it was ready: {process.wait()}")
        server = Server(url, process.pid, time.perf_counter() - start)
        # a pipe that nobody reads would stop a server that logs much
        reader = threading.Thread(target=server.log.extend, args=(process.stderr,))
        reader.start()
        try:
            yield server
        finally:
            process.terminate()
            reader.join()


@contextmanager
def naive_server(model: Path) -> Iterator[Server]:
    """The same with `benchmarks.naive`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "benchmarks.naive", str(model), str(port)]) as process:
        server = Server(f"http://127.0.0.1:{port}", process.pid, 0)
        with server.client() as client:
            while True:
                try:
                    client.get("/docs")
                    break
                except httpx.ConnectError:
                    time.sleep(0.05)
        try:
            yield Server(server.url, process.pid, time.perf_counter() - start)
        finally:
            process.terminate()
