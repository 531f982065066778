"""Encoders, by format: samples -> bytes, with metadata and a colour profile."""

import io
import struct
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image

from service import heif, metadata, png, tiff
from service.copies import joined
from service.metadata import Metadata, Resolution, Sampling
from service.picture import Format, MalformedPicture, Pixels

_FACTORS: Final[dict[Sampling, int]] = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def written(
    channels: Pixels,
    format_: Format,
    quality: int,
    said: Metadata,
    profile: bytes | None,
    sampling: Sampling | None,
    *,
    spend: bool,
) -> bytes:
    """Write (H, W, C): grey, grey and alpha, RGB, or RGB and alpha; sampling None means the format's own way."""
    if sampling is None:
        sampling = "4:2:0" if quality < 90 or format_ == "heic" else "4:4:4"
    match format_:
        case "jpeg":
            factors = _FACTORS[sampling]
            options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors]
            file = _by_opencv(channels, ".jpeg", options, spend=spend)
            segments = metadata.jpeg_segments(said) + (metadata.icc_segments(profile) if profile else b"")
            return metadata.into_jpeg(file, segments, said.resolution)
        case "png" if channels.shape[2] == 2:
            return png.with_metadata(png.write_grey(channels), said, profile)
        case "png":
            # 6 takes twice the time for 2 % of the bytes
            file = _by_opencv(channels, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3], spend=spend)
            return png.with_metadata(file, said, profile)
        case "bmp":
            return _with_resolution(_by_opencv(channels, ".bmp", [], spend=spend), said.resolution)
        case "tiff":
            return tiff.write(channels, said, profile)
        case "heic":
            return heif.encode(channels, quality, said, profile, sampling)
        case "webp" if quality == 100:
            # exact: colours under clear parts are kept; 0 is the least effort, which hardly costs bytes
            return _by_pillow(channels, "WEBP", said, profile, lossless=True, exact=True, quality=0)
        case "webp":
            return _by_pillow(channels, "WEBP", said, profile, quality=quality)
        case "avif":
            said = metadata.without_orientation(said)
            return _by_pillow(channels, "AVIF", said, profile, quality=quality, speed=8, subsampling=sampling)


def _by_opencv(channels: Pixels, suffix: str, options: list[int], *, spend: bool) -> bytes:
    match channels.shape[2]:
        case 1:
            array = np.ascontiguousarray(channels)
        case 2:
            array = channels[:, :, [0, 0, 0, 1]]
        case 3:
            array = _swapped(channels) if spend else np.asarray(cv2.cvtColor(channels, cv2.COLOR_RGB2BGR))
        case _:
            array = np.asarray(cv2.cvtColor(channels, cv2.COLOR_RGBA2BGRA, dst=channels if spend else None))
    done, encoded = cv2.imencode(suffix, array, options)
    if not done:
        raise MalformedPicture("the picture can't be encoded")
    return joined(encoded.data)


def _with_resolution(bmp: bytes, resolution: Resolution | None) -> bytes:
    """Put pixels per metre into a BMP's header."""
    if resolution is None or not resolution.absolute:
        return bmp
    return joined(bmp[:38], struct.pack("<ii", round(resolution.x), round(resolution.y)), memoryview(bmp)[46:])


def _by_pillow(channels: Pixels, name: str, said: Metadata, profile: bytes | None, **options: Any) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(channels))
    blocks = {"exif": said.exif, "xmp": said.xmp, "icc_profile": profile}
    kept = {key: block for key, block in blocks.items() if block}
    while True:
        file = io.BytesIO()
        try:
            image.save(file, name, **kept, **options)
        except Exception:
            # AVIF's writer reads EXIF, and broken metadata must not cost the picture
            if kept.pop("exif", None) is None:
                raise
            continue
        return file.getvalue()


def _swapped(pixels: Pixels) -> Pixels:
    """Swap red and blue where they lie; OpenCV copies what it converts in place, so that is done in strips."""
    for top in range(0, pixels.shape[0], 64):
        strip = pixels[top : top + 64]
        cv2.cvtColor(strip, cv2.COLOR_RGB2BGR, dst=strip)
    return pixels
