"""nginx finds replicas by name, as under Docker's DNS, while they come and go."""

import re
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.nginx import PROGRAM, SHIPPED, free_port, needs_nginx, running_nginx
from tests.e2e.raw import head, open_socket, wait_until

_NEEDED: Final = (1, 27, 3)
_A: Final = 1


def version() -> tuple[int, ...]:
    if PROGRAM is None:
        return ()
    said = subprocess.run([PROGRAM, "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/([\d.]+)", said)
    assert found, said
    return tuple(int(part) for part in found[1].split("."))


pytestmark = [
    needs_nginx,
    pytest.mark.skipif(bool(PROGRAM) and version() < _NEEDED, reason="nginx knows `resolve` from 1.27.3 on"),
]


@contextmanager
def answering(addresses: list[str]) -> Iterator[int]:
    """A DNS server that has one name, with the addresses that are in the list when it is asked; yields its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.2)
        stop = threading.Event()

        def answer() -> None:
            while not stop.is_set():
                try:
                    question, client = listener.recvfrom(512)
                except TimeoutError:
                    continue
                end = question.index(0, 12) + 5
                (kind,) = struct.unpack("!H", question[end - 4 : end - 2])
                told = list(addresses) if kind == _A else []
                # answer, recursion available; the name as in the question; for 600 s, as Docker says
                head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, len(told), 0, 0)
                records = [struct.pack("!HHHIH", 0xC00C, _A, 1, 600, 4) + socket.inet_aton(each) for each in told]
                listener.sendto(head + question[12:end] + b"".join(records), client)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            port: int = listener.getsockname()[1]
            yield port
        finally:
            stop.set()
            thread.join()


def upstream_at(dns: int, port: int) -> str:
    """The shipped upstream.conf, with this DNS server and the replicas at this port."""
    upstream = (SHIPPED / "upstream.conf").read_text()
    for shipped, here in (
        ("resolver 127.0.0.11 ", f"resolver 127.0.0.1:{dns} "),
        ("pix2dslr:8000", f"pix2dslr:{port}"),
    ):
        assert shipped in upstream
        upstream = upstream.replace(shipped, here)
    return upstream


@contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """An address where nothing answers, not even that nothing is there: a listener whose queue is full."""
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind((host, port))
        listener.listen(0)
        while True:
            client = waiting.enter_context(socket.socket())
            client.settimeout(0.3)
            try:
                client.connect((host, port))
            except TimeoutError:
                break
        yield


def test_replicas_that_come_and_go_are_found(serve_session: Serve, identity_folder: Path, tmp_path: Path) -> None:
    port = free_port()

    def start(host: str) -> None:
        serve_session(models=identity_folder, host=host, port=port, threads=1, decode_workers=2)

    start("127.0.0.2")
    known = ["127.0.0.2"]
    with (
        answering(known) as dns,
        running_nginx(tmp_path, upstream_at(dns, port)) as nginx,
        nginx.client() as client,
    ):

        def asked() -> str:
            """Who answered a request, which has to be one."""
            answer = client.get("/cameras")
            assert answer.status_code == 200
            return nginx.line_of(answer.headers["x-request-id"])["tried"].rpartition(":")[0].rpartition(" ")[2]

        wait_until(lambda: client.get("/livez").status_code == 200)  # its first look at DNS
        assert asked() == "127.0.0.2"
        start("127.0.0.3")
        known.append("127.0.0.3")
        wait_until(lambda: asked() == "127.0.0.3")
        wait_until(lambda: asked() == "127.0.0.2")
        known.remove("127.0.0.2")
        wait_until(lambda: {asked() for _ in range(4)} == {"127.0.0.3"})


def test_a_search_that_replicas_change_under_begins_anew(
    serve_session: Serve, identity_folder: Path, tmp_path: Path
) -> None:
    """nginx would end it by itself: a container that is gone is waited for, and meanwhile DNS knows others."""
    port = free_port()
    serve_session(models=identity_folder, host="127.0.0.2", port=port, threads=1, decode_workers=2)
    known = ["127.0.0.4", "127.0.0.5"]
    with (
        silent(known[0], port),
        silent(known[1], port),
        answering(known) as dns,
        running_nginx(tmp_path, upstream_at(dns, port), proxy_connect_timeout="4s") as nginx,
        ThreadPoolExecutor(1) as pool,
        nginx.client() as client,
    ):

        def knows() -> bool:
            """Whether it waits for one of them instead of telling at once that there is none."""
            with open_socket(nginx) as connection:
                connection.settimeout(0.5)
                connection.sendall(head("GET", "/cameras"))
                try:
                    return not connection.recv(1)
                except TimeoutError:
                    return True

        wait_until(knows)
        looks = pool.submit(client.get, "/cameras")
        known[:] = ["127.0.0.2"]
        answer = looks.result()
        assert answer.status_code == 200
        assert nginx.line_of(answer.headers["x-request-id"])["answered"] == "504 : 200"
