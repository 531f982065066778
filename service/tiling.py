"""Tiles: where they lie in a picture, cutting them out, and blending them back without seams. Pure.

Tiles start evenly spread over each axis with at least `overlap` pixels between neighbours. What a tile has outside the
picture is reflect-101 (replicated where the picture is too small to reflect). A tile's window is zero on its outermost
pixels, where the network saw its own zero padding, and a raised cosine across the overlap; the windows of all tiles
sum to one everywhere, per axis.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from service.spec import CONTEXT, TILE

Pixels = npt.NDArray[np.uint8 | np.uint16]


@dataclass(frozen=True)
class Axis:
    """How the tiles lie along one axis of `size` pixels.

    Attributes:
        size: pixels of the picture along this axis, at least 1.
        overlap: pixels that neighbouring tiles share at least.
        starts: first pixel of each tile, ascending; may be negative, and a tile may end outside the picture.
        windows: float32 (tiles, 128): each tile's weights, which sum to one at every pixel of the picture and are
            zero outside it.
    """

    size: int
    overlap: int

    @cached_property
    def starts(self) -> tuple[int, ...]:
        if self.size <= TILE:
            return (-((TILE - self.size) // 2),)
        stride = TILE - self.overlap
        count = -(-(self.size - self.overlap) // stride)
        # what the last tile has to spare is used to keep the picture's rim off the tiles' rim; it costs no tile
        spare = count * stride + self.overlap - self.size
        outside = min(self.rim, spare // 2)
        return tuple(int(x) for x in np.rint(np.linspace(-outside, self.size - TILE + outside, count)))

    @property
    def rim(self) -> int:
        """Pixels at a tile's inner borders whose weight is zero."""
        return self.overlap // 8

    @cached_property
    def windows(self) -> npt.NDArray[np.float32]:
        positions = np.arange(TILE)
        ramp_length = max(self.overlap - 2 * self.rim, 1)
        fall = 0.5 - 0.5 * np.cos(np.pi * np.clip((positions - self.rim + 0.5) / ramp_length, 0, 1))
        flat = np.ones(TILE)
        last = len(self.starts) - 1
        windows = np.empty((last + 1, TILE))
        total = np.zeros(self.size)
        for i, start in enumerate(self.starts):
            # the picture's own borders have no neighbour to blend with
            windows[i] = (fall if i > 0 else flat) * (fall[::-1] if i < last else flat)
            inside = positions[max(-start, 0) : self.size - start]
            windows[i, : inside[0]] = 0
            windows[i, inside[-1] + 1 :] = 0
            total[start + inside] += windows[i, inside]
        for i, start in enumerate(self.starts):
            inside = positions[max(-start, 0) : self.size - start]
            windows[i, inside] /= total[start + inside]
        return windows.astype(np.float32)


@dataclass(frozen=True)
class Plan:
    """Where the tiles of one picture lie.

    Attributes:
        rows: the vertical axis.
        columns: the horizontal axis.
    """

    rows: Axis
    columns: Axis

    @property
    def tiles(self) -> int:
        """How many tiles the picture has."""
        return len(self.rows.starts) * len(self.columns.starts)


def plan(height: int, width: int, overlap: int = 32) -> Plan:
    """Lay tiles over a picture.

    Args:
        height, width: the picture's size in pixels, at least 1x1.
        overlap: pixels that neighbouring tiles share at least, 0 to 64.

    Raises:
        ValueError: a size below 1, or an overlap outside 0 to 64.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {width}x{height} has no pixels")
    if not 0 <= overlap <= TILE // 2:
        raise ValueError(f"an overlap of {overlap} is not within 0 to {TILE // 2}")
    return Plan(Axis(height, overlap), Axis(width, overlap))


def cut_row(pixels: Pixels, layout: Plan, row: int) -> npt.NDArray[np.uint8]:
    """Cut one row of tiles.

    Args:
        pixels: (H, W, 3), uint8 or uint16; 16 bits are rounded to 8.
        layout: the plan for H and W.
        row: which row of tiles, from 0.

    Returns:
        uint8 (tiles in the row, 128, 128, 3).
    """
    top = layout.rows.starts[row]
    source: Pixels = pixels[max(top, 0) : top + TILE]
    strip = to_8_bit(source)
    left, right = layout.columns.starts[0], layout.columns.starts[-1] + TILE
    strip = pad_reflect(
        strip,
        max(-top, 0),
        max(top + TILE - pixels.shape[0], 0),
        max(-left, 0),
        max(right - pixels.shape[1], 0),
    )
    tiles = np.empty((len(layout.columns.starts), TILE, TILE, 3), np.uint8)
    for i, start in enumerate(layout.columns.starts):
        tiles[i] = strip[:, start - min(left, 0) : start - min(left, 0) + TILE]
    return tiles


def to_8_bit(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Round 16-bit samples to the nearest of 8 bits (65535 -> 255); 8-bit ones pass as they are."""
    if pixels.dtype == np.uint8:
        return pixels  # type: ignore[return-value]
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def pad_reflect(pixels: npt.NDArray[np.uint8], top: int, bottom: int, left: int, right: int) -> npt.NDArray[np.uint8]:
    """Pad (H, W, 3) by reflect-101, or by replication along an axis that is too short to reflect that far."""
    if top or bottom:
        pixels = _pad(pixels, top, bottom, 0, 0, reflect=max(top, bottom) < pixels.shape[0])
    if left or right:
        pixels = _pad(pixels, 0, 0, left, right, reflect=max(left, right) < pixels.shape[1])
    return pixels


def _pad(
    pixels: npt.NDArray[np.uint8], top: int, bottom: int, left: int, right: int, *, reflect: bool
) -> npt.NDArray[np.uint8]:
    border = cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_REPLICATE
    return np.asarray(cv2.copyMakeBorder(pixels, top, bottom, left, right, border), np.uint8)


def context_of(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Shrink a whole upright picture (H, W, 3) to the generator's context, uint8 (32, 32, 3), by area averaging."""
    small = cv2.resize(pixels, (CONTEXT, CONTEXT), interpolation=cv2.INTER_AREA)
    return to_8_bit(np.asarray(small, pixels.dtype))


class Blender:
    """Blends rows of enhanced tiles back into a picture, keeping one strip of tiles in memory.

    What is blended is the residual, enhanced - input: it is added once to the source's own samples, so that there is
    one rounding, 16-bit sources keep their low bits and `strength` scales it.
    """

    def __init__(self, source: Pixels, layout: Plan, strength: float = 1.0) -> None:
        """Prepare to blend.

        Args:
            source: (H, W, 3), uint8 or uint16.
            layout: the plan for H and W.
            strength: 0 (the source as it is) to 1 (the generator's answer).
        """
        self._source = source
        self._layout = layout
        self._strength = strength
        self._strip = np.zeros((TILE, source.shape[1], 3), np.float32)
        self._row = 0
        self.output: Pixels = np.empty_like(source)

    def add_row(self, enhanced: npt.NDArray[np.floating]) -> None:
        """Blend the next row of tiles, top to bottom, and finish the picture's rows that no later tile reaches.

        Args:
            enhanced: float (tiles in the row, 128, 128, 3), RGB in 0..1.
        """
        rows, columns = self._layout.rows, self._layout.columns
        height, width = self._source.shape[:2]
        top = rows.starts[self._row]
        down = rows.windows[self._row][:, None, None] * np.float32(255)
        for start, across, tile in zip(columns.starts, columns.windows, enhanced, strict=True):
            inside = slice(max(-start, 0), min(TILE, width - start))
            weight = down * across[None, inside, None]
            self._strip[:, start + inside.start : start + inside.stop] += tile[:, inside] * weight
        self._row += 1
        finished = rows.starts[self._row] if self._row < len(rows.starts) else height
        self._finish(max(top, 0), min(finished, height), max(top, 0) - top)
        shift = min(finished - top, TILE)
        self._strip[: TILE - shift] = self._strip[shift:]
        self._strip[TILE - shift :] = 0

    def _finish(self, first: int, last: int, offset: int) -> None:
        source: Pixels = self._source[first:last]
        residual = self._strip[offset : offset + last - first]
        np.subtract(residual, to_8_bit(source), out=residual)
        unit = 1.0 if source.dtype == np.uint8 else 257.0
        residual *= np.float32(self._strength * unit)
        residual += source
        np.rint(residual, out=residual)
        np.clip(residual, 0, np.iinfo(source.dtype).max, out=residual)
        self.output[first:last] = residual
