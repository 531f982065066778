"""The `pix2dslr` command as its users run it."""

import io
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.e2e.conftest import COMMAND, Serve, Server, noise, pixels_of, png


def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {f"PIX2DSLR_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [COMMAND, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def test_enhance_gives_what_the_server_gives(
    client: httpx.Client, tmp_path: Path, photo: npt.NDArray[np.uint8]
) -> None:
    names = ["a.png", "b.png"]
    for name, pixels in zip(names, (photo, photo[::-1]), strict=True):
        (tmp_path / name).write_bytes(png(pixels))
    done = run("enhance", *(tmp_path / name for name in names), "-o", tmp_path / "out" / "deep")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in (tmp_path / "out" / "deep").iterdir()) == names
    for name in names:
        served = client.post("/enhance", files={"image": (tmp_path / name).read_bytes()})
        np.testing.assert_array_equal(
            pixels_of((tmp_path / "out" / "deep" / name).read_bytes()), pixels_of(served.content)
        )


def test_a_file_that_fails_is_named_and_the_rest_is_done(tmp_path: Path, identity_folder: Path) -> None:
    (tmp_path / "good.png").write_bytes(png(noise(40, 50)))
    (tmp_path / "bad.png").write_bytes(png(noise(40, 50))[:100])
    (tmp_path / "text.jpg").write_text("no picture")
    out = tmp_path / "out"
    files = [tmp_path / name for name in ("bad.png", "gone.png", "text.jpg", "good.png")]
    done = run("enhance", *files, "-o", out, "--format", "webp", "--quality", 100, models=identity_folder)
    assert done.returncode == 1
    assert [path.name for path in out.iterdir()] == ["good.webp"], "and no half-written file"
    with Image.open(out / "good.webp") as image:
        np.testing.assert_array_equal(np.asarray(image), noise(40, 50))
    lines = done.stderr.splitlines()
    lines = [line for line in lines if "libpng" not in line]
    assert len(lines) == 3, done.stderr
    assert lines[0].startswith(f"{files[0]}: The picture can't be decoded.")
    assert lines[1] == f"{files[1]}: No such file or directory"
    assert lines[2].startswith(f"{files[2]}: The picture's format is not supported.")


@pytest.mark.parametrize(
    "arguments", [["enhance"], ["enhance", "x.png"], ["enhance", "x.png", "-o", "out", "--strength", "2"], ["polish"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_nothing_is_overwritten_unseen(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(png(noise(10, 10)))
    clash = run("enhance", *files, "-o", tmp_path / "out")
    assert clash.returncode == 2
    assert "two files would get one name" in clash.stderr
    assert not (tmp_path / "out").exists()
    replaced = run("enhance", files[0], "-o", files[0].parent)
    assert replaced.returncode == 2
    assert files[0].read_bytes() == png(noise(10, 10))


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("pix2dslr ")
    assert "serve" in run("--help").stdout


def test_a_port_in_use_is_one_clear_line(server: Server) -> None:
    port = httpx.URL(server.url).port
    done = run("serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr == f"pix2dslr: can't listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_missing_model_ends_the_server(tmp_path: Path) -> None:
    done = run("serve", "--port", 0, models=tmp_path)
    assert done.returncode == 1
    assert f"can't start: {tmp_path}/iphone.onnx is missing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_pixels", "0", "Input should be greater than or equal to 1"),
        ("batch_sizes", "[2,1]", "Value error, sizes must ascend from 1"),
    ],
)
def test_a_setting_that_can_not_be_is_one_clear_line(name: str, value: str, words: str) -> None:
    done = run("serve", **{name: value})
    assert done.returncode == 1
    assert done.stderr == f"pix2dslr: setting {name}: {words}\n"


def test_cuda_that_is_not_there_ends_the_server() -> None:
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
    assert "service/models/iphone.onnx" in names
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


def test_the_service_needs_no_torch() -> None:
    code = "import sys, service.cli; sys.exit(bool({'torch', 'onnx', 'model_export'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
