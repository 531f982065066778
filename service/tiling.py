"""Tiles: where they lie in a picture, cutting them out, and blending them back without seams. Pure.

Tiles start evenly spread over each axis with at least `overlap` pixels between neighbours. What a tile has outside the
picture is reflect-101 (replicated where the picture is too small to reflect). A tile's window is zero on its outermost
pixels, where the network saw its own zero padding, and a raised cosine across the overlap; the windows of all tiles
sum to one everywhere, per axis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from service.spec import CONTEXT, TILE

Pixels = npt.NDArray[np.uint8 | np.uint16]
Merge = Callable[[int, int, npt.NDArray[np.float32], float, Pixels], None]
"""Takes first and last row, the blended answer for them (rows, W, 3) in 0..1, the strength, and where they go."""


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


def cut_tile(pixels: Pixels, layout: Plan, row: int, column: int, out: npt.NDArray[np.uint8], first: int = 0) -> None:
    """Cut one tile.

    Args:
        pixels: (H, W, 3), uint8 or uint16; 16 bits are rounded to 8.
        layout: the plan for H and W.
        row, column: which tile, from 0.
        out: uint8 (128, 128, 3), where it goes.
        first: `pixels` may be a strip of the picture that holds the tile; this is the strip's first row.
    """
    top, left = layout.rows.starts[row], layout.columns.starts[column]
    height, width = layout.rows.size, layout.columns.size
    inside: Pixels = pixels[max(top, 0) - first : top + TILE - first, max(left, 0) : left + TILE]
    if inside.shape == out.shape:  # all but those at the picture's rim
        out[:] = to_8_bit(inside)
        return
    outside = (max(-top, 0), max(top + TILE - height, 0), max(-left, 0), max(left + TILE - width, 0))
    out[:] = pad_reflect(to_8_bit(inside), *outside)


def cut_row(pixels: Pixels, layout: Plan, row: int) -> npt.NDArray[np.uint8]:
    """Cut one row of tiles to an array of their own, uint8 (tiles in the row, 128, 128, 3); the rest as `cut_tile`."""
    tiles = np.empty((len(layout.columns.starts), TILE, TILE, 3), np.uint8)
    for column, tile in enumerate(tiles):
        cut_tile(pixels, layout, row, column, tile)
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
    """Blends enhanced tiles back into a picture, keeping one strip of its rows in memory.

    What is added to the source's own samples is the blended residual, enhanced - input, so that there is one rounding,
    16-bit sources keep their low bits and `strength` scales it. The windows sum to one, so that of an 8-bit source
    nothing but `1 - strength` of it is left in that sum: one multiplication and addition a sample in all, done by
    OpenCV, which needs a third of the time that the same takes in numpy.
    """

    def __init__(self, source: Pixels, layout: Plan, strength: float = 1.0, merge: Merge | None = None) -> None:
        """Prepare to blend.

        Args:
            source: (H, W, 3), uint8 or uint16.
            layout: the plan for H and W.
            strength: 0 (the source as it is) to 1 (the generator's answer).
            merge: how finished rows go into the source, where the tiles were not cut from its own samples.
        """
        self._source = source
        self._layout = layout
        self._strength = strength
        self._merge = merge
        self._strip = np.zeros((TILE, source.shape[1], 3), np.float32)
        self._row = self._column = 0
        self._weights: dict[tuple[bytes, bytes], npt.NDArray[np.float32]] = {}
        self.output: Pixels = np.empty_like(source)

    def add(self, enhanced: Sequence[npt.NDArray[np.floating]] | npt.NDArray[np.floating]) -> None:
        """Blend the next tiles, from left to right and from top to bottom, any number of one row's.

        With a row's last one the picture's rows that no later tile reaches are finished.

        Args:
            enhanced: each float (128, 128, 3), RGB in 0..1.
        """
        down, columns, width = self._layout.rows.windows[self._row], self._layout.columns, self._source.shape[1]
        for tile in enhanced:
            start = columns.starts[self._column]
            inside = slice(max(-start, 0), min(TILE, width - start))
            weights = self._weights_of(down, columns.windows[self._column])[:, inside]
            there = self._strip[:, start + inside.start : start + inside.stop]
            cv2.accumulateProduct(tile[:, inside].astype(np.float32, copy=False), weights, there)
            self._column += 1
        if self._column == len(columns.starts):
            self._end_row()

    def _end_row(self) -> None:
        rows, height = self._layout.rows, self._source.shape[0]
        top = rows.starts[self._row]
        self._row, self._column = self._row + 1, 0
        finished = rows.starts[self._row] if self._row < len(rows.starts) else height
        self._finish(max(top, 0), min(finished, height), max(top, 0) - top)
        kept = max(TILE - (finished - top), 0)
        self._strip[:kept] = self._strip[TILE - kept :]
        self._strip[kept:] = 0

    def _weights_of(self, down: npt.NDArray[np.float32], across: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # tiles lie evenly, give or take a pixel: a picture of a thousand tiles has a few dozen different windows
        key = down.tobytes(), across.tobytes()
        if key not in self._weights:
            self._weights[key] = np.repeat(np.outer(down, across)[:, :, None], 3, axis=2)
        return self._weights[key]

    def _finish(self, first: int, last: int, offset: int) -> None:
        source: Pixels = self._source[first:last]
        blended = self._strip[offset : offset + last - first]
        output = self.output[first:last]
        if self._merge is not None:
            self._merge(first, last, blended, self._strength, output)
        elif source.dtype == np.uint16:
            residual = blended * np.float32(255) - to_8_bit(source)
            output[:] = np.clip(np.rint(source + residual * np.float32(self._strength * 257)), 0, 65535)
        elif self._strength == 1:
            cv2.convertScaleAbs(blended, output, 255)  # windows and answers are not negative
        else:
            cv2.addWeighted(source, 1 - self._strength, blended, self._strength * 255, 0, output, cv2.CV_8U)
