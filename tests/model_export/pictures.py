"""Pictures that say where their pixels are, and the square's eight symmetries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PixelArray = npt.NDArray[np.uint8]
Writer = Callable[..., Path]

# as (flip rows, flip columns, transpose)
SYMMETRIES = [(rows, columns, swap) for rows in (False, True) for columns in (False, True) for swap in (False, True)]


def turned(array: npt.NDArray[Any], symmetry: tuple[bool, bool, bool]) -> npt.NDArray[Any]:
    rows, columns, swap = symmetry
    array = np.flip(array, 0) if rows else array
    array = np.flip(array, 1) if columns else array
    return array.swapaxes(0, 1) if swap else array


def coordinates(height: int, width: int) -> PixelArray:
    """A picture whose every pixel says where it is: low bytes in red and green, high bits in blue."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 256, x % 256, (y // 256) * 16 + x // 256], -1).astype(np.uint8)


def where(pixels: PixelArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows and columns that the pixels of `coordinates` say."""
    values = pixels.astype(np.int64)
    return values[..., 0] + 256 * (values[..., 2] // 16), values[..., 1] + 256 * (values[..., 2] % 16)


def flat(value: int, height: int = 100, width: int = 100) -> PixelArray:
    return np.full((height, width, 3), value, np.uint8)


def noise(height: int, width: int, seed: int = 0) -> PixelArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
