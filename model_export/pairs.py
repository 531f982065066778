"""Aligned pairs of pictures: DPED's own layout, any two folders, whole photos with targets.

Everything that a generator learns from is a `Sample`: one 128x128 tile, what it should become, where the loss counts
and the context that the service would give it. `batches` draws them.

Policy for the data set's 100x100 patches: `reflect` (default) pads them to 128x128 by reflect-101 and masks the loss
to the 100x100, which keeps the scale of the detail and is exactly what the service does with a picture of that size.
`resize` enlarges both halves to 128x128, as the paper project did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from service.spec import TILE
from service.tiling import context_of, pad_reflect

Policy = Literal["reflect", "resize"]
PixelArray = npt.NDArray[np.uint8]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


class PairsError(Exception):
    """The pairs on disk can't be trained on; the message names the file or folder."""


@dataclass(frozen=True)
class Sample:
    """One tile to learn from.

    Attributes:
        tile: uint8 (128, 128, 3), RGB, what the generator sees.
        target: uint8 (128, 128, 3), RGB, what it should answer.
        mask: float32 (128, 128), 1 where the loss counts, 0 on padding.
        context: uint8 (32, 32, 3), RGB, the whole picture that the tile comes from.
    """

    tile: PixelArray
    target: PixelArray
    mask: npt.NDArray[np.float32]
    context: PixelArray


@dataclass(frozen=True)
class PairPaths:
    """One aligned pair on disk: the phone's picture and the picture that it should become."""

    phone: Path
    target: Path

    def load(self) -> tuple[PixelArray, PixelArray]:
        """Read both halves as uint8 (H, W, 3) RGB of equal size.

        Raises:
            PairsError: a half can't be read, or the halves differ in size.
        """
        phone, target = read_rgb(self.phone), read_rgb(self.target)
        if phone.shape != target.shape:
            raise PairsError(
                f"{self.phone} is {phone.shape[1]}x{phone.shape[0]} and its target {self.target} is "
                f"{target.shape[1]}x{target.shape[0]}: the halves of a pair must have one size"
            )
        return phone, target


def read_rgb(path: Path) -> PixelArray:
    """Read a picture as uint8 (H, W, 3) RGB, upright.

    Raises:
        PairsError: the file is missing or is no picture.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise PairsError(f"{path} can't be read: {error.strerror}") from error
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise PairsError(f"{path} is no picture that can be decoded")
    return np.asarray(pixels, np.uint8)


def match_folders(phone: Path, target: Path) -> list[PairPaths]:
    """Pair the pictures of two folders by name; the suffix may differ. Sorted, numbers by value.

    Raises:
        PairsError: a folder is missing or empty, or a picture has no partner.
    """
    phones, targets = _pictures(phone), _pictures(target)
    lonely = sorted(phones.keys() ^ targets.keys(), key=_by_number)
    if lonely:
        name = lonely[0]
        have = phones.get(name) or targets[name]
        raise PairsError(f"{have} has no partner in {target if name in phones else phone} ({len(lonely)} such files)")
    return [PairPaths(phones[name], targets[name]) for name in sorted(phones, key=_by_number)]


def dped_patches(root: Path, camera: str, split: Literal["train", "test"] = "train") -> list[PairPaths]:
    """Find the patch pairs of one phone in DPED's own layout.

    Args:
        root: the folder that holds `iphone/`, `blackberry/` and `sony/`.
        camera: which of them.
        split: `train` reads CAMERA/training_data, `test` CAMERA/test_data/patches.

    Raises:
        PairsError: as `match_folders`.

    Source: Ignatov et al., "DSLR-Quality Photos on Mobile Devices with Deep Convolutional Networks", ICCV 2017.
    """
    base = root / camera / ("training_data" if split == "train" else "test_data/patches")
    return match_folders(base / camera, base / "canon")


def named(pairs: Sequence[PairPaths], names: frozenset[str]) -> tuple[list[PairPaths], list[PairPaths]]:
    """Split pairs into (those whose name is not in `names`, those whose name is).

    Raises:
        PairsError: a name is not among the pairs, so that a list for other data can't pass unseen.
    """
    missing = names - {pair.phone.stem for pair in pairs}
    if missing:
        raise PairsError(f"no pair is named {min(missing, key=_by_number)} ({len(missing)} such names)")
    rest = [pair for pair in pairs if pair.phone.stem not in names]
    return rest, [pair for pair in pairs if pair.phone.stem in names]


def list_pictures(folder: Path) -> list[Path]:
    """List the pictures of a folder, numbers by value.

    Raises:
        PairsError: the folder is missing or empty, or two pictures have one name.
    """
    return [path for _, path in sorted(_pictures(folder).items(), key=lambda entry: _by_number(entry[0]))]


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise PairsError(f"{folder} is no folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            if path.stem in found:
                raise PairsError(f"{found[path.stem]} and {path} have one name: which of them is meant?")
            found[path.stem] = path
    if not found:
        raise PairsError(f"{folder} holds no pictures")
    return found


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)


def patch_sample(phone: PixelArray, target: PixelArray, policy: Policy, top: int, left: int) -> Sample:
    """Make a sample of a patch pair no larger than a tile.

    Args:
        phone, target: uint8 (H, W, 3), H and W from 1 to 128.
        policy: how the patch reaches 128x128, see the module.
        top, left: rows and columns of padding before the patch; only `reflect` looks at them.

    Raises:
        PairsError: the patch is larger than a tile.
    """
    height, width = phone.shape[:2]
    if max(height, width) > TILE:
        raise PairsError(f"a patch of {width}x{height} is larger than a tile; use it as a photo")
    context = context_of(phone)
    if policy == "resize":
        tile, wanted = (cv2.resize(half, (TILE, TILE), interpolation=cv2.INTER_CUBIC) for half in (phone, target))
        return Sample(
            np.asarray(tile, np.uint8), np.asarray(wanted, np.uint8), np.ones((TILE, TILE), np.float32), context
        )
    mask = np.zeros((TILE, TILE), np.float32)
    mask[top : top + height, left : left + width] = 1
    around = (top, TILE - top - height, left, TILE - left - width)
    return Sample(pad_reflect(phone, *around), pad_reflect(target, *around), mask, context)


def centred(size: int) -> int:
    """Rows or columns of padding before a patch of `size` that sits where the service puts it."""
    return (TILE - size) // 2


def real_tiles(folder: Path, most: int) -> tuple[PixelArray, PixelArray]:
    """Cut one tile out of the middle of each of up to `most` pictures, spread over a folder.

    Returns:
        Tiles, uint8 (N, 128, 128, 3), and their contexts, uint8 (N, 32, 32, 3).

    Raises:
        PairsError: the folder is missing or empty, or a file can't be read.
    """
    files = list_pictures(folder)
    tiles, contexts = [], []
    for path in files[:: max(1, len(files) // most)][:most]:
        picture = read_rgb(path)
        top, left = (max(0, (size - TILE) // 2) for size in picture.shape[:2])
        middle = picture[top : top + TILE, left : left + TILE]
        before, beside = centred(middle.shape[0]), centred(middle.shape[1])
        tiles.append(patch_sample(middle, middle, "reflect", before, beside).tile)
        contexts.append(context_of(picture))
    return np.stack(tiles), np.stack(contexts)
