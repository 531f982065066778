from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from model_export.contenders import OutputFolder, count_parameters, open_network, open_networks
from model_export.pairs import PairPaths, PairsError
from service.model_files import ModelUnusable
from tests.onnx_files import CONTEXT, METADATA, write_generator

PixelArray = npt.NDArray[np.uint8]
Shape = list[int | str | None]
FloatNetwork = Callable[[str, Shape], Path]
PatchMaker = Callable[..., list[PairPaths]]


def write_model(
    path: Path, nodes: list[onnx.NodeProto], shape: Shape, answer: Shape, weights: dict[str, npt.NDArray[np.generic]]
) -> Path:
    """Write a network of one float input, called `x`, and the output `y`."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, answer)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


class TestOpenNetwork:
    def test_a_large_picture_runs_over_tiles_with_its_context(self, tmp_path: Path, photo: PixelArray) -> None:
        # answers each tile plus the mean of its context, of which every tile must get the same
        path = write_generator(tmp_path / "mean.onnx", context=CONTEXT, add_mean_of_context=True)
        dark = photo[:200, :300] // 4
        network = open_network(path)
        difference = network.run(dark).astype(int) - dark
        assert difference.min() == difference.max() == round(dark.mean())
        assert (network.name, network.overlap, network.size) == ("mean", 32, None)

    def test_the_answers_of_tiles_are_put_in_place(self, tmp_path: Path, photo: PixelArray) -> None:
        path = write_generator(tmp_path / "negative.onnx", invert=True)
        assert np.array_equal(open_network(path).run(photo), 255 - photo)

    @pytest.mark.parametrize(
        ("shape", "gains"),
        [
            (["N", "H", "W", 3], (3,)),
            ([1, None, None, 3], (3,)),
            (["N", 3, "H", "W"], (3, 1, 1)),
            ([1, 3, 90, 120], (3, 1, 1)),
            ([1, 90, 120, 3], (3,)),
        ],
    )
    def test_float_pictures_in_either_layout(
        self, tmp_path: Path, photo: PixelArray, shape: Shape, gains: tuple[int, ...]
    ) -> None:
        # each channel by a gain of its own, and past white, where it is clipped
        gain = np.array([0.5, 1.0, 2.0], np.float32).reshape(gains)
        nodes = [helper.make_node("Mul", ["x", "gain"], ["y"])]
        network = open_network(write_model(tmp_path / "gains.onnx", nodes, shape, shape, {"gain": gain}))
        picture = photo[:90, :120]
        expected = np.rint(np.minimum(picture * np.array([0.5, 1, 2]), 255))
        assert np.abs(network.run(picture) - expected).max() <= 1  # where float32 falls beside a half
        assert network.overlap is None

    def test_a_network_of_one_size_takes_that_alone(self, float_identity: FloatNetwork, photo: PixelArray) -> None:
        path = float_identity("fixed", [1, 3, 100, 120])
        network = open_network(path)
        assert network.size == (100, 120)
        assert np.array_equal(network.run(photo[:100, :120]), photo[:100, :120])
        with pytest.raises(ModelUnusable, match=f"{path} takes pictures of 120x100 alone, not of 100x120"):
            network.run(photo[:120, :100])

    @pytest.mark.parametrize("shape", [["N", "H", "W", 4], ["N", 3], ["N", "H", "W"], [3, "C", "H", "W"]])
    def test_other_shapes_are_refused(self, float_identity: FloatNetwork, shape: Shape) -> None:
        path = float_identity("odd", shape)
        with pytest.raises(ModelUnusable, match=f"{path} takes neither"):
            open_network(path)

    def test_one_fixed_side_is_refused(self, float_identity: FloatNetwork) -> None:
        path = float_identity("odd", ["N", 3, 100, "W"])
        with pytest.raises(ModelUnusable, match=f"{path} takes pictures of one height or width"):
            open_network(path)

    def test_an_answer_of_another_size_is_refused(self, tmp_path: Path, photo: PixelArray) -> None:
        nodes = [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]
        path = write_model(tmp_path / "half.onnx", nodes, ["N", 3, "H", "W"], ["N", 3, "h", "w"], {})
        with pytest.raises(ModelUnusable, match=rf"{path} answers \[1, 3, 20, 15\] to \[1, 3, 40, 30\]"):
            open_network(path).run(photo[:40, :30])

    def test_a_picture_that_a_network_fails_on_is_named(self, tmp_path: Path, photo: PixelArray) -> None:
        nodes = [helper.make_node("SpaceToDepth", ["x"], ["z"], blocksize=4)]
        nodes += [helper.make_node("DepthToSpace", ["z"], ["y"], blocksize=4)]
        path = write_model(tmp_path / "fours.onnx", nodes, ["N", 3, "H", "W"], ["N", 3, "H", "W"], {})
        network = open_network(path)
        assert np.array_equal(network.run(photo[:40, :32]), photo[:40, :32])
        with pytest.raises(ModelUnusable, match=f"{path} fails on a picture of 30x40"):
            network.run(photo[:40, :30])

    def test_a_broken_contract_is_refused_by_clause(self, tmp_path: Path) -> None:
        path = write_generator(tmp_path / "old.onnx", metadata={**METADATA, "pix2dslr.version": "0"})
        with pytest.raises(ModelUnusable, match=r"pix2dslr\.version"):
            open_network(path)

    def test_any_other_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "other.onnx"
        with pytest.raises(ModelUnusable, match=f"{path} is missing"):
            open_network(path)
        path.write_bytes(b"no network")
        with pytest.raises(ModelUnusable, match=f"{path} is no ONNX model"):
            open_network(path)


def test_files_of_one_stem_are_told_apart(tmp_path: Path, identity_model: Path) -> None:
    paths = [tmp_path / "old/iphone.onnx", tmp_path / "new/iphone.onnx", tmp_path / "new/sony.onnx"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(identity_model.read_bytes())
    assert [network.name for network in open_networks(paths)] == [str(paths[0]), str(paths[1]), "sony"]


def test_parameters_are_the_float_constants_with_a_dimension(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Constant", [], ["shift"], value=numpy_helper.from_array(np.zeros((3, 1, 1), np.float32))),
        helper.make_node("Add", ["a", "shift"], ["b"]),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Mul", ["b", "half"], ["c"]),
        helper.make_node("Div", ["c", "scale"], ["d"]),
        helper.make_node("Transpose", ["d"], ["e"], perm=[0, 1, 2, 3]),
        helper.make_node("Reshape", ["e", "shape"], ["y"]),
    ]
    weights: dict[str, npt.NDArray[np.generic]] = {
        "weight": np.zeros((3, 3, 3, 3), np.float32),
        "bias": np.zeros(3, np.float32),
        "scale": np.array(255, np.float32),
        "shape": np.array([0, 0, 0, 0]),
    }
    shape: Shape = ["N", 3, "H", "W"]
    path = write_model(tmp_path / "counted.onnx", nodes, shape, shape, weights)
    assert count_parameters(path) == open_network(path).parameters == 81 + 3 + 3


class TestOutputFolder:
    def test_it_finds_what_belongs_to_the_pairs(self, tmp_path: Path, make_patches: PatchMaker) -> None:
        pairs, made = make_patches(4), tmp_path / "made"
        made.mkdir()
        for number in range(4):
            Image.fromarray(np.full((100, 100, 3), number * 40, np.uint8)).save(made / f"{number}.bmp")
        found = OutputFolder("made", made).load([pairs[3], pairs[1]])
        assert [int(picture.mean()) for picture in found] == [120, 40]

    def test_what_does_not_belong_is_refused(self, tmp_path: Path, make_patches: PatchMaker) -> None:
        pairs, made = make_patches(2), tmp_path / "made"
        folder = OutputFolder("made", made)
        with pytest.raises(PairsError, match=f"{made} is no folder"):
            folder.load(pairs)
        made.mkdir()
        Image.fromarray(np.zeros((100, 101, 3), np.uint8)).save(made / "0.png")
        with pytest.raises(PairsError, match=r"made/0\.png is 101x100"):
            folder.load(pairs[:1])
        with pytest.raises(PairsError, match=f"{made} holds no picture named 1"):
            folder.load(pairs[1:])
