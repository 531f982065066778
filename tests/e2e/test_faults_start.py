"""What can't start says why in one line and ends with 1, without a traceback; what is told to leave leaves."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from service.model_files import SUMS
from tests.e2e.conftest import COMMAND, Done, Run, Serve, environment_with
from tests.onnx_files import write_generator


def refused(done: Done, *words: str) -> str:
    """Check that a start failed as it should, and return the line that says why."""
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if " INFO " not in line]
    for each in words:
        assert each in line
    assert done.stdout == b""
    return line


def test_a_port_in_use(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = refused(run("serve", "--port", port))
    assert line == f"pix2dslr: can't listen on 127.0.0.1:{port}: Address already in use"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("no-such-host.invalid", "known"),  # the system's words: "Name or service not known" in most
        ("192.0.2.1", "Cannot assign requested address"),
        ("\u00fc" * 70, "is no host name"),
    ],
)
def test_a_host_that_is_none_of_this_machine(run: Run, host: str, reason: str) -> None:
    line = refused(run("serve", "--port", 0, "--host", host), f"pix2dslr: can't listen on {host}:0: ")
    if reason != "known":
        assert line.endswith(reason)
    assert "bind" not in line


def test_a_port_that_needs_privileges(run: Run, identity_folder: Path) -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first <= 1:
        pytest.skip("anybody may listen on any port here")
    through = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"] if os.geteuid() == 0 else []
    done = run("serve", "--port", first - 1, through=through, models=identity_folder)
    refused(done, f"can't listen on 127.0.0.1:{first - 1}: Permission denied")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": "http"}, "setting port: "),
        ({"batch_sizes": "abc"}, "setting batch_sizes: "),
        ({"cors_origins": "photos.example"}, "photos.example is no origin"),
        ({"verify_models": "perhaps"}, "setting verify_models: "),
    ],
)
def test_a_setting_that_can_not_be(run: Run, settings: dict[str, Any], words: str) -> None:
    refused(run("serve", **settings), "pix2dslr: ", words)


def test_models_that_are_not_there(run: Run, tmp_path: Path) -> None:
    refused(run("serve", "--port", 0, models=tmp_path / "gone"), "can't start: ", "can't be read: No such file")
    write_generator(tmp_path / "sony.onnx")
    refused(run("serve", "--port", 0, models=tmp_path), "can't start: ", "iphone.onnx is missing")


@pytest.mark.parametrize("name", ["iphone.onnx", SUMS, "."])
def test_models_that_may_not_be_read(run: Run, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_generator(folder / "iphone.onnx")
    (folder / name).chmod(0)
    # the superuser reads what has no permissions at all, unless this right of theirs is taken away
    through = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"] if os.geteuid() == 0 else []
    try:
        done = run("serve", "--port", 0, through=through, models=folder)
    finally:
        (folder / name).chmod(0o700)
    refused(done, "can't start: ", "can't be read: Permission denied")


def test_a_model_that_is_damaged_or_not_listed(run: Run, tmp_path: Path) -> None:
    path = write_generator(tmp_path / "iphone.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    refused(run("serve", "--port", 0, models=tmp_path, verify_models=False), "can't start: ", "no ONNX model")
    path.write_bytes(whole + b"\x72\x00")
    refused(run("serve", "--port", 0, models=tmp_path), "can't start: ", "is not the file that", "sha256sum")
    (tmp_path / SUMS).unlink()
    refused(run("serve", "--port", 0, models=tmp_path), "can't start: ", f"{SUMS}, the list of the models to trust")


def test_a_device_that_fails_at_once(run: Run, tmp_path: Path) -> None:
    # ONNX Runtime's own words for its error go to standard error too; ours is one line
    write_generator(tmp_path / "iphone.onnx", fails=0.9999, seed=100_000)
    done = run("serve", "--port", 0, models=tmp_path, batch_sizes="[1]", threads=1)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    ours = [line for line in done.stderr.splitlines() if " ERROR service" in line]
    assert len(ours) == 1
    assert "can't start: the device fails on a first batch: " in ours[0]


def test_sigterm_while_it_loads_ends_it_soon(serve_session: Serve, tmp_path: Path) -> None:
    # black tiles take this one long too, so that it is warming up for minutes
    write_generator(tmp_path / "iphone.onnx", convolutions=100_000, convolve_black=True)
    server = serve_session(ready=False, models=tmp_path)
    with server.client() as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").json()["reasons"] == ["loading"]
    start = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - start < 30, "not the minutes that it had left"


def test_sigterm_before_it_listens_ends_it(identity_folder: Path) -> None:
    """At any moment of the start the signal ends it: with 0 once Python runs our code, never with a traceback."""
    codes = []
    for part in (1, 2, 4, 6):
        with subprocess.Popen(
            [COMMAND, "serve", "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment_with({"models": identity_folder}),
        ) as process:
            try:
                time.sleep(part * 0.25)  # nothing to wait for: any moment is as good
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
        assert "Traceback" not in said
        codes.append(process.returncode)
    assert set(codes) <= {0, -signal.SIGTERM}, codes
