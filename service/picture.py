"""What a decoded picture is, what its file said, and why there may be none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from service.metadata import NONE, Metadata, Sampling

Format = Literal["jpeg", "png", "webp", "tiff", "bmp", "heic", "avif"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
Pixels = npt.NDArray[np.uint8 | np.uint16]

_OTHER_NAMES: Final[Mapping[str, Format]] = {
    "jpg": "jpeg",
    "jpe": "jpeg",
    "jfif": "jpeg",
    "pjpeg": "jpeg",
    "x-png": "png",
    "apng": "png",
    "tif": "tiff",
    "x-tiff": "tiff",
    "x-bmp": "bmp",
    "x-ms-bmp": "bmp",
    "heif": "heic",
    "hif": "heic",
}
"""What formats are called besides, by people and in media types."""


def format_named(name: str) -> str:
    """Return a format's own name for whatever it is called, in any case; a name of none comes back as it is."""
    plain = name.strip().lower()
    plain = _OTHER_NAMES.get(plain, plain)
    return plain if plain in FORMATS else name


def plain_media_type(kind: str) -> str:
    """Return the registered media type for one like `image/jpg`; others come back in lower case."""
    type_, slash, subtype = kind.strip().lower().partition("/")
    return f"{type_}{slash}{format_named(subtype) if type_ == 'image' else subtype}"


@dataclass(frozen=True)
class PictureLimits:
    """What a file may claim before it is decoded.

    Attributes:
        max_pixels: most pixels of a picture.
        max_frames: most frames or pages of a file; only the first is ever decoded.
        max_scans: most scans of a progressive JPEG: each costs a pass over the whole picture.
    """

    max_pixels: int
    max_frames: int = 1000
    max_scans: int = 100


class UnsupportedFormat(Exception):
    """The bytes are no picture of a format that is read.

    Attributes:
        reason: what they are, and what to send instead, where that is known.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "no picture of a known format")
        self.reason = reason


class MalformedPicture(Exception):
    """The bytes begin as a supported format and can't be decoded."""


class PictureTooLarge(Exception):
    """The header claims more pixels than are allowed.

    Attributes:
        pixels: width times height.
        limit: how many are allowed.
    """

    def __init__(self, pixels: int, limit: int) -> None:
        super().__init__(f"the picture has {pixels} pixels, and {limit} are allowed")
        self.pixels = pixels
        self.limit = limit


class TooManyFrames(Exception):
    """The file has more frames or pages than are allowed.

    Attributes:
        limit: how many are.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} frames")
        self.limit = limit


class TooManyScans(Exception):
    """A JPEG has more scans than are allowed.

    Attributes:
        limit: how many are.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} scans")
        self.limit = limit


class UnsupportedSamples(Exception):
    """The samples are of a kind that is not read.

    Attributes:
        kind: which, as in: the samples are ...
        instead: what to do, where the format's usual samples are not all of it.
    """

    def __init__(self, kind: str, instead: str = "") -> None:
        super().__init__(f"the samples are {kind}")
        self.kind = kind
        self.instead = instead


class DecodingTooCostly(Exception):
    """Reading or decoding the file takes more than is allowed.

    Attributes:
        what: `time` or `memory`.
        limit: seconds, or bytes.
    """

    def __init__(self, what: Literal["time", "memory"], limit: float) -> None:
        super().__init__(f"decoding takes too much {what}")
        self.what = what
        self.limit = limit


class SideTooLong(Exception):
    """The answer's format can't hold a picture this wide or high.

    Attributes:
        side: the longer side in pixels.
        limit: the format's own limit.
        format: the format.
    """

    def __init__(self, side: int, limit: int, format_: Format) -> None:
        super().__init__(f"{format_} holds sides of up to {limit} pixels, not {side}")
        self.side = side
        self.limit = limit
        self.format = format_


class NotWritable(Exception):
    """The format is read, and the installation lacks what writes it.

    Attributes:
        format: the format.
    """

    def __init__(self, format_: Format) -> None:
        super().__init__(f"{format_} can't be written here")
        self.format = format_


@dataclass(frozen=True)
class Header:
    """What a file says before it is decoded.

    Attributes:
        format: its format, by its own bytes.
        height, width: pixels once upright.
        orientation: the orientation that its samples need, 1 (upright) to 8, as EXIF counts them.
        metadata: EXIF, XMP and IPTC, all of them upright, texts and resolution.
        icc_profile: the colour profile of its RGB or grey samples, None for sRGB or one that can't be used.
        clear_grey: the grey level, as decoded, that a grey PNG declares transparent, None where it declares none.
        grey: whether it has grey samples alone.
        inks: whether it has CMYK samples, which become sRGB.
        sampling: how a JPEG, HEIC or AVIF samples its colour differences, None for grey and for unusual ways.
        frames: pictures in the file, of which the first counts; smaller versions and gain maps are none.
    """

    format: Format
    height: int
    width: int
    orientation: int = 1
    metadata: Metadata = NONE
    icc_profile: bytes | None = None
    clear_grey: int | None = None
    grey: bool = False
    inks: bool = False
    sampling: Sampling | None = None
    frames: int = 1


@dataclass(frozen=True)
class Picture:
    """An upright picture.

    Attributes:
        pixels: uint8 or uint16 (H, W, 3), RGB, over the full range of their dtype, in the space of the header's
            profile; of a grey picture all three channels are the same.
        alpha: of the same dtype, (H, W), None where everything is opaque.
        header: the header of the file that it came from.
    """

    pixels: Pixels
    header: Header
    alpha: Pixels | None = None
