"""What decides a training run: a small TOML file, read into frozen dataclasses."""

import math
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from model_export.pairs import Policy

GanLoss = Literal["bce", "lsgan", "hinge"]
LOSSES: Final = ("l1", "ssim", "gan", "content", "colour", "texture", "tv", "consistency")

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class ConfigError(Exception):
    """A configuration file can't be used; the message names the file and the key."""


@dataclass(frozen=True)
class SourceConfig:
    """One source of samples; all paths are relative to the data folder.

    Attributes:
        kind: `dped` (DPED's own layout, `camera`), `pairs` (patch pairs from folders `phone` and `target`), `photos`
            (crops of whole photos in folders `phone` and `target`).
        share: how much of each batch comes from here, relative to the other sources.
        grid: for `photos`: crops start on multiples of 128 from this offset; random where absent.
        lone: for `photos`: the crop is its own context, as a picture of one tile would be.
        leave_out: for `photos` and `pairs`: file stems that are never trained on.
        policy: for patches: `reflect` or `resize`.
        smallest: for patches: a random part of each is used, with sides of at least so many pixels; 128 is the whole.
        split: for `dped`: its `train` or its `test` patches.
        limit: at most so many pairs, drawn at random but every time the same; 0 is all.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    kind: Literal["dped", "pairs", "photos"]
    share: Rate = 1.0
    root: str = "."
    camera: str = "iphone"
    phone: str = ""
    target: str = ""
    grid: Count | None = None
    lone: bool = False
    leave_out: tuple[str, ...] = ()
    policy: Policy = "reflect"
    smallest: Annotated[int, Field(ge=32, le=128)] = 128
    split: Literal["train", "test"] = "train"
    limit: Count = 0


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what is trained, but for where the data lie.

    Attributes:
        camera: the phone whose pictures are enhanced; goes into the model's metadata.
        trained_on: what the data are, in words; goes into the metadata.
        sources: where samples come from.
        validation: patch pairs that are scored; those whose stem is in `validation_names` where that is given, and
            then the same stems of the first source are kept out of training.
        batch: tiles a step, over all processes.
        steps, epochs: how many generator steps, 10000 where neither is given; an epoch is as many steps as draw each
            pair once on average, and only a single source of patch pairs has them.
        learning_rate, betas: Adam's; the paper's defaults.
        schedule: `constant`, or `one_cycle` up to `learning_rate` and down to zero.
        weights: the losses by name (`LOSSES`, see `losses`) and weight; absent is 0.
        gan_loss: what `gan` is: `bce` (the paper's), `lsgan` or `hinge`.
        gan_from: the first step with the terms `gan` and `texture`; before it their discriminators rest.
        discriminator_width: channels of the discriminators' first layer.
        content_network, content_weights: whose feature maps `content` compares, and for `vgg19` the file with its
            weights, relative to the data folder.
        consistency_strips, consistency_shift: pairs of overlapping tiles a step for `consistency`, and how many pixels
            they lie apart.
        clip: longest gradient of the generator, as Euclidean norm; longer ones are shortened to it. 0 is no limit.
        average: decay of the moving average of the weights, which is what is validated and exported; 0 is none.
        precision: `float32`, or `bfloat16` or (on GPUs) `float16` for the networks' arithmetic; losses and weights
            stay float32.
        checkpoint_every: steps between checkpoints; each validation writes one too.
        sample_every: steps between grids of sample pictures, made at the next validation; 0 is none.
        overlap: recommended overlap in pixels; goes into the metadata.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    camera: str
    trained_on: str
    sources: tuple[SourceConfig, ...]
    validation: SourceConfig
    validation_names: tuple[str, ...] = ()
    architecture: Literal["unet128", "unet128-s2d"] = "unet128-s2d"
    batch: Positive = 16
    steps: Positive | None = None
    epochs: Positive | None = None
    learning_rate: Rate = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: Literal["constant", "one_cycle"] = "constant"
    weights: dict[str, float] = field(default_factory=lambda: {"l1": 100.0, "gan": 1.0})
    gan_loss: GanLoss = "bce"
    gan_from: Count = 0
    discriminator_width: Positive = 64
    content_network: Literal["efficientnet-lite0", "vgg19"] = "efficientnet-lite0"
    content_weights: str = ""
    consistency_strips: Positive = 2
    consistency_shift: Annotated[int, Field(ge=8, le=120)] = 64
    clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: Count = 0
    validate_every: Positive = 1000
    checkpoint_every: Positive = 500
    sample_every: Count = 0
    overlap: Annotated[int, Field(ge=0, le=64)] = 32

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("there is no source to train on")
        self._check_weights()
        if self.steps is not None and self.epochs is not None:
            raise ConfigError("steps and epochs: only one of them can be given")
        if self.epochs is not None and (len(self.sources) > 1 or self.sources[0].kind == "photos"):
            raise ConfigError("epochs: only a single source of patch pairs has them; give steps")
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "steps", 10_000)

    def _check_weights(self) -> None:
        for name, weight in self.weights.items():
            if name not in LOSSES:
                raise ConfigError(f"weights: no loss is named {name!r}; there are {', '.join(LOSSES)}")
            if not (weight >= 0 and math.isfinite(weight)):
                raise ConfigError(f"weights.{name}: {weight} is no weight")
        if not any(self.weights.values()):
            raise ConfigError("weights: no loss has a weight above 0")
        if self.weights.get("content") and self.content_network == "vgg19" and not self.content_weights:
            raise ConfigError("content_weights: vgg19 needs the file with its weights")
        if self.weights.get("consistency") and not any(
            source.kind == "photos" and source.grid is None and not source.lone for source in self.sources
        ):
            raise ConfigError("weights.consistency: needs a source of kind photos, neither lone nor with a grid")

    def same_run(self, other: "TrainConfig") -> bool:
        """Whether a run of `other` can be gone on with: nothing that decides its curve differs."""
        rhythm = {"checkpoint_every": self.checkpoint_every, "sample_every": self.sample_every}
        return replace(other, **rhythm) == self  # type: ignore[arg-type]


def read_config(text: str) -> TrainConfig:
    """Read a configuration from a checkpoint's JSON; keys that are younger than it have their defaults.

    Raises:
        ConfigError: this version does not understand it.
    """
    try:
        return _READER.validate_json(text)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(entry) for entry in error.errors())) from error


def load_config(path: Path) -> TrainConfig:
    """Read a configuration from a TOML file.

    A file may name another as `base`, beside it: that one's keys hold where the file has none of its own.

    Raises:
        ConfigError: the file can't be read, or a key is unknown, missing or of the wrong kind.
    """
    raw = _read_toml(path)
    try:
        return _READER.validate_python(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_explain(entry) for entry in error.errors())}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _read_toml(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in within:
        raise ConfigError(f"{path}: is its own base")
    try:
        raw = tomllib.loads(path.read_text())
        names = raw.get("validation_names")
        if isinstance(names, str):  # a file with one name a line, beside the configuration
            raw["validation_names"] = (path.parent / names).read_text().split()
    except (OSError, ValueError) as error:  # bad TOML and bad UTF-8 are ValueErrors
        raise ConfigError(f"{path}: {error}") from error
    base = raw.pop("base", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: a file's name is needed, not {base!r}")
    return _read_toml(path.parent / base, (*within, path.resolve())) | raw


def _explain(entry: ErrorDetails) -> str:
    given = "" if entry["type"] == "missing" else f", not {entry['input']!r}"
    return f"{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}{given}"


_READER = TypeAdapter(TrainConfig)
