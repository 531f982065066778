"""What the network sees of a picture, and how its answer goes into the picture's own colours.

The network sees opaque sRGB in 8 bits. What it changes there is carried over to the picture's space and added to the
picture's own samples, so that colours outside sRGB, low bits and all that it left alone stay as they came. Everything
is done in strips: nothing here grows with the picture's area but a map of 1/64 of its pixels, for pictures with clear
parts.
"""

import cv2
import numpy as np
import numpy.typing as npt

from service.codec import Picture
from service.colour import STRIP, rounded, space_of
from service.tiling import context_of

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Samples = npt.NDArray[np.uint8 | np.uint16]

_BLOCK = 8
"""Pixels along a side of what is one pixel of the map of colours under clear parts."""
_ROWS = 8
"""Rows that are merged at a time: few enough for the processor's cache."""
_NOISE = np.float32(2e-3)
"""Levels of 8 bits: blending the very same tiles rounds by less."""


class View:
    """One picture as the network sees it."""

    def __init__(self, picture: Picture) -> None:
        """Look at a picture, which is kept and not changed."""
        header = picture.header
        self._pixels = picture.pixels
        self._alpha = picture.alpha
        self._space = space_of(header.icc_profile, grey=header.grey)
        self._clear = picture.alpha is not None and not picture.alpha.all()
        self._bled = self._bleed(picture.alpha) if self._clear and picture.alpha is not None else None

    @property
    def plain(self) -> bool:
        """Whether the network sees the picture's own samples, rounded to 8 bits at most."""
        return self._space is None and not self._clear

    def rows(self, first: int, last: int) -> npt.NDArray[np.uint8 | np.uint16]:
        """Return rows (last - first, W, 3) in sRGB; of a plain picture its own samples, which may have 16 bits."""
        last = min(last, self._pixels.shape[0])
        pixels = self._pixels[first:last]
        if self.plain:
            return pixels
        seen = rounded(pixels) if self._space is None else self._space.to_srgb(pixels)
        if self._bled is not None and self._alpha is not None:
            clear = self._alpha[first:last] == 0
            if clear.any():
                seen = np.where(clear[:, :, None], self._under(self._bled, first, last), seen)
        return seen

    def context(self) -> Bytes:
        """Return the whole picture as the generator's context, uint8 (32, 32, 3)."""
        if self._bled is not None:
            return context_of(self._bled)
        small = context_of(self._pixels)
        return small if self._space is None else self._space.to_srgb(small)

    def merge(self, first: int, last: int, blended: Floats, strength: float, output: Samples) -> None:
        """Add what the network changed to the picture's own samples.

        Args:
            first, last: the rows.
            blended: the network's answer for them, float32 (last - first, W, 3), sRGB in 0..1.
            strength: 0 (the source as it is) to 1 (the answer).
            output: where the rows go, of the picture's dtype.
        """
        for top in range(0, last - first, _ROWS):
            here = slice(top, min(top + _ROWS, last - first))
            self._merge(first + here.start, first + here.stop, blended[here], strength, output[here])

    def _merge(self, first: int, last: int, blended: Floats, strength: float, output: Samples) -> None:
        source: Samples = self._pixels[first:last]
        deep = source.dtype == np.uint16
        seen = rounded(self.rows(first, last)).astype(np.float32)
        answer = blended * np.float32(255)
        if deep:  # 8 bits are too coarse to show it
            np.copyto(answer, seen, where=np.abs(answer - seen) < _NOISE)
        most = 65_535 if deep else 255
        if self._space is None:
            scale = strength * most / 255
        else:
            answer, seen, scale = self._space.from_srgb(answer), self._space.from_srgb(seen), strength * most
        residual = cv2.addWeighted(answer, scale, seen, -scale, 0)
        cv2.add(residual, source, dst=output, dtype=cv2.CV_16U if deep else cv2.CV_8U)  # rounds and clips
        if self._alpha is not None:
            np.copyto(output, source, where=(self._alpha[first:last] == 0)[:, :, None])

    def _bleed(self, alpha: npt.NDArray[np.uint8 | np.uint16]) -> Bytes | None:
        """Spread the visible colours under the clear parts: the mean of each block, or of ever larger ones around it.

        Returns:
            sRGB, uint8, of 1/8 of the sides; None where nothing is visible.
        """
        if not alpha.any():
            return None
        most = np.float32(np.iinfo(alpha.dtype).max)
        blocks = []
        for top in range(0, len(alpha), STRIP):
            pixels, share = self._pixels[top : top + STRIP], alpha[top : top + STRIP].astype(np.float32) / most
            seen = rounded(pixels) if self._space is None else self._space.to_srgb(pixels)
            blocks.append(_halved(np.dstack([seen * share[:, :, None], share]), _BLOCK))
        levels = [np.concatenate(blocks)]
        while max(levels[-1].shape[:2]) > 1:
            levels.append(_halved(levels[-1], 2))
        colours: Floats | None = None
        for sums in reversed(levels):
            weight = sums[:, :, 3:]
            own = sums[:, :, :3] / np.maximum(weight, np.float32(1e-9))
            if colours is not None:
                around = cv2.resize(colours, (sums.shape[1], sums.shape[0]), interpolation=cv2.INTER_LINEAR)
                own = np.where(weight > 0, own, around)
            colours = own.astype(np.float32, copy=False)
        assert colours is not None
        return np.rint(np.clip(colours, 0, 255)).astype(np.uint8)

    def _under(self, bled: Bytes, first: int, last: int) -> Bytes:
        """Return rows of the map at the picture's own size."""
        low, high = max(first // _BLOCK - 1, 0), min(-(-last // _BLOCK) + 1, bled.shape[0])
        band = bled[low:high]
        large = cv2.resize(band, (band.shape[1] * _BLOCK, band.shape[0] * _BLOCK), interpolation=cv2.INTER_LINEAR)
        return np.asarray(large[first - low * _BLOCK : last - low * _BLOCK, : self._pixels.shape[1]], np.uint8)


def _halved(sums: Floats, by: int) -> Floats:
    """Average blocks of `by` x `by` pixels of (H, W, 4), with nothing outside the picture."""
    height, width = (-(-side // by) for side in sums.shape[:2])
    bottom, right = height * by - sums.shape[0], width * by - sums.shape[1]
    padded = cv2.copyMakeBorder(sums, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    return np.asarray(cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA), np.float32)
