"""What is scored side by side: ONNX networks of ours and of others, and folders of pictures that a network made."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from model_export.pairs import PairPaths, PairsError, match_folders
from service.generator import Generator, cpu_threads
from service.model_files import ModelUnusable
from service.tiling import Blender, context_of, cut_row, plan

Image = npt.NDArray[np.uint8]

_BATCH: Final = 8
_FLOATS: Final = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)


@dataclass(frozen=True)
class Network:
    """An opened network.

    Attributes:
        name: what the table calls it.
        run: maps an RGB picture, uint8 (H, W, 3), to the enhanced one.
        parameters: as `count_parameters`.
        overlap: of the tiles that it runs over; None for one that is given whole pictures.
        size: the one (height, width) that it takes; None where it takes any.
    """

    name: str
    run: Callable[[Image], Image]
    parameters: int
    overlap: int | None = None
    size: tuple[int, int] | None = None


def open_network(path: Path, name: str | None = None) -> Network:
    """Open an ONNX file, called by its stem where no name is given.

    A file that keeps our contract runs over tiles with its recommended overlap, as in the service. Any other must take
    one float picture in 0..1, NHWC or NCHW, answer one alike, and is given the whole picture at once.

    Raises:
        ModelUnusable: the file is neither. `run` raises it for a picture that the network can't take.
    """
    if not path.is_file():
        raise ModelUnusable(f"{path} is missing")
    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    options.log_severity_level = 4  # what fails here is said by the exception
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ORT raises types of its own C++ layer
        raise ModelUnusable(f"{path} is no ONNX model that can be loaded") from error
    name, parameters = name or path.stem, count_parameters(path)
    inputs = session.get_inputs()
    if inputs[0].type == "tensor(uint8)":
        generator = Generator(path, device="cpu")
        return Network(name, lambda picture: _tiled(generator, picture), parameters, overlap=generator.spec.overlap)
    shape = inputs[0].shape
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ModelUnusable(f"{path} takes neither tiles nor one float picture")
    height, width = shape[1:3] if shape[3] == 3 else shape[2:4]
    if isinstance(height, int) != isinstance(width, int):
        raise ModelUnusable(f"{path} takes pictures of one height or width alone: {list(shape)}")
    size = (height, width) if isinstance(height, int) else None
    whole = _Whole(path, session, channels_last=shape[3] == 3, size=size)
    return Network(name, whole, parameters, size=size)


def open_networks(paths: Sequence[Path]) -> list[Network]:
    """Open several; files of one stem are called by their paths, so that OLD/iphone.onnx and NEW/iphone.onnx differ.

    Raises:
        ModelUnusable: as `open_network`.
    """
    stems = [path.stem for path in paths]
    return [open_network(path, path.stem if stems.count(path.stem) == 1 else str(path)) for path in paths]


def count_parameters(path: Path) -> int:
    """Count a model's weights: the elements of its float constants that have a dimension.

    Constants without one (the 255 of a scaling, the epsilon of a norm) are arithmetic, and integers are shapes and
    axes. Weights stored as integers, as in a quantised network, are not counted.
    """
    graph = onnx.load(path, load_external_data=False).graph
    tensors = [*graph.initializer]
    tensors += [
        attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    return sum(math.prod(tensor.dims) for tensor in tensors if tensor.dims and tensor.data_type in _FLOATS)


def _tiled(generator: Generator, picture: Image) -> Image:
    layout = plan(picture.shape[0], picture.shape[1], generator.spec.overlap)
    context = np.repeat(context_of(picture)[None], _BATCH, axis=0)
    blender = Blender(picture, layout)
    for row in range(len(layout.rows.starts)):
        tiles = cut_row(picture, layout, row)
        batches = (tiles[first : first + _BATCH] for first in range(0, len(tiles), _BATCH))
        blender.add(np.concatenate([generator(batch, context[: len(batch)]) for batch in batches]))
    return blender.output.astype(np.uint8, copy=False)


class _Whole:
    """A network that is given whole float pictures."""

    def __init__(
        self, path: Path, session: ort.InferenceSession, *, channels_last: bool, size: tuple[int, int] | None
    ) -> None:
        self._path = path
        self._session = session
        self._input = session.get_inputs()[0].name
        self._channels_last = channels_last
        self._size = size

    def __call__(self, picture: Image) -> Image:
        height, width = picture.shape[:2]
        if self._size not in (None, (height, width)):
            raise ModelUnusable(
                f"{self._path} takes pictures of {self._size[1]}x{self._size[0]} alone, not of {width}x{height}"
            )
        feed = picture[None].astype(np.float32) / 255
        feed = feed if self._channels_last else feed.transpose(0, 3, 1, 2)
        try:
            output = self._session.run(None, {self._input: feed})[0]
        except Exception as error:  # ORT raises types of its own C++ layer
            why = str(error).splitlines()[0]
            raise ModelUnusable(f"{self._path} fails on a picture of {width}x{height}: {why}") from error
        if output.shape != feed.shape:
            raise ModelUnusable(
                f"{self._path} answers {list(output.shape)} to {list(feed.shape)}: not the picture's size"
            )
        output = output[0] if self._channels_last else output[0].transpose(1, 2, 0)
        return np.asarray(np.rint(np.clip(output, 0, 1) * 255), np.uint8)


@dataclass(frozen=True)
class OutputFolder:
    """Pictures that a network made elsewhere of the phone's: equally named, scored as its answers.

    Attributes:
        name: what the table calls it.
        folder: where they are; it may hold more than are scored.
    """

    name: str
    folder: Path

    def load(self, pairs: Iterable[PairPaths]) -> list[Image]:
        """Read the pictures that belong to `pairs`, in their order.

        Raises:
            PairsError: one is missing, can't be read or has another size than its pair.
        """
        outputs = {entry.phone.stem: entry.phone for entry in match_folders(self.folder, self.folder)}
        pictures = []
        for pair in pairs:
            if pair.phone.stem not in outputs:
                raise PairsError(f"{self.folder} holds no picture named {pair.phone.stem}")
            pictures.append(PairPaths(outputs[pair.phone.stem], pair.target).load()[0])
        return pictures
