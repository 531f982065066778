from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from service.generator import Generator
from service.model_files import ModelUnusable
from tests.onnx_files import CONTEXT, METADATA, write_generator


def test_a_file_that_keeps_the_contract(tmp_path: Path) -> None:
    scores = {**METADATA, "psnr": "22.345", "ssim": "0.8012"}
    spec = Generator(write_generator(tmp_path / "m.onnx", metadata=scores, context=CONTEXT), device="cpu").spec
    assert (spec.camera, spec.architecture, spec.overlap) == ("test", "identity", 32)
    assert (spec.psnr, spec.ssim) == (22.345, 0.8012)
    assert not spec.half
    assert spec.metadata() == scores


def without(key: str) -> dict[str, str]:
    return {name: value for name, value in METADATA.items() if name != key}


@pytest.mark.parametrize(
    ("clause", "broken"),
    [
        ("inputs", {"context": ("surprise", TensorProto.UINT8, ["N", 32, 32, 3])}),
        ("input tiles", {"tiles": ("context", TensorProto.UINT8, ["N", 32, 32, 3])}),
        ("input tiles", {"tiles": ("tiles", TensorProto.FLOAT, ["N", 128, 128, 3])}),
        ("input tiles", {"tiles": ("tiles", TensorProto.UINT8, ["N", 3, 128, 128])}),
        ("input tiles", {"tiles": ("tiles", TensorProto.UINT8, ["N", 256, 256, 3])}),
        ("input tiles", {"tiles": ("tiles", TensorProto.UINT8, [4, 128, 128, 3])}),
        ("input tiles", {"tiles": ("tiles", TensorProto.UINT8, ["N", "H", "W", 3])}),
        ("input context", {"context": ("context", TensorProto.FLOAT, ["N", 32, 32, 3])}),
        ("input context", {"context": ("context", TensorProto.UINT8, ["N", 64, 64, 3])}),
        ("input context", {"context": ("context", TensorProto.UINT8, [1, 32, 32, 3])}),
        ("output enhanced", {"enhanced": ("output", TensorProto.FLOAT, ["N", 128, 128, 3])}),
        ("output enhanced", {"enhanced": ("enhanced", TensorProto.DOUBLE, ["N", 128, 128, 3])}),
        ("metadata pix2dslr.version", {"metadata": without("pix2dslr.version")}),
        ("metadata pix2dslr.version", {"metadata": {**METADATA, "pix2dslr.version": "2"}}),
        ("metadata camera", {"metadata": without("camera")}),
        ("metadata architecture", {"metadata": without("architecture")}),
        ("metadata trained_on", {"metadata": without("trained_on")}),
        ("metadata created", {"metadata": without("created")}),
        ("metadata tile", {"metadata": {**METADATA, "tile": "256"}}),
        ("metadata overlap", {"metadata": {**METADATA, "overlap": "65"}}),
        ("metadata overlap", {"metadata": {**METADATA, "overlap": "many"}}),
        ("metadata weights_sha256", {"metadata": without("weights_sha256")}),
        ("metadata overlap", {"metadata": {**METADATA, "overlap": "9" * 5000}}),
        ("metadata psnr", {"metadata": {**METADATA, "psnr": "good"}}),
        ("metadata psnr", {"metadata": {**METADATA, "psnr": "nan"}}),
        ("metadata ssim", {"metadata": {**METADATA, "ssim": "1e999"}}),
    ],
)
def test_the_clause_that_is_broken_is_named(tmp_path: Path, clause: str, broken: dict[str, Any]) -> None:
    path = write_generator(tmp_path / "m.onnx", **broken)
    with pytest.raises(ModelUnusable, match=f"contract: {clause}: "):
        Generator(path, device="cpu")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"gone\.onnx is missing"):
        Generator(tmp_path / "gone.onnx", device="cpu")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelUnusable, match=r"text\.onnx is no ONNX model"):
        Generator(tmp_path / "text.onnx", device="cpu")
