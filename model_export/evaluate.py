"""Scores networks side by side in one run: on pairs of patches, on whole photos, and by the clock."""

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from model_export.contenders import Network, OutputFolder, open_networks
from model_export.features import pooled_features
from model_export.kid import Distance, kid
from model_export.pairs import PairPaths, PairsError, read_rgb
from service.generator import cpu_threads
from service.quality import TooSmall, colour_difference, psnr, seam_index, ssim
from service.tiling import plan

Image = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]
"""Told (what is done, steps done, steps in all) after each step."""

_TIMED_SIDE: Final = 1024
_ROUNDS: Final = 3


@dataclass(frozen=True)
class PairScore:
    """How near one output is to its target: dB, -1..1, and CIELAB units."""

    name: str
    psnr: float
    ssim: float
    colour_difference: float


@dataclass(frozen=True)
class PhotoScore:
    """One whole photo: its seam index and its PSNR in dB, each None where it could not be measured."""

    name: str
    seam_index: float | None
    psnr: float | None


@dataclass(frozen=True)
class Row:
    """What one contender scored.

    Attributes:
        name: as given, or `input` for the pictures as they are.
        pairs, photos: the single scores, in the order of the report's names.
        kid: distance of the outputs on the pairs from the targets, None with fewer than two pairs.
        ms_per_megapixel: median time on this machine's CPU, None where nothing ran.
        parameters: float weights in the ONNX file, None where there is none.
        seam_control: its pictures have no tile borders, and the seam index is of where ours would be.
    """

    name: str
    pairs: tuple[PairScore, ...] = ()
    photos: tuple[PhotoScore, ...] = ()
    kid: Distance | None = None
    ms_per_megapixel: float | None = None
    parameters: int | None = None
    seam_control: bool = False

    @property
    def psnr(self) -> float | None:
        return _mean(one.psnr for one in self.pairs)

    @property
    def ssim(self) -> float | None:
        return _mean(one.ssim for one in self.pairs)

    @property
    def colour_difference(self) -> float | None:
        return _mean(one.colour_difference for one in self.pairs)

    @property
    def seam_mean(self) -> float | None:
        return _mean(one.seam_index for one in self.photos)

    @property
    def seam_worst(self) -> float | None:
        return max((one.seam_index for one in self.photos if one.seam_index is not None), default=None)

    @property
    def photo_psnr(self) -> float | None:
        return _mean(one.psnr for one in self.photos)


@dataclass(frozen=True)
class Machine:
    """Where and when a report was measured."""

    processor: str
    threads: int
    onnxruntime: str
    date: str


@dataclass(frozen=True)
class Report:
    """One run's rows, `input` first, and what they were measured on."""

    rows: tuple[Row, ...]
    pair_names: tuple[str, ...]
    photo_names: tuple[str, ...]
    machine: Machine


@dataclass(frozen=True)
class Photo:
    """A whole photo of the phone, and what it should become where that is known."""

    picture: Path
    target: Path | None = None

    def load(self) -> tuple[Image, Image | None]:
        """Read both as uint8 (H, W, 3) RGB.

        Raises:
            PairsError: one can't be read, or they differ in size.
        """
        return (read_rgb(self.picture), None) if self.target is None else PairPaths(self.picture, self.target).load()


def evaluate(
    models: Sequence[Path],
    pairs: Sequence[PairPaths],
    photos: Sequence[Photo] = (),
    outputs: Sequence[OutputFolder] = (),
    progress: Progress = lambda *_: None,
) -> Report:
    """Score networks, ready-made outputs, and the pictures as they are; time the networks in turns.

    Args:
        models: ONNX files, as `open_network` takes them.
        pairs, photos: what they are scored on; either may be empty.
        outputs: what other networks made of the pairs.
        progress: told of each step.

    Raises:
        ModelUnusable: as `open_network`, or a network can't take one of the pictures.
        PairsError: a picture can't be read, has no output, or is too small to be scored.
    """
    networks = open_networks(models)
    loaded = [pair.load() for pair in pairs]
    phones, targets = [phone for phone, _ in loaded], [target for _, target in loaded]
    ready = [folder.load(pairs) for folder in outputs]
    costs = _time(networks, progress)
    answers: list[Iterable[Image]] = [phones, *(map(network.run, phones) for network in networks), *ready]
    on_pairs = _on_pairs(answers, pairs, targets, progress)
    on_photos = _on_photos(networks, photos, progress)
    rows = [Row("input", on_pairs[0].scores, on_photos[0], on_pairs[0].kid)]
    for place, (network, cost) in enumerate(zip(networks, costs, strict=True), start=1):
        scored, whole = on_pairs[place], network.overlap is None
        rows.append(Row(network.name, scored.scores, on_photos[place], scored.kid, cost, network.parameters, whole))
    for folder, scored in zip(outputs, on_pairs[1 + len(networks) :], strict=True):
        rows.append(Row(folder.name, scored.scores, kid=scored.kid))
    names = tuple(pair.phone.stem for pair in pairs), tuple(photo.picture.stem for photo in photos)
    return Report(tuple(rows), *names, _machine())


@dataclass(frozen=True)
class _OnPairs:
    scores: tuple[PairScore, ...]
    kid: Distance | None


def _on_pairs(
    answers: Sequence[Iterable[Image]], pairs: Sequence[PairPaths], targets: Sequence[Image], progress: Progress
) -> list[_OnPairs]:
    """Score the answers of each contender; those of one are held at a time."""
    wanted = pooled_features(targets) if len(pairs) > 1 else None
    scored = []
    for place, outputs in enumerate(answers):
        kept, scores = [], []
        for number, (output, target, pair) in enumerate(zip(outputs, targets, pairs, strict=True), start=1):
            kept.append(output)
            try:
                values = psnr(output, target), ssim(output, target), colour_difference(output, target)
            except TooSmall as error:
                raise PairsError(f"{pair.phone} is too small to be scored: {error}") from error
            scores.append(PairScore(pair.phone.stem, *values))
            progress("pairs", place * len(pairs) + number, len(answers) * len(pairs))
        scored.append(_OnPairs(tuple(scores), None if wanted is None else kid(pooled_features(kept), wanted)))
    return scored


def _on_photos(
    networks: Sequence[Network], photos: Sequence[Photo], progress: Progress
) -> list[tuple[PhotoScore, ...]]:
    """Score the input and then each network; photo by photo, so that one is in memory at a time."""
    rows: list[list[PhotoScore]] = [[] for _ in range(1 + len(networks))]
    for number, photo in enumerate(photos):
        picture, target = photo.load()
        name = photo.picture.stem
        rows[0].append(PhotoScore(name, None, None if target is None else psnr(picture, target)))
        for place, network in enumerate(networks, start=1):
            output = network.run(picture)
            overlap = {} if network.overlap is None else {"overlap": network.overlap}
            seams = seam_index(picture, output, plan(*picture.shape[:2], **overlap))
            rows[place].append(PhotoScore(name, seams, None if target is None else psnr(output, target)))
            progress("photos", number * len(networks) + place, len(photos) * len(networks))
    return [tuple(row) for row in rows]


def _time(networks: Sequence[Network], progress: Progress) -> list[float]:
    """Median milliseconds per megapixel of each network, in turns so that a slow spell hits all of them.

    On noise of 1024x1024, or of the one size that a network takes.
    """
    noise = np.random.default_rng(0)
    pictures = [
        noise.integers(0, 256, (*(network.size or (_TIMED_SIDE, _TIMED_SIDE)), 3), np.uint8) for network in networks
    ]
    seconds = np.empty((_ROUNDS + 1, len(networks)))
    for round_ in range(_ROUNDS + 1):
        for place, (network, picture) in enumerate(zip(networks, pictures, strict=True)):
            start = time.perf_counter()
            network.run(picture)
            seconds[round_, place] = time.perf_counter() - start
            progress("timing", round_ * len(networks) + place + 1, seconds.size)
    megapixels = np.array([picture.size / 3e6 for picture in pictures])
    per_megapixel: list[float] = (np.median(seconds[1:], axis=0) * 1e3 / megapixels).tolist()
    return per_megapixel


def _machine() -> Machine:
    processor = platform.processor() or platform.machine()
    try:
        facts = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(":")[2].strip() for line in facts if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor without a name
        pass
    return Machine(processor, cpu_threads(), ort.__version__, datetime.now(UTC).date().isoformat())


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of what was measured, None where nothing was."""
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None
