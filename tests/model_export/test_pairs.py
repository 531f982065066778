import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_export.batches import MixedBatches, PatchPairs, PhotoCrops, augment
from model_export.pairs import (
    PairPaths,
    PairsError,
    Sample,
    centred,
    dped_patches,
    match_folders,
    named,
    patch_sample,
    read_rgb,
    real_tiles,
)
from service.tiling import context_of, cut_row, plan

PixelArray = npt.NDArray[np.uint8]
Writer = Callable[..., Path]

# the square's symmetries as (flip rows, flip columns, transpose)
SYMMETRIES = [(rows, columns, swap) for rows in (False, True) for columns in (False, True) for swap in (False, True)]


def turned(array: npt.NDArray[Any], symmetry: tuple[bool, bool, bool]) -> npt.NDArray[Any]:
    rows, columns, swap = symmetry
    array = np.flip(array, 0) if rows else array
    array = np.flip(array, 1) if columns else array
    return array.swapaxes(0, 1) if swap else array


def coordinates(height: int, width: int) -> PixelArray:
    """A picture whose every pixel says where it is: low bytes in red and green, high bits in blue."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 256, x % 256, (y // 256) * 16 + x // 256], -1).astype(np.uint8)


def where(pixels: PixelArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows and columns that the pixels of `coordinates` say."""
    values = pixels.astype(np.int64)
    return values[..., 0] + 256 * (values[..., 2] // 16), values[..., 1] + 256 * (values[..., 2] % 16)


def flat(value: int, height: int = 100, width: int = 100) -> PixelArray:
    return np.full((height, width, 3), value, np.uint8)


def noise(height: int, width: int, seed: int = 0) -> PixelArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """A function that writes a picture below tmp_path without loss and returns its path."""

    def write_(name: str, pixels: PixelArray, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".webp":
            options = {"lossless": True, **options}
        Image.fromarray(pixels).save(path, **options)
        return path

    return write_


@pytest.fixture
def write_photos(write: Writer) -> Callable[..., list[PairPaths]]:
    """A function that writes photos that say where their pixels are, with the negatives as targets."""

    def write_(*sizes: tuple[int, int], suffixes: tuple[str, str] = ("png", "webp")) -> list[PairPaths]:
        pairs = []
        for number, size in enumerate(sizes):
            picture = coordinates(*size)
            phone = write(f"photos/{number}.{suffixes[0]}", picture)
            target = write(f"enhanced/{number}.{suffixes[1]}", 255 - picture)
            pairs.append(PairPaths(phone, target))
        return pairs

    return write_


class TestFolders:
    @pytest.mark.parametrize(("split", "inside"), [("train", "training_data"), ("test", "test_data/patches")])
    def test_dped_layout(self, tmp_path: Path, write: Writer, split: Any, inside: str) -> None:
        for number in (0, 1):
            write(f"dped/sony/{inside}/sony/{number}.jpg", flat(10))
            write(f"dped/sony/{inside}/canon/{number}.jpg", flat(20))
        base = tmp_path / "dped/sony" / inside
        expected = [PairPaths(base / f"sony/{number}.jpg", base / f"canon/{number}.jpg") for number in (0, 1)]
        assert dped_patches(tmp_path / "dped", "sony", split) == expected

    def test_sorted_by_number_whatever_the_suffix(self, tmp_path: Path, write: Writer) -> None:
        for name in ("10", "9", "100", "beach", "2"):
            write(f"a/{name}.jpg", flat(0))
            write(f"b/{name}.{'PNG' if name == '9' else 'webp'}", flat(0))
        (tmp_path / "a/notes.txt").write_text("no picture")
        pairs = match_folders(tmp_path / "a", tmp_path / "b")
        assert [pair.phone.stem for pair in pairs] == ["beach", "2", "9", "10", "100"]
        assert all(pair.phone.stem == pair.target.stem for pair in pairs)
        assert pairs[2].target.name == "9.PNG"

    @pytest.mark.parametrize(("alone", "other"), [("a", "b"), ("b", "a")])
    def test_leftover_file_is_named(self, tmp_path: Path, write: Writer, alone: str, other: str) -> None:
        for folder in "ab":
            write(f"{folder}/1.png", flat(0))
        leftover = write(f"{alone}/7.png", flat(0))
        with pytest.raises(PairsError) as error:
            match_folders(tmp_path / "a", tmp_path / "b")
        assert str(leftover) in str(error.value)
        assert str(tmp_path / other) in str(error.value)

    @pytest.mark.parametrize("missing", ["a", "b"])
    def test_missing_folder_is_named(self, tmp_path: Path, write: Writer, missing: str) -> None:
        write(f"{'b' if missing == 'a' else 'a'}/1.png", flat(0))
        with pytest.raises(PairsError, match=f"{tmp_path / missing} is no folder"):
            match_folders(tmp_path / "a", tmp_path / "b")

    def test_empty_folder_is_named(self, tmp_path: Path, write: Writer) -> None:
        write("a/1.png", flat(0))
        (tmp_path / "b").mkdir()
        (tmp_path / "b/readme.md").write_text("soon")
        with pytest.raises(PairsError, match=f"{tmp_path / 'b'} holds no pictures"):
            match_folders(tmp_path / "a", tmp_path / "b")

    def test_two_files_of_one_name_are_refused(self, tmp_path: Path, write: Writer) -> None:
        # which of them is the pair's half would hang on the order of a directory listing
        write("a/1.png", flat(0))
        write("a/1.jpg", flat(90))
        write("b/1.png", flat(0))
        with pytest.raises(PairsError, match=str(tmp_path / "a")):
            match_folders(tmp_path / "a", tmp_path / "b")

    def test_named_splits(self) -> None:
        pairs = [PairPaths(Path(f"a/{n}.png"), Path(f"b/{n}.png")) for n in range(5)]
        rest, chosen = named(pairs, frozenset({"3", "0"}))
        assert [pair.phone.stem for pair in rest] == ["1", "2", "4"]
        assert [pair.phone.stem for pair in chosen] == ["0", "3"]

    def test_named_refuses_unknown_names(self) -> None:
        pairs = [PairPaths(Path("a/1.png"), Path("b/1.png"))]
        with pytest.raises(PairsError, match=r"named 7 \(2 such names\)"):
            named(pairs, frozenset({"1", "7", "12"}))


class TestReading:
    def test_gives_rgb_as_written(self, write: Writer) -> None:
        pixels = noise(20, 30)
        assert np.array_equal(read_rgb(write("a.png", pixels)), pixels)
        assert np.array_equal(read_rgb(write("a.webp", pixels)), pixels)

    def test_turns_upright(self, write: Writer) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        pixels = noise(20, 30)
        path = write("a.png", pixels, exif=exif)
        assert np.array_equal(read_rgb(path), np.rot90(pixels, -1))

    def test_grey_becomes_rgb(self, write: Writer) -> None:
        grey = noise(20, 30)[:, :, 0]
        assert np.array_equal(read_rgb(write("a.png", grey)), np.dstack([grey] * 3))

    @pytest.mark.parametrize("broken", ["garbage", "empty", "cut", "huge", "folder", "missing"])
    def test_unreadable_file_is_named(self, tmp_path: Path, write: Writer, broken: str) -> None:
        good, bad = write("good.png", noise(20, 30)), tmp_path / "bad.png"
        if broken == "folder":
            bad.mkdir()
        elif broken == "huge":  # claims 65535x65535 pixels
            header, data = b"IHDR" + struct.pack(">IIBBBBB", 65_535, 65_535, 8, 2, 0, 0, 0), good.read_bytes()
            bad.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
        elif broken != "missing":
            bad.write_bytes({"garbage": b"no picture", "empty": b"", "cut": good.read_bytes()[:200]}[broken])
        for pair in (PairPaths(bad, good), PairPaths(good, bad)):
            with pytest.raises(PairsError, match=str(bad)):
                pair.load()

    def test_halves_of_different_size_are_both_named(self, write: Writer) -> None:
        pair = PairPaths(write("a/1.png", flat(0, 100, 90)), write("b/1.png", flat(0, 100, 100)))
        with pytest.raises(PairsError) as error:
            pair.load()
        for words in (str(pair.phone), str(pair.target), "90x100", "100x100"):
            assert words in str(error.value)


class TestPatchSample:
    @settings(deadline=None)
    @given(top=st.integers(0, 28), left=st.integers(0, 28))
    def test_reflect_pads_by_reflect_101_and_masks_the_rest(self, top: int, left: int) -> None:
        patch, target = noise(100, 100, 1), noise(100, 100, 2)
        sample = patch_sample(patch, target, "reflect", top, left)
        around = ((top, 28 - top), (left, 28 - left), (0, 0))
        assert np.array_equal(sample.tile, np.pad(patch, around, "reflect"))
        assert np.array_equal(sample.target, np.pad(target, around, "reflect"))
        assert np.array_equal(sample.mask, np.pad(np.ones((100, 100), np.float32), around[:2]))
        assert sample.mask.dtype == np.float32

    @settings(deadline=None)
    @given(height=st.integers(1, 128), width=st.integers(1, 128))
    def test_centred_is_where_the_service_puts_it(self, height: int, width: int) -> None:
        patch = noise(height, width)
        sample = patch_sample(patch, 255 - patch, "reflect", centred(height), centred(width))
        layout = plan(height, width)
        assert (layout.rows.starts, layout.columns.starts) == ((-centred(height),), (-centred(width),))
        assert np.array_equal(sample.tile, cut_row(patch, layout, 0)[0])
        assert np.array_equal(sample.target, 255 - sample.tile)
        here = np.s_[centred(height) : centred(height) + height, centred(width) : centred(width) + width]
        assert np.array_equal(sample.tile[here], patch)
        assert sample.mask[here].all()
        assert sample.mask.sum() == height * width

    @pytest.mark.parametrize("policy", ["reflect", "resize"])
    def test_context_is_the_patch_itself(self, policy: Any) -> None:
        patch = noise(64, 96)
        sample = patch_sample(patch, 255 - patch, policy, 3, 5)
        blocks = patch.reshape(32, 2, 32, 3, 3).mean((1, 3))
        assert np.abs(sample.context - blocks).max() <= 0.5 + 1e-3

    def test_resize_enlarges_both_halves_to_the_whole_tile(self) -> None:
        ramp = np.broadcast_to(np.linspace(0, 250, 100).round().astype(np.uint8)[None, :, None], (100, 100, 3))
        sample = patch_sample(np.ascontiguousarray(ramp), 255 - ramp, "resize", 9, 9)
        # pixel centres, as enlarging keeps the picture's edges on the tile's
        positions = (np.arange(128) + 0.5) * 100 / 128 - 0.5
        expected = np.interp(positions, np.arange(100), ramp[0, :, 0])
        assert sample.tile.shape == sample.target.shape == (128, 128, 3)
        assert np.abs(sample.tile[:, :, 1] - expected).max() < 2
        assert np.abs(255 - sample.target[:, :, 1] - expected).max() < 2
        assert sample.mask.shape == (128, 128)
        assert sample.mask.all()

    @pytest.mark.parametrize("policy", ["reflect", "resize"])
    def test_larger_than_a_tile_is_refused(self, policy: Any) -> None:
        with pytest.raises(PairsError, match="129x100"):
            patch_sample(flat(0, 100, 129), flat(0, 100, 129), policy, 0, 0)


class TestPatchPairs:
    def test_places_the_patch_anywhere_in_the_tile(self, write: Writer) -> None:
        patch = coordinates(100, 120)
        source = PatchPairs([PairPaths(write("a/1.png", patch), write("b/1.png", 255 - patch))])
        rng, rims = np.random.default_rng(0), set()
        for _ in range(60):
            sample = source.draw(rng)
            assert np.array_equal(sample.target, 255 - sample.tile)
            rows, columns = np.nonzero(sample.mask)
            assert sorted([np.ptp(rows) + 1, np.ptp(columns) + 1]) == [100, 120]
            assert sample.mask.sum() == 100 * 120
            y, x = where(sample.tile[sample.mask == 1])
            assert len(set(zip(y.tolist(), x.tolist(), strict=True))) == 100 * 120
            rims.add((int(rows[0]), int(columns[0])))
        assert len(rims) > 30

    def test_every_pair_has_the_same_chance(self, write: Writer) -> None:
        pairs = [
            PairPaths(write(f"a/{n}.png", flat(n, 20, 20)), write(f"b/{n}.png", flat(n, 20, 20))) for n in range(4)
        ]
        source, rng = PatchPairs(pairs), np.random.default_rng(0)
        seen = Counter(int(source.draw(rng).tile[0, 0, 0]) for _ in range(400))
        assert set(seen) == {0, 1, 2, 3}
        assert min(seen.values()) > 60


class TestPhotoCrops:
    def place(self, sample: Sample) -> tuple[int, int, tuple[bool, bool, bool]]:
        """Where a crop of `coordinates` starts, and how it was turned."""
        y, x = where(sample.tile)
        top, left = int(y.min()), int(x.min())
        upright = np.moveaxis(np.mgrid[top : top + 128, left : left + 128], 0, -1)
        found = [s for s in SYMMETRIES if np.array_equal(np.stack([y, x], -1), turned(upright, s))]
        assert len(found) == 1, "the crop is no 128x128 square of the photo"
        assert np.array_equal(sample.target, 255 - sample.tile)
        assert sample.mask.all()
        return top, left, found[0]

    @pytest.mark.parametrize("suffixes", [("png", "webp"), ("webp", "png")])
    def test_random_crops_lie_anywhere_in_the_photo(
        self, write_photos: Callable[..., list[PairPaths]], suffixes: tuple[str, str]
    ) -> None:
        source, rng = PhotoCrops(write_photos((300, 131), suffixes=suffixes)), np.random.default_rng(0)
        places = [self.place(source.draw(rng)) for _ in range(150)]
        tops, lefts = {place[0] for place in places}, {place[1] for place in places}
        assert min(tops) >= 0
        assert max(tops) <= 300 - 128
        assert len(tops) > 60
        assert lefts == {0, 1, 2, 3}
        assert {place[2] for place in places} == set(SYMMETRIES)

    @pytest.mark.parametrize(
        ("grid", "starts"),
        [
            (0, {(0, 0), (0, 128), (128, 0), (128, 128)}),
            (64, {(64, 64), (64, 192)}),
            (30, {(30, 30), (30, 158), (158, 30), (158, 158)}),
        ],
    )
    def test_grid_crops_start_on_grid_positions_and_reach_all(
        self, write_photos: Callable[..., list[PairPaths]], grid: int, starts: set[tuple[int, int]]
    ) -> None:
        source, rng = PhotoCrops(write_photos((300, 340)), grid=grid), np.random.default_rng(0)
        assert {self.place(source.draw(rng))[:2] for _ in range(60)} == starts

    def test_context_is_the_whole_photo_turned_as_the_crop(self, write_photos: Callable[..., list[PairPaths]]) -> None:
        pairs = write_photos((300, 340))
        whole, source, rng = context_of(pairs[0].load()[0]), PhotoCrops(pairs), np.random.default_rng(0)
        for _ in range(20):
            sample = source.draw(rng)
            assert np.array_equal(sample.context, turned(whole, self.place(sample)[2]))

    def test_lone_crop_is_its_own_context(self, write: Writer) -> None:
        photo = noise(200, 260)
        pairs = [PairPaths(write("a/0.png", photo), write("b/0.png", 255 - photo))]
        source, rng = PhotoCrops(pairs, lone=True), np.random.default_rng(0)
        for _ in range(20):
            sample = source.draw(rng)
            blocks = sample.tile.reshape(32, 4, 32, 4, 3).mean((1, 3))
            assert np.abs(sample.context - blocks).max() <= 0.5 + 1e-3

    def test_a_full_cache_changes_nothing(self, write_photos: Callable[..., list[PairPaths]]) -> None:
        pairs = write_photos((140, 150), (160, 130), (129, 200))
        wide, narrow = PhotoCrops(pairs), PhotoCrops(pairs, cache_bytes=1)
        one, other = np.random.default_rng(3), np.random.default_rng(3)
        for _ in range(15):
            assert np.array_equal(wide.draw(one).tile, narrow.draw(other).tile)

    @pytest.mark.parametrize(("size", "grid"), [((127, 300), None), ((300, 127), None), ((300, 191), 64)])
    def test_photo_smaller_than_a_crop_is_named(
        self, write_photos: Callable[..., list[PairPaths]], size: tuple[int, int], grid: int | None
    ) -> None:
        pairs = write_photos(size)
        with pytest.raises(PairsError, match=str(pairs[0].phone)):
            PhotoCrops(pairs, grid=grid).draw(np.random.default_rng(0))


def test_augment_turns_all_parts_alike_and_reaches_all_symmetries() -> None:
    rng = np.random.default_rng(0)
    sample = Sample(
        noise(128, 128, 1), noise(128, 128, 2), noise(128, 128, 3)[:, :, 0].astype(np.float32), noise(32, 32)
    )
    seen: Counter[tuple[bool, bool, bool]] = Counter()
    for _ in range(400):
        after = augment(sample, rng)
        found = [s for s in SYMMETRIES if np.array_equal(after.tile, turned(sample.tile, s))]
        assert len(found) == 1
        seen[found[0]] += 1
        assert np.array_equal(after.target, turned(sample.target, found[0]))
        assert np.array_equal(after.mask, turned(sample.mask, found[0]))
        assert np.array_equal(after.context, turned(sample.context, found[0]))
    assert set(seen) == set(SYMMETRIES)
    assert min(seen.values()) > 25  # 50 expected


class Flat:
    """A source whose samples say who drew them, and with which random number."""

    def __init__(self, value: int) -> None:
        self.value = value

    def draw(self, rng: np.random.Generator) -> Sample:
        tile = flat(self.value, 128, 128)
        tile[0, 0] = rng.integers(0, 256, 3)
        return Sample(tile, tile, np.ones((128, 128), np.float32), flat(self.value, 32, 32))


class TestMixedBatches:
    @pytest.mark.parametrize(
        ("shares", "batch", "counts"),
        [
            ([1.0, 1.0, 2.0], 8, [2, 2, 4]),
            ([3.0], 5, [5]),
            ([0.25, 0.75], 4, [1, 3]),
            ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 6, [1, 1, 1, 1, 1, 1]),
            ([1.0, 1000.0], 4, [0, 4]),
        ],
    )
    def test_shares(self, shares: list[float], batch: int, counts: list[int]) -> None:
        batches = MixedBatches([Flat(n) for n in range(len(shares))], shares, batch, seed=0)
        for number in (0, 7):
            drawn = batches[number].tile[:, 1, 1, 0]
            assert np.bincount(drawn, minlength=len(shares)).tolist() == counts

    @settings(deadline=None)
    @given(shares=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), batch=st.integers(1, 24))
    def test_every_source_gets_its_share_to_within_one_place(self, shares: list[float], batch: int) -> None:
        drawn = MixedBatches([Flat(n) for n in range(len(shares))], shares, batch, seed=0)[0].context[:, 0, 0, 0]
        counts = np.bincount(drawn, minlength=len(shares))
        assert counts.sum() == batch
        assert np.abs(counts - batch * np.array(shares) / sum(shares)).max() <= 1 + 1e-9

    def test_stacks_samples(self) -> None:
        batch = MixedBatches([Flat(1)], [1.0], 3, seed=0)[0]
        shapes = [part.shape for part in (batch.tile, batch.target, batch.mask, batch.context)]
        assert shapes == [(3, 128, 128, 3), (3, 128, 128, 3), (3, 128, 128), (3, 32, 32, 3)]
        assert [part.dtype for part in (batch.tile, batch.mask, batch.context)] == [np.uint8, np.float32, np.uint8]

    def test_a_batch_depends_on_seed_and_number_alone(self, write_photos: Callable[..., list[PairPaths]]) -> None:
        photos = write_photos((140, 150), (160, 130))

        def batches(seed: int) -> MixedBatches:
            patches = [PairPaths(pair.phone, pair.target) for pair in photos]
            return MixedBatches([PhotoCrops(photos), PhotoCrops(patches, lone=True)], [1, 1], 4, seed)

        forward = batches(1)
        first = [forward[number] for number in range(4)]
        backward = batches(1)
        for number in (3, 1, 1, 0, 2):
            again = backward[number]
            assert np.array_equal(again.tile, first[number].tile)
            assert np.array_equal(again.target, first[number].target)
            assert np.array_equal(again.context, first[number].context)
        assert len({batch.tile.tobytes() for batch in first}) == 4
        assert not np.array_equal(batches(2)[0].tile, first[0].tile)

    @pytest.mark.parametrize("shares", [[], [1.0], [1.0, 0.0], [1.0, -1.0], [1.0, 1.0, 1.0]])
    def test_shares_that_do_not_fit_are_refused(self, shares: list[float]) -> None:
        with pytest.raises(ValueError, match="share"):
            MixedBatches([Flat(0), Flat(1)], shares, 4, seed=0)

    def test_no_source_is_refused(self) -> None:
        with pytest.raises(ValueError, match="share"):
            MixedBatches([], [], 4, seed=0)


class TestParts:
    def test_parts_of_a_batch_are_its_places(self, write_photos: Callable[..., list[PairPaths]]) -> None:
        batches = MixedBatches([PhotoCrops(write_photos((140, 150), (160, 130)))], [1.0], 5, seed=3)
        whole = batches[4]
        for first in range(2):
            part = batches.part(4, first, 2)
            assert np.array_equal(part.tile, whole.tile[first::2])
            assert np.array_equal(part.target, whole.target[first::2])
            assert np.array_equal(part.mask, whole.mask[first::2])
            assert np.array_equal(part.context, whole.context[first::2])


class TestStrips:
    def batches(self, pairs: list[PairPaths], seed: int = 0) -> MixedBatches:
        return MixedBatches([PhotoCrops(pairs, lone=True), PhotoCrops(pairs)], [1.0, 1.0], 4, seed)

    def test_tiles_overlap_and_bring_their_photo_turned_alike(
        self, write_photos: Callable[..., list[PairPaths]]
    ) -> None:
        pairs = write_photos((200, 260))
        photo = pairs[0].load()[0]
        strips = self.batches(pairs).strips(0, 40, 48)
        assert strips.tiles.shape == (40, 2, 128, 128, 3)
        assert strips.tiles.dtype == np.uint8
        assert np.array_equal(strips.tiles[:, 0, :, 48:], strips.tiles[:, 1, :, :80])
        seen = set()
        for pair, context in zip(strips.tiles, strips.contexts, strict=True):
            strip = np.concatenate([pair[0], pair[1][:, 80:]], 1)
            found = []
            for symmetry in SYMMETRIES:
                whole = turned(photo, symmetry)
                # the first pixel of the strip says where in the photo it can lie
                for top, left in np.argwhere((whole == strip[0, 0]).all(2)):
                    if np.array_equal(whole[top : top + 128, left : left + 176], strip):
                        found.append(symmetry)
            assert len(found) == 1
            assert np.array_equal(context, turned(context_of(photo), found[0]))
            seen.add(found[0])
        assert seen == set(SYMMETRIES)

    def test_depend_on_seed_number_and_place_alone(self, write_photos: Callable[..., list[PairPaths]]) -> None:
        pairs = write_photos((200, 260), (210, 230))
        whole = self.batches(pairs).strips(3, 5, 64)
        batches = self.batches(pairs)
        batches.strips(1, 2, 64)
        for first in range(2):
            part = batches.strips(3, 5, 64, first, 2)
            assert np.array_equal(part.tiles, whole.tiles[first::2])
            assert np.array_equal(part.contexts, whole.contexts[first::2])
        assert not np.array_equal(self.batches(pairs, seed=1).strips(3, 5, 64).tiles, whole.tiles)

    def test_a_process_may_have_none(self, write_photos: Callable[..., list[PairPaths]]) -> None:
        strips = self.batches(write_photos((200, 260))).strips(0, 1, 64, first=1, every=2)
        assert (strips.tiles.shape, strips.contexts.shape) == ((0, 2, 128, 128, 3), (0, 32, 32, 3))

    def test_a_photo_too_small_is_named(self, write_photos: Callable[..., list[PairPaths]]) -> None:
        pairs = write_photos((191, 300))
        with pytest.raises(PairsError, match=str(pairs[0].phone)):
            self.batches(pairs).strips(0, 1, 64)

    def test_without_whole_photos_there_are_none(self, write_photos: Callable[..., list[PairPaths]]) -> None:
        pairs = write_photos((200, 260))
        for source in (PhotoCrops(pairs, grid=0), PhotoCrops(pairs, lone=True), PatchPairs(pairs)):
            with pytest.raises(PairsError, match="strips"):
                MixedBatches([source], [1.0], 2, seed=0).strips(0, 1, 64)

    def test_epochs_are_those_of_one_source_of_patches(self, write_photos: Callable[..., list[PairPaths]]) -> None:
        pairs = write_photos((200, 260), (130, 130), (140, 140))
        assert MixedBatches([PatchPairs(pairs)], [1.0], 2, seed=0).epoch == 2
        for sources in ([PatchPairs(pairs)] * 2, [PhotoCrops(pairs)]):
            with pytest.raises(PairsError, match="epochs"):
                _ = MixedBatches(sources, [1.0] * len(sources), 2, seed=0).epoch


class TestRealTiles:
    def test_cuts_the_middle_with_the_whole_as_context(self, tmp_path: Path, write: Writer) -> None:
        photo = noise(200, 301)
        write("photos/0.png", photo)
        tiles, contexts = real_tiles(tmp_path / "photos", 5)
        assert np.array_equal(tiles, photo[None, 36:164, 86:214])
        assert np.array_equal(contexts[0], context_of(photo))

    def test_pads_patches_as_the_service_does(self, tmp_path: Path, write: Writer) -> None:
        patches = [noise(100, 100, n) for n in range(3)]
        for number, patch in enumerate(patches):
            write(f"patches/{number}.png", patch)
        tiles, contexts = real_tiles(tmp_path / "patches", 5)
        for patch, tile, context in zip(patches, tiles, contexts, strict=True):
            assert np.array_equal(tile, cut_row(patch, plan(100, 100), 0)[0])
            assert np.array_equal(context, context_of(patch))

    @pytest.mark.parametrize(("most", "expected"), [(3, [0, 3, 6]), (10, list(range(10))), (1, [0]), (99, range(10))])
    def test_spreads_over_the_folder(self, tmp_path: Path, write: Writer, most: int, expected: list[int]) -> None:
        for number in range(10):
            write(f"flat/{number}.png", flat(number))
        tiles, contexts = real_tiles(tmp_path / "flat", most)
        assert tiles[:, 0, 0, 0].tolist() == list(expected)
        assert contexts[:, 0, 0, 0].tolist() == list(expected)

    def test_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(PairsError, match=str(tmp_path / "none")):
            real_tiles(tmp_path / "none", 3)

    def test_unreadable_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").write_bytes(b"no picture")
        with pytest.raises(PairsError, match=r"1\.png"):
            real_tiles(tmp_path, 3)
