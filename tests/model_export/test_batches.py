from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.batches import MixedBatches, PatchPairs, PhotoCrops, augment
from model_export.pairs import (
    PairPaths,
    PairsError,
    Sample,
)
from service.tiling import context_of
from tests.model_export.pictures import SYMMETRIES, Writer, coordinates, flat, noise, turned, where


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

    def test_parts_lie_anywhere_and_show_the_same_in_both_halves(self, write: Writer) -> None:
        patch = coordinates(100, 120)
        pairs = [PairPaths(write("a/1.png", patch), write("b/1.png", 255 - patch))]
        source, rng = PatchPairs(pairs, smallest=64), np.random.default_rng(0)
        heights, widths, tops, lefts = set(), set(), set(), set()
        for _ in range(300):
            sample = source.draw(rng)
            assert np.array_equal(sample.target, 255 - sample.tile)
            y, x = where(sample.tile[sample.mask == 1])
            here = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
            assert len(y) == sample.mask.sum() == patch[here][..., 0].size
            # its context is the part's own, not the whole patch's
            assert abs(float(sample.context.mean()) - float(patch[here].mean())) < 1
            heights.add(int(np.ptp(y)) + 1)
            widths.add(int(np.ptp(x)) + 1)
            tops.add(int(y.min()))
            lefts.add(int(x.min()))
        assert (min(heights), max(heights), min(widths), max(widths)) == (64, 100, 64, 120)
        assert (min(tops), min(lefts)) == (0, 0)
        assert min(len(heights), len(widths), len(tops), len(lefts)) > 25

    def test_pairs_no_larger_than_the_smallest_part_are_whole(self, write: Writer) -> None:
        pairs = [PairPaths(write("a/1.png", flat(9, 64, 90)), write("b/1.png", flat(9, 64, 90)))]
        source, rng = PatchPairs(pairs, smallest=64), np.random.default_rng(0)
        assert {int(source.draw(rng).mask.sum()) for _ in range(20)} == {64 * 90}


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
