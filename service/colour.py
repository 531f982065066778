"""Colour spaces of pictures: what an ICC profile says, to sRGB for the network, and back for the answer.

A matrix profile (Display P3, Adobe RGB, ProPhoto and nearly every camera's) and a grey one are three curves and a
matrix (ICC.1:2022, annex F), and are worked out here in more than 16 bits: Little CMS, by way of Pillow, has 8 alone.
Whatever else there is, lookup tables and CMYK, goes through Little CMS.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from service.icc import NODES, SRGB, Curve, curve_of, tags_of, to_xyz

Samples = npt.NDArray[np.uint8 | np.uint16]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Table = TypeVar("Table", Floats, Bytes)

_SRGB_TO_XYZ: Final = to_xyz(SRGB)[0]
"""Linear sRGB to XYZ under D50."""
_D50: Final = _SRGB_TO_XYZ.sum(axis=1)
"""XYZ of white."""
_LUMA: Final = np.array([0.2126, 0.7152, 0.0722], np.float32)
_NEAR_SRGB: Final = 1.5
"""Levels of 8 bits: the many makers' sRGB profiles differ by less than this, and any other space by far more."""
_LARGEST_PROFILE: Final = 1 << 24
"""Bytes: as much as a JPEG holds. Reading lookup tables of this size takes half a second."""
_USUAL_PROFILE: Final = 1 << 20
"""Bytes of a profile that is remembered; larger ones are rare, and memory is not to be filled with them."""
STRIP: Final = 256
"""Rows that are converted at a time, so that what a conversion needs grows with the width alone."""


class Space(Protocol):
    """A colour space that a picture's samples are in, other than sRGB.

    Attributes:
        reversible: whether sRGB can be converted to it.
    """

    @property
    def reversible(self) -> bool: ...

    def to_srgb(self, pixels: Samples) -> Bytes:
        """Convert (H, W, 3) over the full range of its dtype to sRGB, rounded; what lies outside sRGB is clipped."""

    def from_srgb(self, rgb: Floats) -> Floats:
        """Convert sRGB, float32 (H, W, 3) in 0..255, to this space in 0..1."""


def _srgb_curve(samples: Curve) -> Curve:
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


@lru_cache(maxsize=1)
def _srgb_tables() -> tuple[Floats, Bytes]:
    """SRGB in 16 bits -> linear 0..1, and linear in 16 bits -> sRGB in 8."""
    encoded = np.where(NODES <= 0.0031308, NODES * 12.92, 1.055 * NODES ** (1 / 2.4) - 0.055)
    return _srgb_curve(NODES).astype(np.float32), np.rint(encoded * 255).astype(np.uint8)


def _indices(samples: Floats, scale: float) -> npt.NDArray[np.uint16]:
    """Scale float samples and round them to indices of a table, in one pass."""
    return np.asarray(cv2.addWeighted(samples, scale, samples, 0, 0, dtype=cv2.CV_16U), np.uint16)


def _looked_up(indices: Samples, tables: Table) -> Table:
    """Look (H, W, C) up in a table for all channels (N,), or in one for each (N, C)."""
    return np.asarray(cv2.LUT(indices, np.ascontiguousarray(tables).reshape(1, len(tables), -1)), tables.dtype)


def _decoding(curves: Curve, samples: Samples) -> Floats:
    return (curves if samples.dtype == np.uint16 else curves[::257]).astype(np.float32)


def _encoding(curve: Curve) -> Floats:
    """Invert a curve: a table by the square root of the linear sample, which spends its entries on the dark ones."""
    return np.interp(NODES**2, curve, NODES).astype(np.float32)


def _pieces(pixels: Samples | Floats) -> Iterator[slice]:
    """Split rows so that what is worked out on the way stays in the cache: a third of the time."""
    rows = max(1, 16_384 // pixels.shape[1])
    for top in range(0, pixels.shape[0], rows):
        yield slice(top, top + rows)


def _encoded(linear: Floats, tables: Floats) -> Floats:
    roots = np.sqrt(np.maximum(linear, 0, out=linear), out=linear)
    return _looked_up(_indices(roots, 65_535), tables)


def _linear_srgb(rgb: Floats) -> Floats:
    return _looked_up(_indices(rgb, 257), _srgb_tables()[0])


@dataclass(frozen=True, eq=False)
class MatrixSpace:
    """Three curves and a matrix.

    Attributes:
        curves: float64 (65536, 3), from samples in 16 bits to linear 0..1, not falling.
        to_xyz: float64 (3, 3), from linear samples to XYZ under D50.
    """

    curves: Curve
    to_xyz: npt.NDArray[np.float64]
    reversible: bool = True

    @cached_property
    def _to_linear_srgb(self) -> npt.NDArray[np.float64]:
        return np.asarray(np.linalg.inv(_SRGB_TO_XYZ) @ self.to_xyz)

    @cached_property
    def _from_linear_srgb(self) -> npt.NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self._to_linear_srgb))

    @cached_property
    def _encodings(self) -> Floats:
        return np.stack([_encoding(self.curves[:, channel]) for channel in range(3)], axis=1)

    def to_srgb(self, pixels: Samples) -> Bytes:
        curves, output = _decoding(self.curves, pixels), np.empty(pixels.shape, np.uint8)
        for here in _pieces(pixels):
            mixed = np.asarray(cv2.transform(_looked_up(pixels[here], curves), self._to_linear_srgb), np.float32)
            output[here] = _looked_up(_indices(mixed, 65_535), _srgb_tables()[1])
        return output

    def from_srgb(self, rgb: Floats) -> Floats:
        output = np.empty_like(rgb)
        for here in _pieces(rgb):
            mixed = cv2.transform(_linear_srgb(rgb[here]), self._from_linear_srgb)
            output[here] = _encoded(np.asarray(mixed, np.float32), self._encodings)
        return output


@dataclass(frozen=True, eq=False)
class GreySpace:
    """Grey samples, the same in all three channels.

    Attributes:
        curve: float64 (65536,), from samples in 16 bits to luminance 0..1, not falling; None for sRGB's own.
    """

    curve: Curve | None = None
    reversible: bool = True

    @cached_property
    def _encoding(self) -> Floats:
        assert self.curve is not None
        return _encoding(self.curve)

    @cached_property
    def _to_srgb(self) -> Bytes:
        assert self.curve is not None
        return np.asarray(_srgb_tables()[1][np.rint(self.curve * 65_535).astype(np.uint16)], np.uint8)

    def to_srgb(self, pixels: Samples) -> Bytes:
        if self.curve is None:
            return rounded(pixels)
        table = self._to_srgb if pixels.dtype == np.uint16 else self._to_srgb[::257]
        return _looked_up(pixels, table)

    def from_srgb(self, rgb: Floats) -> Floats:
        luma = cv2.transform(rgb, _LUMA[None, :])
        if self.curve is None:
            grey = np.asarray(luma, np.float32) / np.float32(255)
        else:
            grey = _encoded(_linear_srgb(np.asarray(luma, np.float32)), self._encoding)
        return np.repeat(grey.reshape(*rgb.shape[:2], 1), 3, axis=2)


@dataclass(frozen=True, eq=False)
class TableSpace:
    """Whatever else Little CMS can convert in both directions, in 8 bits.

    Attributes:
        forth, back: to sRGB and from it; the profiles of scanners and some cameras know no way back.
    """

    forth: ImageCms.ImageCmsTransform
    back: ImageCms.ImageCmsTransform | None

    @property
    def reversible(self) -> bool:
        return self.back is not None

    def to_srgb(self, pixels: Samples) -> Bytes:
        return _through(self.forth, rounded(pixels))

    def from_srgb(self, rgb: Floats) -> Floats:
        assert self.back is not None
        return _through(self.back, np.rint(np.clip(rgb, 0, 255)).astype(np.uint8)).astype(np.float32) / np.float32(255)


def _through(transform: ImageCms.ImageCmsTransform, pixels: Bytes) -> Bytes:
    return np.asarray(transform.apply(Image.fromarray(np.ascontiguousarray(pixels))), np.uint8)


def rounded(pixels: Samples) -> Bytes:
    """Round 16-bit samples to the nearest of 8 bits (65535 -> 255); 8-bit ones pass as they are."""
    if pixels.dtype == np.uint8:
        return pixels  # type: ignore[return-value]
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def converted(pixels: Samples, space: Space | None) -> Bytes:
    """Convert a whole picture (H, W, 3) to sRGB in 8 bits, strip by strip; without a space it is rounded alone."""
    if space is None:
        return rounded(pixels)
    output = np.empty(pixels.shape, np.uint8)
    for top in range(0, pixels.shape[0], STRIP):
        output[top : top + STRIP] = space.to_srgb(pixels[top : top + STRIP])
    return output


def usable(profile: bytes | None, *, grey: bool) -> bytes | None:
    """Return a file's profile where it describes its RGB or grey samples and can be worked with, else None."""
    if not profile or profile[16:20] != (b"GRAY" if grey else b"RGB ") or len(profile) > _LARGEST_PROFILE:
        return None
    return profile if _parsed(profile) else None


def space_of(profile: bytes | None, *, grey: bool = False) -> Space | None:
    """Return the space of RGB samples (grey: of grey ones) with that profile, None for sRGB or what can't be used."""
    if not profile:
        return GreySpace() if grey else None
    space = _parsed(profile) if profile[16:20] == (b"GRAY" if grey else b"RGB ") else None
    if grey:
        return space if isinstance(space, GreySpace) else GreySpace()
    return None if space is None or isinstance(space, GreySpace) or _is_srgb(profile) else space


def is_srgb(profile: bytes | None) -> bool:
    """Whether a profile adds nothing to RGB samples that have none."""
    return not profile or (profile[16:20] == b"RGB " and _is_srgb(profile))


def _is_srgb(profile: bytes) -> bool:
    return _is_usual_srgb(profile) if len(profile) <= _USUAL_PROFILE else _near_srgb(_read(profile))


@lru_cache(maxsize=16)
def _is_usual_srgb(profile: bytes) -> bool:
    return _near_srgb(_parsed_usual(profile))


def _near_srgb(space: Space | None) -> bool:
    if space is None:
        return True
    levels = np.linspace(0, 255, 16).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(64, 64, 3)
    return bool(np.abs(space.to_srgb(cube).astype(int) - cube).max() <= _NEAR_SRGB)


def _parsed(profile: bytes) -> Space | None:
    """Read an RGB or grey profile, None where it can't be."""
    return _parsed_usual(profile) if len(profile) <= _USUAL_PROFILE else _read(profile)


@lru_cache(maxsize=8)  # a space takes 2 MB, in each decode worker too
def _parsed_usual(profile: bytes) -> Space | None:
    return _read(profile)


def _read(profile: bytes) -> Space | None:
    for read in (_matrix_or_grey, _tables):
        try:
            space = read(profile)
        except Exception:  # noqa: BLE001, S112  a broken profile must not cost the picture
            continue
        if space is not None:
            return space
    return None


def _matrix_or_grey(profile: bytes) -> Space | None:
    tags = tags_of(profile)
    if profile[20:24] != b"XYZ ":
        return None
    if profile[16:20] == b"GRAY":
        return GreySpace(curve_of(tags[b"kTRC"]))
    if profile[16:20] != b"RGB " or b"A2B0" in tags or not {b"rXYZ", b"gXYZ", b"bXYZ"} <= tags.keys():
        return None
    curves = np.stack([curve_of(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")], axis=1)
    columns = [np.frombuffer(tags[name], ">i4", 3, 8) / 65_536 for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    to_xyz = np.stack(columns, axis=1)
    if abs(np.linalg.det(to_xyz)) < 1e-6:
        raise ValueError("the primaries lie on a line")
    return MatrixSpace(curves, to_xyz)


def _tables(profile: bytes) -> Space | None:
    if profile[16:20] != b"RGB ":
        return None
    forth = _transform(profile, "RGB")
    try:
        back = ImageCms.buildTransform(_srgb(), _opened(profile), "RGB", "RGB", *_INTENT)
        # Pillow writes the output's profile anew whenever a strip is converted: 3.5 ms, and some can't be written
        back.output_profile = _srgb()
    except ImageCms.PyCMSError:
        back = None
    return TableSpace(forth, back)


_INTENT: Final = (ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION)
"""What photo editors convert by unless told otherwise."""


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(_opened(profile), _srgb(), mode, "RGB", *_INTENT)


def cmyk_to_srgb(image: Image.Image, profile: bytes | None) -> Bytes:
    """Convert a CMYK picture, strip by strip.

    Args:
        image: mode CMYK, 255 for full ink.
        profile: its profile. Without one that can be used the inks are taken for ideal ones, as browsers do.

    Returns:
        sRGB, uint8 (H, W, 3).
    """
    transform = None
    if profile and profile[16:20] == b"CMYK" and len(profile) <= _LARGEST_PROFILE:
        try:
            transform = _transform(profile, "CMYK")
        except (ImageCms.PyCMSError, OSError):
            transform = None
    width, height = image.size
    output = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, STRIP):
        strip = image.crop((0, top, width, min(top + STRIP, height)))
        output[top : top + STRIP] = np.asarray(strip.convert("RGB") if transform is None else transform.apply(strip))
    return output


def lab_to_srgb(lab: Floats) -> Bytes:
    """Convert CIELAB under D50 to sRGB.

    Args:
        lab: float32 (H, W, 3), L in 0..100, a and b.

    Returns:
        uint8 (H, W, 3); what lies outside sRGB is clipped.
    """
    height = (lab[:, :, 0] + 16) / 116
    roots = np.stack([height + lab[:, :, 1] / 500, height, height - lab[:, :, 2] / 200], axis=2)
    xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * (108 / 841)) * _D50
    linear = cv2.transform(xyz.astype(np.float32), np.linalg.inv(_SRGB_TO_XYZ))
    return _looked_up(_indices(np.asarray(linear, np.float32), 65_535), _srgb_tables()[1])
