"""A decoder that a hostile file has taken over: what its worker can still reach, written to a report.

`install` is called within a decode worker before it confines itself; what it reports is tried later, from inside of
reading a file that holds the mark, as code of a hostile file would.
"""

import json
import os
import re
import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from service import codec
from service.picture import Header, PictureLimits

MARK = b"the stand-in looks around"


def install(report: IO[str], secret: str, keys_file: str) -> None:
    """Let it look around once a file with the mark comes.

    Args:
        report: where to, a pipe that is open already.
        secret: what must not be found: in the service's environment and memory, and in its own environment.
        keys_file: must not be readable.
    """
    read_header = codec.read_header

    def taken_over(data: bytes, limits: PictureLimits) -> Header:
        if MARK in data:
            _look_around(report, secret.encode(), keys_file)
        return read_header(data, limits)

    codec.read_header = taken_over


def read(report: str) -> dict[str, bool]:
    """By what was tried, whether it went; a try that ended the worker did not."""
    return {what: went for line in report.splitlines() for what, went in json.loads(line).items()}


def _look_around(report: IO[str], secret: bytes, keys_file: str) -> None:
    def listens() -> bool:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return bool(listener.getsockname()[1])

    def writes() -> bool:
        with tempfile.NamedTemporaryFile() as file:
            return bool(file.write(b"x"))

    tried: dict[str, Callable[[], bool]] = {
        "keys in the service's environment": lambda: any(secret in environment for environment in _environments()),
        "keys in the service's memory": lambda: any(
            secret in piece for each in _ancestors() for piece in _memory(each)
        ),
        "keys in its own environment": lambda: secret in b"\0".join(f"{v}".encode() for v in os.environ.values()),
        "the file of keys": lambda: secret in Path(keys_file).read_bytes(),
        "the network": listens,
        "new files": writes,
    }
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (hard, hard))
    for what, does in tried.items():
        report.write(json.dumps({what: False}) + "\n")  # for a try that ends this process
        report.flush()
        report.write(json.dumps({what: _succeeds(does)}) + "\n")
        report.flush()


def _succeeds(does: Callable[[], bool]) -> bool:
    try:
        return does()
    except OSError:
        return False


def _ancestors() -> Iterator[int]:
    """Process ids above this one, up to the one that was started as `serve`."""
    process = os.getppid()
    while process > 1:
        yield process
        if b"\0serve\0" in Path(f"/proc/{process}/cmdline").read_bytes():
            return
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _environments() -> Iterator[bytes]:
    return (Path(f"/proc/{each}/environ").read_bytes() for each in _ancestors())


def _memory(process: int) -> Iterator[bytes]:
    """Its writable memory, region by region."""
    regions = re.findall(r"^(\w+)-(\w+) rw.p", Path(f"/proc/{process}/maps").read_text(), re.MULTILINE)
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for begin, end in regions:
            start, size = int(begin, 16), int(end, 16) - int(begin, 16)
            try:
                memory.seek(start)
                yield memory.read(min(size, 64 << 20))
            except OSError:  # a region that is only reserved
                continue
