"""Known good files, one of each format: whether a process can still decode what it could when it started."""

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from service import codec
from service.picture import FORMATS, Format, PictureLimits

_FOLDER: Final = Path(__file__).with_name("good")
_COLOUR: Final = (200, 120, 40)
"""Of all their pixels, sRGB."""
_NEAR: Final = 8
"""Levels by which lossy formats may differ."""


@cache
def file_of(format_: Format) -> bytes:
    """Return the known good file of a format."""
    return (_FOLDER / f"flat.{format_}").read_bytes()


def decodes(format_: Format) -> bool:
    """Whether this process decodes the known good file of a format."""
    data = file_of(format_)
    try:
        pixels = codec.decode(data, codec.read_header(data, PictureLimits(1 << 16))).pixels
    except Exception:  # noqa: BLE001  whatever it is, it is not the file's fault
        return False
    return bool((np.abs(pixels.astype(int) - _COLOUR) <= _NEAR).all())


def decodable() -> frozenset[Format]:
    """Return the formats whose known good file this process decodes."""
    return frozenset(format_ for format_ in FORMATS if decodes(format_))
