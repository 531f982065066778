"""How good a picture is: PSNR, SSIM, colour difference, and how visible the tiles are. Pure.

Pictures are uint8 (H, W, 3) RGB. Large ones are measured in strips of rows, so that memory does not grow with the area.
"""

from collections.abc import Iterator
from typing import Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from service.spec import TILE
from service.tiling import Plan

Image = npt.NDArray[np.uint8]

SSIM_RADIUS: Final = 5
SSIM_SIGMA: Final = 1.5
_STRIP: Final = 256
_SRGB: Final = np.arange(256) / 255
_LINEAR: Final = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4).astype(np.float32)
_BESIDE: Final = (-16, -8, 8, 16)


class SizesDiffer(ValueError):
    """Two pictures that are to be compared differ in size."""

    def __init__(self, picture: tuple[int, ...], reference: tuple[int, ...]) -> None:
        super().__init__(f"the picture is {picture[1]}x{picture[0]}, the reference {reference[1]}x{reference[0]}")
        self.picture = picture
        self.reference = reference


class TooSmall(ValueError):
    """A picture is smaller than the window that it is measured with.

    Attributes:
        limit: pixels that each side needs.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"each side needs at least {limit} pixels")
        self.limit = limit


def psnr(picture: Image, reference: Image) -> float:
    """Peak signal-to-noise ratio in dB over all samples of two 8-bit pictures; infinity where they are equal.

    Raises:
        SizesDiffer: the pictures differ in size.
    """
    _same_size(picture, reference)
    squares = 0
    for rows in _strips(picture.shape[0]):
        difference = cv2.absdiff(picture[rows], reference[rows]).astype(np.uint32)
        squares += int(np.sum(difference * difference, dtype=np.int64))
    return float("inf") if squares == 0 else float(10 * np.log10(255.0**2 * picture.size / squares))


def ssim(picture: Image, reference: Image) -> float:
    """Mean structural similarity, -1..1: Gaussian window 11x11, sigma 1.5, per channel, no sample covariance.

    The mean leaves out the 5-pixel rim whose window leaves the picture, as scikit-image does.

    Raises:
        SizesDiffer: the pictures differ in size.
        TooSmall: a side is below 11 pixels, the window.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 2004.
    """
    _same_size(picture, reference)
    window = 2 * SSIM_RADIUS + 1
    if min(picture.shape[:2]) < window:
        raise TooSmall(window)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def blur(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        blurred = np.asarray(cv2.GaussianBlur(x, (window, window), SSIM_SIGMA), np.float64)
        return blurred[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]

    total, count = 0.0, 0.0
    for rows in _strips(picture.shape[0] - 2 * SSIM_RADIUS):
        around = slice(rows.start, rows.stop + 2 * SSIM_RADIUS)
        x, y = picture[around].astype(np.float64), reference[around].astype(np.float64)
        mean_x, mean_y = blur(x), blur(y)
        covariance = blur(x * y) - mean_x * mean_y
        variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
        similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
            (mean_x**2 + mean_y**2 + c1) * (variances + c2)
        )
        total += float(np.sum(similarity))
        count += similarity.size
    return float(total / count)


def colour_difference(picture: Image, reference: Image) -> float:
    """Mean CIE76 colour difference in CIELAB units (D65): 0 is equal, about 2.3 is just noticeable.

    Raises:
        SizesDiffer: the pictures differ in size.
    """
    _same_size(picture, reference)
    total = 0.0
    for rows in _strips(picture.shape[0]):
        # from linear light: OpenCV's own linearisation goes through a coarse table, and takes five times as long
        one, other = (cv2.cvtColor(_LINEAR[image[rows]], cv2.COLOR_LRGB2LAB) for image in (picture, reference))
        total += float(np.sum(np.sqrt(((one - other) ** 2).sum(axis=2)), dtype=np.float64))
    return float(total / (picture.shape[0] * picture.shape[1]))


def seam_index(source: Image, output: Image, layout: Plan) -> float | None:
    """How visible the tile borders are: mean gradient of (output - source) across them over that beside them.

    Beside is 8 and 16 pixels away. Compared with the whole rest of the picture, a picture with few borders is judged
    by what it happens to show there, and one whose tiles start on multiples of 8 by the blocks of its JPEG file:
    on real photos that moved the index by up to 0.2 where no seam was.

    Args:
        source, output: the picture before and after.
        layout: the plan that the output was made with.

    Returns:
        1.0 where the borders can't be told from their surroundings, more where they show, None where the picture has
        no tile border inside it, or did not change beside them.

    Raises:
        SizesDiffer: the pictures differ in size.
    """
    _same_size(output, source)
    at_borders = beside = 0.0
    height, width = source.shape[:2]
    for axis, starts, size in ((0, layout.rows.starts, height), (1, layout.columns.starts, width)):
        # a border lies between pixels b - 1 and b: gradient number b - 1
        borders = {edge - 1 for start in starts for edge in (start, start + TILE) if 0 < edge < size}
        neighbours = {border + away for border in borders for away in _BESIDE if 0 <= border + away < size - 1}
        neighbours -= borders
        if not neighbours:
            continue
        sums = _gradient_sums(source, output, axis)
        at_borders += float(sums[list(borders)].sum())
        # as many as there are borders, so that both axes weigh the same above and below
        beside += float(sums[list(neighbours)].mean()) * len(borders)
    return at_borders / beside if beside else None


def _gradient_sums(source: Image, output: Image, axis: int) -> npt.NDArray[np.float64]:
    """Sum of |d(output - source)| along `axis` for each of its gradient positions."""
    height, width = source.shape[:2]
    sums = np.zeros((height, width)[axis] - 1)
    for rows in _strips(height):
        # with axis 0 a strip needs the row before it
        around = slice(max(rows.start - 1, 0), rows.stop) if axis == 0 else rows
        residual = output[around].astype(np.int16) - source[around]
        gradient = np.abs(np.diff(residual, axis=axis))
        if axis == 0:
            sums[around.start : around.stop - 1] += gradient.sum(axis=(1, 2), dtype=np.int64)
        else:
            sums += gradient.sum(axis=(0, 2), dtype=np.int64)
    return sums


class Sized(Protocol):
    """Anything that knows its height and width in pixels."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


def require_same_size(picture: Sized, reference: Sized) -> None:
    """Check two sizes before anything is decoded.

    Raises:
        SizesDiffer: they differ.
    """
    if (picture.height, picture.width) != (reference.height, reference.width):
        raise SizesDiffer((picture.height, picture.width), (reference.height, reference.width))


def _same_size(picture: Image, reference: Image) -> None:
    if picture.shape != reference.shape:
        raise SizesDiffer(picture.shape, reference.shape)


def _strips(height: int) -> Iterator[slice]:
    return (slice(first, min(first + _STRIP, height)) for first in range(0, height, _STRIP))
