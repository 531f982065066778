"""Reads a file by Pillow with ImageCms, or by libvips: upright, in sRGB. Runs in a child process."""

import io
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pillow_heif
import pyvips
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from tests.corpus.spaces import Space, space_of

MAX_PIXELS: Final = 100_000_000
"""Larger pictures are not compared; the service refuses them anyway."""
_MOST_COMPARED: Final = 4_000_000
"""Of a larger picture every second, third, ... row and column is kept."""
_REDUCED: Final = 1
"""Bit of TIFF's NewSubfileType: a smaller version of another page."""

_MOST_PAGES: Final = 100
_SRGB: Final = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))

pillow_heif.register_heif_opener()
Image.MAX_IMAGE_PIXELS = None  # as the service does: tests of both share a process; `_check` bounds what is decoded


class NotComparable(Exception):
    """The file can be read, and not be compared; the message says why."""


@dataclass(frozen=True)
class Reading:
    """What a decoder read.

    Attributes:
        height, width: of the upright picture.
        pixels: in sRGB, uint8 or uint16 (H, W, 3), perhaps not every row and column.
        alpha: of the same kind (H, W); None where there is none.
        deep: whether the file's samples have more than 8 bits.
        hdr: whether they are PQ or HLG, and `pixels` say nothing.
        complaint: why a strict decoder refuses the file, or what it warns of.
    """

    height: int
    width: int
    pixels: npt.NDArray[Any]
    alpha: npt.NDArray[Any] | None
    deep: bool
    hdr: bool = False
    complaint: str = ""


def read(decoder: str, data: bytes) -> Reading:
    """Read a file by `pillow` or `vips`; raises whatever they raise where they can't."""
    return _DECODERS[decoder](data)


def _thinned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    step = 1
    while array.shape[0] * array.shape[1] // step**2 > _MOST_COMPARED:
        step += 1
    return np.ascontiguousarray(array[::step, ::step])


def _by_pillow(data: bytes) -> Reading:
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            reading = _open_pillow(data, "")
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UnidentifiedImageError):
            raise
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _open_pillow(data, f"{type(error).__name__}: {error}")
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    complaints = [str(each.message) for each in told if not issubclass(each.category, DeprecationWarning)]
    return replace(reading, complaint="; ".join(complaints)[:300])


def _open_pillow(data: bytes, complaint: str) -> Reading:
    with Image.open(io.BytesIO(data)) as image:
        _to_full_page(image)
        _check(image.width, image.height)
        image.load()
        said, profile = space_of(data), image.info.get("icc_profile")
        upright = ImageOps.exif_transpose(image)
        deep = upright.mode.startswith("I;16") or (image.format == "PNG" and data[24] == 16) or _is_deep_tiff(image)
        alpha: npt.NDArray[Any] | None = None
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright).astype(np.uint16) >> 8).astype(np.uint8))
        elif upright.mode in ("I", "F"):
            raise NotComparable(f"samples of mode {upright.mode}")
        elif upright.has_transparency_data:
            upright = upright.convert("RGBA")
            alpha = np.asarray(upright)[:, :, 3]
            upright = upright.convert("RGB")
        pixels = np.asarray(_to_srgb(upright, profile or said.profile))
        return Reading(
            upright.height, upright.width, _thinned(pixels), None if alpha is None else _thinned(alpha), deep,
            said.hdr and not profile, complaint,
        )  # fmt: skip


def _to_full_page(image: Image.Image) -> int:
    """Go to the first page of a TIFF that is no smaller version of another; return its number."""
    if image.format != "TIFF":
        return 0
    for page in range(min(getattr(image, "n_frames", 1), _MOST_PAGES)):
        image.seek(page)
        if not image.getexif().get(254, 0) & _REDUCED:
            return page
    image.seek(0)
    return 0


def _is_deep_tiff(image: Image.Image) -> bool:
    bits = image.getexif().get(258, 8) if image.format == "TIFF" else 8
    return max(bits) == 16 if isinstance(bits, tuple) else bits == 16


def _check(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise NotComparable(f"{width}x{height} pixels")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode in ("1", "P", "PA", "LA", "RGBA", "RGBX", "YCbCr"):
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    try:
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        elif image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            return image.convert("RGB")
        if image.mode in ("RGB", "L"):  # a grey PNG's gamma is written as a profile for RGB
            image = image.convert("L" if source.profile.xcolor_space.strip() == "GRAY" else "RGB")
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(image, source, _SRGB, intent, "RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError):  # such a profile is no use to anyone
        return image.convert("RGB")
    assert converted is not None
    return converted


def _by_vips(data: bytes) -> Reading:
    said = space_of(data)
    page = 0
    if data[:2] in (b"II", b"MM"):
        try:
            with Image.open(io.BytesIO(data)) as image:
                page = _to_full_page(image)
        except (OSError, SyntaxError, ValueError):
            pass
    options = {"page": page} if page else {}
    try:
        return _open_vips(data, said, "", fail_on="warning", **options)
    except pyvips.Error as error:
        complaint = " ".join(str(error).split())[:200]
        return _open_vips(data, said, complaint, fail_on="none", **options)


def _open_vips(data: bytes, said: Space, complaint: str, **options: Any) -> Reading:
    image = pyvips.Image.new_from_buffer(data, "", **options)
    _check(image.width, image.height)
    if image.format not in ("uchar", "ushort"):
        raise NotComparable(f"samples of kind {image.format}, {image.interpretation}")
    image = image.autorot().copy_memory()
    alpha = None
    if image.hasalpha():
        alpha = _thinned(image[image.bands - 1].numpy())
        image = image.extract_band(0, n=image.bands - 1)
    pixels = _vips_to_srgb(image, said.profile, deep=image.format == "ushort").numpy()
    deep = image.format == "ushort" and data[8:12] != b"avif"  # docs/colour.md: AVIF is read as 8 bits
    hdr = said.hdr and "icc-profile-data" not in image.get_fields()
    return Reading(image.height, image.width, _thinned(pixels), alpha, deep, hdr, complaint)


def _vips_to_srgb(image: Any, profile: bytes | None, *, deep: bool) -> Any:
    wanted: dict[str, Any] = {"intent": "relative", "black_point_compensation": True, "depth": 16 if deep else 8}
    try:
        if "icc-profile-data" in image.get_fields():
            return image.icc_transform("srgb", embedded=True, **wanted).copy_memory()
        if profile is not None:
            if image.bands == 1:  # the profile is one for RGB
                image = image.bandjoin([image, image]).copy(interpretation="rgb16" if deep else "srgb")
            with tempfile.NamedTemporaryFile(suffix=".icc") as file:
                Path(file.name).write_bytes(profile)
                return image.icc_transform("srgb", input_profile=file.name, **wanted).copy_memory()
    except pyvips.Error:  # such a profile is no use to anyone
        pass
    if image.interpretation == "cmyk":  # libvips has a profile of its own for inks, and browsers have none
        raise NotComparable("inks without a profile")
    converted = image.colourspace("rgb16" if deep else "srgb")
    return converted.extract_band(0, n=3) if converted.bands > 3 else converted


_DECODERS: Final[dict[str, Callable[[bytes], Reading]]] = {"pillow": _by_pillow, "vips": _by_vips}
DECODERS: Final = tuple(_DECODERS)
