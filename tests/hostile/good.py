"""Good pictures that hostile ones are made from."""

import io
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import Image


def pixels(height: int = 40, width: int = 48, seed: int = 6) -> npt.NDArray[np.uint8]:
    """Noise, uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def saved(array: npt.NDArray[Any], format_: str, **options: Any) -> bytes:
    """Encode an array by Pillow."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, format_, **options)
    return file.getvalue()


@cache
def jpeg(*, progressive: bool = False) -> bytes:
    return saved(pixels(), "JPEG", quality=90, progressive=progressive)


@cache
def png() -> bytes:
    return saved(pixels(), "PNG")


@cache
def webp(*, lossless: bool = False) -> bytes:
    return saved(pixels(), "WEBP", lossless=lossless)


@cache
def animation(format_: str = "WEBP", frames: int = 4) -> bytes:
    """An animation of different frames."""
    images = [Image.fromarray(pixels(seed=seed)) for seed in range(frames)]
    file = io.BytesIO()
    images[0].save(file, format_, save_all=True, append_images=images[1:], duration=40)
    return file.getvalue()


@cache
def bmp() -> bytes:
    return saved(pixels(), "BMP")


@cache
def avif() -> bytes:
    return saved(pixels(64, 64), "AVIF", speed=10)


@cache
def heic() -> bytes:
    """Empty where libheif was built without an encoder."""
    if not pillow_heif.libheif_info()["HEIF"]:
        return b""
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB", (64, 64), pixels(64, 64).tobytes()).save(file, quality=50)
    return file.getvalue()
