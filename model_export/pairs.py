"""Aligned pairs of pictures: DPED's own layout, any two folders, whole photos with targets.

Everything that a generator learns from is a `Sample`: one 128x128 tile, what it should become, where the loss counts
and the context that the service would give it. A source yields samples; `MixedBatches` mixes sources.

Policy for the data set's 100x100 patches: `reflect` (default) pads them to 128x128 by reflect-101 and masks the loss
to the 100x100, which keeps the scale of the detail and is exactly what the service does with a picture of that size.
`resize` enlarges both halves to 128x128, as the paper project did.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from service.spec import CONTEXT, TILE
from service.tiling import context_of, pad_reflect

Policy = Literal["reflect", "resize"]
PixelArray = npt.NDArray[np.uint8]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


class PairsError(Exception):
    """The pairs on disk can't be trained on; the message names the file or folder."""


@dataclass(frozen=True)
class Sample:
    """One tile to learn from.

    Attributes:
        tile: uint8 (128, 128, 3), RGB, what the generator sees.
        target: uint8 (128, 128, 3), RGB, what it should answer.
        mask: float32 (128, 128), 1 where the loss counts, 0 on padding.
        context: uint8 (32, 32, 3), RGB, the whole picture that the tile comes from.
    """

    tile: PixelArray
    target: PixelArray
    mask: npt.NDArray[np.float32]
    context: PixelArray


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


@dataclass(frozen=True)
class PairPaths:
    """One aligned pair on disk: the phone's picture and the picture that it should become."""

    phone: Path
    target: Path

    def load(self) -> tuple[PixelArray, PixelArray]:
        """Read both halves as uint8 (H, W, 3) RGB of equal size.

        Raises:
            PairsError: a half can't be read, or the halves differ in size.
        """
        phone, target = read_rgb(self.phone), read_rgb(self.target)
        if phone.shape != target.shape:
            raise PairsError(
                f"{self.phone} is {phone.shape[1]}x{phone.shape[0]} and its target {self.target} is "
                f"{target.shape[1]}x{target.shape[0]}: the halves of a pair must have one size"
            )
        return phone, target


def read_rgb(path: Path) -> PixelArray:
    """Read a picture as uint8 (H, W, 3) RGB, upright.

    Raises:
        PairsError: the file is missing or is no picture.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise PairsError(f"{path} can't be read: {error.strerror}") from error
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise PairsError(f"{path} is no picture that can be decoded")
    return np.asarray(pixels, np.uint8)


def match_folders(phone: Path, target: Path) -> list[PairPaths]:
    """Pair the pictures of two folders by name; the suffix may differ. Sorted, numbers by value.

    Raises:
        PairsError: a folder is missing or empty, or a picture has no partner.
    """
    phones, targets = _pictures(phone), _pictures(target)
    lonely = sorted(phones.keys() ^ targets.keys(), key=_by_number)
    if lonely:
        name = lonely[0]
        have = phones.get(name) or targets[name]
        raise PairsError(f"{have} has no partner in {target if name in phones else phone} ({len(lonely)} such files)")
    return [PairPaths(phones[name], targets[name]) for name in sorted(phones, key=_by_number)]


def dped_patches(root: Path, camera: str, split: Literal["train", "test"] = "train") -> list[PairPaths]:
    """Find the patch pairs of one phone in DPED's own layout.

    Args:
        root: the folder that holds `iphone/`, `blackberry/` and `sony/`.
        camera: which of them.
        split: `train` reads CAMERA/training_data, `test` CAMERA/test_data/patches.

    Raises:
        PairsError: as `match_folders`.

    Source: Ignatov et al., "DSLR-Quality Photos on Mobile Devices with Deep Convolutional Networks", ICCV 2017.
    """
    base = root / camera / ("training_data" if split == "train" else "test_data/patches")
    return match_folders(base / camera, base / "canon")


def named(pairs: Sequence[PairPaths], names: frozenset[str]) -> tuple[list[PairPaths], list[PairPaths]]:
    """Split pairs into (those whose name is not in `names`, those whose name is).

    Raises:
        PairsError: a name is not among the pairs, so that a list for other data can't pass unseen.
    """
    missing = names - {pair.phone.stem for pair in pairs}
    if missing:
        raise PairsError(f"no pair is named {min(missing, key=_by_number)} ({len(missing)} such names)")
    rest = [pair for pair in pairs if pair.phone.stem not in names]
    return rest, [pair for pair in pairs if pair.phone.stem in names]


def list_pictures(folder: Path) -> list[Path]:
    """List the pictures of a folder, numbers by value.

    Raises:
        PairsError: the folder is missing or empty, or two pictures have one name.
    """
    return [path for _, path in sorted(_pictures(folder).items(), key=lambda entry: _by_number(entry[0]))]


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise PairsError(f"{folder} is no folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            if path.stem in found:
                raise PairsError(f"{found[path.stem]} and {path} have one name: which of them is meant?")
            found[path.stem] = path
    if not found:
        raise PairsError(f"{folder} holds no pictures")
    return found


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)


def patch_sample(phone: PixelArray, target: PixelArray, policy: Policy, top: int, left: int) -> Sample:
    """Make a sample of a patch pair no larger than a tile.

    Args:
        phone, target: uint8 (H, W, 3), H and W from 1 to 128.
        policy: how the patch reaches 128x128, see the module.
        top, left: rows and columns of padding before the patch; only `reflect` looks at them.

    Raises:
        PairsError: the patch is larger than a tile.
    """
    height, width = phone.shape[:2]
    if max(height, width) > TILE:
        raise PairsError(f"a patch of {width}x{height} is larger than a tile; use it as a photo")
    context = context_of(phone)
    if policy == "resize":
        tile, wanted = (cv2.resize(half, (TILE, TILE), interpolation=cv2.INTER_CUBIC) for half in (phone, target))
        return Sample(
            np.asarray(tile, np.uint8), np.asarray(wanted, np.uint8), np.ones((TILE, TILE), np.float32), context
        )
    mask = np.zeros((TILE, TILE), np.float32)
    mask[top : top + height, left : left + width] = 1
    around = (top, TILE - top - height, left, TILE - left - width)
    return Sample(pad_reflect(phone, *around), pad_reflect(target, *around), mask, context)


def centred(size: int) -> int:
    """Rows or columns of padding before a patch of `size` that sits where the service puts it."""
    return (TILE - size) // 2


def real_tiles(folder: Path, most: int) -> tuple[PixelArray, PixelArray]:
    """Cut one tile out of the middle of each of up to `most` pictures, spread over a folder.

    Returns:
        Tiles, uint8 (N, 128, 128, 3), and their contexts, uint8 (N, 32, 32, 3).

    Raises:
        PairsError: the folder is missing or empty, or a file can't be read.
    """
    files = list_pictures(folder)
    tiles, contexts = [], []
    for path in files[:: max(1, len(files) // most)][:most]:
        picture = read_rgb(path)
        top, left = (max(0, (size - TILE) // 2) for size in picture.shape[:2])
        middle = picture[top : top + TILE, left : left + TILE]
        before, beside = centred(middle.shape[0]), centred(middle.shape[1])
        tiles.append(patch_sample(middle, middle, "reflect", before, beside).tile)
        contexts.append(context_of(picture))
    return np.stack(tiles), np.stack(contexts)


class PatchPairs:
    """Random samples of patch pairs: flipped, transposed and, under `reflect`, anywhere in the tile."""

    def __init__(self, pairs: Sequence[PairPaths], policy: Policy = "reflect") -> None:
        self._pairs = pairs
        self._policy = policy

    def __len__(self) -> int:
        return len(self._pairs)

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a pair, each with equal chance."""
        phone, target = self._pairs[int(rng.integers(len(self._pairs)))].load()
        top = int(rng.integers(max(TILE - phone.shape[0], 0) + 1))
        left = int(rng.integers(max(TILE - phone.shape[1], 0) + 1))
        return augment(patch_sample(phone, target, self._policy, top, left), rng)


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
