"""Which picture belongs to which reference, by their names. Pure but for looking into the folders."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from service.commands.files import Said, find


class NoReference(Said):
    """There is no reference of a picture's name."""

    def __str__(self) -> str:
        return "there is no reference of that name"


class ManyReferences(Said):
    """More than one reference could be meant.

    Attributes:
        names: which.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"more than one reference has that name: {', '.join(names)}")
        self.names = names


@dataclass
class Matches:
    """Pictures and references of two folders.

    Attributes:
        pairs: picture and reference.
        failed: pictures without one, or folders that can't be read.
        left: how many references belong to no picture.
    """

    pairs: list[tuple[Path, Path]] = field(default_factory=list)
    failed: list[tuple[Path, Exception]] = field(default_factory=list)
    left: int = 0


def match(pictures: Path, references: Path) -> Matches:
    """Match the pictures of two folders, and of those in them, by their places and names.

    A name with another suffix matches too (1.png and 1.jpg), unless the same suffix is there.
    """
    matches = Matches()
    here, there = find(pictures), find(references)
    matches.failed += here.failed + there.failed
    by_stem: dict[Path, list[Path]] = defaultdict(list)
    for reference in there.pictures:
        by_stem[reference.relative_to(references).with_suffix("")].append(reference)
    used = set()
    for picture in here.pictures:
        name = picture.relative_to(pictures)
        candidates = by_stem.get(name.with_suffix(""), [])
        same = [reference for reference in candidates if reference.name == picture.name]
        chosen = same or candidates
        if not chosen:
            matches.failed.append((picture, NoReference()))
        elif len(chosen) > 1:
            matches.failed.append((picture, ManyReferences([reference.name for reference in chosen])))
        else:
            matches.pairs.append((picture, chosen[0]))
            used.add(chosen[0])
    matches.left = len(there.pictures) - len(used)
    return matches
