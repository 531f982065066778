"""What `pix2dslr-export evaluate` scores on, found from its options."""

from pathlib import Path
from typing import Final

from model_export.contenders import OutputFolder
from model_export.evaluate import Photo
from model_export.pairs import PairPaths, PairsError, match_folders, named

DSLR_FOLDERS: Final = frozenset({"canon", "dslr", "target"})
"""Names by which the DSLR's folder is known without being named."""


def find_pairs(pairs: Path | None, phone: Path | None, target: Path | None, names: Path | None) -> list[PairPaths]:
    """Find the pairs to score.

    Args:
        pairs: folder that holds one folder for each camera, or None.
        phone, target: with `pairs` names of folders in it, guessed where they are clear; without it two folders.
        names: file with the names to score, apart by white space; None scores all.

    Returns:
        The pairs, none where neither `pairs` nor `phone` and `target` are given.

    Raises:
        PairsError: a folder is missing, unclear or does not match, or a name is not there.
        OSError: `names` can't be read.
    """
    if pairs is not None:
        phone, target = _halves(pairs, phone, target)
    if phone is None and target is None:
        if names is not None:
            raise PairsError(f"{names} names pairs, and there are none: give --pairs, or --phone and --target")
        return []
    if phone is None or target is None:
        raise PairsError("without --pairs, --phone and --target are folders, and both are needed")
    return _only(match_folders(phone, target), names)


def _halves(pairs: Path, phone: Path | None, target: Path | None) -> tuple[Path, Path]:
    if not pairs.is_dir():
        raise PairsError(f"{pairs} is no folder")
    folders = sorted(path.name for path in pairs.iterdir() if path.is_dir())
    given = {str(name) for name in (phone, target) if name is not None}
    dslrs = [name for name in folders if name in DSLR_FOLDERS and name not in given]
    if target is None and len(dslrs) == 1:
        target = Path(dslrs[0])
    rest = [name for name in folders if target is not None and name != target.name]
    if phone is None and len(rest) == 1:
        phone = Path(rest[0])
    if phone is None or target is None:
        raise PairsError(f"{pairs} holds {', '.join(folders) or 'no folders'}: say which by --phone and --target")
    return pairs / phone, pairs / target


def find_photos(photos: Path | None, targets: Path | None, names: Path | None) -> list[Photo]:
    """Find the whole photos to run.

    Args:
        photos: folder of whole photos, or None for none.
        targets: folder of what they should become, equally named.
        names: as for `find_pairs`.

    Raises:
        PairsError, OSError: as `find_pairs`; or `targets` or `names` is given without `photos`.
    """
    if photos is None:
        extra = targets or names
        if extra is not None:
            raise PairsError(f"{extra} belongs to whole photos, and there are none: give --photos")
        return []
    found = _only(match_folders(photos, targets or photos), names)
    return [Photo(pair.phone, pair.target if targets else None) for pair in found]


def find_outputs(outputs: list[str]) -> list[OutputFolder]:
    """Read the values of `--outputs`, NAME=DIR each.

    Raises:
        PairsError: one is not of that form.
    """
    folders = []
    for value in outputs:
        name, equals, folder = value.partition("=")
        if not (name and equals and folder):
            raise PairsError(f"--outputs {value} is not of the form NAME=DIR")
        folders.append(OutputFolder(name, Path(folder)))
    return folders


def _only(pairs: list[PairPaths], names: Path | None) -> list[PairPaths]:
    return pairs if names is None else named(pairs, frozenset(names.read_text().split()))[1]
