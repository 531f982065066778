"""Small ONNX generators that tests make themselves: exact, and small enough to reason about."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.model_files import record

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
    fails: float = 0.0,
    seed: int | None = None,
    bytes_a_light_tile: int = 0,
    convolutions: int = 0,
    convolve_black: bool = False,
) -> Path:
    """Write a generator that answers its tiles / 255, and its line in SHA256SUMS.

    The arguments break the contract, or change the answer.

    Args:
        path: where the file goes.
        metadata: the custom metadata.
        tiles, context, enhanced: name, element type and shape of each; without `context` there is no such input.
        add_mean_of_context: answer (tiles + mean of the context) / 255 instead, which needs `context`.
        invert: answer 1 - tiles / 255.
        fail_on_light: fail, as a device would, on a batch in which anything is not black.
        fails: share of the batches that fail, at random; ONNX Runtime keeps the random numbers' state.
        seed: of these, else they differ each time. With 0.9999 and 1 the first batch is done, and at least the next
            hundred fail: ONNX Runtime's first number is about 8e-6 times the seed.
        bytes_a_light_tile: memory that a batch allocates for each tile with something white in it, and for a tile less
            bright in proportion.
        convolutions: how many times all samples are convolved in vain if anything is not black; of the order of half
            a second a tile for 1000.
        convolve_black: convolve black tiles too.
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
    if fails:
        seeded: dict[str, Any] = {} if seed is None else {"seed": float(seed)}
        # a random number is looked up in a table of one entry: below 1 it is found
        nodes[0].output[0] = "plain"
        nodes[1:1] = [
            helper.make_node("RandomUniform", [], ["random"], shape=[1], low=0.0, high=1.0 / (1.0 - fails), **seeded),
            helper.make_node("Cast", ["random"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["cast"]),
        ]
    if bytes_a_light_tile:
        nodes[0].output[0] = "plain"
        nodes[1:1] = [
            helper.make_node("Cast", [tiles[0]], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["float", "axes"], ["brightness"], keepdims=0),
            helper.make_node("ReduceSum", ["brightness"], ["sum_of_brightness"], keepdims=0),
            helper.make_node("Mul", ["sum_of_brightness", "floats_a_level"], ["floats"]),
            helper.make_node("Cast", ["floats"], ["count"], to=TensorProto.INT64),
            helper.make_node("Max", ["count", "at_least_one"], ["shape"]),
            helper.make_node("Expand", ["table", "shape"], ["large"]),
            helper.make_node("ReduceMax", ["large"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["plain", "nothing"], ["cast"]),
        ]
    if convolutions:
        nodes[0].output[0] = "plain"
        nodes[1:1] = [
            helper.make_node("ReduceMax", ["plain"], ["brightest"], keepdims=0),
            helper.make_node("Greater", ["brightest", "zero"], ["light"]),
            helper.make_node("Where", ["light", "rounds", "no_rounds"], ["trips"]),
            helper.make_node("Transpose", ["plain"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Loop", ["trips", "", "planes"], ["convolved"], body=_convolution(kind)),
            helper.make_node("Transpose", ["convolved"], ["back"], perm=[0, 2, 3, 1]),
            helper.make_node("Mul", ["back", "zero"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["cast"]),
        ]
    constants = {
        "floats_a_level": np.array(bytes_a_light_tile / 255 / 4, np.float32),
        "at_least_one": np.array([1]),
        "zero": np.array(0, dtype),
        "rounds": np.array(convolutions),
        "no_rounds": np.array(convolutions if convolve_black else 0),
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
    record(path)
    return path


def _convolution(kind: int) -> onnx.GraphProto:
    """The body of a Loop: its planes, convolved with a kernel that keeps them."""
    kernel = np.zeros((3, 3, 5, 5), helper.tensor_dtype_to_np_dtype(kind))
    for plane in range(3):
        kernel[plane, plane, 2, 2] = 1
    shape: list[Dimension] = ["N", 3, 128, 128]
    return helper.make_graph(
        [
            helper.make_node("Conv", ["before", "kernel"], ["after"], pads=[2, 2, 2, 2]),
            helper.make_node("Identity", ["go_on"], ["and_on"]),
        ],
        "convolution",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", kind, shape),
        ],
        [
            helper.make_tensor_value_info("and_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", kind, shape),
        ],
        [numpy_helper.from_array(kernel, "kernel")],
    )


CONTEXT: tuple[str, int, list[Dimension]] = ("context", TensorProto.UINT8, ["N", 32, 32, 3])
