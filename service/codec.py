"""Bytes <-> Picture: JPEG, PNG, WebP, TIFF, BMP, HEIC and AVIF.

OpenCV codes the pixels of what comes most, Pillow and libheif the rest; Pillow reads the header before that.
"""

import io
import warnings
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from service import heif, metadata, png, tiff
from service.colour import cmyk_to_srgb, converted, display_p3, is_srgb, lab_to_srgb, rounded, space_of, usable
from service.metadata import NONE, Metadata, Sampling

Format = Literal["jpeg", "png", "webp", "tiff", "bmp", "heic", "avif"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
Pixels = npt.NDArray[np.uint8 | np.uint16]

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
_FACTORS: Final[dict[Sampling, int]] = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}
_PILLOW: Final[dict[Format, str]] = {format_: format_.upper() for format_ in FORMATS}
_GREY_MODES: Final = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N")

# decoders' own pixel limits would speak before ours, and say less; ours is checked before any of them decodes
Image.MAX_IMAGE_PIXELS = None
# a damaged file is told to the client, once; OpenCV would write it to standard error as well
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class UnsupportedFormat(Exception):
    """The bytes are no picture of a format that is read."""


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
        metadata: EXIF, XMP and IPTC, all of them upright.
        icc_profile: the colour profile of its RGB or grey samples, None for sRGB or one that can't be used.
        clear_grey: the grey level that a grey PNG declares transparent, None where it declares none.
        grey: whether it has grey samples alone.
        inks: whether it has CMYK samples, which become sRGB.
        sampling: how a JPEG samples its colour differences, None for other formats and for unusual ways.
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


def _format_of(data: bytes) -> Format:
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
    if data.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    if data[:2] == b"BM" and data[6:10] == bytes(4):  # reserved, and a text would have letters there
        return "bmp"
    if data[4:8] == b"ftyp":
        size = min(int.from_bytes(data[:4], "big"), 256)
        # the major brand, a version, and those it is compatible with; mif1 alone says nothing of the coding
        for brand in (data[8:12], *(data[place : place + 4] for place in range(16, size, 4))):
            if brand in (b"avif", b"avis"):
                return "avif"
            if brand in heif.BRANDS:
                return "heic"
    raise UnsupportedFormat("no picture of a known format")


def read_header(data: bytes, max_pixels: int) -> Header:
    """Read a file's header without decoding it.

    Args:
        data: the whole file.
        max_pixels: how many pixels are allowed.

    Raises:
        UnsupportedFormat, MalformedPicture, PictureTooLarge: see each.
    """
    format_ = _format_of(data)
    if format_ == "png" and not png.chunks_fit(data):
        raise MalformedPicture("a chunk claims more bytes than the file has")
    try:
        with warnings.catch_warnings(action="ignore"):
            header = _read(data, format_)
    except tiff.Unreadable as error:
        raise MalformedPicture(str(error)) from None
    except Exception as error:
        raise MalformedPicture("the header can't be read") from error
    if header.width < 1 or header.height < 1:
        raise MalformedPicture("the header claims no pixels")
    if header.width * header.height > max_pixels:
        raise PictureTooLarge(header.width * header.height, max_pixels)
    return header


def _read(data: bytes, format_: Format) -> Header:
    match format_:
        case "heic":
            return _heif_header(data)
        case "tiff":
            return _tiff_header(data)
        case _:
            return _pillow_header(data, format_)


def _heif_header(data: bytes) -> Header:
    found = heif.read_header(data)
    grey = found.mode.startswith("L")
    return Header(
        "heic",
        found.height,
        found.width,
        metadata=found.metadata,
        icc_profile=display_p3() if found.display_p3 and not grey else usable(found.icc_profile, grey=grey),
        grey=grey,
        frames=found.frames,
    )


def _pillow_header(data: bytes, format_: Format) -> Header:
    with Image.open(io.BytesIO(data), formats=[_PILLOW[format_]]) as image:
        width, height = image.size
        frames, sampling, clear_grey = getattr(image, "n_frames", 1), None, None
        grey = image.mode in _GREY_MODES
        if format_ == "png":
            grey = png.is_grey(data)
            orientation, said = png.metadata_of(data)
            if image.mode in ("L", "I;16") and isinstance(image.info.get("transparency"), int):
                clear_grey = image.info["transparency"]
        else:
            orientation, said = metadata.of_image(image)
            if format_ == "jpeg":
                frames, sampling = metadata.frames_of_jpeg(image), metadata.sampling_of_jpeg(image)
        profile = usable(image.info.get("icc_profile"), grey=grey)
        inks = image.mode == "CMYK"
    if orientation >= 5:
        width, height = height, width
    return Header(format_, height, width, orientation, said, profile, clear_grey, grey, inks, sampling, frames)


def _tiff_header(data: bytes) -> Header:
    tags = tiff.tags_of(data)
    layout = tiff.layout_of(tags, data)
    height, width = layout.height, layout.width
    if layout.orientation >= 5:
        width, height = height, width
    return Header(
        "tiff",
        height,
        width,
        layout.orientation,
        tiff.metadata_of(tags, data),
        usable(layout.icc_profile, grey=layout.grey),
        grey=layout.grey,
        frames=layout.pages,
    )


def decode(data: bytes, header: Header) -> Picture:
    """Decode a file to an upright picture.

    Args:
        data: the whole file.
        header: what `read_header` said of it.

    Raises:
        MalformedPicture: it can't be decoded, ends early, or differs in size from its header.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            samples, header = _samples(data, header)
    except tiff.Unreadable as error:
        raise MalformedPicture(str(error)) from None
    except MalformedPicture:
        raise
    except Exception as error:
        raise MalformedPicture("the file is damaged or ends early") from error
    if samples.dtype not in (np.uint8, np.uint16):
        raise MalformedPicture("the samples are neither 8 nor 16 bits")
    turned = _turn(samples, header.orientation)
    if turned.shape[:2] != (header.height, header.width):
        raise MalformedPicture("the picture differs in size from its header")
    alpha = None
    if header.clear_grey is not None and turned.ndim == 2:  # OpenCV reads a clear colour, and not a clear grey
        alpha = np.where(turned == header.clear_grey, 0, np.iinfo(turned.dtype).max).astype(turned.dtype)
    if turned.ndim == 3 and turned.shape[2] in (2, 4):
        alpha = _pixels(np.ascontiguousarray(turned[:, :, -1]))
        if header.format == "webp" and header.frames > 1 and alpha.all() and alpha.min() == np.iinfo(alpha.dtype).max:
            alpha = None  # an animation is decoded with alpha whether it has any or not
        turned = _pixels(np.ascontiguousarray(turned[:, :, :-1]))
    if turned.ndim == 2 or turned.shape[2] == 1:
        turned = _pixels(cv2.cvtColor(turned, cv2.COLOR_GRAY2RGB))
    return _in_known_space(Picture(turned, header, alpha))


def _samples(data: bytes, header: Header) -> tuple[Pixels, Header]:
    """Decode a file to grey (H, W), grey and alpha, RGB or RGBA, as it lies in the file; CMYK becomes sRGB."""
    match header.format:
        case "jpeg" if not header.inks:
            # a JPEG has neither alpha nor 16 bits, and is decoded to RGB at once: one copy of the picture less
            kind = cv2.IMREAD_GRAYSCALE if header.grey else cv2.IMREAD_COLOR_RGB
            return _with_opencv(data, kind | cv2.IMREAD_IGNORE_ORIENTATION), header
        case "png" | "webp":
            return _as_rgb(_with_opencv(data, cv2.IMREAD_UNCHANGED)), header
        case "heic":
            return heif.decode(data), header
        case "tiff":
            return _tiff_samples(data, header)
        case _:
            return _with_pillow(data, header)


def _with_opencv(data: bytes, flags: int) -> Pixels:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise MalformedPicture("the file is damaged or ends early")
    return _pixels(decoded)


def _as_rgb(array: Pixels) -> Pixels:
    """Turn OpenCV's order round."""
    if array.ndim == 2:
        return array
    if array.shape[2] == 4:
        return _pixels(cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA, dst=array))
    return _pixels(cv2.cvtColor(array, cv2.COLOR_BGR2RGB, dst=array))


def _tiff_samples(data: bytes, header: Header) -> tuple[Pixels, Header]:
    if header.orientation != 1:
        # decoders differ in what they do about it
        data = metadata.upright_exif(data, keep_thumbnail=True)[1] or data
    layout = tiff.layout_of(tiff.tags_of(data), data)
    if layout.bits < 16 or layout.photometric not in (0, 1, 2):
        return _with_pillow(data, header)
    # Pillow has no 16-bit RGB, and OpenCV misreads channels that lie apart
    if layout.planar or layout.channels not in (1, 3, 4):
        samples = tiff.read_deep(data)
    else:
        samples = _as_rgb(_with_opencv(data, cv2.IMREAD_UNCHANGED))
    return tiff.straightened(samples, layout), header


def _with_pillow(data: bytes, header: Header) -> tuple[Pixels, Header]:
    with Image.open(io.BytesIO(data), formats=[_PILLOW[header.format]]) as image:
        image.info.pop("xmp", None)  # Pillow would turn a TIFF by it
        image.load()
        match image.mode:
            case "CMYK":
                return cmyk_to_srgb(image, image.info.get("icc_profile")), replace(header, icc_profile=None)
            case "LAB":
                return lab_to_srgb(image), replace(header, icc_profile=None)
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
                raise MalformedPicture("the samples are neither 8 nor 16 bits")
    return samples.astype(samples.dtype.newbyteorder("="), copy=False), header


def _in_known_space(picture: Picture) -> Picture:
    """Convert what is in a space that can only be left, as a scanner's may be, to sRGB."""
    space = space_of(picture.header.icc_profile, grey=picture.header.grey)
    if space is None or space.reversible:
        return picture
    alpha = None if picture.alpha is None else rounded(picture.alpha)
    return Picture(converted(picture.pixels, space), replace(picture.header, icc_profile=None), alpha)


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
        quality: 1 to 100, for JPEG, WebP, HEIC and AVIF; WebP is lossless at 100. Colour is sampled as the JPEG did
            that the picture came from; of others at every pixel from 90 on, and at every fourth below.
        keep_metadata: whether EXIF, XMP and IPTC go along. The colour profile always does, unless it is sRGB's and
            adds nothing.
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
    said = header.metadata if keep_metadata else NONE
    spend = spend or pixels is not picture.pixels
    if header.grey and format_ in _GREY:
        channels = pixels[:, :, :1] if alpha is None else np.dstack([pixels[:, :, 0], alpha])
    else:
        channels = pixels if alpha is None else np.dstack([pixels, alpha])
        spend = spend or alpha is not None
    return _written(_pixels(channels), format_, quality, said, profile, header.sampling, spend=spend)


def _holds_profile(format_: Format, profile: bytes, *, grey: bool) -> bool:
    if format_ == "bmp" or (grey and format_ not in _GREY):
        return False
    return format_ != "jpeg" or len(profile) <= metadata.MAX_JPEG_PROFILE


def _written(
    channels: Pixels,
    format_: Format,
    quality: int,
    said: Metadata,
    profile: bytes | None,
    sampling: Sampling | None,
    *,
    spend: bool,
) -> bytes:
    """Write (H, W, C): grey, grey and alpha, RGB, or RGB and alpha."""
    match format_:
        case "jpeg":
            factors = _FACTORS[sampling or ("4:2:0" if quality < 90 else "4:4:4")]
            options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors]
            written = _by_opencv(channels, ".jpeg", options, spend=spend)
            segments = metadata.jpeg_segments(said) + (metadata.icc_segments(profile) if profile else b"")
            return metadata.into_jpeg(written, segments)
        case "png" if channels.shape[2] == 2:
            return png.with_metadata(png.write_grey(channels), said, profile)
        case "png":
            # 6 takes twice the time for 2 % of the bytes
            written = _by_opencv(channels, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3], spend=spend)
            return png.with_metadata(written, said, profile)
        case "bmp":
            return _by_opencv(channels, ".bmp", [], spend=spend)
        case "tiff":
            return tiff.write(channels, said, profile)
        case "heic":
            return heif.encode(channels, quality, said, profile)
        case "webp" if quality == 100:
            # exact: colours under clear parts are kept; 0 is the least effort, which hardly costs bytes
            return _by_pillow(channels, "WEBP", said, profile, lossless=True, exact=True, quality=0)
        case "webp":
            return _by_pillow(channels, "WEBP", said, profile, quality=quality)
        case "avif":
            sampling = "4:2:0" if quality < 90 else "4:4:4"
            return _by_pillow(channels, "AVIF", said, profile, quality=quality, speed=8, subsampling=sampling)


def _by_opencv(channels: Pixels, suffix: str, options: list[int], *, spend: bool) -> bytes:
    match channels.shape[2]:
        case 1:
            array = np.ascontiguousarray(channels)
        case 2:
            array = channels[:, :, [0, 0, 0, 1]]
        case 3:
            array = _swapped(channels) if spend else _pixels(cv2.cvtColor(channels, cv2.COLOR_RGB2BGR))
        case _:
            array = _pixels(cv2.cvtColor(channels, cv2.COLOR_RGBA2BGRA, dst=channels if spend else None))
    done, encoded = cv2.imencode(suffix, array, options)
    if not done:
        raise MalformedPicture("the picture can't be encoded")
    return encoded.tobytes()


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


def _over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[:, :, None].astype(np.uint16)
    return ((pixels * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def media_type(format_: Format) -> str:
    """Return the format's media type, such as `image/jpeg`."""
    return f"image/{format_}"
