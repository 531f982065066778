"""Bytes <-> Picture: JPEG, PNG and WebP. OpenCV codes the pixels, Pillow reads the header before that."""

import io
import warnings
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Format = Literal["jpeg", "png", "webp"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
Pixels = npt.NDArray[np.uint8 | np.uint16]

_MAX_SIDE: Final[dict[Format, int]] = {"jpeg": 65_500, "png": 1_000_000, "webp": 16_383}
_ORIENTATION_TAG: Final = 0x0112
_MAX_SEGMENT: Final = 65_519
"""Bytes of a colour profile that one JPEG segment holds."""

# decoders' own pixel limits would speak before ours, and say less; ours is checked before any of them decodes
Image.MAX_IMAGE_PIXELS = None
# a damaged file is told to the client, once; OpenCV would write it to standard error as well
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class UnsupportedFormat(Exception):
    """The bytes are no JPEG, PNG or WebP."""


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


@dataclass(frozen=True)
class Header:
    """What a file says before it is decoded.

    Attributes:
        format: its format, by its own bytes.
        height, width: pixels once upright.
        orientation: the EXIF orientation, 1 (upright) to 8.
        exif: the EXIF block with the orientation reset to 1, None where there is none that can be read.
        icc_profile: the colour profile, None for sRGB.
        clear_grey: the grey level that a grey PNG declares transparent, None where it declares none.
    """

    format: Format
    height: int
    width: int
    orientation: int = 1
    exif: bytes | None = None
    icc_profile: bytes | None = None
    clear_grey: int | None = None


@dataclass(frozen=True)
class Picture:
    """An upright picture.

    Attributes:
        pixels: uint8 or uint16 (H, W, 3), RGB, over the full range of their dtype.
        alpha: of the same dtype, (H, W), None where everything is opaque.
        header: the header of the file that it came from.
    """

    pixels: Pixels
    header: Header
    alpha: Pixels | None = None


def read_header(data: bytes, max_pixels: int) -> Header:
    """Read a file's header without decoding it.

    Args:
        data: the whole file.
        max_pixels: how many pixels are allowed.

    Raises:
        UnsupportedFormat, MalformedPicture, PictureTooLarge: see each.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(data), formats=[f.upper() for f in FORMATS]) as image,
        ):
            width, height = image.size
            # Pillow calls a JPEG with further pictures behind it, such as a gain map, MPO
            format_: Format = "jpeg" if image.format == "MPO" else (image.format or "").lower()  # type: ignore[assignment]
            exif, icc_profile = image.info.get("exif"), image.info.get("icc_profile")
            grey = image.mode in ("L", "I;16") and isinstance(image.info.get("transparency"), int)
            clear_grey = image.info["transparency"] if grey else None
    except UnidentifiedImageError:
        if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
            raise MalformedPicture("the header can't be read") from None
        raise UnsupportedFormat("no JPEG, PNG or WebP") from None
    except Exception as error:
        raise MalformedPicture("the header can't be read") from error
    if width < 1 or height < 1:
        raise MalformedPicture("the header claims no pixels")
    if width * height > max_pixels:
        raise PictureTooLarge(width * height, max_pixels)
    if format_ == "png" and not _chunks_fit(data):
        raise MalformedPicture("a chunk claims more bytes than the file has")
    orientation, exif = _upright_exif(exif)
    if orientation >= 5:
        width, height = height, width
    # a profile for grey or CMYK samples does not fit the RGB that they become
    if not icc_profile or icc_profile[16:20] != b"RGB ":
        icc_profile = None
    return Header(format_, height, width, orientation, exif, icc_profile, clear_grey)


def _chunks_fit(data: bytes) -> bool:
    """Whether a PNG's chunks lie inside the file; a decoder would allocate what they claim, up to 4 GiB."""
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + length
    return False


def _upright_exif(exif: bytes | None) -> tuple[int, bytes | None]:
    """Return the orientation and the same EXIF with it reset to 1; unreadable EXIF counts as none."""
    if not exif:
        return 1, None
    try:
        with warnings.catch_warnings(action="ignore"):
            parsed = Image.Exif()
            parsed.load(exif)
            orientation = parsed.get(_ORIENTATION_TAG, 1)
            if orientation not in range(2, 9):
                return 1, exif.removeprefix(b"Exif\0\0")
            parsed[_ORIENTATION_TAG] = 1
            return orientation, parsed.tobytes().removeprefix(b"Exif\0\0")
    except Exception:  # noqa: BLE001  broken metadata must not cost the picture
        return 1, None


def decode(data: bytes, header: Header) -> Picture:
    """Decode a file to an upright picture.

    Args:
        data: the whole file.
        header: what `read_header` said of it.

    Raises:
        MalformedPicture: it can't be decoded, ends early, or differs in size from its header.
    """
    # JPEG has neither alpha nor 16 bits, and is decoded to RGB at once: one copy of the picture less
    direct = header.format == "jpeg"
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION if direct else cv2.IMREAD_UNCHANGED
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise MalformedPicture("the file is damaged or ends early")
    if decoded.dtype not in (np.uint8, np.uint16):
        raise MalformedPicture("the samples are neither 8 nor 16 bits")
    turned = _turn(_pixels(decoded), header.orientation)
    if turned.shape[:2] != (header.height, header.width):
        raise MalformedPicture("the picture differs in size from its header")
    if direct:
        return Picture(turned, header)
    if turned.ndim == 2:
        alpha = None
        if header.clear_grey is not None:  # OpenCV reads a clear colour, and not a clear grey
            alpha = np.where(turned == header.clear_grey, 0, np.iinfo(turned.dtype).max).astype(turned.dtype)
        return Picture(_pixels(cv2.cvtColor(turned, cv2.COLOR_GRAY2RGB)), header, alpha)
    if turned.shape[2] == 4:
        alpha = _pixels(np.ascontiguousarray(turned[:, :, 3]))
        return Picture(_pixels(cv2.cvtColor(turned, cv2.COLOR_BGRA2RGB)), header, alpha)
    return Picture(_pixels(cv2.cvtColor(turned, cv2.COLOR_BGR2RGB, dst=turned)), header)


def _pixels(array: object) -> Pixels:
    return np.asarray(array)


def _turn(array: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (Exif 2.32, tag 0x0112)."""
    if orientation in (2, 4, 5, 7):  # mirrored; 5 and 7 are turned as well
        array = _pixels(cv2.flip(array, 1))
    turn = {
        3: cv2.ROTATE_180,
        4: cv2.ROTATE_180,
        5: cv2.ROTATE_90_COUNTERCLOCKWISE,
        6: cv2.ROTATE_90_CLOCKWISE,
        7: cv2.ROTATE_90_CLOCKWISE,
        8: cv2.ROTATE_90_COUNTERCLOCKWISE,
    }.get(orientation)
    return array if turn is None else _pixels(cv2.rotate(array, turn))


def check_size(header: Header, format_: Format) -> None:
    """Check that a format can hold a picture, before any work is done on it.

    Raises:
        SideTooLong: it can't.
    """
    side = max(header.height, header.width)
    if side > _MAX_SIDE[format_]:
        raise SideTooLong(side, _MAX_SIDE[format_], format_)


def encode(
    picture: Picture, format_: Format, quality: int = 95, keep_metadata: bool = True, *, spend: bool = False
) -> bytes:
    """Encode a picture.

    Args:
        picture: what to encode. JPEG and WebP have 8 bits: 16 are rounded. JPEG has no alpha: the picture is laid
            over white.
        format_: `jpeg`, `png` or `webp`.
        quality: 1 to 100, for JPEG and WebP; WebP is lossless at 100.
        keep_metadata: whether EXIF and the colour profile go along.
        spend: whether the picture's pixels may be overwritten, which saves a copy of them.

    Raises:
        SideTooLong: the format can't hold the picture.
    """
    check_size(replace(picture.header, height=picture.pixels.shape[0], width=picture.pixels.shape[1]), format_)
    pixels, alpha = picture.pixels, picture.alpha
    if format_ != "png":
        pixels, alpha = _eight_bits(pixels), None if alpha is None else _eight_bits(alpha)
    if alpha is not None and format_ == "jpeg":
        pixels, alpha = _over_white(pixels, alpha), None
    if alpha is None:
        array = _swapped(pixels) if spend else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    else:
        array = np.dstack([pixels[:, :, ::-1], alpha])
    options = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 3],  # 6 takes twice the time for 2 % of the bytes
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality if quality < 100 else 101],
    }[format_]
    suffix = f".{format_}"
    blocks = {cv2.IMAGE_METADATA_EXIF: picture.header.exif, cv2.IMAGE_METADATA_ICCP: picture.header.icc_profile}
    kept = {kind: np.frombuffer(block, np.uint8) for kind, block in blocks.items() if block}
    segments = b""
    profile = picture.header.icc_profile
    if format_ == "jpeg" and profile and len(profile) > _MAX_SEGMENT:
        del kept[cv2.IMAGE_METADATA_ICCP]
        if keep_metadata and len(profile) <= 255 * _MAX_SEGMENT:  # parts are counted in one byte
            segments = _icc_segments(profile)
    while keep_metadata and kept:
        try:
            done, encoded = cv2.imencodeWithMetadata(suffix, array, list(kept), list(kept.values()), options)
        except cv2.error:
            done = False
        if done:
            return _after_start(encoded.tobytes(), segments)
        kept.popitem()  # a profile that the encoder refuses must not cost the picture, or the EXIF
    done, encoded = cv2.imencode(suffix, array, options)
    if not done:
        raise MalformedPicture("the picture can't be encoded")
    return _after_start(encoded.tobytes(), segments)


def _swapped(pixels: Pixels) -> Pixels:
    """Swap red and blue where they lie; OpenCV copies what it converts in place, so that is done in strips."""
    for top in range(0, pixels.shape[0], 64):
        strip = pixels[top : top + 64]
        cv2.cvtColor(strip, cv2.COLOR_RGB2BGR, dst=strip)
    return pixels


def _icc_segments(profile: bytes) -> bytes:
    """Split a profile over APP2 segments, which OpenCV does not (ICC.1:2022, annex B.4)."""
    parts = [profile[place : place + _MAX_SEGMENT] for place in range(0, len(profile), _MAX_SEGMENT)]
    return b"".join(
        b"\xff\xe2" + (len(part) + 16).to_bytes(2, "big") + b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part
        for number, part in enumerate(parts, 1)
    )


def _after_start(jpeg: bytes, segments: bytes) -> bytes:
    """Put segments behind a JPEG's start and its JFIF header, which has to come first."""
    if not segments:
        return jpeg
    place = 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == b"\xff\xe0" else 2
    return jpeg[:place] + segments + jpeg[place:]


def _eight_bits(samples: Pixels) -> Pixels:
    return samples if samples.dtype == np.uint8 else ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[:, :, None].astype(np.uint16)
    return ((pixels * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def media_type(format_: Format) -> str:
    """Return the format's media type, such as `image/jpeg`."""
    return f"image/{format_}"
