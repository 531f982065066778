"""The `pix2dslr` command as its users run it."""

import io
import json
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.model_files import record
from tests.e2e.conftest import COMMAND, Run, Serve, Server, environment_with, noise


@pytest.mark.parametrize("arguments", [[], ["polish"], ["enhance"], ["evaluate", "x.png"], ["cameras", "x"]])
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_version(run: Run) -> None:
    assert run("--version").text.startswith("pix2dslr ")


@pytest.mark.parametrize("command", ["serve", "enhance", "evaluate", "cameras", "doctor"])
def test_help_has_examples(run: Run, command: str) -> None:
    assert command in run("--help").text
    text = run(command, "--help").text
    assert f"pix2dslr {command}" in text[text.index("Examples") :]
    assert "Traceback" not in text


def test_a_shell_completes_commands_options_and_cameras() -> None:
    def completed(words: str) -> list[str]:
        asked = {"_PIX2DSLR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = subprocess.run([COMMAND], capture_output=True, text=True, env=environment_with({}) | asked, check=False)
        return done.stdout.split()

    assert set(completed("pix2dslr e")) == {"enhance", "evaluate"}
    assert "--watch" in completed("pix2dslr enhance --w")
    assert completed("pix2dslr enhance --camera i") == ["iphone"]


def test_a_port_in_use_is_one_clear_line(run: Run, server: Server) -> None:
    port = httpx.URL(server.url).port
    done = run("serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr == f"pix2dslr: can't listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_missing_model_ends_the_server(run: Run, tmp_path: Path) -> None:
    done = run("serve", "--port", 0, models=tmp_path)
    assert done.returncode == 1
    assert f"can't start: {tmp_path}/iphone.onnx is missing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_pixels", "0", "Input should be greater than or equal to 1"),
        ("batch_sizes", "[2,1]", "Value error, sizes must ascend from 1 to at most 1024"),
    ],
)
def test_a_setting_that_can_not_be_is_one_clear_line(run: Run, name: str, value: str, words: str) -> None:
    done = run("serve", **{name: value})
    assert done.returncode == 1
    assert done.stderr == f"pix2dslr: setting {name}: {words}\n"


def test_cuda_that_is_not_there_ends_the_server(run: Run) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = run("serve", "--port", port, device="cuda")
    assert done.returncode == 1
    assert "device is set to cuda" in done.stderr


def test_the_wheel_serves_from_any_folder(serve_session: Serve, tmp_path: Path) -> None:
    """Build the wheel, install it apart from the checkout, serve from an empty folder."""
    project = Path(__file__).parents[2]
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(tmp_path), str(project)], check=True)
    (wheel,) = tmp_path.glob("pix2dslr-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"service/models/iphone.onnx", "service/models/SHA256SUMS", "service/commands/evaluation.html"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "runs"))]
    venv, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True)
    # what it needs comes from here; the package itself must not
    (site,) = venv.glob("lib/python*/site-packages")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "needs.pth").write_text(here)
    where = subprocess.run(
        [str(python), "-c", "import service; print(service.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=empty,
    )
    assert where.stdout.startswith(str(site))
    server = serve_session(command=str(venv / "bin" / "pix2dslr"), cwd=empty)
    buffer = io.BytesIO()
    Image.fromarray(noise(50, 60)).save(buffer, "PNG")
    with server.client() as client:
        assert client.post("/enhance", files={"image": buffer.getvalue()}).status_code == 200
    assert server.stop() == 0
    # an installed file that was changed since is noticed by the list beside it, and where somebody wrote it into that
    # list too, by the hashes that the wheel brought
    changed = site / "service" / "models" / "sony.onnx"
    changed.write_bytes(changed.read_bytes().replace(b"published DPED sony", b"PUBLISHED DPED sony"))
    for told in ("is not the file that", "the file is not the one that was installed"):
        doctor = subprocess.run(
            [str(venv / "bin" / "pix2dslr"), "doctor", "--json"],
            capture_output=True,
            env=environment_with({}),
            cwd=empty,
            check=False,
        )
        found = {check["name"]: check["found"] for check in json.loads(doctor.stdout)["checks"]}
        assert doctor.returncode == 1
        assert told in found["model sony"]
        assert "keeps the contract" in found["model iphone"]
        record(changed)


def test_the_service_needs_no_torch() -> None:
    code = "import sys, service.cli; sys.exit(bool({'torch', 'onnx', 'model_export'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
