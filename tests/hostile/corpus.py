"""All groups together."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from tests.hostile import foreign, forms, heif, jpeg, png, profiles, riff, tiff, wire, zips
from tests.hostile.case import Case, Make

GROUPS: dict[str, Make] = {
    "jpeg": jpeg.cases,
    "png": png.cases,
    "webp-bmp": riff.cases,
    "tiff": tiff.cases,
    "heic-avif": heif.cases,
    "metadata": profiles.cases,
    "foreign": foreign.cases,
    "zip": zips.cases,
    "form": forms.cases,
    "wire": wire.cases,
}


def cases(*groups: str) -> Iterator[Case]:
    """Make the cases of the groups named, or of all; the same ones each time."""
    for group in groups or GROUPS:
        for case in GROUPS[group]():
            yield replace(case, group=group)


def counts() -> dict[str, Counter[str]]:
    """How many cases there are: all, those that have to be refused, and those that may be answered."""
    counted: dict[str, Counter[str]] = {}
    for case in cases():
        kind = "may be answered" if case.harmless else "refused"
        counted.setdefault(case.group, Counter()).update([kind, "all"])
    return counted
