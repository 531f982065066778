"""Decoders, by format: bytes -> samples as they lie in the file."""

import io
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from PIL import Image

from service import avif, bmp, heif, jpeg, png, tiff_samples
from service.colour import cmyk_to_srgb
from service.picture import FORMATS, Format, Header, MalformedPicture, Pixels, UnsupportedSamples

PILLOW: Final[dict[Format, str]] = {format_: format_.upper() for format_ in FORMATS}
"""What Pillow calls them."""


def samples_of(data: bytes, header: Header) -> tuple[Pixels, Header]:
    """Decode a file to grey (H, W), grey and alpha, RGB or RGBA, as it lies in the file; CMYK becomes sRGB."""
    match header.format:
        case "jpeg":
            return _jpeg_samples(data, header)
        case "png":
            return _as_rgb(_with_opencv(png.without_unused(data), cv2.IMREAD_UNCHANGED)), header
        case "webp":
            return _as_rgb(_with_opencv(data, cv2.IMREAD_UNCHANGED)), header
        case "heic":
            return heif.decode(data), header
        case "avif":
            samples, header = _with_pillow(data, header)
            return np.ascontiguousarray(avif.upright(samples, avif.read_header(data))), header
        case "tiff":
            return _tiff_samples(data, header)
        case "bmp" if (fields := bmp.fields_of(data)) is not None:
            return bmp.decode(data, fields), header
        case _:
            return _with_pillow(data, header)


def _jpeg_samples(data: bytes, header: Header) -> tuple[Pixels, Header]:
    last_scan = jpeg.unended_scan(data)
    if last_scan is not None:
        return _unended_jpeg_samples(data, header, last_scan)
    if header.inks:
        return _with_pillow(data, header)
    # a JPEG has neither alpha nor 16 bits, and is decoded to RGB at once: one copy of the picture less
    kind = cv2.IMREAD_GRAYSCALE if header.grey else cv2.IMREAD_COLOR_RGB
    return _with_opencv(data, kind | cv2.IMREAD_IGNORE_ORIENTATION), header


def _unended_jpeg_samples(data: bytes, header: Header, last_scan: int) -> tuple[Pixels, Header]:
    # with Pillow: OpenCV's decoder writes its warnings to standard error
    first, *others = jpeg.endings(data, last_scan)
    samples, header_then = _with_pillow(first, header)
    if not all(np.array_equal(samples, _with_pillow(other, header)[0]) for other in others):
        raise MalformedPicture("the file is damaged or ends early")
    return samples, header_then


def _with_opencv(data: bytes, flags: int) -> Pixels:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise MalformedPicture("the file is damaged or ends early")
    return np.asarray(decoded)


def _as_rgb(array: Pixels) -> Pixels:
    """Turn OpenCV's order round."""
    if array.ndim == 2:
        return array
    if array.shape[2] == 4:
        return np.asarray(cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA, dst=array))
    return np.asarray(cv2.cvtColor(array, cv2.COLOR_BGR2RGB, dst=array))


def _tiff_samples(data: bytes, header: Header) -> tuple[Pixels, Header]:
    samples, srgb = tiff_samples.decode(data)
    return samples, replace(header, icc_profile=None) if srgb else header


def _with_pillow(data: bytes, header: Header) -> tuple[Pixels, Header]:
    if header.format == "jpeg":
        data = jpeg.plain(data)
    with Image.open(io.BytesIO(data), formats=[PILLOW[header.format]]) as image:
        image.load()
        match image.mode:
            case "CMYK":
                return cmyk_to_srgb(image, image.info.get("icc_profile")), replace(header, icc_profile=None)
            case "L" | "LA" | "RGB" | "RGBA" | "I;16" | "I;16B" | "I;16L" | "I;16N":
                samples = np.array(image)
            case "1":
                samples = np.array(image.convert("L"))
            case "La":
                samples = np.array(image.convert("LA"))
            case "PA" | "RGBa":
                samples = np.array(image.convert("RGBA"))
            case "P" | "RGBX" | "YCbCr":
                samples = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
            case _:
                raise UnsupportedSamples("of another kind")
    return samples.astype(samples.dtype.newbyteorder("="), copy=False), header
