import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_export.pairs import (
    PairPaths,
    PairsError,
    centred,
    dped_patches,
    match_folders,
    named,
    patch_sample,
    read_rgb,
    real_tiles,
)
from service.tiling import context_of, cut_row, plan
from tests.model_export.pictures import Writer, flat, noise


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
