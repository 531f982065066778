"""Registers a reference with a picture of the same scene, by SIFT matches and a RANSAC homography. Pure.

Source: Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004; Fischler and Bolles, "Random
Sample Consensus", CACM 1981. OpenCV does both.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Homography = npt.NDArray[np.float64]

MIN_INLIERS: Final = 16
"""Matches that must agree on one homography; chance matches of unrelated photos reach about half of that."""
_MATCHED_SIDE: Final = 1600
"""Longer side in pixels of the pictures that SIFT sees: more takes seconds and moves no corner by a pixel."""


class NotAligned(Exception):
    """Two pictures show no common scene.

    Attributes:
        inliers: how many matches agree on a homography.
        needed: how many had to.
    """

    def __init__(self, inliers: int, needed: int = MIN_INLIERS) -> None:
        super().__init__(f"{inliers} matches agree, {needed} are needed")
        self.inliers = inliers
        self.needed = needed


class BarelyOverlaps(NotAligned):
    """Two pictures match, and share only a sliver, or one of them is turned or mirrored."""

    def __str__(self) -> str:
        return f"{self.inliers} matches agree, on a sliver, a turn or a reflection"


@dataclass(frozen=True)
class Aligned:
    """A reference laid over a picture.

    Attributes:
        reference: uint8 (h, w, 3), the warped reference where it covers the picture.
        top, left: where in the picture it lies, so that `picture[top:top + h, left:left + w]` matches it.
        inliers: how many matches agree.
    """

    reference: Image
    top: int
    left: int
    inliers: int


def align(picture: Image, reference: Image) -> Aligned:
    """Warp a reference onto a picture and cut it to the part that both show.

    Args:
        picture: uint8 (H, W, 3), RGB.
        reference: uint8 (any height, any width, 3), RGB, of the same scene.

    Raises:
        NotAligned: too few matches agree.
        BarelyOverlaps: they agree on a sliver, or on a turn or a reflection.
    """
    full, inliers = homography(picture, reference)
    height, width = picture.shape[:2]
    warped = cv2.warpPerspective(reference, full, (width, height), flags=cv2.INTER_CUBIC)
    top, left, bottom, right = common_part(full, (height, width), (reference.shape[0], reference.shape[1]))
    if min(right - left, bottom - top) < min(height, width) / 4:
        raise BarelyOverlaps(inliers)
    return Aligned(np.asarray(warped, np.uint8)[top:bottom, left:right], top, left, inliers)


def homography(picture: Image, reference: Image) -> tuple[Homography, int]:
    """Find the homography that takes the reference's pixels to the picture's, and count the matches that agree on it.

    Args:
        picture, reference: as `align`.

    Returns:
        float64 (3, 3), from (x, y, 1) in the reference to (x, y, 1) in the picture, both at full size; the inliers.

    Raises:
        NotAligned: too few matches agree.
    """
    points, shrunk = _features(picture)
    reference_points, reference_shrunk = _features(reference)
    found, inliers = _fitted(reference_points, points)
    if found is None or inliers < MIN_INLIERS:
        raise NotAligned(inliers)
    # from shrunk coordinates to the pictures' own
    full = np.diag([1 / shrunk, 1 / shrunk, 1]) @ found @ np.diag([reference_shrunk, reference_shrunk, 1])
    return full, inliers


def common_part(full: Homography, size: tuple[int, int], reference_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Find the upright rectangle of a picture that its reference covers, a rim of one pixel left out.

    Args:
        full: from `homography`.
        size, reference_size: height and width of the picture and of the reference.

    Returns:
        Top, left, bottom and right, the last two exclusive; bottom <= top or right <= left where there is none, as for
        a reference that is turned or mirrored.
    """
    height, width = size
    rows, columns = reference_size
    corners = np.array([[[0, 0]], [[columns, 0]], [[columns, rows]], [[0, rows]]], np.float64)
    upper_left, upper_right, lower_right, lower_left = cv2.perspectiveTransform(corners, full)[:, 0]
    left = int(np.ceil(max(upper_left[0], lower_left[0], 0))) + 1
    right = int(min(upper_right[0], lower_right[0], width)) - 1
    top = int(np.ceil(max(upper_left[1], upper_right[1], 0))) + 1
    bottom = int(min(lower_left[1], lower_right[1], height)) - 1
    return top, left, bottom, right


_Features = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def _features(image: Image) -> tuple[_Features, float]:
    """Return SIFT points (n, 2) and descriptors (n, 128) of a shrunk copy, and the factor that it was shrunk by."""
    factor = min(1.0, _MATCHED_SIDE / max(image.shape[:2]))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if factor < 1:
        grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    points, descriptors = cv2.SIFT.create(nfeatures=4000).detectAndCompute(grey, None)
    if descriptors is None:
        return (np.empty((0, 2), np.float32), np.empty((0, 128), np.float32)), factor
    return (np.array([point.pt for point in points], np.float32), np.asarray(descriptors, np.float32)), factor


def _fitted(source: _Features, target: _Features) -> tuple[Homography | None, int]:
    if min(len(source[0]), len(target[0])) < MIN_INLIERS:
        return None, 0
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(source[1], target[1], k=2)
    good = [best for best, second in pairs if best.distance < 0.75 * second.distance]
    if len(good) < 4:
        return None, len(good)
    # RANSAC draws from OpenCV's own generator: the same pictures must align the same way every time
    cv2.setRNGSeed(0)
    found, agree = cv2.findHomography(
        np.array([source[0][match.queryIdx] for match in good]),
        np.array([target[0][match.trainIdx] for match in good]),
        cv2.RANSAC,
        3.0,
    )
    if found is None:
        return None, 0
    return np.asarray(found, np.float64), int(np.count_nonzero(agree))
