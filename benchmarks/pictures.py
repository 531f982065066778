"""Pictures to time on, made here: nothing has to be downloaded."""

import cv2
import numpy as np
import numpy.typing as npt


def photo(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A picture with detail at every scale, uint8 (H, W, 3), so that JPEG has its usual work; one a seed."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for k in (1, 4, 16, 64, 256):
        coarse = rng.integers(0, 256, (height // k + 1, width // k + 1, 3), np.uint8).astype(np.float32)
        picture += cv2.resize(coarse, (width, height)) / 5
    return picture.astype(np.uint8)


def jpeg(height: int, width: int) -> bytes:
    """The same as a JPEG of OpenCV's default quality."""
    return cv2.imencode(".jpg", photo(height, width))[1].tobytes()


def png(height: int, width: int) -> bytes:
    """The same as a PNG."""
    return cv2.imencode(".png", photo(height, width))[1].tobytes()


def of_megapixels(count: float) -> tuple[int, int]:
    """Height and width of a 4:3 picture of so many megapixels."""
    height = round((count * 1e6 * 3 / 4) ** 0.5)
    return height, round(count * 1e6 / height)
