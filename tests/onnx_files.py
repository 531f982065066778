"""Small ONNX generators that tests make themselves: exact, and small enough to reason about."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

METADATA: Mapping[str, str] = {
    "pix2dslr.version": "1",
    "camera": "test",
    "architecture": "identity",
    "tile": "128",
    "overlap": "32",
    "trained_on": "nothing",
    "psnr": "",
    "ssim": "",
    "created": "2026-01-01",
    "weights_sha256": "0" * 64,
}

Dimension = int | str


def write_generator(
    path: Path,
    *,
    metadata: Mapping[str, str] = METADATA,
    tiles: tuple[str, int, list[Dimension]] = ("tiles", TensorProto.UINT8, ["N", 128, 128, 3]),
    context: tuple[str, int, list[Dimension]] | None = None,
    enhanced: tuple[str, int, list[Dimension]] = ("enhanced", TensorProto.FLOAT, ["N", 128, 128, 3]),
    add_mean_of_context: bool = False,
    invert: bool = False,
    fail_on_light: bool = False,
) -> Path:
    """Write a generator that answers its tiles / 255; the arguments break the contract, or change the answer.

    Args:
        path: where the file goes.
        metadata: the custom metadata.
        tiles, context, enhanced: name, element type and shape of each; without `context` there is no such input.
        add_mean_of_context: answer (tiles + mean of the context) / 255 instead, which needs `context`.
        invert: answer 1 - tiles / 255.
        fail_on_light: fail, as a device would, on a batch in which anything is not black.
    """
    kind = enhanced[1]
    nodes = [helper.make_node("Cast", [tiles[0]], ["cast"], to=kind)]
    last = "cast"
    if add_mean_of_context:
        assert context is not None
        nodes += [
            helper.make_node("Cast", [context[0]], ["context_cast"], to=kind),
            helper.make_node("ReduceMean", ["context_cast", "axes"], ["mean"], keepdims=1),
            helper.make_node("Add", [last, "mean"], ["sum"]),
        ]
        last = "sum"
    nodes.append(helper.make_node("Div", [last, "scale"], ["scaled" if invert else enhanced[0]]))
    if invert:
        nodes.append(helper.make_node("Sub", ["one", "scaled"], [enhanced[0]]))
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if fail_on_light:
        # looks the brightest sample up in a table of one entry
        nodes[0].output[0] = "plain"
        nodes[1:1] = [
            helper.make_node("Cast", [tiles[0]], ["index"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", ["index"], ["brightest"], keepdims=0),
            helper.make_node("Gather", ["table", "brightest"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["cast"]),
        ]
    constants = {
        "table": np.zeros(1, dtype),
        "scale": np.array(255, dtype),
        "axes": np.array([1, 2, 3]),
        "one": np.array(1, dtype),
    }
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "generator",
        [helper.make_tensor_value_info(*value) for value in (tiles, context) if value is not None],
        [helper.make_tensor_value_info(*enhanced)],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)
    return path


CONTEXT: tuple[str, int, list[Dimension]] = ("context", TensorProto.UINT8, ["N", 32, 32, 3])
