from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import ModelProto

from model_export.export import Deployed, to_onnx
from model_export.graph import main, tidy
from model_export.networks import SpaceToDepthUNet, UNetGenerator
from service.settings import SHIPPED_MODELS

SHIPPED = sorted(SHIPPED_MODELS.glob("*.onnx"))


def as_exported(architecture: str, half: bool = False) -> ModelProto:
    """What torch's exporter writes of an untrained generator, whose head is made to matter."""
    torch.manual_seed(0)
    generator = UNetGenerator(architecture).eval()
    if isinstance(generator, SpaceToDepthUNet):
        with torch.no_grad():
            generator.head.weight.mul_(10)
            generator.refine.widen.weight.normal_(std=0.1)
    deployed = Deployed(generator.half() if half else generator, half)
    sides = (128, 32) if generator.takes_context else (128,)
    return to_onnx(deployed, tuple(torch.zeros(2, side, side, 3, dtype=torch.uint8) for side in sides))


def answers(model: ModelProto) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    sides = {"tiles": 128, "context": 32}
    feeds = {
        each.name: rng.integers(0, 256, (3, sides[each.name], sides[each.name], 3), np.uint8)
        for each in session.get_inputs()
    }
    answer: npt.NDArray[np.float32] = session.run(None, feeds)[0].astype(np.float32)
    return answer


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.fixture(scope="module")
def fast() -> ModelProto:
    return as_exported("unet128-s2d")


def test_the_fast_generator_answers_the_same_in_operators_that_have_a_blocked_form(fast: ModelProto) -> None:
    tidied = tidy(fast)
    before, after = operators(fast), operators(tidied)
    assert before["ReduceMean"] == after["GlobalAveragePool"] == 13
    assert (before["DepthToSpace"], after["DepthToSpace"]) == (1, 0)
    assert after["ReduceMean"] == 0
    wanted = answers(fast)
    assert np.ptp(wanted) > 0.5  # a dull answer would hide pixels that were shuffled wrongly
    np.testing.assert_allclose(answers(tidied), wanted, atol=2e-5)


def test_half_precision_too() -> None:
    half = as_exported("unet128-s2d", half=True)
    tidied = tidy(half)
    assert operators(tidied)["DepthToSpace"] == 0
    np.testing.assert_allclose(answers(tidied), answers(half), atol=4e-3)


def test_the_textbook_generator_has_nothing_to_tidy() -> None:
    textbook = as_exported("unet128")
    assert operators(tidy(textbook)) == operators(textbook)


def test_the_model_that_is_given_stays_as_it_is_and_twice_is_once(fast: ModelProto) -> None:
    bytes_before = fast.SerializeToString(deterministic=True)
    once = tidy(fast)
    assert fast.SerializeToString(deterministic=True) == bytes_before
    assert tidy(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_a_pixel_shuffle_that_something_else_looks_at_stays(fast: ModelProto) -> None:
    shared = ModelProto()
    shared.CopyFrom(fast)
    shuffled = next(node.output[0] for node in shared.graph.node if node.op_type == "DepthToSpace")
    shared.graph.node.append(onnx.helper.make_node("Identity", [shuffled], ["looked_at"]))
    assert operators(tidy(shared))["DepthToSpace"] == 1


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_what_is_shipped_is_tidy(path: Path) -> None:
    model = onnx.load(path)
    assert operators(tidy(model)) == operators(model)
    assert operators(model)["DepthToSpace"] == operators(model)["ReduceMean"] == 0


def test_files_are_tidied_where_they_lie(fast: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "generator.onnx"
    onnx.save(fast, path)
    monkeypatch.setattr("sys.argv", ["graph", str(path)])
    main()
    assert operators(onnx.load(path)) == operators(tidy(fast))
