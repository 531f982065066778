"""Random samples of pairs, and batches of them: what one step of a training sees.

A source yields samples; `MixedBatches` mixes sources by share, so that batch number k is always the same.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model_export.pairs import PairPaths, PairsError, PixelArray, Policy, Sample, patch_sample
from service.spec import CONTEXT, TILE
from service.tiling import context_of


@dataclass(frozen=True)
class Strips:
    """Pairs of overlapping tiles of one photo, the second further right; what both show should come out alike.

    Attributes:
        tiles: uint8 (N, 2, 128, 128, 3), RGB.
        contexts: uint8 (N, 32, 32, 3), RGB, the whole photo, turned as the tiles are.
    """

    tiles: PixelArray
    contexts: PixelArray


class Source(Protocol):
    """Something that samples can be drawn from."""

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw one random sample."""
        ...


class PatchPairs:
    """Random samples of patch pairs: flipped, transposed and, under `reflect`, anywhere in the tile.

    With `smallest` a sample is a random part of its pair, as a smaller picture would show it, which keeps a generator
    from learning a few hundred tones by heart.
    """

    def __init__(
        self,
        pairs: Sequence[PairPaths],
        policy: Policy = "reflect",
        smallest: int = TILE,
    ) -> None:
        """Use some pairs.

        Args:
            pairs: at least one.
            policy: see `pairs.Policy`.
            smallest: the shortest side that a part may have, in pixels; pairs with a side no longer are taken whole.
        """
        self._pairs = pairs
        self._policy = policy
        self._smallest = smallest

    def __len__(self) -> int:
        return len(self._pairs)

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a pair, each with equal chance."""
        phone, target = self._pairs[int(rng.integers(len(self._pairs)))].load()
        if min(phone.shape[:2]) > self._smallest:
            phone, target = _part(phone, target, self._smallest, rng)
        top = int(rng.integers(max(TILE - phone.shape[0], 0) + 1))
        left = int(rng.integers(max(TILE - phone.shape[1], 0) + 1))
        return augment(patch_sample(phone, target, self._policy, top, left), rng)


def _part(
    phone: PixelArray, target: PixelArray, smallest: int, rng: np.random.Generator
) -> tuple[PixelArray, PixelArray]:
    whole = np.array(phone.shape[:2])
    height, width = rng.integers(smallest, whole + 1)
    top, left = rng.integers(whole - (height, width) + 1)
    here = np.s_[top : top + height, left : left + width]
    return phone[here], target[here]


class PhotoCrops:
    """Random 128x128 crops of whole photos and their targets.

    With a `grid` the crops start on multiples of 128 from that offset, for targets that were computed tile by tile.
    The context is the whole photo, or, with `lone`, the crop itself, as for a picture that is one tile.
    Decoded photos are kept, the last used first out, up to `cache_bytes`.
    """

    def __init__(
        self,
        pairs: Sequence[PairPaths],
        grid: int | None = None,
        lone: bool = False,
        cache_bytes: int = 4 << 30,
    ) -> None:
        self._pairs = pairs
        self._grid = grid
        self._lone = lone
        self._cache: OrderedDict[int, tuple[PixelArray, PixelArray, PixelArray]] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._held = 0

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a crop: each photo with equal chance, then each place in it."""
        phone, target, context = self._photo(int(rng.integers(len(self._pairs))))
        top, left = (self._start(size, rng) for size in phone.shape[:2])
        here = np.s_[top : top + TILE, left : left + TILE]
        tile = phone[here]
        sample = Sample(
            tile, target[here], np.ones((TILE, TILE), np.float32), context_of(tile) if self._lone else context
        )
        return augment(sample, rng)

    @property
    def offers_strips(self) -> bool:
        """Whether tiles may start anywhere and are shown with their photo, so that neighbours can be compared."""
        return self._grid is None and not self._lone

    def draw_strip(self, rng: np.random.Generator, shift: int) -> tuple[PixelArray, PixelArray]:
        """Draw two tiles of one photo, `shift` columns apart, turned by one of the square's eight symmetries.

        Returns:
            The tiles, uint8 (2, 128, 128, 3), and the photo's context, uint8 (32, 32, 3), turned alike.

        Raises:
            PairsError: a photo can't be read or is too small.
        """
        index = int(rng.integers(len(self._pairs)))
        phone, _, context = self._photo(index)
        if min(phone.shape[:2]) < TILE + shift:
            raise PairsError(f"{self._pairs[index].phone} is smaller than a strip of {TILE + shift}x{TILE}")
        # the photo is turned and not the strip, so that `shift` goes to the right and yet along either of its sides
        phone, context = _turned([phone, context], rng)
        top = int(rng.integers(phone.shape[0] - TILE + 1))
        left = int(rng.integers(phone.shape[1] - TILE - shift + 1))
        strip = phone[top : top + TILE, left : left + TILE + shift]
        return np.stack([strip[:, :TILE], strip[:, shift:]]), context

    def _start(self, size: int, rng: np.random.Generator) -> int:
        if self._grid is None:
            return int(rng.integers(size - TILE + 1))
        return self._grid + TILE * int(rng.integers((size - self._grid) // TILE))

    def _photo(self, index: int) -> tuple[PixelArray, PixelArray, PixelArray]:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        phone, target = self._pairs[index].load()
        if min(phone.shape[:2]) < TILE + (self._grid or 0):
            raise PairsError(f"{self._pairs[index].phone} is smaller than a {TILE}x{TILE} crop")
        entry = (phone, target, context_of(phone))
        self._cache[index] = entry
        self._held += phone.nbytes + target.nbytes
        while self._held > self._cache_bytes and len(self._cache) > 1:
            _, (old_phone, old_target, _) = self._cache.popitem(last=False)
            self._held -= old_phone.nbytes + old_target.nbytes
        return entry


def augment(sample: Sample, rng: np.random.Generator) -> Sample:
    """Flip and transpose a sample, its context with it: the eight symmetries of the square with equal chance."""
    return Sample(*_turned(list(_arrays(sample)), rng))


def _turned(parts: list[Any], rng: np.random.Generator) -> list[Any]:
    if rng.random() < 0.5:
        parts = [part[::-1] for part in parts]
    if rng.random() < 0.5:
        parts = [part[:, ::-1] for part in parts]
    if rng.random() < 0.5:
        parts = [part.swapaxes(0, 1) for part in parts]
    return parts


class MixedBatches:
    """Batches drawn from several sources by share.

    What lies at place i of batch number k depends on the seed, k and i alone: a resumed run sees exactly the batches
    that it would have seen, and each of several processes can draw its own places of a batch without the others'.
    """

    def __init__(self, sources: Sequence[Source], shares: Sequence[float], batch: int, seed: int) -> None:
        if len(sources) != len(shares) or not sources or min(shares) <= 0:
            raise ValueError("each source needs a share above 0")
        self._sources = sources
        # batch places by share: the sample at place i comes from the source whose slice of 0..1 holds (i + 0.5) / batch
        edges = np.cumsum(shares) / np.sum(shares)
        self._places = np.searchsorted(edges, (np.arange(batch) + 0.5) / batch)
        self._seed = seed
        self._photos = [
            (source, share)
            for source, share in zip(sources, shares, strict=True)
            if isinstance(source, PhotoCrops) and source.offers_strips
        ]

    @property
    def epoch(self) -> int:
        """Batches that draw as many samples as there are pairs.

        Raises:
            PairsError: there are several sources, or crops of photos, of which there is no such number.
        """
        if len(self._sources) != 1 or not isinstance(self._sources[0], PatchPairs):
            raise PairsError("only a single source of patch pairs has epochs")
        return -(-len(self._sources[0]) // len(self._places))

    def __getitem__(self, number: int) -> Sample:
        """Return batch `number` (0, 1, ...) as one Sample whose arrays have a leading batch dimension."""
        return self.part(number, 0, 1)

    def part(self, number: int, first: int, every: int) -> Sample:
        """Return the places first, first + every, ... of batch `number`, at least one."""
        samples = [
            self._sources[self._places[place]].draw(np.random.default_rng([self._seed, number, place]))
            for place in range(first, len(self._places), every)
        ]
        return Sample(*(np.stack(arrays) for arrays in zip(*map(_arrays, samples), strict=True)))

    def strips(self, number: int, count: int, shift: int, first: int = 0, every: int = 1) -> Strips:
        """Return the places first, first + every, ... of the `count` strips that go with batch `number`; maybe none.

        Raises:
            PairsError: no source offers strips, or a photo can't be read or is too small.
        """
        if not self._photos:
            raise PairsError("strips need a source of whole photos, neither lone nor on a grid")
        edges = np.cumsum([share for _, share in self._photos])
        tiles, contexts = [], []
        for place in range(first, count, every):
            # the last number keeps these draws apart from the batch's own
            rng = np.random.default_rng([self._seed, number, place, 1])
            source, _ = self._photos[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))]
            pair, context = source.draw_strip(rng, shift)
            tiles.append(pair)
            contexts.append(context)
        if not tiles:
            return Strips(np.empty((0, 2, TILE, TILE, 3), np.uint8), np.empty((0, CONTEXT, CONTEXT, 3), np.uint8))
        return Strips(np.stack(tiles), np.stack(contexts))


def _arrays(sample: Sample) -> tuple[npt.NDArray[np.generic], ...]:
    return sample.tile, sample.target, sample.mask, sample.context
