"""`pix2dslr bulk` on a real Ray cluster of two nodes on loopback, one of which is killed."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest

from service.commands.bulk_places import OWN
from tests.e2e.conftest import COMMAND, Run, environment_with, noise, png
from tests.onnx_files import write_generator

pytest.importorskip("ray", reason="pip install 'pix2dslr[ray]'")

PICTURES: Final = 500
BROKEN: Final = 7
Start = Callable[[Sequence[str], Mapping[str, str]], "subprocess.Popen[str]"]

QUICK_TO_MISS: Final = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""How a head finds that a node is gone: in seconds, where it takes half a minute by default."""


def until(true: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def kill_tree(process: "subprocess.Popen[bytes]") -> int:
    """Kill a process and all that it started, by their ids, and return how many there were."""
    root = psutil.Process(process.pid)
    tree = [*root.children(recursive=True), root]
    for each in tree:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(tree[:-1], timeout=30)
    return len(tree)


@dataclass
class Nodes:
    """A Ray cluster: a head and another node, each of one CPU and, as far as Ray knows, one GPU."""

    address: str
    token: str
    head: "subprocess.Popen[bytes]"
    other: "subprocess.Popen[bytes]"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    # addresses of their own on the loopback device: Ray replaces 127.0.0.1 by the machine's public one
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    ray = str(Path(sys.executable).with_name("ray"))
    common = ["--num-cpus=1", "--num-gpus=1", "--object-store-memory=80000000", "--block", "--disable-usage-stats"]
    token = secrets.token_hex()
    environment = environment_with({}) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    running = []

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        with open(Path(folder, "log"), "ab") as log:  # noqa: PTH123
            process = subprocess.Popen([ray, "start", *arguments, *common], stdout=log, stderr=log, env=environment)
        running.append(process)
        return process

    try:
        head = start(
            "--head", "--node-ip-address=127.0.0.2", f"--port={port}", "--include-dashboard=false",
            f"--temp-dir={folder}/ray", f"--system-config={json.dumps(QUICK_TO_MISS)}",
        )  # fmt: skip
        until(lambda: _listens("127.0.0.2", port))
        other = start(f"--address=127.0.0.2:{port}", "--node-ip-address=127.0.0.3")
        yield Nodes(f"127.0.0.2:{port}", token, head, other)
    finally:
        for process in running:
            if process.poll() is None:
                kill_tree(process)
        shutil.rmtree(folder)


def _listens(host: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((host, port)) == 0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator whose answers differ from what it gets, and that takes a moment for each."""
    folder = tmp_path_factory.mktemp("inverting")
    write_generator(folder / "iphone.onnx", invert=True, convolutions=20)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(PICTURES):
        path = folder / f"roll {i // 100}" / f"{i:03}.png"
        path.parent.mkdir(exist_ok=True)
        whole = png(noise(40, 60, seed=i))
        path.write_bytes(whole[:100] if i % (PICTURES // BROKEN) == 11 else whole)
    return folder


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command and leave it running; what still runs in the end is killed."""
    running = []

    def begin(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def answers(folder: Path) -> dict[str, Path]:
    found = (path for path in folder.rglob("*.png") if OWN not in path.parts)
    return {path.relative_to(folder).as_posix(): path for path in found}


def test_what_ends_a_run_is_told_in_one_line(nodes: Nodes, start: Start, tmp_path: Path) -> None:
    environment = environment_with({}) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": nodes.token}
    process = start([COMMAND, "bulk", "memory://nowhere", str(tmp_path), "--address", nodes.address], environment)
    _, said = process.communicate(timeout=90)
    assert (process.returncode, said) == (1, "pix2dslr: memory://nowhere is not there\n")


def test_a_killed_node_loses_nothing_and_does_nothing_twice(
    nodes: Nodes, run: Run, start: Start, models: Path, photos: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "out", tmp_path / "failed.jsonl"
    arguments = ["bulk", str(photos), str(out), "--address", nodes.address, "--report", str(report)]
    arguments += ["--gpus-per-actor", "0.5"]  # there is room for two by the CPUs

    environment = environment_with({"models": models}) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": nodes.token}

    def begin() -> "subprocess.Popen[str]":
        return start([COMMAND, *arguments], environment)

    # stopped early: what is there is whole, and a second run goes on
    first = begin()
    until(lambda: len(answers(out)) >= 40)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert "run it again to go on" in said
    stopped_at = len(answers(out))
    assert 40 <= stopped_at < PICTURES // 2

    second = begin()
    until(lambda: len(answers(out)) >= PICTURES // 2)
    at_kill = len(answers(out))
    works = [child.cmdline()[:1] for child in psutil.Process(nodes.other.pid).children(recursive=True)]
    assert any(name[0].startswith("ray::MapWorker") for name in works if name), works
    killed = kill_tree(nodes.other)
    _, said = second.communicate(timeout=120)
    after = answers(out)
    good = {name for i in range(PICTURES) if i % (PICTURES // BROKEN) != 11 for name in [f"roll {i // 100}/{i:03}.png"]}
    print(
        f"\n{stopped_at} answers at Ctrl-C; {at_kill} when {killed} processes of a node were killed; {len(after)} after"
    )
    print(said.splitlines()[-1])
    assert second.returncode == 1, said
    assert at_kill < len(good)
    assert after.keys() == good  # nothing lost, and nothing else
    counted = re.search(r"(\d+) done, (\d+) done before, (\d+) failed", said)
    assert counted, said
    done, before, failed = map(int, counted.groups())
    assert (done + before, failed) == (len(good), PICTURES - len(good))  # nothing twice
    assert before <= stopped_at

    told = [json.loads(line) for line in report.read_text().splitlines()]
    assert {entry["source"] for entry in told} == {
        f"{photos}/roll {i // 100}/{i:03}.png" for i in range(PICTURES) if i % (PICTURES // BROKEN) == 11
    }
    assert len(told) == failed
    assert {entry["problem"] for entry in told} == {"malformed-picture"}
    assert all(entry["detail"].startswith("The picture can't be decoded.") for entry in told)

    # what `enhance` makes of the same, bit for bit
    sample = sorted(good)[:: len(good) // 20]
    single = run("enhance", *(photos / name for name in sample), "-o", tmp_path / "single", models=models)
    assert single.returncode == 0, single.stderr
    for name in sample:
        assert after[name].read_bytes() == (tmp_path / "single" / Path(name).name).read_bytes()
    assert len({path.read_bytes() for path in after.values()}) == len(good)


def test_without_ray_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "hidden" / "ray").mkdir(parents=True)
    (tmp_path / "hidden" / "ray" / "__init__.py").write_text("raise ModuleNotFoundError('ray')")
    (tmp_path / "photos").mkdir()
    done = subprocess.run(
        [COMMAND, "bulk", tmp_path / "photos", tmp_path / "out"],
        env=environment_with({}) | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "hidden"), *sys.path[1:]])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pix2dslr: bulk needs the extra `ray`: pip install 'pix2dslr[ray]'\n"
    assert not (tmp_path / "out").exists()
