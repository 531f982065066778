"""Checkpoints: files that hold all of a run, replaced whole and read without running code."""

from pathlib import Path
from typing import Any

import torch

from model_export.config import ConfigError, TrainConfig, read_config

CHECKPOINT_VERSION = 2


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state dict to `path`; whoever reads it sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save({"pix2dslr": CHECKPOINT_VERSION, **state}, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's state without running any code that it may hold.

    Raises:
        ConfigError: the file can't be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types, pickle's among them
        raise ConfigError(f"{path} can't be read as a torch checkpoint: {error}".splitlines()[0]) from error
    if not isinstance(state, dict):
        raise ConfigError(f"{path} holds no state dict")
    return state


def load_own(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a training of ours.

    Raises:
        ConfigError: the file can't be read, or is another program's or version's.
    """
    state = load_checkpoint(path)
    if state.get("pix2dslr") != CHECKPOINT_VERSION:
        raise ConfigError(f"{path} is no checkpoint of this version of pix2dslr")
    return state


def is_of(state: dict[str, Any], config: TrainConfig) -> bool:
    """Whether a checkpoint's run is the one that `config` describes; keys younger than it have their defaults."""
    try:
        return read_config(state["config"]).same_run(config)
    except ConfigError:
        return False
