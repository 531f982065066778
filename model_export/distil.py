"""What a published network makes of photos, written as pairs that a generator can be trained on.

Two kinds, since such a network's answer depends on the statistics of the picture that it is given: `tiles`, each given
to the network alone, as its authors trained and scored it; and whole photos, made smaller, so that a generator learns
from their context what the network would do with the photo.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from model_export.degrade import degrade, random_camera
from model_export.pairs import PairsError, read_rgb
from service.spec import TILE

Image = npt.NDArray[np.uint8]
Network = Callable[[Image], Image]


@dataclass(frozen=True)
class Plan:
    """How many pairs to make of each photo.

    Attributes:
        tiles: how many tiles of each shot, at random places.
        side: longer side in pixels of the whole photos; 0 makes none.
        shots: how often each photo is taken again by a random cheap camera; 0 uses the photo as it is.
        seed: decides the cameras, their noise and where the tiles lie.
    """

    tiles: int = 80
    side: int = 512
    shots: int = 0
    seed: int = 0


def distil(network: Network, photos: list[Path], out: Path, plan: Plan) -> Iterator[Path]:
    """Write pairs to `out/tiles/{phone,target}` and `out/photos/{phone,target}`, as PNG of equal names.

    What is already there is kept, so that a run that was stopped goes on. A pair depends on the seed, its photo's name
    and its shot alone.

    Yields:
        Each photo, once its pairs are written.

    Raises:
        PairsError: a photo can't be read or is smaller than a tile.
    """
    for photo in photos:
        pixels = read_rgb(photo)
        for shot in range(max(plan.shots, 1)):
            rng = np.random.default_rng([plan.seed, shot, *photo.stem.encode()])
            name = f"{photo.stem}-{shot}" if plan.shots else photo.stem
            taken = _take(pixels, rng) if plan.shots else pixels
            if min(taken.shape[:2]) < TILE:
                raise PairsError(f"{photo} is smaller than a tile")
            for _ in range(plan.tiles):
                top, left = (int(rng.integers(size - TILE + 1)) for size in taken.shape[:2])
                tile = np.ascontiguousarray(taken[top : top + TILE, left : left + TILE])
                _write(network, tile, out / "tiles", f"{name}_{top}_{left}")
            if plan.side:
                _write(network, _shrunk(taken, plan.side), out / "photos", name)
        yield photo


def _take(photo: Image, rng: np.random.Generator) -> Image:
    # shrunk first, so that the camera's blur and noise, not the good photo's pixels, decide what detail there is
    factor = max(rng.uniform(0.35, 0.8), 2 * TILE / min(photo.shape[:2]))
    smaller = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else photo
    return degrade(np.asarray(smaller, np.uint8), random_camera(rng), rng)


def _shrunk(photo: Image, side: int) -> Image:
    factor = max(side / max(photo.shape[:2]), TILE / min(photo.shape[:2]))
    if factor >= 1:
        return photo
    return np.asarray(cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def _write(network: Network, picture: Image, folder: Path, name: str) -> None:
    target = folder / "target" / f"{name}.png"
    if target.exists():
        return
    # the target last, and whole: where it is, its pair is
    for path, pixels in ((folder / "phone" / f"{name}.png", picture), (target, network(picture))):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{name}.partial.png")
        if not cv2.imwrite(str(partial), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)):
            raise PairsError(f"{path} can't be written")
        partial.replace(path)
