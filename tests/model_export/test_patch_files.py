from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from model_export.align import patch_pairs
from model_export.cli import app
from model_export.config import SourceConfig
from model_export.data import open_pairs
from model_export.pairs import PairPaths, PairsError, match_folders, read_rgb
from model_export.patch_files import check_out, cut_photos
from service.alignment import NotAligned
from tests.model_export.pictures import Writer
from tests.model_export.scenes import photo, seen_by_dslr, view


@pytest.fixture
def folders(tmp_path: Path, write: Writer) -> tuple[Path, Path]:
    """Two pairs of one scene each, 7 and cat, and a pair of two scenes, 12."""
    for name, scene in (("7", photo("astronaut", 1)), ("cat", photo("chelsea", 1))):
        write(f"phones/{name}.png", scene)
        size = (scene.shape[0], scene.shape[1])
        write(f"canon/{name}.png", seen_by_dslr(scene, view(1.2, 2, 0, size), 1.2))
    write("phones/12.png", photo("coffee", 0.7))
    write("canon/12.png", photo("rocket", 0.7))
    return tmp_path / "phones", tmp_path / "canon"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["patches", *(str(argument) for argument in arguments)])


class TestCommand:
    @pytest.mark.parametrize("jobs", ["1", "3"])
    def test_cuts_what_matches_and_names_what_does_not(
        self, tmp_path: Path, folders: tuple[Path, Path], jobs: str
    ) -> None:
        out = tmp_path / "new/patches"
        done = call(*folders, out, "--jobs", jobs)
        assert done.exit_code == 0, done.output
        # what a trainer would open
        pairs = open_pairs(SourceConfig(kind="pairs", phone="phone", target="dslr"), out)
        dropped = 0
        for stem in ("7", "cat"):
            phone = read_rgb(folders[0] / f"{stem}.png")
            cut = patch_pairs(phone, read_rgb(folders[1] / f"{stem}.png"))
            dropped += cut.dropped
            assert len(cut.patches) > 3
            for patch in cut.patches:
                name = f"{stem}_{patch.row:04}_{patch.column:04}.png"
                assert np.array_equal(read_rgb(out / "phone" / name), patch.phone)
                assert np.array_equal(read_rgb(out / "dslr" / name), patch.dslr)
                pairs.remove(PairPaths(out / "phone" / name, out / "dslr" / name))
        assert pairs == []
        count = len(list((out / "phone").iterdir()))
        assert done.stdout == (f"3 photos, {count} patches, {dropped} dropped by correlation, 1 photos without match\n")
        with pytest.raises(NotAligned) as error:
            patch_pairs(read_rgb(folders[0] / "12.png"), read_rgb(folders[1] / "12.png"))
        assert done.stderr == f"12.png shows no scene in common: {error.value}\n"

    def test_nothing_at_all_is_an_error(self, tmp_path: Path, write: Writer) -> None:
        write("a/1.png", photo("coffee", 0.7))
        write("b/1.png", photo("rocket", 0.7))
        done = call(tmp_path / "a", tmp_path / "b", tmp_path / "out")
        assert done.exit_code == 1
        assert done.stdout == "1 photos, 0 patches, 0 dropped by correlation, 1 photos without match\n"
        assert "1.png" in done.stderr

    def test_an_unreadable_photo_is_named_and_the_rest_go_on(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        bad = folders[1] / "7.png"
        bad.write_bytes(b"no picture")
        done = call(*folders, tmp_path / "out")
        assert done.exit_code == 0, done.output
        assert str(bad) in done.stderr
        assert done.stdout.endswith("1 photos without match, 1 unreadable\n")
        assert all(path.name.startswith("cat_") for path in (tmp_path / "out/phone").iterdir())

    def test_a_photo_without_partner_is_named(self, tmp_path: Path, folders: tuple[Path, Path]) -> None:
        (folders[1] / "cat.png").unlink()
        done = call(*folders, tmp_path / "out")
        assert done.exit_code == 1
        assert f"{folders[0] / 'cat.png'} has no partner" in done.stderr
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("out", ["phones", "canon", "phones/../canon"])
    def test_writing_among_the_photos_is_refused(self, tmp_path: Path, folders: tuple[Path, Path], out: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        done = call(*folders, tmp_path / out)
        assert done.exit_code == 1
        assert "where photos are read from" in done.stderr
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(("phone", "dslr"), [("phone", "canon"), ("iphone", "dslr")])
    def test_a_folder_whose_patches_would_lie_among_the_photos_is_refused(
        self, tmp_path: Path, phone: str, dslr: str
    ) -> None:
        with pytest.raises(PairsError, match="where photos are read from"):
            check_out(tmp_path, tmp_path / phone, tmp_path / dslr)


def test_a_second_run_leaves_nothing_of_a_killed_one(tmp_path: Path, write: Writer) -> None:
    scene = photo("chelsea", 1)
    write("a/cat.png", scene)
    write("b/cat.png", seen_by_dslr(scene, np.eye(3), 1))
    out = tmp_path / "out"
    photos = match_folders(tmp_path / "a", tmp_path / "b")
    (first,) = cut_photos(photos, out, 1)
    made = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")}
    assert len(made) == 2 * first.patches > 0

    some = next(iter((out / "dslr").iterdir()))
    some.rename(some.with_name(f"{some.name}.part"))
    write("out/phone/cat_9000_0000.png", scene)  # of an earlier photo of this name
    write("out/dslr/dog_0000_0000.png", scene)  # a half that a killed run left
    for half in ("phone", "dslr"):  # whole pairs and other files are none of this run's business
        write(f"out/{half}/bird_0100_0000.png", scene)
        write(f"out/{half}/holiday.png", scene)
    assert list(cut_photos(photos, out, 1)) == [first]
    after = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")}
    rest = {path for path in after if path not in made}
    assert rest == {Path(half) / name for half in ("phone", "dslr") for name in ("bird_0100_0000.png", "holiday.png")}
    assert {path: data for path, data in after.items() if path in made} == made
