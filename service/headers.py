"""A file's first bytes and its header: format, size, depth, frames, metadata; nothing is decoded."""

import io
import warnings
from typing import Final

import numpy as np
from PIL import Image

from service import avif, bmp, cicp, heif, jpeg, metadata, png, tiff, webp
from service.colour import usable
from service.decoders import PILLOW
from service.picture import (
    Format,
    Header,
    MalformedPicture,
    PictureLimits,
    PictureTooLarge,
    TooManyFrames,
    TooManyScans,
    UnsupportedFormat,
    UnsupportedSamples,
)

_RAWS: Final = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW")
"""How the raw files of Olympus, Panasonic and Fujifilm begin; most others are TIFFs."""
_SCAN_HEAD: Final = 1024
"""Bytes that hold what a scan of a JPEG says before its samples."""
_GREY_MODES: Final = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N")

# decoders' own pixel limits would speak before ours, and say less; ours is checked before any of them decodes
Image.MAX_IMAGE_PIXELS = None


def format_of(data: bytes) -> Format:
    """Tell the format by a file's first bytes.

    Raises:
        UnsupportedFormat: it is none of ours.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0")):
        return "tiff"
    if data.startswith(_RAWS) or data[4:12] == b"ftypcrx ":
        raise UnsupportedFormat(tiff.RAW)
    if bmp.is_bmp(data):
        return "bmp"
    if data[4:8] == b"ftyp":
        size = min(int.from_bytes(data[:4], "big"), 256)
        # the major brand, a version, and those it is compatible with; mif1 alone says nothing of the coding
        for brand in (data[8:12], *(data[place : place + 4] for place in range(16, size, 4))):
            if brand in (b"avif", b"avis"):
                return "avif"
            if brand in heif.BRANDS:
                return "heic"
    raise UnsupportedFormat


def read_header(data: bytes, limits: PictureLimits) -> Header:
    """Read a file's header without decoding it.

    Args:
        data: the whole file.
        limits: what it may claim.

    Raises:
        UnsupportedFormat, UnsupportedSamples, MalformedPicture, PictureTooLarge, TooManyFrames, TooManyScans: see each.
    """
    format_ = format_of(data)
    marks = _marks_of(data, limits.max_scans) if format_ == "jpeg" else None
    if format_ == "png" and not png.chunks_fit(data):
        raise MalformedPicture("its chunks are more than any writer makes, or claim more bytes than the file has")
    try:
        with warnings.catch_warnings(action="ignore"):
            header = _read(data, format_, limits)
    except webp.Unreadable as error:
        raise MalformedPicture(str(error)) from None
    except (UnsupportedFormat, UnsupportedSamples, MalformedPicture, PictureTooLarge, MemoryError):
        raise
    except Exception as error:
        raise MalformedPicture("the header can't be read") from error
    if header.width < 1 or header.height < 1:
        raise MalformedPicture("the header claims no pixels")
    if header.width * header.height > limits.max_pixels:
        raise PictureTooLarge(header.width * header.height, limits.max_pixels)
    if header.frames > limits.max_frames:
        raise TooManyFrames(limits.max_frames)
    if marks is not None and marks.scans > limits.max_scans:
        raise TooManyScans(limits.max_scans)
    if marks is not None and not marks.holds_enough:
        raise MalformedPicture("it holds too little for the size that its header claims")
    return header


def _marks_of(data: bytes, most_scans: int) -> jpeg.Marks:
    try:
        marks = jpeg.marks_of(data, most_scans)
    except jpeg.Unreadable as error:
        raise MalformedPicture(str(error)) from None
    if marks.bits not in (0, 8):
        raise UnsupportedSamples(f"of {marks.bits} bits")
    return marks


def _read(data: bytes, format_: Format, limits: PictureLimits) -> Header:
    match format_:
        case "png":
            return _png_header(data)
        case "avif":
            return _avif_header(data, limits)
        case "heic":
            return _heif_header(data)
        case "tiff":
            return _tiff_header(data)
        case "webp":
            return _webp_header(data)
        case "bmp" if (fields := bmp.fields_of(data)) is not None:
            return Header("bmp", fields.height, fields.width)
        case _:
            return _pillow_header(data, format_)


def _heif_header(data: bytes) -> Header:
    found = heif.read_header(data)
    grey = found.mode.startswith(("L", "I"))
    return Header(
        "heic",
        found.height,
        found.width,
        metadata=found.metadata,
        icc_profile=usable(found.icc_profile, grey=grey) or cicp.profile_of(*found.numbers, grey=grey),
        grey=grey,
        sampling=found.sampling,
        frames=found.frames,
    )


def _png_header(data: bytes) -> Header:
    found = png.read_header(data)
    orientation, said = png.metadata_of(data)
    height, width = found.height, found.width
    if orientation >= 5:
        width, height = height, width
    return Header(
        "png",
        height,
        width,
        orientation,
        said,
        found.profile,
        clear_grey=found.clear_grey,
        grey=found.grey,
        frames=found.frames,
    )


def _avif_header(data: bytes, limits: PictureLimits) -> Header:
    found = avif.read_header(data)
    if found.pixels > limits.max_pixels:  # of the largest its decoder would not say why it refuses them
        raise PictureTooLarge(found.pixels, limits.max_pixels)
    if not avif.sizes_agree(data):  # nor has its decoder bounds of its own for how many boxes there are
        raise MalformedPicture("the picture differs in size from its header")
    with Image.open(io.BytesIO(data), formats=[PILLOW["avif"]]) as image:
        width, height = image.size
        if width * height > limits.max_pixels:  # before it is cut
            raise PictureTooLarge(width * height, limits.max_pixels)
        height, width = avif.upright(np.broadcast_to(np.uint8(0), (height, width)), found).shape
        grey = image.mode in _GREY_MODES
        profile = usable(image.info.get("icc_profile"), grey=grey)
        frames = getattr(image, "n_frames", 1)
        _, said = metadata.of_image(image)  # the file's boxes count, whatever its EXIF says
    if not profile and found.numbers:
        profile = cicp.profile_of(*found.numbers, grey=grey)
    return Header("avif", height, width, 1, said, profile, grey=grey, sampling=found.sampling, frames=frames)


def _pillow_header(data: bytes, format_: Format) -> Header:
    opened = jpeg.plain(data, _SCAN_HEAD) if format_ == "jpeg" else data
    with Image.open(io.BytesIO(opened), formats=[PILLOW[format_]]) as image:
        width, height = image.size
        frames, sampling = 1, None
        orientation, said = jpeg.metadata_of(data) if format_ == "jpeg" else metadata.of_image(image)
        if format_ == "jpeg":
            frames, sampling = metadata.frames_of_jpeg(image), metadata.sampling_of_jpeg(image)
        grey = image.mode in _GREY_MODES
        profile = usable(image.info.get("icc_profile"), grey=grey)
        inks = image.mode == "CMYK"
    if orientation >= 5:
        width, height = height, width
    return Header(format_, height, width, orientation, said, profile, None, grey, inks, sampling, frames)


def _webp_header(data: bytes) -> Header:
    found = webp.read_header(data)
    height, width = found.height, found.width
    if found.orientation >= 5:
        width, height = height, width
    profile = usable(found.icc_profile, grey=False)
    return Header("webp", height, width, found.orientation, found.metadata, profile, frames=found.frames)


def _tiff_header(data: bytes) -> Header:
    layout = tiff.layout_of(data)
    height, width = layout.height, layout.width
    if layout.orientation >= 5:
        width, height = height, width
    return Header(
        "tiff",
        height,
        width,
        layout.orientation,
        tiff.metadata_of(layout),
        usable(layout.icc_profile, grey=layout.grey),
        grey=layout.grey,
        frames=layout.pages,
    )
