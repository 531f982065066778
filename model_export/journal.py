"""What a run leaves to be looked at: TensorBoard events, sample grids, its history, and the pairs it scored.

Everything lies in the run's folder and `report` makes one page of it; a run that is gone on with goes on writing here.
"""

import dataclasses
import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.tensorboard import SummaryWriter

from model_export.config import TrainConfig
from model_export.scoring import PairScore

Image = npt.NDArray[np.uint8]

SAMPLES: Final = 6
"""Rows of a sample grid: the same pairs each time, spread evenly over the validation pairs."""
EXTREMES: Final = 5
"""How many of the best and of the worst pairs are kept as pictures."""
_EVENTS_EVERY: Final = 10
_PACKAGES: Final = ("pix2dslr", "torch", "accelerate", "numpy", "opencv-python-headless")


class Journal:
    """Writes a run's progress into its folder; made by the main process alone."""

    def __init__(self, folder: Path, config: TrainConfig, steps: int, step: int = 0) -> None:
        """Open the folder's journal.

        Args:
            folder: the run's folder; made where it is missing.
            config: the run's configuration.
            steps: how many steps the run takes in all.
            step: where the run stands; events that an earlier, killed process wrote past it are dropped.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._sample_every = config.sample_every
        self._sampled = step
        self._steps = steps
        self._events = SummaryWriter(str(folder / "events"), purge_step=step + 1 if step else None)
        _write_json(
            folder / "run.json",
            {
                "config": dataclasses.asdict(config),
                "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"
                + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
                "started": _first_start(folder),
            },
        )

    def step(self, values: dict[str, float]) -> None:
        """Note a step's losses, every tenth of them: `step` and values by name."""
        step = int(values["step"])
        if step % _EVENTS_EVERY == 0 or step == self._steps:
            for name, value in values.items():
                if name not in ("step", "psnr", "ssim"):
                    self._events.add_scalar(name, value, step)

    def validated(self, step: int, scores: Sequence[PairScore], history: Sequence[dict[str, float]]) -> None:
        """Note a validation: its means as events, the history, each pair's scores, pictures of the extremes, a grid.

        Args:
            step: how many steps were done.
            scores: every validation pair's score and pictures.
            history: the run's whole history, which is written anew.
        """
        self._events.add_scalar("validation/psnr", float(np.mean([score.psnr for score in scores])), step)
        self._events.add_scalar("validation/ssim", float(np.mean([score.ssim for score in scores])), step)
        last = step == self._steps
        if self._sample_every and (step // self._sample_every > self._sampled // self._sample_every or last):
            self._sampled = step
            chosen = scores[:: max(1, len(scores) // SAMPLES)][:SAMPLES]
            picture = grid([(score.phone, score.output, score.target) for score in chosen])
            _write_picture(self._folder / "samples" / f"{step:07}.png", picture)
            self._events.add_image("samples", picture, step, dataformats="HWC")
        self._keep_extremes(scores)
        # last: who reads a history finds what it speaks of
        _write_json(self._folder / "history.json", list(history))
        self._events.flush()

    def _keep_extremes(self, scores: Sequence[PairScore]) -> None:
        ranked = sorted(scores, key=lambda score: score.psnr)
        shown = {score.name for score in (*ranked[:EXTREMES], *ranked[-EXTREMES:])}
        for score in ranked:
            path = self._folder / "pairs" / f"{score.name}.png"
            if score.name in shown:
                _write_picture(path, grid([(score.phone, score.output, score.target)]))
            else:
                path.unlink(missing_ok=True)
        rows = [{"name": score.name, "psnr": score.psnr, "ssim": score.ssim} for score in ranked]
        _write_json(self._folder / "pairs.json", rows)

    def close(self) -> None:
        """Write out what is still held back."""
        self._events.close()


def grid(rows: Sequence[Sequence[Image]], gap: int = 4) -> Image:
    """Lay pictures out in rows and columns on white.

    Args:
        rows: rows of uint8 (H, W, 3) RGB, all rows of one length; pictures of any sizes.
        gap: white pixels between neighbours.

    Raises:
        ValueError: there is no picture, or the rows differ in length.
    """
    if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
        raise ValueError("a grid needs rows of one length, of at least one picture")
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    widths = [max(row[column].shape[1] for row in rows) for column in range(len(rows[0]))]
    sheet = np.full((sum(heights) + gap * (len(heights) - 1), sum(widths) + gap * (len(widths) - 1), 3), 255, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for picture, width in zip(row, widths, strict=True):
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += width + gap
        top += height + gap
    return sheet


def _first_start(folder: Path) -> str:
    """When the run began, in UTC; a run that is gone on with keeps its date."""
    try:
        return str(json.loads((folder / "run.json").read_text())["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return datetime.now(UTC).isoformat(timespec="seconds")


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)


def _write_picture(path: Path, picture: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path} can't be written")
