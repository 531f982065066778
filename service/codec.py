"""Bytes <-> Picture: JPEG, PNG, WebP, TIFF, BMP, HEIC and AVIF.

OpenCV codes the pixels of what comes most, Pillow and libheif the rest; Pillow reads the header before that.
"""

import logging
import warnings
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from service import heif, metadata
from service.colour import converted, is_srgb, rounded, space_of
from service.decoders import samples_of
from service.encoders import written
from service.headers import read_header
from service.picture import (
    FORMATS,
    DecodingTooCostly,
    Format,
    Header,
    MalformedPicture,
    NotWritable,
    Picture,
    PictureLimits,
    PictureTooLarge,
    Pixels,
    SideTooLong,
    TooManyFrames,
    TooManyScans,
    UnsupportedFormat,
    UnsupportedSamples,
    format_named,
    plain_media_type,
)

__all__ = [
    "FORMATS",
    "DecodingTooCostly",
    "Format",
    "Header",
    "MalformedPicture",
    "NotWritable",
    "Picture",
    "PictureLimits",
    "PictureTooLarge",
    "Pixels",
    "SideTooLong",
    "TooManyFrames",
    "TooManyScans",
    "UnsupportedFormat",
    "UnsupportedSamples",
    "answer_format",
    "as_srgb",
    "check_size",
    "decode",
    "encode",
    "format_named",
    "media_type",
    "plain_media_type",
    "read_header",
    "writable",
]

_MAX_SIDE: Final[dict[Format, int]] = {
    "jpeg": 65_500,
    "png": 1_000_000,
    "webp": 16_383,
    "tiff": 1_000_000,
    "bmp": 1_000_000,
    "heic": 16_384,
    "avif": 32_768,
}
_DEEP: Final = ("png", "tiff", "heic")
"""Formats that hold more than 8 bits; HEIC ten."""
_GREY: Final = ("jpeg", "png", "tiff", "bmp")
"""Formats that hold one channel alone, and a grey profile with it."""
_CLEAR: Final = ("png", "webp", "tiff", "bmp", "heic", "avif")
"""Formats that hold alpha."""

# a damaged file is told to the client, once; OpenCV would write it to standard error as well, Pillow to the log
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)


def decode(data: bytes, header: Header) -> Picture:
    """Decode a file to an upright picture.

    Args:
        data: the whole file.
        header: what `read_header` said of it.

    Raises:
        MalformedPicture: it can't be decoded, ends early, or differs in size from its header.
        UnsupportedSamples: they turn out to be neither of 8 nor of 16 bits.
        MemoryError: there is not enough.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            samples, header = samples_of(data, header)
    except (MalformedPicture, UnsupportedSamples, MemoryError):
        raise
    except Exception as error:
        raise MalformedPicture("the file is damaged or ends early") from error
    if samples.dtype not in (np.uint8, np.uint16):
        raise UnsupportedSamples("of another kind")
    turned = _turn(samples, header.orientation)
    if turned.shape[:2] != (header.height, header.width):
        raise MalformedPicture("the picture differs in size from its header")
    alpha = None
    if header.clear_grey is not None and turned.ndim == 2:  # OpenCV reads a clear colour, and not a clear grey
        alpha = np.where(turned == header.clear_grey, 0, np.iinfo(turned.dtype).max).astype(turned.dtype)
    if turned.ndim == 3 and turned.shape[2] in (2, 4):
        alpha = np.asarray(np.ascontiguousarray(turned[:, :, -1]))
        if header.format == "webp" and header.frames > 1 and alpha.all() and alpha.min() == np.iinfo(alpha.dtype).max:
            alpha = None  # an animation is decoded with alpha whether it has any or not
        turned = np.asarray(np.ascontiguousarray(turned[:, :, :-1]))
    if turned.ndim == 2 or turned.shape[2] == 1:
        turned = np.asarray(cv2.cvtColor(turned, cv2.COLOR_GRAY2RGB))
    return _in_known_space(Picture(turned, header, alpha))


def _in_known_space(picture: Picture) -> Picture:
    """Convert what is in a space that can only be left, as a scanner's may be, to sRGB."""
    space = space_of(picture.header.icc_profile, grey=picture.header.grey)
    if space is None or space.reversible:
        return picture
    alpha = None if picture.alpha is None else rounded(picture.alpha)
    return Picture(converted(picture.pixels, space), replace(picture.header, icc_profile=None), alpha)


def _turn(array: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (Exif 2.32, tag 0x0112)."""
    if orientation in (2, 4, 5, 7):  # mirrored; 5 and 7 are turned as well
        array = np.asarray(cv2.flip(array, 1))
    turn = {
        3: cv2.ROTATE_180,
        4: cv2.ROTATE_180,
        5: cv2.ROTATE_90_COUNTERCLOCKWISE,
        6: cv2.ROTATE_90_CLOCKWISE,
        7: cv2.ROTATE_90_CLOCKWISE,
        8: cv2.ROTATE_90_COUNTERCLOCKWISE,
    }.get(orientation)
    return array if turn is None else np.asarray(cv2.rotate(array, turn))


def writable(format_: Format) -> bool:
    """Whether this installation can write a format; HEIC needs an encoder that not every build has."""
    return format_ != "heic" or heif.can_encode()


def answer_format(header: Header, wanted: Format | None = None) -> Format:
    """Return the format to answer a file in: the one that is wanted, else its own where it can be written, else JPEG.

    Raises:
        NotWritable: what is wanted can't be written here.
        SideTooLong: it can't hold the picture.
    """
    if wanted is not None and not writable(wanted):
        raise NotWritable(wanted)
    format_ = wanted or (header.format if writable(header.format) else "jpeg")
    check_size(header, format_)
    return format_


def check_size(header: Header, format_: Format) -> None:
    """Check that a format can hold a picture, before any work is done on it.

    Raises:
        SideTooLong: it can't.
    """
    side, limit = max(header.height, header.width), _MAX_SIDE[format_]
    if format_ == "heic" and min(header.height, header.width) < 64:
        limit = 4096  # x265 has no level for long threads
    if side > limit:
        raise SideTooLong(side, limit, format_)


def as_srgb(picture: Picture) -> npt.NDArray[np.uint8]:
    """Return a picture's pixels as an sRGB display shows them, uint8 (H, W, 3); alpha is disregarded."""
    return converted(picture.pixels, space_of(picture.header.icc_profile, grey=picture.header.grey))


def encode(
    picture: Picture, format_: Format, quality: int = 95, keep_metadata: bool = True, *, spend: bool = False
) -> bytes:
    """Encode a picture.

    Args:
        picture: what to encode. What the format can't hold is converted: 16 bits are rounded, alpha is laid over
            white, a colour profile gives way to sRGB.
        format_: one of `FORMATS`.
        quality: 1 to 100, for JPEG, WebP, HEIC and AVIF; WebP is lossless at 100. Colour is sampled as in the file
            that came, where the format stays the same; else in HEIC at every fourth pixel, in the others at every one
            from 90 on, and at every fourth below.
        keep_metadata: whether EXIF, XMP, IPTC and texts go along. The colour profile always does, unless it is sRGB's
            and adds nothing.
        spend: whether the picture's pixels may be overwritten, which saves a copy of them.

    Raises:
        SideTooLong: the format can't hold the picture.
        NotWritable: this installation can't write it.
    """
    header = picture.header
    answer_format(replace(header, height=picture.pixels.shape[0], width=picture.pixels.shape[1]), format_)
    pixels, alpha, profile = picture.pixels, picture.alpha, header.icc_profile
    if profile and not _holds_profile(format_, profile, grey=header.grey):
        pixels, profile = as_srgb(picture), None
        alpha = None if alpha is None else rounded(alpha)
    if not keep_metadata and is_srgb(profile):
        profile = None
    if format_ not in _DEEP:
        pixels, alpha = rounded(pixels), None if alpha is None else rounded(alpha)
    if alpha is not None and format_ not in _CLEAR:
        pixels, alpha = _over_white(pixels, alpha), None
    said = header.metadata if keep_metadata else header.metadata.stripped()
    spend = spend or pixels is not picture.pixels
    if header.grey and format_ in _GREY:
        channels = pixels[:, :, :1] if alpha is None else np.dstack([pixels[:, :, 0], alpha])
    else:
        channels = pixels if alpha is None else np.dstack([pixels, alpha])
        spend = spend or alpha is not None
    sampling = header.sampling if header.format == format_ else None
    return written(np.asarray(channels), format_, quality, said, profile, sampling, spend=spend)


def _holds_profile(format_: Format, profile: bytes, *, grey: bool) -> bool:
    if format_ == "bmp" or (grey and format_ not in _GREY):
        return False
    return format_ != "jpeg" or len(profile) <= metadata.MAX_JPEG_PROFILE


def _over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[:, :, None].astype(np.uint16)
    return ((pixels * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def media_type(format_: Format) -> str:
    """Return the format's media type, such as `image/jpeg`."""
    return f"image/{format_}"
