"""What becomes of a running service whose model files change, and of the next start."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.model_files import SUMS
from tests.e2e.conftest import Run, Serve, noise, pixels_of, png
from tests.onnx_files import write_generator

PHOTO = noise(200, 150, 5)


def replace(folder: Path) -> None:
    write_generator(folder / "new.onnx", invert=True)
    (folder / "new.onnx").replace(folder / "iphone.onnx")


def overwrite(folder: Path) -> None:
    """Write over the very file, as `cp` does: whoever mapped it into memory would see that."""
    size = (folder / "iphone.onnx").stat().st_size
    with (folder / "iphone.onnx").open("r+b") as file:
        file.write(b"\xff" * size)


def truncate(folder: Path) -> None:
    with (folder / "iphone.onnx").open("r+b") as file:
        file.truncate(100)


def delete(folder: Path) -> None:
    (folder / "iphone.onnx").unlink()


def delete_folder(folder: Path) -> None:
    shutil.rmtree(folder)


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (replace, "is not the file that"),
    (overwrite, ""),
    (truncate, "is no ONNX model that can be loaded"),
    (delete, ""),
    (delete_folder, ""),
]
"""Each with what the next start says of it; those without words, test_faults_start.py has."""


def test_a_running_service_keeps_what_it_loaded_and_a_new_one_refuses(
    serve_session: Serve, run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_generator(folder / "iphone.onnx")
    trusted = (folder / SUMS).read_text()
    server = serve_session(models=folder)
    with server.client() as client:
        cameras = client.get("/cameras")
        first = client.post("/enhance", files={"image": png(PHOTO)})
        for change, words in CHANGES:
            shutil.rmtree(folder)
            folder.mkdir()
            write_generator(folder / "iphone.onnx")
            change(folder)
            if folder.exists():
                (folder / SUMS).write_text(trusted)
            again = client.post("/enhance", files={"image": png(PHOTO)})
            assert (again.status_code, again.headers["etag"]) == (200, first.headers["etag"]), change.__name__
            np.testing.assert_array_equal(pixels_of(again.content), PHOTO)
            assert client.get("/cameras").json() == cameras.json()
            assert client.get("/cameras").headers["etag"] == cameras.headers["etag"]
            assert client.get("/readyz").status_code == 200
            if words:
                started = run("serve", "--port", 0, models=folder)
                assert started.returncode == 1
                assert words in started.stderr
    assert server.stop() == 0


@pytest.mark.parametrize("command", [("enhance", "-"), ("cameras",)])
def test_the_commands_refuse_what_is_not_listed(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    write_generator(tmp_path / "iphone.onnx")
    (tmp_path / SUMS).write_text("")
    refused = run(*command, stdin=png(PHOTO), models=tmp_path)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert f"is not listed in {tmp_path / SUMS}; if you trust it: (cd " in line
    assert run(*command, stdin=png(PHOTO), models=tmp_path, verify_models=False).returncode == 0


def test_doctor_says_what_is_trusted(run: Run, tmp_path: Path) -> None:
    write_generator(tmp_path / "iphone.onnx")
    assert "model iphone: is the file that SHA256SUMS lists" in run("doctor", models=tmp_path).text
    unchecked = run("doctor", models=tmp_path, verify_models=False).text
    assert "model iphone: is not checked against SHA256SUMS" in unchecked
    (tmp_path / SUMS).unlink()
    told = run("doctor", models=tmp_path)
    assert told.returncode == 1
    assert "the list of the models to trust, can't be read" in told.text
    assert "-> if you trust it: (cd " in told.text
