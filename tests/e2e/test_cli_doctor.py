"""`pix2dslr doctor` as its users run it."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import onnxruntime as ort
import pytest

from service.commands.gpu import libraries, needed
from service.settings import SHIPPED_MODELS
from tests.e2e.conftest import Run, Server
from tests.onnx_files import CONTEXT, METADATA, write_generator


def checks_of(run: Run, code: int = 0, **settings: object) -> dict[str, dict[str, Any]]:
    done = run("doctor", "--json", **settings)
    answer = json.loads(done.stdout)
    assert done.returncode == code, answer
    assert answer["ok"] == (code == 0)
    return {check["name"]: check for check in answer["checks"]}


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        yield port


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_the_text_names_everything(run: Run, free_port: int) -> None:
    done = run("doctor", port=free_port)
    assert done.returncode == 0, done.text
    assert done.stderr == ""
    lines = done.text.splitlines()
    assert lines[-1] == "everything works"
    named = [line.split(":")[0].split(maxsplit=1)[1] for line in lines[:-1] if not line.startswith(" ")]
    assert named == [
        "versions",
        "settings",
        "cpu",
        "memory",
        "gpu",
        "cuda libraries",
        "tensorrt libraries",
        "providers",
        "model blackberry",
        "model iphone",
        "model sony",
        "port",
        "self-test",
    ]
    assert f"numpy {version('numpy')}" in lines[0]


def test_what_it_found_is_so(run: Run, client: httpx.Client, free_port: int) -> None:
    checks = checks_of(run, port=free_port)
    assert checks["versions"]["details"]["opencv-python-headless"] == version("opencv-python-headless")
    assert checks["cpu"]["details"]["usable"] <= (os.cpu_count() or 1)
    assert checks["providers"]["details"]["built_in"] == ort.get_available_providers()
    assert "CPUExecutionProvider" in checks["providers"]["details"]["usable"]
    cameras = {camera["name"]: camera for camera in client.get("/cameras").json()["cameras"]}
    for name, camera in cameras.items():
        details = checks[f"model {name}"]["details"]
        assert details["architecture"] == camera["architecture"]
        assert len(details["weights_sha256"]) == len(details["file_sha256"]) == 64
    test = checks["self-test"]["details"]
    assert test["tiles_per_second"] > 1
    # a square of 1024 pixels has 11 x 11 tiles that overlap by 32
    tiles_a_megapixel = 121 / (1024**2 / 1e6)
    assert test["ms_per_megapixel"] == pytest.approx(1000 * tiles_a_megapixel / test["tiles_per_second"], rel=0.05)
    assert checks["port"]["details"] == {"host": "127.0.0.1", "port": free_port, "free": True}


@pytest.mark.skipif(bool(shutil.which("nvidia-smi")), reason="there may be a GPU that works")
def test_a_gpu_that_is_asked_for_and_not_there(run: Run) -> None:
    checks = checks_of(run, 1, device="cuda")
    for name in ("gpu", "providers", "self-test"):
        assert checks[name]["status"] == "problem"
        assert checks[name]["do"]
    assert "CUDAExecutionProvider" not in checks["providers"]["details"]["usable"]
    text = run("doctor", device="cuda")
    assert text.returncode == 1
    assert "problem gpu: there is no NVIDIA driver\n        -> install the driver" in text.text
    assert text.text.splitlines()[-1].endswith("can't work")


def test_a_port_that_is_taken(run: Run, server: Server, taken: int, identity_folder: Path) -> None:
    checks = checks_of(run, 1, port=taken, models=identity_folder)
    assert checks["port"]["status"] == "problem"
    assert checks["port"]["found"] == f"can't listen on 127.0.0.1:{taken}: Address already in use"
    ours = checks_of(run, 0, port=httpx.URL(server.url).port, models=identity_folder)["port"]
    assert ours["found"].endswith("is served by a pix2dslr already")
    elsewhere = checks_of(run, 1, host="192.0.2.1", models=identity_folder)["port"]
    assert "Cannot assign requested address" in elsewhere["found"]


def test_models_that_can_not_be_used(run: Run, tmp_path: Path, free_port: int) -> None:
    write_generator(tmp_path / "good.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    write_generator(tmp_path / "old.onnx", metadata={**METADATA, "pix2dslr.version": "0"})
    checks = checks_of(run, 1, models=tmp_path, port=free_port)
    assert checks["model iphone"]["status"] == "problem"
    assert "there: good, noise, old" in checks["model iphone"]["found"]
    assert checks["model good"]["status"] == "ok"
    assert "is no ONNX model that can be loaded" in checks["model noise"]["found"]
    assert "pix2dslr.version: 0, not 1" in checks["model old"]["found"]
    assert all(checks[f"model {name}"]["do"] for name in ("iphone", "noise", "old"))
    assert "self-test" not in checks, "it would only say the same again"


def test_answers_that_are_no_colours_are_found(run: Run, tmp_path: Path, free_port: int) -> None:
    write_generator(tmp_path / "iphone.onnx", context=CONTEXT, add_mean_of_context=True)
    checks = checks_of(run, 1, models=tmp_path, port=free_port)
    assert checks["model iphone"]["found"] == "it answers values that are no colours"


def test_settings_that_are_misspelt_or_can_not_be(run: Run, identity_folder: Path, free_port: int) -> None:
    checks = checks_of(run, 0, models=identity_folder, port=free_port, max_pixel=5)
    assert checks["settings"]["status"] == "note"
    assert checks["settings"]["do"] == "PIX2DSLR_MAX_PIXEL is no setting: is PIX2DSLR_MAX_PIXELS meant?"
    broken = checks_of(run, 1, device="gpu")
    assert broken.keys() == {"settings"}
    assert broken["settings"]["found"] == "setting device: Input should be 'auto', 'cuda' or 'cpu'"


def test_more_threads_or_pixels_than_there_is_room_for(run: Run, identity_folder: Path, free_port: int) -> None:
    checks = checks_of(run, 0, models=identity_folder, port=free_port, threads=512, max_pixels=10**13)
    assert checks["cpu"]["do"].startswith("PIX2DSLR_THREADS=512 is more than the CPUs")
    assert checks["memory"]["do"].startswith("PIX2DSLR_MAX_PIXELS=")


def test_needed_libraries_are_those_that_the_loader_sees() -> None:
    shared = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_shared.so"
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf is not installed (Debian: binutils)")
    listed = subprocess.run([readelf, "-d", str(shared)], capture_output=True, text=True, check=True).stdout
    names = [line.split("[")[1].rstrip("]") for line in listed.splitlines() if "(NEEDED)" in line]
    assert names
    assert needed(shared) == names


@pytest.mark.skipif("CUDAExecutionProvider" not in ort.get_available_providers(), reason="a build without CUDA")
def test_a_cuda_build_needs_cuda_libraries() -> None:
    found = libraries("cuda")
    assert {name.partition(".so")[0] for name in found} >= {"libcudart", "libcublas", "libcublasLt", "libcudnn"}


def test_shipped_models_are_looked_at(run: Run, free_port: int) -> None:
    names = {path.stem for path in SHIPPED_MODELS.glob("*.onnx")}
    assert {f"model {name}" for name in names} <= checks_of(run, port=free_port).keys()
