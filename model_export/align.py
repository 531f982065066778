"""Patch pairs out of two cameras' photos of one scene, as DPED's were made.

The DSLR's photo is laid over the phone's by a homography, both are cut to what they share, and the phone's is cut into
patches that don't overlap. A DSLR patch may lie a few pixels off, as no homography undoes lenses and parallax: it is
taken where it correlates best, and the pair is dropped where that is not enough. The phone's pixels stay as they are;
the DSLR's are brought to their scale. Pure; `patch_files` reads and writes.

Source: Ignatov et al., "DSLR-Quality Photos on Mobile Devices with Deep Convolutional Networks", ICCV 2017, section 2.
"""

from dataclasses import dataclass
from itertools import product
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from service import alignment
from service.alignment import BarelyOverlaps, Homography

PixelArray = npt.NDArray[np.uint8]

PATCH: Final = 100
"""Side of a patch in pixels, DPED's."""
MIN_CORRELATION: Final = 0.9
"""Normalised cross-correlation that a pair must exceed, DPED's."""
REACH: Final = 5
"""Rows and columns, either way, that a DSLR patch may lie from where the homography puts it."""
_AS_GOOD: Final = 0.002
"""Correlations this far below the best count as equal to it, and of equals the nearest shift is taken: along an edge or
in a haze it is noise that makes one the best."""
_SPOTS: Final = 500
_SPOT: Final = 24
"""The fit is refined on up to so many squares of 2 * 24 + 1 pixels, around corners of the phone's photo."""
_REACHES: Final = (12, 3)
"""Pixels that a spot is looked for, either way: first for what matches of shrunk photos leave, then for the rest."""


@dataclass(frozen=True)
class Patch:
    """One patch as both cameras saw it.

    Attributes:
        phone, dslr: uint8 (100, 100, 3), RGB.
        row, column: where its upper left corner lies in the phone's photo.
        correlation: normalised cross-correlation of the two in grey, above 0.9.
    """

    phone: PixelArray
    dslr: PixelArray
    row: int
    column: int
    correlation: float


@dataclass(frozen=True)
class Cut:
    """What two photos gave.

    Attributes:
        patches: top to bottom, left to right.
        dropped: how many more correlate too little, or do only where no patch beside them does.
        inliers: how many matches agree on the homography.
    """

    patches: tuple[Patch, ...]
    dropped: int
    inliers: int


def patch_pairs(phone: PixelArray, dslr: PixelArray) -> Cut:
    """Cut two photos of one scene into pairs of patches.

    Args:
        phone, dslr: uint8 (any height, any width, 3), RGB.

    Raises:
        NotAligned: too few matches agree.
        BarelyOverlaps: what the photos share has no room for a patch.
    """
    found, inliers = homography(phone, dslr)
    top, left, bottom, right = box = common_part(found, phone, dslr, inliers)
    laid = _laid(dslr, found, phone)
    grey, laid_grey = _grey(phone), _grey(laid)
    toned = _toned(laid_grey, grey, box)
    rows = range(top + REACH, bottom - REACH - PATCH + 1, PATCH)
    columns = range(left + REACH, right - REACH - PATCH + 1, PATCH)
    found_at: dict[tuple[int, int], Patch] = {}
    shifts: dict[tuple[int, int], tuple[int, int]] = {}
    for place in product(range(len(rows)), range(len(columns))):
        row, column = rows[place[0]], columns[place[1]]
        here = _square(row, column)
        shift = _shift(grey[here], toned[_square(row - REACH, column - REACH, PATCH + 2 * REACH)])
        there = _square(row + shift[0], column + shift[1])
        score = correlation(grey[here], laid_grey[there])
        if score > MIN_CORRELATION:
            found_at[place] = Patch(phone[here], laid[there], row, column, score)
            shifts[place] = shift
    patches = tuple(patch for place, patch in found_at.items() if _plausible(place, shifts))
    return Cut(patches, len(rows) * len(columns) - len(patches), inliers)


def homography(phone: PixelArray, dslr: PixelArray) -> tuple[Homography, int]:
    """Find where the DSLR's pixels lie in the phone's photo, to a part of a pixel.

    SIFT matches of shrunk photos come first. What they leave, pixels in the corners of large photos, is measured by
    correlation around corners all over the photo laid in full, and fitted again.

    Args:
        phone, dslr: as `patch_pairs`.

    Returns:
        float64 (3, 3), from (x, y, 1) in the DSLR's photo to (x, y, 1) in the phone's, and how many matches agree.

    Raises:
        NotAligned, BarelyOverlaps: as `patch_pairs`.
    """
    found, inliers = alignment.homography(phone, dslr)
    grey, dslr_grey = _grey(phone), _grey(dslr)
    for reach in _REACHES:
        box = common_part(found, phone, dslr, inliers)
        correction = _correction(grey, _toned(_laid(dslr_grey, found, phone), grey, box), box, reach)
        if correction is None:
            break
        found = correction @ found
    return found, inliers


def common_part(found: Homography, phone: PixelArray, dslr: PixelArray, inliers: int) -> tuple[int, int, int, int]:
    """Find the upright rectangle of the phone's photo that the DSLR's covers.

    Args:
        found, inliers: from `homography`.
        phone, dslr: as `patch_pairs`.

    Returns:
        Top, left, bottom and right in pixels, the last two exclusive.

    Raises:
        BarelyOverlaps: it has no room for a patch and its shifts.
    """
    top, left, bottom, right = alignment.common_part(found, _size(phone), _size(dslr))
    if min(bottom - top, right - left) < PATCH + 2 * REACH:
        raise BarelyOverlaps(inliers)
    return top, left, bottom, right


def correlation(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> float:
    """Normalised cross-correlation of two equally shaped arrays, from -1 to 1; 0 where one of them is flat."""
    # OpenCV's calls a flat template a perfect match of anything: a burnt-out sky would pair with all that lies under it
    first, second = (array.astype(np.float64) - array.mean() for array in (one, other))
    power = float(np.sqrt(np.square(first).sum() * np.square(second).sum()))
    return float((first * second).sum()) / power if power > 0 else 0.0


def _size(picture: npt.NDArray[np.uint8]) -> tuple[int, int]:
    return picture.shape[0], picture.shape[1]


def _square(row: int, column: int, side: int = PATCH) -> tuple[slice, slice]:
    return slice(row, row + side), slice(column, column + side)


def _grey(picture: PixelArray) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


def _laid(dslr: PixelArray, found: Homography, phone: PixelArray) -> PixelArray:
    """Lay the DSLR's photo, RGB or grey, over the phone's; black where it does not reach."""
    height, width = _size(dslr)
    # the scale in the middle: the square root of how much of the phone's photo a pixel of the DSLR's covers
    depth = found[2] @ [width / 2, height / 2, 1]
    scale = float(np.sqrt(abs(np.linalg.det(found) / depth**3)))
    if scale < 1:
        # a warp looks at the nearest pixels alone: where it shrinks, fine detail would turn into a false pattern
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        dslr = np.asarray(cv2.resize(dslr, small, interpolation=cv2.INTER_AREA), np.uint8)
        # the pictures' edges coincide, not the middles of their first pixels
        by, down = width / small[0], height / small[1]
        found = found @ np.array([[by, 0, (by - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
    return np.asarray(cv2.warpPerspective(dslr, found, _size(phone)[::-1], flags=cv2.INTER_CUBIC), np.uint8)


def _toned(
    laid: npt.NDArray[np.uint8], grey: npt.NDArray[np.uint8], box: tuple[int, int, int, int]
) -> npt.NDArray[np.uint8]:
    """Give a laid photo in grey the phone's tones, by their histograms in the common part.

    Another tone curve moves the middle of a blurred edge, and correlation follows the middle: with the phone's tones
    the corners of warped photos came to lie within 0.6 pixels, without them within 1.1.
    """
    top, left, bottom, right = box
    here, there = (
        np.cumsum(np.bincount(picture[top:bottom, left:right].ravel(), minlength=256)) for picture in (grey, laid)
    )
    curve = np.interp(there, here, np.arange(256)).round().astype(np.uint8)
    return np.asarray(curve[laid], np.uint8)


def _shift(patch: npt.NDArray[np.uint8], around: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Find where a patch correlates best with what lies around its place: the rows and columns from there."""
    scores = cv2.matchTemplate(around, patch, cv2.TM_CCOEFF_NORMED)
    rows, columns = np.nonzero(scores >= scores.max() - _AS_GOOD)
    nearest = np.argmin((rows - REACH) ** 2 + (columns - REACH) ** 2)
    return int(rows[nearest]) - REACH, int(columns[nearest]) - REACH


def _plausible(place: tuple[int, int], shifts: dict[tuple[int, int], tuple[int, int]]) -> bool:
    """Tell whether a patch moved as those around it did, to a pixel.

    Lenses and parallax move a whole region. A patch that moved alone slid along an edge, where another tone curve made
    that correlate better: about one in 1,000 of warped and tinted photos did, by up to 5 pixels.
    """
    row, column = place
    around = [
        shifts[near] for near in product(range(row - 2, row + 3), range(column - 2, column + 3)) if near in shifts
    ]
    around.remove(shifts[place])
    # the homography, by which none moves, has a vote too: where there are no others it decides
    usual = np.median([*around, (0, 0)], axis=0)
    return bool(np.abs(usual - shifts[place]).max() <= 1)


def _correction(
    grey: npt.NDArray[np.uint8], laid: npt.NDArray[np.uint8], box: tuple[int, int, int, int], reach: int
) -> Homography | None:
    """Fit the homography that takes a laid photo to where it should lie; None where too few spots tell."""
    top, left, bottom, right = box
    rim = _SPOT + reach
    inner = grey[top + rim : bottom - rim, left + rim : right - rim]
    # spread over the whole: the strongest corners alone may all lie on one bush
    apart = np.sqrt(inner.size / _SPOTS)
    corners = cv2.goodFeaturesToTrack(inner, _SPOTS, qualityLevel=0.01, minDistance=apart)
    if corners is None:
        return None
    here, there = [], []
    for x, y in np.rint(corners[:, 0] + (left + rim, top + rim)).astype(int):
        spot = grey[_square(y - _SPOT, x - _SPOT, 2 * _SPOT + 1)]
        around = laid[_square(y - rim, x - rim, 2 * rim + 1)]
        scores = cv2.matchTemplate(around, spot, cv2.TM_CCOEFF_NORMED)
        row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        # a best score on the rim may rise further outside
        if scores[row, column] > 0.8 and 0 < row < 2 * reach and 0 < column < 2 * reach:
            here.append((x, y))
            there.append(
                (
                    x - reach + column + _peak(scores[row, column - 1 : column + 2]),
                    y - reach + row + _peak(scores[row - 1 : row + 2, column]),
                )
            )
    if len(here) < alignment.MIN_INLIERS:
        return None
    fitted, _ = cv2.findHomography(np.array(there, np.float64), np.array(here, np.float64), cv2.RANSAC, 2.0)
    return None if fitted is None else np.asarray(fitted, np.float64)


def _peak(scores: npt.NDArray[np.generic]) -> float:
    """Find the top of the parabola through three scores, from -0.5 to 0.5 pixels from the middle one, the greatest."""
    before, best, after = scores.astype(np.float64)
    bend = before - 2 * best + after
    return float((before - after) / (2 * bend)) if bend < 0 else 0.0
