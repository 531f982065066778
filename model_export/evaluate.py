"""Scores ONNX networks on pairs, side by side in one run: ours, and published ones that take whole float pictures."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from model_export.pairs import PairPaths
from service.generator import Generator, ModelUnusable, cpu_threads
from service.quality import psnr, ssim
from service.tiling import Blender, context_of, cut_row, plan

Image = npt.NDArray[np.uint8]
Network = Callable[[Image], Image]

_BATCH: Final = 8
_TIMED_SIDE: Final = 1024
_ROUNDS: Final = 3


@dataclass(frozen=True)
class Score:
    """One network's row of the table.

    Attributes:
        name: the file's stem, or `input` for the pictures as they are.
        psnr, ssim: means over the pairs of 8-bit outputs; dB, and -1..1.
        ms_per_megapixel: median time on this machine's CPU, None for `input`.
    """

    name: str
    psnr: float
    ssim: float
    ms_per_megapixel: float | None


def open_network(path: Path) -> Network:
    """Open a network as a function from an RGB picture, uint8 (H, W, 3), to the enhanced one.

    A file that keeps our contract runs over tiles with its recommended overlap, as in the service. Any other must take
    one float picture in 0..1, NHWC or NCHW, and is given the whole picture at once.

    Raises:
        ModelUnusable: the file is neither.
    """
    if not path.is_file():
        raise ModelUnusable(f"{path} is missing")
    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ORT raises types of its own C++ layer
        raise ModelUnusable(f"{path} is no ONNX model that can be loaded") from error
    inputs = session.get_inputs()
    if inputs[0].type == "tensor(uint8)":
        generator = Generator(path, device="cpu")
        return lambda picture: _tiled(generator, picture)
    shape = inputs[0].shape
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ModelUnusable(f"{path} takes neither tiles nor one float picture")
    channels_last = shape[3] == 3
    if any(isinstance(side, int) for side in (shape[1:3] if channels_last else shape[2:4])):
        raise ModelUnusable(f"{path} takes pictures of one size alone")
    return lambda picture: _whole(session, inputs[0].name, picture, channels_last=channels_last)


def _tiled(generator: Generator, picture: Image) -> Image:
    layout = plan(picture.shape[0], picture.shape[1], generator.spec.overlap)
    context = np.repeat(context_of(picture)[None], _BATCH, axis=0)
    blender = Blender(picture, layout)
    for row in range(len(layout.rows.starts)):
        tiles = cut_row(picture, layout, row)
        batches = (tiles[first : first + _BATCH] for first in range(0, len(tiles), _BATCH))
        blender.add_row(np.concatenate([generator(batch, context[: len(batch)]) for batch in batches]))
    return blender.output.astype(np.uint8, copy=False)


def _whole(session: ort.InferenceSession, name: str, picture: Image, *, channels_last: bool) -> Image:
    feed = picture[None].astype(np.float32) / 255
    output = session.run(None, {name: feed if channels_last else feed.transpose(0, 3, 1, 2)})[0]
    output = output[0] if channels_last else output[0].transpose(1, 2, 0)
    pixels: Image = np.rint(np.clip(output, 0, 1) * 255).astype(np.uint8)
    return pixels


def evaluate(models: Sequence[Path], pairs: Sequence[PairPaths]) -> list[Score]:
    """Score networks, and the pictures as they are, on the same pairs; time them in turns on the same picture.

    Raises:
        ModelUnusable: as `open_network`.
        PairsError: a pair can't be read.
    """
    networks: list[tuple[str, Network]] = [(path.stem, open_network(path)) for path in models]
    loaded = [pair.load() for pair in pairs]
    milliseconds = _time([network for _, network in networks])
    scores = [_score("input", lambda picture: picture, loaded, None)]
    return scores + [
        _score(name, network, loaded, cost) for (name, network), cost in zip(networks, milliseconds, strict=True)
    ]


def _score(name: str, network: Network, pairs: Sequence[tuple[Image, Image]], cost: float | None) -> Score:
    outputs = [(network(phone), target) for phone, target in pairs]
    return Score(
        name,
        float(np.mean([psnr(output, target) for output, target in outputs])),
        float(np.mean([ssim(output, target) for output, target in outputs])),
        cost,
    )


def _time(networks: Sequence[Network]) -> list[float]:
    """Median milliseconds per megapixel of each network, in turns so that a slow spell hits all of them."""
    picture = np.random.default_rng(0).integers(0, 256, (_TIMED_SIDE, _TIMED_SIDE, 3), np.uint8)
    seconds = np.empty((_ROUNDS + 1, len(networks)))
    for round_ in range(_ROUNDS + 1):
        for place, network in enumerate(networks):
            start = time.perf_counter()
            network(picture)
            seconds[round_, place] = time.perf_counter() - start
    per_megapixel: list[float] = (np.median(seconds[1:], axis=0) * 1e3 / (picture.size / 3e6)).tolist()
    return per_megapixel


def markdown(scores: Sequence[Score]) -> str:
    """Lay scores out as a Markdown table."""
    lines = ["| network | PSNR dB | SSIM | ms / megapixel |", "| --- | ---: | ---: | ---: |"]
    for score in scores:
        cost = "" if score.ms_per_megapixel is None else f"{score.ms_per_megapixel:.0f}"
        lines.append(f"| {score.name} | {score.psnr:.2f} | {score.ssim:.4f} | {cost} |")
    return "\n".join(lines)
