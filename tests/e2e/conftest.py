"""A real server in a process of its own, on loopback, stopped again by its own process id."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest

from tests.onnx_files import write_generator

COMMAND = str(Path(sys.executable).with_name("pix2dslr"))


@dataclass
class Server:
    """A running `pix2dslr serve`.

    Attributes:
        process: the process.
        url: where it listens.
        log: the lines that it wrote to standard error so far.
    """

    process: subprocess.Popen[str]
    url: str = ""
    log: list[str] = field(default_factory=list)
    _told: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the log matches."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.log if (match := re.search(pattern, line))), None)

        with self._told:
            self._told.wait_for(lambda: found() or self.process.poll() is not None, 60)
        match = found()
        assert match, "".join(self.log)
        return match

    def read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._told:
                self.log.append(line)
                self._told.notify_all()
        with self._told:
            self._told.notify_all()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def metric(self, name: str) -> float:
        """Read a sample of /metrics by its whole name with labels, or by its name alone the sum over all labels."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        found = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{"))]
        assert found, name
        return sum(found)

    def stop(self) -> int:
        """End it as an orchestrator would and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


Serve = Callable[..., Server]


def environment_with(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment with these settings of the service, and no others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIX2DSLR_")}
    return environment | {f"PIX2DSLR_{name.upper()}": str(value) for name, value in settings.items()}


@dataclass(frozen=True)
class Done:
    """What a command that has ended left."""

    returncode: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run the command to its end, perhaps through another one: `run(*arguments, **settings)`."""

    def go(
        *arguments: object,
        stdin: bytes = b"",
        cwd: Path | None = None,
        through: Sequence[str] = (),
        **settings: object,
    ) -> Done:
        done = subprocess.run(
            [*through, COMMAND, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            env=environment_with(settings),
            cwd=cwd,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    return go


@pytest.fixture(scope="session")
def serve_session() -> Iterator[Serve]:
    running: list[tuple[Server, threading.Thread]] = []

    def start(
        *,
        ready: bool = True,
        command: str = COMMAND,
        cwd: Path | None = None,
        port: int = 0,
        variables: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Server:
        process = subprocess.Popen(
            [command, "serve", "--port", str(port)],
            stderr=subprocess.PIPE,
            text=True,
            env={**environment_with(settings), **(variables or {})},
            cwd=cwd,
        )
        server = Server(process)
        reader = threading.Thread(target=server.read_log, daemon=True)
        reader.start()
        running.append((server, reader))
        server.url = server.wait_for(r"listening on (http://\S+)").group(1)
        if ready:
            server.wait_for(r"\] ready$")
        return server

    yield start
    for server, reader in running:
        server.process.kill()
        server.process.wait()
        reader.join()
        assert server.process.stderr is not None
        server.process.stderr.close()


@pytest.fixture(scope="session")
def server(serve_session: Serve) -> Server:
    """The service as it ships."""
    return serve_session()


@pytest.fixture(scope="session")
def identity_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity")
    write_generator(folder / "iphone.onnx")
    return folder


@pytest.fixture(scope="session")
def identity_server(serve_session: Serve, identity_folder: Path) -> Server:
    """The service on a generator that changes nothing."""
    return serve_session(models=identity_folder)


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode RGB pixels without loss."""
    done, data = cv2.imencode(".png", pixels[:, :, ::-1])
    assert done
    return data.tobytes()


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pixels_of(data: bytes) -> npt.NDArray[np.uint8]:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(decoded, np.uint8)
