"""What an ONNX generator says about itself, checked clause by clause. Pure: it reads an open session, no file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

TILE: Final = 128
"""Side of a tile in pixels."""
CONTEXT: Final = 32
"""Side in pixels of the whole picture as the generator sees it."""
VERSION: Final = "1"
"""The contract's version, in the metadata as `pix2dslr.version`."""


class ContractBroken(Exception):
    """An ONNX file does not keep the generator's contract.

    Attributes:
        clause: the short name of the clause, such as `input tiles`.
        found: what the file has instead.
    """

    def __init__(self, clause: str, found: str) -> None:
        super().__init__(f"{clause}: {found}")
        self.clause = clause
        self.found = found


class Node(Protocol):
    """An input or output as ONNX Runtime describes it (`onnxruntime.NodeArg`)."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True)
class GeneratorSpec:
    """What a generator needs and gives.

    Attributes:
        camera: whose pictures it enhances, such as `iphone`.
        architecture: the network's name, such as `unet128-s2d`.
        takes_context: whether it has the input `context`.
        half: whether it answers float16 instead of float32.
        overlap: recommended overlap of tiles in pixels.
        trained_on: the data, in words.
        psnr: dB on the validation pairs, None where it was not measured.
        ssim: likewise.
        created: ISO 8601 date.
        weights_sha256: hash of the weights that it was exported from.
    """

    camera: str
    architecture: str
    takes_context: bool
    half: bool
    overlap: int
    trained_on: str
    psnr: float | None
    ssim: float | None
    created: str
    weights_sha256: str

    def metadata(self) -> dict[str, str]:
        """Return the metadata that a file with this spec carries."""
        return {
            "pix2dslr.version": VERSION,
            "camera": self.camera,
            "architecture": self.architecture,
            "tile": str(TILE),
            "overlap": str(self.overlap),
            "trained_on": self.trained_on,
            "psnr": "" if self.psnr is None else f"{self.psnr:.3f}",
            "ssim": "" if self.ssim is None else f"{self.ssim:.4f}",
            "created": self.created,
            "weights_sha256": self.weights_sha256,
        }


def read_spec(inputs: Sequence[Node], outputs: Sequence[Node], metadata: dict[str, str]) -> GeneratorSpec:
    """Check the contract and return what the file says.

    Args:
        inputs, outputs: as `InferenceSession.get_inputs()` and `get_outputs()` give them.
        metadata: the file's custom metadata.

    Raises:
        ContractBroken: names the first clause that the file breaks.
    """
    named = {node.name: node for node in inputs}
    unknown = named.keys() - {"tiles", "context"}
    if unknown:
        raise ContractBroken("inputs", f"an unknown input {min(unknown)!r}; only tiles and context are fed")
    if "tiles" not in named:
        raise ContractBroken("input tiles", "missing")
    _check("input tiles", named["tiles"], ("tensor(uint8)",), TILE)
    if "context" in named:
        _check("input context", named["context"], ("tensor(uint8)",), CONTEXT)
    if [node.name for node in outputs] != ["enhanced"]:
        raise ContractBroken("output enhanced", f"the outputs are {[node.name for node in outputs]}")
    _check("output enhanced", outputs[0], ("tensor(float)", "tensor(float16)"), TILE)
    version = metadata.get("pix2dslr.version", "missing")
    if version != VERSION:
        raise ContractBroken("metadata pix2dslr.version", f"{version}, not {VERSION}")
    missing = [key for key in ("camera", "architecture", "trained_on", "created") if not metadata.get(key)]
    if missing:
        raise ContractBroken(f"metadata {missing[0]}", "missing")
    if metadata.get("tile") != str(TILE):
        raise ContractBroken("metadata tile", f"{metadata.get('tile', 'missing')}, not {TILE}")
    overlap = metadata.get("overlap", "missing")
    if not overlap.isdecimal() or len(overlap) > 3 or int(overlap) > TILE // 2:
        raise ContractBroken("metadata overlap", f"{overlap[:20]}, not a whole number from 0 to {TILE // 2}")
    if len(metadata.get("weights_sha256", "")) != 64:
        raise ContractBroken("metadata weights_sha256", "missing or no SHA-256")
    return GeneratorSpec(
        camera=metadata["camera"],
        architecture=metadata["architecture"],
        takes_context="context" in named,
        half=outputs[0].type == "tensor(float16)",
        overlap=int(overlap),
        trained_on=metadata["trained_on"],
        psnr=_score(metadata, "psnr"),
        ssim=_score(metadata, "ssim"),
        created=metadata["created"],
        weights_sha256=metadata["weights_sha256"],
    )


def _check(clause: str, node: Node, types: tuple[str, ...], side: int) -> None:
    if node.type not in types:
        raise ContractBroken(clause, f"of type {node.type}, not {' or '.join(types)}")
    shape = list(node.shape)
    if len(shape) != 4 or shape[1:] != [side, side, 3]:
        raise ContractBroken(clause, f"of shape {shape}, not (N, {side}, {side}, 3)")
    if isinstance(shape[0], int):
        raise ContractBroken(clause, f"a fixed batch of {shape[0]}; N must be dynamic")


def _score(metadata: dict[str, str], key: str) -> float | None:
    text = metadata.get(key, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):  # JSON, in which GET /cameras tells it, has no other
        raise ContractBroken(f"metadata {key}", f"{text!r} is no number")
    return value
