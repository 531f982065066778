"""TIFF: what a file's tags say before it is decoded, and writing one with all that a picture came with.

Pillow can't write 16-bit RGB, and OpenCV no metadata; the tags are Pillow's, the samples deflated by zlib.
"""

import io
import logging
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags

from service.metadata import Metadata, upright

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS, _COUNTS = 273, 274, 277, 278, 279
_PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS = 284, 317, 322, 323, 324, 325
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_EXTRA, _SAMPLE_FORMAT, _XMP, _IPTC, _ICC = 338, 339, 700, 33723, 34675
Tags = TiffImagePlugin.ImageFileDirectory_v2
_DEFLATE: Final = 8
_KEPT: Final = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, *range(40091, 40096))
"""Tags of the first directory that describe the picture and not how it is stored."""
_NESTED: Final = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_MAX_VALUES: Final = 1 << 20
_MAX_PAGES: Final = 10_000
_ROOM: Final = 1 << 24
"""Samples of a strip or tile that are allowed whatever the picture's size."""


class Unreadable(Exception):
    """The file claims what it can't hold, or a kind of samples that is not read; the message says what."""


class UnknownSamples(Exception):
    """The samples are of a kind that is not read; the message says which, as in: the samples are ..."""


@dataclass(frozen=True)
class Layout:
    """How a file holds its first page.

    Attributes:
        height, width: pixels as they lie in the file.
        bits: of a sample.
        channels: samples of a pixel.
        photometric: 0 and 1 grey from white and from black, 2 RGB, 3 palette, 5 inks, 6 YCbCr, 8 CIELAB.
        planar: whether channels lie apart.
        premultiplied: whether colours are multiplied by alpha.
        alpha: whether there is one.
        orientation: 1 to 8.
        pages: how many the file has, smaller versions of a page aside.
        icc_profile: the colour profile, None where there is none.
    """

    height: int
    width: int
    bits: int
    channels: int
    photometric: int
    planar: bool
    premultiplied: bool
    alpha: bool
    orientation: int
    pages: int
    icc_profile: bytes | None

    @property
    def grey(self) -> bool:
        """Whether the samples are grey."""
        return self.photometric in (0, 1)


def tags_of(data: bytes) -> Tags:
    """Read the first directory.

    Raises:
        Unreadable: it lists more values than any writer's; each of them takes a dozen times its bytes once read.
    """
    order = "<" if data[:1] == b"I" else ">"
    places = [struct.unpack_from(order + "I", data, 4)[0]]
    for place in places:
        (entries,) = struct.unpack_from(order + "H", data, place)
        for i in range(entries):
            tag, kind, count, value = struct.unpack_from(order + "HHII", data, place + 2 + 12 * i)
            if count > _MAX_VALUES and kind not in (1, 2, 6, 7):  # not bytes
                raise Unreadable("a tag lists too many values")
            if tag in _NESTED and len(places) <= len(_NESTED):
                places.append(value)
    file = io.BytesIO(data)
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    file.seek(tags.next)
    tags.load(file)
    return tags


def layout_of(tags: Tags, data: bytes) -> Layout:
    """Read how a file holds its first page.

    Raises:
        Unreadable, UnknownSamples: see there.
    """

    def number(tag: int, default: int) -> int:
        value = tags.get(tag, default)
        value = value[0] if isinstance(value, tuple) else value
        return int(value)

    def numbers(tag: int) -> tuple[int, ...]:
        value = tags.get(tag, ())
        return tuple(int(each) for each in value) if isinstance(value, tuple) else (int(value),)

    bits = set(numbers(_BITS) or (1,))
    if not set(numbers(_SAMPLE_FORMAT)) <= {1}:
        raise UnknownSamples("floating-point, signed or undefined numbers")
    if len(bits) != 1 or not bits <= {1, 2, 4, 8, 16}:
        raise UnknownSamples(f"of {' and '.join(map(str, sorted(bits)[:4]))} bits")
    width, length, channels = number(_WIDTH, 0), number(_LENGTH, 0), number(_SAMPLES, 1)
    # a decoder makes room for one strip or tile as it is claimed to be
    room = max(_ROOM, 2 * width * length * channels)
    if number(_TILE_WIDTH, 1) * number(_TILE_LENGTH, 1) * channels > room or channels > 16:
        raise Unreadable("a tile claims more pixels than the picture has")
    if tags.get(_TILE_WIDTH) and len(numbers(_TILE_OFFSETS)) < -(-width // number(_TILE_WIDTH, 1)) * -(
        -length // number(_TILE_LENGTH, 1)
    ):
        raise Unreadable("it has fewer tiles than its size needs")
    if max(numbers(_COUNTS) + numbers(_TILE_COUNTS), default=0) > len(data):
        raise Unreadable("a strip claims more bytes than the file has")
    extra, photometric = numbers(_EXTRA), number(_PHOTOMETRIC, 1)
    colours = {0: 1, 1: 1, 3: 1, 5: 4}.get(photometric, 3)
    orientation, icc_profile = number(_ORIENTATION, 1), tags.get(_ICC)
    return Layout(
        height=length,
        width=width,
        bits=bits.pop(),
        channels=channels,
        photometric=photometric,
        planar=number(_PLANAR, 1) == 2,
        premultiplied=extra[:1] == (1,),
        alpha=channels > colours and extra[:1] in ((1,), (2,)),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        pages=_pages(data),
        icc_profile=icc_profile if isinstance(icc_profile, bytes) else None,
    )


def _pages(data: bytes) -> int:
    """Count the pages by following the directories alone (TIFF 6.0, section 2)."""
    order = "<" if data[:1] == b"I" else ">"
    place, seen, pages = struct.unpack_from(order + "I", data, 4)[0], set[int](), 0
    try:
        while place and place not in seen and len(seen) < _MAX_PAGES:
            seen.add(place)
            (entries,) = struct.unpack_from(order + "H", data, place)
            # NewSubfileType comes first, as tags ascend; its lowest bit marks a smaller version of another page
            tag, _, _, value = struct.unpack_from(order + "HHII", data, place + 2)
            pages += not (tag == 254 and value & 1)
            (place,) = struct.unpack_from(order + "I", data, place + 2 + 12 * entries)
    except struct.error:
        pass
    return max(pages, 1)


def metadata_of(tags: Tags, data: bytes) -> Metadata:
    """Return a file's metadata; its orientation is in the layout."""
    xmp, iptc = tags.get(_XMP), tags.get(_IPTC)
    if isinstance(iptc, tuple) and all(isinstance(each, int) for each in iptc):
        iptc = struct.pack(f"{tags._endian}{len(iptc)}I", *iptc)  # older writers count it in words
    orientation = tags.get(_ORIENTATION)
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return upright(
        _exif_of(data, orientation),
        xmp if isinstance(xmp, bytes) else None,
        iptc if isinstance(iptc, bytes) else None,
    )[1]


def _exif_of(data: bytes, orientation: int) -> bytes | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            whole, kept = Image.Exif(), Image.Exif()
            whole.load(data)
            kept[_ORIENTATION] = orientation  # as the sides that it names are
            for tag in _KEPT:
                if tag in whole:
                    kept[tag] = whole[tag]
            for nested in _NESTED:
                inner = whole.get_ifd(nested)
                if inner:
                    kept.get_ifd(nested).update(inner)
            return kept.tobytes() if orientation > 1 or len(kept) > 1 or any(map(kept.get_ifd, _NESTED)) else None
    except Exception:  # noqa: BLE001  broken metadata must not cost the picture
        return None


def read_deep(data: bytes) -> npt.NDArray[np.uint8 | np.uint16]:
    """Decode the first page of a file in 16 bits as (H, W, C), wherever its channels lie.

    Raises:
        Unreadable: it is compressed in a way that needs further codecs.
    """
    import tifffile  # slow to import, and seldom needed

    # a damaged file is told to the client, once
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            # separate planes, depth, length, width, samples together
            samples: npt.NDArray[np.uint16] = np.asarray(page.asarray(), np.uint16).reshape(page.shaped)[:, 0]
    except (ValueError, RuntimeError, ImportError, KeyError) as error:
        raise Unreadable("its compression is not read in 16 bits with channels apart") from error
    return np.ascontiguousarray(np.moveaxis(samples[..., 0], 0, -1) if len(samples) > 1 else samples[0])


def straightened(samples: npt.NDArray[np.uint8 | np.uint16], layout: Layout) -> npt.NDArray[np.uint8 | np.uint16]:
    """Bring decoded 16-bit samples into the usual form: white is light, colours whole, no channel but alpha besides.

    Args:
        samples: (H, W) or (H, W, C), as a decoder left them, which is changed.
        layout: of their file.
    """
    colours = 3 if layout.photometric == 2 else 1
    if samples.ndim == 3:
        if not layout.alpha:
            samples = samples[:, :, :colours]
        elif colours == 1 and samples.shape[2] > 2:
            samples = samples[:, :, [0, -1]]
    if layout.photometric == 0 and samples.ndim == 2:
        np.subtract(65_535, samples, out=samples)
    if layout.alpha and layout.premultiplied:
        for row in samples:
            share = np.maximum(row[:, -1:], 1).astype(np.float32) / np.float32(65_535)
            row[:, :-1] = np.minimum(np.rint(row[:, :-1] / share), 65_535)
    return np.ascontiguousarray(samples)


def write(samples: npt.NDArray[np.uint8 | np.uint16], metadata: Metadata, profile: bytes | None = None) -> bytes:
    """Write a TIFF file of one page, deflated without loss.

    Args:
        samples: (H, W, C); one channel is grey, two grey and alpha, three RGB, four RGB and alpha.
        metadata: what goes along.
        profile: the colour profile.
    """
    height, width, channels = samples.shape
    rows = max(1, (1 << 20) // (width * channels * samples.itemsize))
    strips = [zlib.compress(_differences(samples[top : top + rows]), 4) for top in range(0, height, rows)]
    tags = _described(metadata)
    if metadata.resolution:
        tags[_X_RESOLUTION], tags[_Y_RESOLUTION], unit = metadata.resolution.numbers()
        tags[_RESOLUTION_UNIT] = unit + 1
    tags[_WIDTH], tags[_LENGTH] = width, height
    tags[_BITS] = (8 * samples.itemsize,) * channels
    tags[_COMPRESSION], tags[_PREDICTOR] = _DEFLATE, 2
    tags[_PHOTOMETRIC] = 1 if channels < 3 else 2
    tags[_SAMPLES], tags[_ROWS], tags[_PLANAR], tags[_ORIENTATION] = channels, rows, 1, 1
    if channels in (2, 4):
        tags[_EXTRA] = (2,)  # not multiplied into the colours
    tags.tagtype[_OFFSETS] = tags.tagtype[_COUNTS] = TiffTags.LONG
    counts = [len(strip) for strip in strips]
    tags[_COUNTS] = tuple(counts)
    tags[_OFFSETS] = tuple(int(offset) for offset in np.cumsum([0, *counts[:-1]]))  # from the directory's end
    for tag, block in ((_XMP, metadata.xmp), (_IPTC, metadata.iptc), (_ICC, profile)):
        if block:
            tags.tagtype[tag] = TiffTags.BYTE if tag == _XMP else TiffTags.UNDEFINED
            tags[tag] = block
    file = io.BytesIO()
    tags.save(file)
    file.writelines(strips)
    return file.getvalue()


def _differences(strip: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    """Each sample less the one to its left (TIFF 6.0, section 14), little-endian."""
    result = strip.copy()
    result[:, 1:] -= strip[:, :-1]
    return result.astype(result.dtype.newbyteorder("<"), copy=False).tobytes()


def _described(metadata: Metadata) -> Any:
    """Return a new directory with the EXIF that can be read."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if not metadata.exif:
        return tags
    try:
        with warnings.catch_warnings(action="ignore"):
            exif = Image.Exif()
            exif.load(metadata.exif)
            for tag in _KEPT:
                if tag in exif:
                    tags[tag] = exif[tag]
            for nested in _NESTED:
                inner = exif.get_ifd(nested)
                if inner:
                    tags.tagtype[nested] = TiffTags.LONG
                    tags[nested] = {tag: value for tag, value in inner.items() if tag != ExifTags.IFD.Interop}
            tags.tobytes()
    except Exception:  # noqa: BLE001  broken metadata must not cost the picture
        return TiffImagePlugin.ImageFileDirectory_v2()
    return tags
