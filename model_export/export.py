"""Torch checkpoint -> ONNX that keeps the generator's contract, refused unless ONNX Runtime answers as torch does."""

import copy
import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from model_export.checkpoints import load_checkpoint
from model_export.graph import tidy
from model_export.networks import Generator, SpaceToDepthUNet, UNet128, UNetGenerator
from model_export.pairs import PairPaths
from model_export.scoring import score
from service.generator import Generator as OnnxGenerator
from service.model_files import record
from service.spec import GeneratorSpec

MIN_PSNR = {"float32": 60.0, "float16": 45.0}
"""dB between ONNX Runtime's and torch's answers below which a file is not written."""


class ExportRefused(Exception):
    """The ONNX file does not answer as torch does, or the checkpoint can't be exported; nothing was written."""


@dataclass(frozen=True)
class Match:
    """How near ONNX Runtime's answers are to torch's.

    Attributes:
        psnr: dB over all samples, with a peak of 1.
        max_difference: largest absolute difference, in 0..1.
        tiles: how many real tiles were compared.
    """

    psnr: float
    max_difference: float
    tiles: int


@dataclass(frozen=True)
class Loaded:
    """A generator from a checkpoint, with what the checkpoint says about it."""

    generator: Generator
    architecture: str
    camera: str
    trained_on: str
    overlap: int
    psnr: float | None = None
    ssim: float | None = None


class Deployed(nn.Module):
    """A generator with everything of the contract inside: uint8 NHWC in, float NHWC in 0..1 out."""

    def __init__(self, generator: Generator, half: bool = False) -> None:
        super().__init__()
        self.generator = generator
        self.dtype = torch.float16 if half else torch.float32

    def forward(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """Map uint8 (N, 128, 128, 3) and uint8 (N, 32, 32, 3) to float (N, 128, 128, 3) in 0..1."""
        picture = self._scaled(tiles)
        if context is None:
            output = self.generator(picture)
        else:
            output = self.generator(picture, self._scaled(context))
        enhanced: Tensor = output.clamp(0, 1).permute(0, 2, 3, 1)
        return enhanced

    def _scaled(self, pixels: Tensor) -> Tensor:
        return pixels.permute(0, 3, 1, 2).to(self.dtype) / 255


def load(path: Path, camera: str | None = None, trained_on: str | None = None) -> Loaded:
    """Load a generator from a checkpoint of ours or of the widely used PyTorch pix2pix implementation.

    Args:
        path: our checkpoint, or a saved `latest_net_G.pth` of its `unet_128` with batch norm and 64 filters.
        camera, trained_on: go into the metadata; needed for a foreign checkpoint, which does not say them.

    Raises:
        ConfigError: the file can't be read.
        ExportRefused: the state dict is of another network, or `camera` or `trained_on` is not known.
    """
    state = load_checkpoint(path)
    if "pix2dslr" in state:
        try:
            config = json.loads(state["config"])
            generator = UNetGenerator(config["architecture"])
            generator.load_state_dict(state["averaged"])
        except (KeyError, RuntimeError) as error:
            raise ExportRefused(f"{path} is no whole checkpoint: {error}".splitlines()[0]) from error
        last = state["history"][-1] if state["history"] else {}
        return Loaded(
            generator.eval(),
            config["architecture"],
            camera or config["camera"],
            trained_on or config["trained_on"],
            config["overlap"],
            last.get("psnr"),
            last.get("ssim"),
        )
    if not camera or not trained_on:
        raise ExportRefused(f"{path} does not say its camera and training data: give both")
    textbook = UNet128()
    try:
        textbook.load_state_dict(from_pix2pix(state))
    except RuntimeError as error:
        raise ExportRefused(f"{path} is no unet_128 generator with batch norm: {_first_problem(error)}") from error
    return Loaded(textbook.eval(), "unet128", camera, trained_on, overlap=32)


def weakened(loaded: Loaded, strength: float, pairs: Sequence[PairPaths]) -> Loaded:
    """Scale what a generator adds to its picture, and score it again.

    Where a tone can only be guessed, the guess that errs least goes less far than the likeliest one: on pairs that were
    not trained on, the mean squared error of a fitted answer falls when it is taken back towards the picture.

    Args:
        loaded: a generator whose output is its picture and a predicted change; it is left as it is.
        strength: factor on the change, above 0.
        pairs: what it is scored on; without any, its scores are not known.

    Raises:
        ExportRefused: the generator predicts no change, or the strength is not above 0.
        PairsError: a pair can't be read.
    """
    if not isinstance(loaded.generator, SpaceToDepthUNet) or not strength > 0:
        raise ExportRefused(f"{loaded.architecture} can't be exported with a strength of {strength}")
    generator = copy.deepcopy(loaded.generator)
    with torch.no_grad():
        for parameter in generator.head.parameters():
            parameter.mul_(strength)
    mean_psnr, mean_ssim = score(generator, pairs) if pairs else (None, None)
    return replace(loaded, generator=generator, psnr=mean_psnr, ssim=mean_ssim)


def _first_problem(error: RuntimeError) -> str:
    lines = str(error).splitlines()
    return lines[1].strip() if len(lines) > 1 else lines[0]


def from_pix2pix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a pix2pix `unet_128` state dict (`model.model.0.weight` ...) to ours (`down.0.weight` ...).

    There a U-Net is built from blocks, each holding the next inner one at index 1 (the outermost) or 3 of its
    `model`: [convolution, inner block, ReLU, transposed convolution, tanh] on the outside, [leaky ReLU, convolution,
    norm, inner block, ReLU, transposed convolution, norm, ...] between, [leaky ReLU, convolution, ReLU, transposed
    convolution, norm] at the core. A `module.` prefix, which DataParallel leaves, is dropped. Keys that fit nowhere
    are kept, so that loading names them.

    Source: the layout of `UnetSkipConnectionBlock` in junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py.
    """
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    depth = 7
    layers: dict[str, str] = {}
    block = "model.model."
    for level in range(depth):
        if level == 0:
            inside = {"0": "down.0", "3": "up.0"}
        elif level == depth - 1:
            inside = {"1": f"down.{level}", "3": f"up.{level}", "4": f"up_norm.{level}"}
        else:
            inside = {"1": f"down.{level}", "2": f"down_norm.{level}", "5": f"up.{level}", "6": f"up_norm.{level}"}
        layers |= {block + index: ours for index, ours in inside.items()}
        block += "1.model." if level == 0 else "3.model."
    renamed = {}
    for key, value in state.items():
        layer, _, parameter = key.rpartition(".")
        renamed[f"{layers[layer]}.{parameter}" if layer in layers else key] = value
    return renamed


def export(
    loaded: Loaded,
    target: Path,
    tiles: npt.NDArray[np.uint8],
    contexts: npt.NDArray[np.uint8],
    half: bool = False,
) -> tuple[GeneratorSpec, Match]:
    """Write an ONNX file that keeps the contract, and its line in the folder's SHA256SUMS.

    Args:
        loaded: the generator.
        target: where the file goes; it appears there only once it has been checked.
        tiles, contexts: real tiles, uint8 (N, 128, 128, 3), and their contexts, uint8 (N, 32, 32, 3), on which ONNX
            Runtime's answers are compared with torch's. N at least 2.
        half: convert the network to float16 (the CUDA build).

    Raises:
        ExportRefused: the answers differ by more than `MIN_PSNR` allows.
        ModelUnusable: the file would break the contract.
    """
    if len(tiles) < 2 or len(tiles) != len(contexts):
        raise ExportRefused("at least two real tiles, each with its context, are needed to check the file")
    generator = loaded.generator.eval()
    spec = GeneratorSpec(
        camera=loaded.camera,
        architecture=loaded.architecture,
        takes_context=generator.takes_context,
        half=half,
        overlap=loaded.overlap,
        trained_on=loaded.trained_on,
        psnr=loaded.psnr,
        ssim=loaded.ssim,
        created=datetime.now(UTC).date().isoformat(),
        weights_sha256=weights_sha256(generator),
    )
    feeds = (tiles, contexts) if spec.takes_context else (tiles,)
    example = tuple(torch.from_numpy(feed[:2].copy()) for feed in feeds)
    with torch.no_grad():
        expected = Deployed(generator)(*(torch.from_numpy(feed) for feed in feeds)).numpy()
    deployed = Deployed(copy.deepcopy(generator).half() if half else generator, half)
    model = tidy(to_onnx(deployed, example))
    onnx.helper.set_model_props(model, spec.metadata())
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        partial = Path(folder) / target.name
        onnx.save(model, partial)
        actual = OnnxGenerator(partial, device="cpu")(tiles, contexts)
        match = compare(actual, expected)
        floor = MIN_PSNR["float16" if half else "float32"]
        if not match.psnr >= floor:  # NaN too
            raise ExportRefused(
                f"ONNX Runtime's answers are {match.psnr:.1f} dB from torch's (max difference "
                f"{match.max_difference:.2g}); at least {floor:.0f} dB are needed"
            )
        partial.replace(target)
    record(target)
    return spec, match


def to_onnx(deployed: Deployed, example: tuple[Tensor, ...]) -> onnx.ModelProto:
    """Convert a generator as torch's exporter does it.

    Args:
        deployed: the generator with what the contract asks for around it.
        example: what it is called with, two tiles and for a generator with context two contexts: uint8, N as the first
            side, which alone stays open.
    """
    names = ["tiles", "context"][: len(example)]
    batch = torch.export.Dim("N", min=1)
    # the exporter reports every optional package that it does not find
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            deployed.eval(),
            example,
            input_names=names,
            output_names=["enhanced"],
            dynamic_shapes={name: {0: batch} for name in names},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip_debug(model)
    onnx.checker.check_model(model)
    return model


def _strip_debug(model: onnx.ModelProto) -> None:
    # the exporter notes for every node where in the source it came from: this machine's paths, and half the nodes' size
    model.ClearField("metadata_props")
    graph = model.graph
    graph.ClearField("metadata_props")
    graph.ClearField("value_info")
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for function in model.functions:
        for node in function.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")


def compare(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> Match:
    """Compare two float batches (N, 128, 128, 3) in 0..1."""
    difference = actual.astype(np.float64) - expected
    error = float(np.mean(difference**2))
    return Match(
        psnr=float("inf") if error == 0 else float(-10 * np.log10(error)),
        max_difference=float(np.abs(difference).max()),
        tiles=len(actual),
    )


def weights_sha256(generator: nn.Module) -> str:
    """Hash a generator's weights: the names and little-endian bytes of its state dict in order."""
    digest = hashlib.sha256()
    for name, value in generator.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
