"""Two folders of photos, cut by `align` into pairs of patches on disk: what the `patches` command does."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from model_export.align import patch_pairs
from model_export.pairs import PairPaths, PairsError, read_rgb
from service.alignment import NotAligned


@dataclass(frozen=True)
class Outcome:
    """What became of one pair of photos on disk.

    Attributes:
        photos: the pair.
        patches, dropped: as counted in its `Cut`, 0 where there is none.
        failure: why there is none.
    """

    photos: PairPaths
    patches: int
    dropped: int
    failure: NotAligned | PairsError | None = None


def check_out(out: Path, phone: Path, dslr: Path) -> None:
    """See that no patch is written among photos.

    Args:
        out: the folder that `phone/` and `dslr/` are to be written to.
        phone, dslr: the photos' folders.

    Raises:
        PairsError: it, or one of the two in it, is a photos' folder.
    """
    photos = {phone.resolve(), dslr.resolve()}
    for folder in (out, *_folders(out)):
        if folder.resolve() in photos:
            raise PairsError(f"patches would be written to {folder}, where photos are read from")


def cut_photos(photos: Sequence[PairPaths], out: Path, jobs: int) -> Iterator[Outcome]:
    """Cut pairs of photos into `out/phone` and `out/dslr`, as PNG files that are equally named on both sides.

    A name is the photo's with the row and the column of the patch in the phone's photo: `12_0300_0700.png`. What an
    earlier run made of the same photos goes first, and with it the half pair that a killed one may have left.

    Args:
        photos: the pairs, as from `pairs.match_folders`.
        out: made if need be.
        jobs: how many pairs are worked on at a time, each on one core.

    Yields:
        What became of each pair, in their order.

    Raises:
        OSError: a patch can't be written.
    """
    for folder in _folders(out):
        folder.mkdir(parents=True, exist_ok=True)
    _clear(out, {pair.phone.stem for pair in photos})
    # threads will do: 89 % of the CPU time is spent in OpenCV, which lets go of the interpreter, and a new process
    # would first import torch with the rest of the command
    executor = ThreadPoolExecutor(jobs)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield from executor.map(partial(_cut_photo, out=out), photos)
    finally:
        executor.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


def _cut_photo(photos: PairPaths, out: Path) -> Outcome:
    try:
        cut = patch_pairs(read_rgb(photos.phone), read_rgb(photos.target))
    except (NotAligned, PairsError) as failure:
        return Outcome(photos, 0, 0, failure)
    for patch in cut.patches:
        name = f"{photos.phone.stem}_{patch.row:04}_{patch.column:04}.png"
        finished = [folder / name for folder in _folders(out)]
        parts = [path.with_name(f"{name}.part") for path in finished]
        for file, pixels in zip(parts, (patch.phone, patch.dslr), strict=True):
            file.write_bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())
        for file, path in zip(parts, finished, strict=True):
            file.replace(path)
    return Outcome(photos, len(cut.patches), cut.dropped)


def _folders(out: Path) -> tuple[Path, Path]:
    return out / "phone", out / "dslr"


def _clear(out: Path, stems: set[str]) -> None:
    """Remove the patches of these photos, and of others those that have no other half."""
    names = [{path.name for path in folder.iterdir()} for folder in _folders(out)]
    for folder, mine, others in zip(_folders(out), names, reversed(names), strict=True):
        for name in mine:
            patch = re.fullmatch(r"(.+)_\d{4,}_\d{4,}\.png(\.part)?", name)
            if patch and (patch[1] in stems or name not in others):
                (folder / name).unlink()
