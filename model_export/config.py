"""What decides a training run: a small TOML file, read into frozen dataclasses."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from model_export.pairs import Policy

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


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what is trained, but for where the data lie.

    Attributes:
        camera: the phone whose pictures are enhanced; goes into the model's metadata.
        trained_on: what the data are, in words; goes into the metadata.
        sources: where samples come from.
        validation: patch pairs that are scored; those whose stem is in `validation_names` where that is given, and
            then the same stems of the first source are kept out of training.
        batch, steps: tiles a step, and how many generator steps.
        learning_rate, betas: Adam's; the paper's defaults.
        schedule: `constant`, or `one_cycle` up to `learning_rate` and down to zero.
        weights: the losses by name (`l1`, `ssim`, `gan`) and weight; absent is 0.
        gan_from: the first step with the GAN term; before it the discriminator rests.
        average: decay of the moving average of the weights, which is what is validated and exported; 0 is none.
        precision: `float32`, or `bfloat16` for the networks' arithmetic (losses and weights stay float32).
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
    steps: Positive = 10_000
    learning_rate: Rate = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: Literal["constant", "one_cycle"] = "constant"
    weights: dict[str, float] = field(default_factory=lambda: {"l1": 100.0, "gan": 1.0})
    gan_from: Count = 0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Count = 0
    validate_every: Positive = 1000
    overlap: Annotated[int, Field(ge=0, le=64)] = 32

    def __post_init__(self) -> None:
        unknown = self.weights.keys() - {"l1", "ssim", "gan"}
        if unknown:
            raise ConfigError(f"no loss is named {min(unknown)!r}")
        if self.batch < 2 and self.architecture == "unet128-s2d":
            raise ConfigError("batch must be at least 2: unet128-s2d has a batch norm where the picture is one pixel")
        if not self.sources:
            raise ConfigError("there is no source to train on")


def load_config(path: Path) -> TrainConfig:
    """Read a configuration from a TOML file.

    Raises:
        ConfigError: the file can't be read, or a key is unknown, missing or of the wrong kind.
    """
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:  # bad TOML and bad UTF-8 are ValueErrors
        raise ConfigError(f"{path}: {error}") from error
    names = raw.get("validation_names")
    try:
        if isinstance(names, str):  # a file with one name a line, beside the configuration
            raw["validation_names"] = (path.parent / names).read_text().split()
        return _READER.validate_python(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_explain(entry) for entry in error.errors())}") from error
    except (OSError, ValueError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _explain(entry: ErrorDetails) -> str:
    given = "" if entry["type"] == "missing" else f", not {entry['input']!r}"
    return f"{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}{given}"


_READER = TypeAdapter(TrainConfig)
