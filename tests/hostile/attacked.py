"""A server under attack: started from any checkout, asked from any address of loopback, timed and weighed meanwhile."""

import contextlib
import multiprocessing
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from tests.e2e.conftest import COMMAND, Server, environment_with
from tests.e2e.raw import read_answer
from tests.hostile.wire import request

HOSTILE: Final = "127.0.0.2"
HONEST: Final = "127.0.0.100"
_PROBE: Final = "127.0.0.101"
_ASK_EVERY_S: Final = 0.02
_PRIORITY: Final = -5
"""Of the process that times: it must not wait for a core behind those that attack."""
_TIMEOUT_S: Final = 300.0
_END_WITHIN_S: Final = 1.0


@contextmanager
def serving(checkout: Path, variables: Mapping[str, str] | None = None, **settings: object) -> Iterator[Server]:
    """Run the service of a checkout on a free port, by this interpreter; end it and all below it by their ids.

    Args:
        checkout: the folder that holds `service`.
        variables: of its environment, besides.
        settings: of the service.
    """
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment_with(settings), **(variables or {}), "PYTHONPATH": str(checkout)},
        cwd=checkout,  # decode workers look there first
        process_group=0,
    )
    server = Server(process)
    reader = threading.Thread(target=server.read_log)
    reader.start()
    try:
        server.url = server.wait_for(r"listening on (http://\S+)").group(1)
        server.wait_for(r"\] ready$")
        yield server
    finally:
        processes = _processes(server)
        for each in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(processes, 30)
        process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


def _processes(server: Server) -> list[psutil.Process]:
    try:
        first = psutil.Process(server.process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def megabytes(server: Server) -> float:
    """Resident memory of all its processes, in MB (2^20 bytes)."""
    total = 0
    for process in _processes(server):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            total += process.memory_info().rss
    return total / 2**20


def connect(server: Server, address: str, *, timeout: float = _TIMEOUT_S, receive_buffer: int = 0) -> socket.socket:
    """Connect from an address of loopback."""
    target = urlsplit(server.url)
    made = socket.socket()
    made.settimeout(timeout)
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        made.bind((address, 0))
        made.connect((target.hostname, target.port))
    except OSError:
        made.close()
        raise
    return made


@dataclass(frozen=True)
class Asked:
    """What came of a request: its status, 0 where there was none, and the seconds until the whole answer."""

    status: int
    seconds: float
    retry_after: int = 0


def ask(server: Server, address: str, data: bytes, path: str = "/enhance", kind: str = "image/jpeg") -> Asked:
    """Send a body by POST from an address; an empty one is a GET."""
    if data:
        line, length = f"POST {path} HTTP/1.1", f"Content-Length: {len(data)}"
        whole = request(f"Content-Type: {kind}", length, "Connection: close", body=data, line=line)
    else:
        whole = request("Connection: close", line=f"GET {path} HTTP/1.1")
    start = time.monotonic()
    try:
        with connect(server, address) as connection:
            with contextlib.suppress(OSError):  # it may answer before all was sent
                connection.sendall(whole)
            answer = read_answer(connection)
    except (OSError, AssertionError):
        return Asked(0, time.monotonic() - start)
    return Asked(answer.status, time.monotonic() - start, int(answer.headers.get("retry-after", "0")))


def served(server: Server, data: bytes, within_s: float, path: str = "/enhance") -> float:
    """Seconds until an honest client has its picture, coming back as it is told; `within_s` where that is too long."""
    start = time.monotonic()
    while (took := time.monotonic() - start) < within_s:
        asked = ask(server, HONEST, data, path)
        if asked.status == 200:
            return time.monotonic() - start
        time.sleep(min(max(asked.retry_after, 0.1), max(within_s - took, 0.0)))
    return within_s


def exchange(server: Server, data: bytes, connections: int = 1, seconds: float = 15.0) -> None:
    """Send the same on some connections of a hostile client at once, and read what comes until they end."""
    with ExitStack() as held:
        made = [held.enter_context(connect(server, HOSTILE)) for _ in range(connections)]
        for each in made:
            with contextlib.suppress(OSError):
                each.sendall(data)
        drain(made, seconds)


def drain(connections: list[socket.socket], seconds: float, quiet_s: float | None = None) -> None:
    """Read what comes until each connection ends, or some time is over, or nothing came for so long."""
    until = time.monotonic() + seconds
    for each in connections:
        with contextlib.suppress(OSError):
            while (left := until - time.monotonic()) > 0:
                each.settimeout(min(left, quiet_s or left))
                if not each.recv(1 << 20):
                    break


@contextmanager
def meanwhile(*works: Callable[[], object]) -> Iterator[None]:
    """Do each work again and again in a thread of its own until the block ends; one that takes longer is not awaited.

    Connections that break are no error: the server may end them.
    """
    over = threading.Event()

    def again(work: Callable[[], object]) -> None:
        while not over.is_set():
            try:
                work()
            except (OSError, AssertionError):
                over.wait(0.1)

    threads = [threading.Thread(target=again, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(_END_WITHIN_S / len(threads))


@contextmanager
def weighed(server: Server) -> Iterator[list[float]]:
    """Give a list that gets the server's memory in MB ten times a second."""
    samples: list[float] = []

    def look() -> None:
        samples.append(megabytes(server))
        time.sleep(0.1)

    with meanwhile(look):
        yield samples


class Probe:
    """Asks for /livez every 20 ms on one connection from an address of its own, by a process of its own."""

    def __init__(self, server: Server) -> None:
        self._pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_ask_for_ever, args=(server.url, other), daemon=True)
        self._process.start()
        other.close()
        self.longest()

    def longest(self) -> float:
        """Seconds of the longest answer since this was asked last."""
        self._pipe.send(True)
        return float(self._pipe.recv())

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _ask_for_ever(url: str, pipe: Connection) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    target = urlsplit(url)
    livez = request(line="GET /livez HTTP/1.1")
    due, longest = time.monotonic(), 0.0
    connection: socket.socket | None = None
    while True:
        if pipe.poll(max(due - time.monotonic(), 0.0)):
            try:
                pipe.recv()
                pipe.send(longest)
            except (EOFError, OSError):
                return
            longest = 0.0
            continue
        start, answered = time.monotonic(), False
        while not answered:
            try:
                if connection is None:
                    connection = socket.create_connection((target.hostname, target.port), _TIMEOUT_S, (_PROBE, 0))
                connection.sendall(livez)
                answered = read_answer(connection).status == 200
            except (OSError, AssertionError):  # it was closed, or refused
                connection = None
        longest = max(longest, time.monotonic() - start)
        due = max(due + _ASK_EVERY_S, time.monotonic())


def allow_files(count: int) -> int:
    """Let this process open so many files, or as many as it may; return how many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft if soft != resource.RLIM_INFINITY else count
