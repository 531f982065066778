"""One scene as two cameras see it, for what lays photos over each other."""

import cv2
import numpy as np
import numpy.typing as npt
import skimage.data

PixelArray = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


def photo(name: str, factor: float) -> PixelArray:
    """A packaged photo, enlarged, with a sensor's noise."""
    large = cv2.resize(getattr(skimage.data, name)(), None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(large + np.random.default_rng(0).normal(0, 1, large.shape), 0, 255), np.uint8)


def view(scale: float, degrees: float, tilt: float, size: tuple[int, int]) -> Matrix:
    """Where a DSLR that is turned, tilted and moved a little sees the pixels of a phone's photo, height and width."""
    height, width = size
    turn = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1), [0, 0, 1]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [tilt / width, -tilt / height, 1]])
    moved = np.array([[1, 0, 6.3], [0, 1, -4.6], [0, 0, 1]])
    matrix: Matrix = np.diag([scale, scale, 1]) @ perspective @ turn @ moved
    return matrix


def seen_by_dslr(scene: PixelArray, matrix: Matrix, scale: float) -> PixelArray:
    """Warp a photo and give it another tone curve, gains, offsets and noise."""
    size = (round(scene.shape[1] * scale), round(scene.shape[0] * scale))
    colours = (cv2.warpPerspective(scene, matrix, size, flags=cv2.INTER_CUBIC) / 255) ** 1.5
    colours = colours * [1.05, 0.85, 0.7] + [0.02, 0.05, 0.08]
    noise = np.random.default_rng(1).normal(0, 0.01, colours.shape)
    return np.clip((colours + noise) * 255, 0, 255).round().astype(np.uint8)
