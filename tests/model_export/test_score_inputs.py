from collections.abc import Callable
from pathlib import Path

import pytest

from model_export.pairs import PairPaths, PairsError
from model_export.score_inputs import find_outputs, find_pairs, find_photos

PatchMaker = Callable[..., list[PairPaths]]


def folders(pairs: list[PairPaths]) -> tuple[str, str]:
    (one,) = {(pair.phone.parent.name, pair.target.parent.name) for pair in pairs}
    return one


@pytest.mark.parametrize("dslr", ["canon", "dslr", "target"])
def test_two_folders_need_no_names(tmp_path: Path, make_patches: PatchMaker, dslr: str) -> None:
    made = make_patches(3, phone_folder="all/sony", target_folder=f"all/{dslr}")
    assert find_pairs(tmp_path / "all", None, None, None) == made


@pytest.mark.parametrize(
    ("phone", "target", "expected"),
    [
        ("iphone", None, ("iphone", "canon")),
        ("iphone", "canon", ("iphone", "canon")),
        ("iphone", "ppcn", ("iphone", "ppcn")),
        ("canon", "ppcn", ("canon", "ppcn")),
    ],
)
def test_of_three_the_phone_is_named(
    tmp_path: Path, make_patches: PatchMaker, phone: str, target: str | None, expected: tuple[str, str]
) -> None:
    make_patches(2, (20, 20), phone_folder="all/iphone", target_folder="all/canon")
    make_patches(2, (20, 20), phone_folder="all/ppcn")
    found = find_pairs(tmp_path / "all", Path(phone), Path(target) if target else None, None)
    assert folders(found) == expected


def test_what_is_not_clear_is_asked_for(tmp_path: Path, make_patches: PatchMaker) -> None:
    make_patches(1, (20, 20), phone_folder="all/iphone", target_folder="all/canon")
    make_patches(1, (20, 20), phone_folder="all/ppcn", target_folder="phones/sony")
    make_patches(1, (20, 20), phone_folder="phones/nokia")
    for pairs, phone, target, said in (
        ("all", None, None, "all holds canon, iphone, ppcn: say which by --phone and --target"),
        ("all", None, "canon", "all holds canon, iphone, ppcn: say which"),
        ("phones", None, None, "phones holds nokia, sony: say which"),
        ("phones", "nokia", None, "phones holds nokia, sony: say which"),
        ("phones/sony", None, None, "sony holds no folders: say which"),
        ("all", "android", None, "all/android is no folder"),
        ("none", None, None, "none is no folder"),
    ):
        one, other = (None if name is None else Path(name) for name in (phone, target))
        with pytest.raises(PairsError, match=said):
            find_pairs(tmp_path / pairs, one, other, None)


def test_two_folders_anywhere_as_before(tmp_path: Path, make_patches: PatchMaker) -> None:
    made, names = make_patches(4, (20, 20)), tmp_path / "names.txt"
    phone, target = tmp_path / "phone", tmp_path / "target"
    assert find_pairs(None, phone, target, None) == made
    names.write_text("3\n1\n")
    assert find_pairs(None, phone, target, names) == [made[1], made[3]]
    with pytest.raises(PairsError, match="both are needed"):
        find_pairs(None, phone, None, None)
    with pytest.raises(PairsError, match=r"names\.txt names pairs"):
        find_pairs(None, None, None, names)
    assert find_pairs(None, None, None, None) == []


def test_photos_with_and_without_targets(tmp_path: Path, make_patches: PatchMaker) -> None:
    made, names = make_patches(4, (20, 20)), tmp_path / "names.txt"
    names.write_text("2 0")
    photos = find_photos(tmp_path / "phone", tmp_path / "target", names)
    assert [(photo.picture, photo.target) for photo in photos] == [(made[i].phone, made[i].target) for i in (0, 2)]
    alone = find_photos(tmp_path / "phone", None, None)
    assert [(photo.picture, photo.target) for photo in alone] == [(pair.phone, None) for pair in made]
    assert find_photos(None, None, None) == []
    for extra in ((tmp_path / "target", None), (None, names)):
        with pytest.raises(PairsError, match="belongs to whole photos"):
            find_photos(None, *extra)
    names.write_text("2 9")
    with pytest.raises(PairsError, match="no pair is named 9"):
        find_photos(tmp_path / "phone", None, names)


def test_outputs() -> None:
    (one, other) = find_outputs(["ppcn=some/where", "x=a=b"])
    assert (one.name, one.folder) == ("ppcn", Path("some/where"))
    assert (other.name, other.folder) == ("x", Path("a=b"))
    for wrong in ("folder", "=folder", "name="):
        with pytest.raises(PairsError, match=f"--outputs {wrong} is not of the form"):
            find_outputs([wrong])
