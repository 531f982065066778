"""TIFF: what a file's tags say before it is decoded, and writing one with all that a picture came with.

Pillow can't write 16-bit RGB, and OpenCV no metadata; samples are deflated by zlib, EXIF is copied as it is.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from service.metadata import MOST_RECORDS, Metadata, iptc_resource, upright
from service.picture import MalformedPicture, UnsupportedFormat, UnsupportedSamples
from service.tiff_directories import (
    BYTE,
    CLASSIC,
    LONG,
    MAX_ENTRIES,
    SHORT,
    UNDEFINED,
    Directories,
    Directory,
    Entry,
    Tree,
    mark,
    numbers,
    packed,
)

SUBFILE, OLD_SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
FILL_ORDER, OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS = 266, 273, 274, 277, 278, 279
PLANAR, PREDICTOR, COLOUR_MAP, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS = 284, 317, 320, 322, 323, 324, 325
INK_SET, EXTRA, SAMPLE_FORMAT, SAMPLING = 332, 338, 339, 530
_SUB_IFDS, _XMP, _IPTC, _PHOTOSHOP, _ICC, _DNG = 330, 700, 33723, 34377, 34675, 50706
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_EXIF, _GPS, _INTEROP = 34665, 34853, 40965
_DEFLATE: Final = 8
_KEPT: Final = (
    269, 270, 271, 272, 282, 283, 285, 286, 287, 296, 305, 306, 315, 316, 337, 18246, 33432, *range(40091, 40096),
    # EXIF's, which TIFF/EP has in a page
    33434, 33437, 34850, 34852, 34855, 36867, 36868, *range(37377, 37397), 37510, *range(37520, 37523), 41728, 41729,
    *range(41985, 41997), 42016, *range(42032, 42038),
    33550, 33922, 34264, *range(34735, 34738), 42112, 42113,  # GeoTIFF and GDAL: where the picture lies on Earth
)  # fmt: skip
"""Tags of a page that describe the picture and not how it is stored."""
_ROOM: Final = 1 << 24
"""Samples of a strip or tile that are allowed whatever the picture's size."""
_MOST_SUB_IFDS: Final = 64
MASK, YCBCR, PALETTE, INKS = 4, 6, 3, 5
CIELAB, ICCLAB, ITULAB = 8, 9, 10
_COLOURS: Final = {0: 1, 1: 1, 2: 3, PALETTE: 1, INKS: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3, ITULAB: 3}
"""Channels besides alpha, by photometric interpretation."""
_FAX: Final = (2, 3, 4)
OLD_JPEG, _JPEG = 6, 7
_PREDICTED: Final = (5, 8, 32_946, 34_925, 50_000)
"""Compressions that a predictor may precede: LZW, the two numbers of Deflate, LZMA, Zstandard."""
_READ: Final = (1, *_FAX, OLD_JPEG, _JPEG, *_PREDICTED, 32_773, 32_809)
_UNREAD: Final = {
    9: "JBIG", 10: "JBIG", 34_661: "JBIG", 32_766: "NeXT's method", 32_771: "fax coding in words", 32_908: "PixarFilm",
    32_909: "PixarLog", 34_676: "LogLuv", 34_677: "LogLuv", 34_712: "JPEG 2000", 33_003: "JPEG 2000",
    33_005: "JPEG 2000", 34_887: "LERC", 34_933: "PNG", 34_934: "JPEG XR", 22_610: "JPEG XR", 50_001: "WebP",
    50_002: "JPEG XL", 52_546: "JPEG XL",
}  # fmt: skip
ANOTHER_COMPRESSION: Final = "save the TIFF with LZW or ZIP compression, or with none"
_AS_USUAL: Final = "save the TIFF as grey, RGB or CMYK"
_RAW_PHOTOMETRICS: Final = (32_803, 34_892)
_RAW_COMPRESSIONS: Final = (262, 32_767, 32_769, 32_770, 34_713, 65_000, 65_535)
"""Of Kodak, Sony, Epson, Samsung, Nikon, Kodak again, and Pentax."""
_RAW_MARKS: Final = re.compile(rb"II\*\0\x10\0\0\0CR|.{8}(?:IIII.waR|MMMMRaw)", re.DOTALL)
"""Canon's, with the first directory behind it, and Phase One's."""
RAW: Final = "it is a camera's raw file: send the JPEG that lies beside it, or a TIFF developed from it"


@dataclass(frozen=True)
class Layout:
    """How a file holds its picture.

    Attributes:
        file: its directories.
        page: the picture's one.
        first: the file's first directory, which may hold what describes the picture.
        pages: how many the file has, smaller versions of a page and masks aside.
        height, width: pixels as they lie in the file.
        bits: of a sample.
        channels: samples of a pixel.
        colours: how many of these are no extra ones.
        photometric: 0 and 1 grey from white and from black, 2 RGB, 3 palette, 5 inks, 6 YCbCr, 8 to 10 CIELAB.
        compression: the tag's number.
        planar: whether channels lie apart.
        differences: whether each sample is less the one to its left.
        alpha: which channel is alpha, None where there is none.
        premultiplied: whether colours are multiplied by it.
        orientation: 1 to 8.
        icc_profile: the colour profile, None where there is none.
    """

    file: Directories
    page: Directory
    first: Directory
    pages: int
    height: int
    width: int
    bits: int
    channels: int
    colours: int
    photometric: int
    compression: int
    planar: bool
    differences: bool
    alpha: int | None
    premultiplied: bool
    orientation: int
    icc_profile: bytes | None

    @property
    def grey(self) -> bool:
        """Whether the samples are grey."""
        return self.photometric in (0, 1)

    @property
    def jpeg(self) -> bool:
        """Whether strips or tiles are JPEGs."""
        return self.compression in (OLD_JPEG, _JPEG)


def layout_of(data: bytes) -> Layout:
    """Read how a file holds its picture: the first page that is neither a smaller version of another nor a mask.

    Raises:
        UnsupportedFormat: it is a camera's raw file.
        UnsupportedSamples: the samples are of a kind that is not read, or compressed by a method that is not.
        MalformedPicture: the tags can't be read, or claim what the file can't hold.
    """
    file = Directories(data)
    if _RAW_MARKS.match(data):
        raise UnsupportedFormat(RAW)
    page, first, pages, nested = _page_of(file)
    for tag in (OFFSETS, COUNTS, TILE_OFFSETS, TILE_COUNTS):
        page.check_count(tag)
    compression = page.number(COMPRESSION, 1)
    given = page.numbers(BITS) or (1,)
    usual = 3 if compression == OLD_JPEG and page.hint(PHOTOMETRIC) in (2, YCBCR) else len(given)
    channels = page.number(SAMPLES, usual)
    if not 1 <= channels <= 16:
        raise MalformedPicture("it claims no channels, or more than a picture has")
    photometric = _photometric_of(page, compression, channels)
    if photometric == YCBCR and channels == 1:
        photometric = 1
    bits = given[:channels]
    _check_samples(page, file.order, photometric, compression, bits, channels)
    height, width = page.number(LENGTH, 0), page.number(WIDTH, 0)
    # a decoder makes room for one strip or tile as it is claimed to be
    room = max(_ROOM, 2 * width * height * channels)
    if page.number(TILE_WIDTH, 1) * page.number(TILE_LENGTH, 1) * channels > room:
        raise MalformedPicture("a tile claims more pixels than the picture has")
    # of CIELAB the lightness alone may be there
    colours = 1 if photometric in (CIELAB, ICCLAB) and channels < 3 else _COLOURS[photometric]
    if channels < colours:
        raise MalformedPicture("it has fewer channels than its colours need")
    alpha, premultiplied = _alpha_of(page, photometric, channels, colours)
    # a directory below a page leaves to it what both have in common
    orientation = page.hint(ORIENTATION) or (first.hint(ORIENTATION) if nested else 0)
    return Layout(
        file=file,
        page=page,
        first=first,
        pages=pages,
        height=height,
        width=width,
        bits=bits[0],
        channels=channels,
        colours=colours,
        photometric=photometric,
        compression=compression,
        planar=channels > 1 and page.number(PLANAR, 1) == 2,
        differences=compression in _PREDICTED and page.number(PREDICTOR, 1) == 2,
        alpha=alpha,
        premultiplied=premultiplied,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        icc_profile=page.content(_ICC) or first.content(_ICC),
    )


def _page_of(file: Directories) -> tuple[Directory, Directory, int, bool]:
    """Return the picture's directory, the first one, how many pages there are, and whether the picture's is no page."""
    first = found = None
    pages, below, entries = 0, list[int](), 0
    for directory in file.chain():
        first = first or directory
        _check_developed(directory)
        pages += _whole(directory)
        if found is None and _whole(directory) and WIDTH in directory:
            found = directory
        below += directory.hints(_SUB_IFDS, _MOST_SUB_IFDS - len(below))
    assert first is not None
    nested = False
    for place in below:
        try:
            directory = file.at(place, cut=True)
        except MalformedPicture:
            continue
        entries += directory.entries
        if entries > MAX_ENTRIES:
            break
        _check_developed(directory)
        if found is None and _whole(directory) and WIDTH in directory:
            found, nested = directory, True
    return found or first, first, max(pages, 1), nested


def _whole(directory: Directory) -> bool:
    """Tell a page from a smaller version of another and from a transparency mask."""
    kind = directory.hint(SUBFILE)
    return not (kind & 5 or directory.hint(OLD_SUBFILE) == 2 or directory.hint(PHOTOMETRIC) == MASK)


def _check_developed(directory: Directory) -> None:
    if (
        directory.hint(PHOTOMETRIC) in _RAW_PHOTOMETRICS
        or directory.hint(COMPRESSION) in _RAW_COMPRESSIONS
        or ((version := directory.entry(_DNG, 5)) is not None and len(version.content) == 4)
    ):
        raise UnsupportedFormat(RAW)


def _photometric_of(page: Directory, compression: int, channels: int) -> int:
    if PHOTOMETRIC in page:
        return page.number(PHOTOMETRIC, 0)
    # as libtiff guesses where a writer has left it out
    guessed = {1: 0 if compression in _FAX else 1, 3: 2}.get(channels - len(page.numbers(EXTRA)))
    if guessed is None:
        raise UnsupportedSamples("of a kind that the file does not name", _AS_USUAL)
    return guessed


def _check_samples(
    page: Directory, order: str, photometric: int, compression: int, bits: tuple[int, ...], channels: int
) -> None:
    """Check that the samples are of a kind that is read."""
    if compression not in _READ:
        method = _UNREAD.get(compression, f"a method that is not known ({compression})")
        raise UnsupportedSamples(f"compressed by {method}", ANOTHER_COMPRESSION)
    if photometric not in _COLOURS:
        kind = {MASK: "a mask's", 32_844: "LogLuv", 32_845: "LogLuv"}.get(photometric, f"of kind {photometric}")
        raise UnsupportedSamples(kind, _AS_USUAL)
    if not set(page.numbers(SAMPLE_FORMAT)[:channels]) <= {1}:
        raise UnsupportedSamples("floating-point, signed or undefined numbers")
    if len(set(bits)) != 1 or not set(bits) <= {1, 2, 4, 8, 16}:
        raise UnsupportedSamples(f"of {' and '.join(map(str, sorted(set(bits))[:4]))} bits")
    if photometric >= INKS and not set(bits) <= ({8} if photometric in (YCBCR, ITULAB) else {8, 16}):
        raise UnsupportedSamples(f"colours of {bits[0]} bits that are not RGB", "save the TIFF as RGB of 8 or 16 bits")
    if photometric == INKS and (page.number(INK_SET, 1) != 1 or channels < 4):
        raise UnsupportedSamples("inks other than cyan, magenta, yellow and black", "save the TIFF as RGB or CMYK")
    if compression in (OLD_JPEG, _JPEG) and set(bits) != {8}:
        raise UnsupportedSamples(f"of {bits[0]} bits in a JPEG", ANOTHER_COMPRESSION)
    if compression in (OLD_JPEG, _JPEG) and channels > 4:
        raise UnsupportedSamples("more than four channels in a JPEG", ANOTHER_COMPRESSION)
    if page.hint(FILL_ORDER) == 2 and (photometric == YCBCR or (bits[0] == 16 and order == ">")):
        raise UnsupportedSamples("of bits in reverse order", "save the TIFF anew, as RGB")
    if photometric == YCBCR and (channels > 3 or (page.number(PLANAR, 1) == 2 and page.numbers(SAMPLING) != (1, 1))):
        raise UnsupportedSamples("YCbCr of channels that differ in size or are more than three", "save the TIFF as RGB")
    if compression in _PREDICTED and page.number(PREDICTOR, 1) not in (1, 2):
        raise UnsupportedSamples("predicted in a way that is not read", ANOTHER_COMPRESSION)
    if compression in _PREDICTED and page.number(PREDICTOR, 1) == 2 and bits[0] < 8:
        raise UnsupportedSamples("predicted in a way that is not read", ANOTHER_COMPRESSION)


def _alpha_of(page: Directory, photometric: int, channels: int, colours: int) -> tuple[int | None, bool]:
    """Return which channel is alpha, and whether colours are multiplied by it."""
    extra = page.numbers(EXTRA)[: channels - colours] if channels > colours else ()
    for place, kind in enumerate(extra):
        if kind in (1, 2):
            return colours + place, kind == 1
    # left out, or Corel Draw's 999: alpha all the same, as other readers take it
    if channels == colours + 1 and extra in ((), (999,)) and photometric in (0, 1, 2):
        return colours, False
    return None, False


def metadata_of(layout: Layout) -> Metadata:
    """Return a file's metadata; its orientation is in the layout.

    What the picture's own directory lacks is taken from the file's first.
    """
    both = (layout.page, layout.first)
    xmp = next(filter(None, (each.content(_XMP) for each in both)), None)
    iptc = next(filter(None, (each.content(_IPTC) for each in both)), None)
    if iptc is None:
        iptc = next(filter(None, (iptc_resource(each.content(_PHOTOSHOP) or b"") for each in both)), None)
    return upright(_exif_of(layout), xmp, _records(iptc) if iptc else None)[1]


def _records(iptc: bytes) -> bytes | None:
    """Cut off what fills the last word behind IPTC's records, and undo words that were written backwards."""
    if iptc[:1] != b"\x1c" and iptc[3:4] == b"\x1c":
        whole = iptc[: len(iptc) // 4 * 4]
        iptc = np.frombuffer(whole, "<u4").byteswap().tobytes()
    end = 0
    for _ in range(MOST_RECORDS):
        if iptc[end : end + 1] != b"\x1c" or end + 5 > len(iptc):
            break
        (length,) = struct.unpack_from(">H", iptc, end + 3)
        if length & 0x8000 or end + 5 + length > len(iptc):  # extended, which few write, or cut
            return iptc
        end += 5 + length
    return iptc if iptc[end:].strip(b"\0") else iptc[:end] or None


def _exif_of(layout: Layout) -> bytes | None:
    """Copy what describes the picture into a TIFF structure of its own; what can't be read is left out."""
    described = _kept(layout.file.size, layout.page, layout.first)
    if layout.orientation != 1:
        described.append(numbers(layout.file.order, ORIENTATION, SHORT, [layout.orientation]))
    nested = {}
    for tag in (_EXIF, _GPS):
        for directory in (layout.page, layout.first):
            tree = _nested(layout.file, directory, tag)
            if tree is not None:
                nested[tag] = tree
                break
    if not described and not nested:
        return None
    return mark(layout.file.order, 8) + packed(Tree(described, nested), layout.file.order, 8)


def _kept(room: int, *directories: Directory) -> list[Entry]:
    """Return what describes a picture, each tag from the first directory that has it.

    Args:
        room: how many bytes they may take together; tags may share theirs in the file.
        directories: where to look.
    """
    kept = []
    for tag in _KEPT:
        entry = next(filter(None, (each.entry(tag, room=room) for each in directories)), None)
        if entry is not None and entry.kind <= CLASSIC:
            room -= len(entry.content)
            kept.append(entry)
    return kept


def _nested(file: Directories, directory: Directory, tag: int) -> Tree | None:
    """Read a directory that another points to; None where there is none or nothing but noise."""
    place = directory.hint(tag)
    if not place:
        return None
    try:
        found = file.at(place, cut=True)
    except MalformedPicture:
        return None
    entries = [each for each in found.readable(file.size) if each.kind <= CLASSIC and each.tag != _INTEROP]
    if not entries or not found.plausible:
        return None
    interoperability = _nested(file, found, _INTEROP) if tag == _EXIF else None
    return Tree(entries, {_INTEROP: interoperability} if interoperability else {})


def write(samples: npt.NDArray[np.uint8 | np.uint16], metadata: Metadata, profile: bytes | None = None) -> bytes:
    """Write a TIFF file of one page, deflated without loss.

    Args:
        samples: (H, W, C); one channel is grey, two grey and alpha, three RGB, four RGB and alpha.
        metadata: what goes along.
        profile: the colour profile.
    """
    height, width, channels = samples.shape
    described = _described(metadata)
    order = described[0]
    rows = max(1, (1 << 20) // (width * channels * samples.itemsize))
    strips = [zlib.compress(_differences(samples[top : top + rows], order), 4) for top in range(0, height, rows)]
    counts = [len(strip) for strip in strips]
    ends = np.cumsum([8, *counts]).tolist()
    tags = {
        WIDTH: (LONG, [width]), LENGTH: (LONG, [height]), BITS: (SHORT, [8 * samples.itemsize] * channels),
        COMPRESSION: (SHORT, [_DEFLATE]), PHOTOMETRIC: (SHORT, [1 if channels < 3 else 2]),
        OFFSETS: (LONG, ends[:-1]), ORIENTATION: (SHORT, [1]), SAMPLES: (SHORT, [channels]), ROWS: (LONG, [rows]),
        COUNTS: (LONG, counts), PLANAR: (SHORT, [1]), PREDICTOR: (SHORT, [2]),
    }  # fmt: skip
    if channels in (2, 4):
        tags[EXTRA] = (SHORT, [2])  # not multiplied into the colours
    entries = [numbers(order, tag, kind, values) for tag, (kind, values) in tags.items()]
    for tag, kind, block in (
        (_XMP, BYTE, metadata.xmp),
        (_IPTC, UNDEFINED, metadata.iptc),
        (_ICC, UNDEFINED, profile),
    ):
        if block:
            entries.append(Entry(tag, kind, len(block), block))
    if metadata.resolution:
        x, y, unit = metadata.resolution.numbers()
        entries.append(_rational(order, _X_RESOLUTION, x))
        entries.append(_rational(order, _Y_RESOLUTION, y))
        entries.append(numbers(order, _RESOLUTION_UNIT, SHORT, [unit + 1]))
    ours = {entry.tag for entry in entries}
    start = ends[-1] + ends[-1] % 2
    tree = Tree([*entries, *(each for each in described[1].entries if each.tag not in ours)], described[1].nested)
    return b"".join((mark(order, start), *strips, bytes(ends[-1] % 2), packed(tree, order, start)))


def _rational(order: str, tag: int, value: float) -> Entry:
    ratio = Fraction(value).limit_denominator(10_000).as_integer_ratio()
    return Entry(tag, 5, 1, struct.pack(order + "II", *ratio))


def _differences(strip: npt.NDArray[np.uint8 | np.uint16], order: str) -> bytes:
    """Each sample less the one to its left (TIFF 6.0, section 14)."""
    result = strip.copy()
    result[:, 1:] -= strip[:, :-1]
    return result.astype(result.dtype.newbyteorder("<" if order == "<" else ">"), copy=False).tobytes()


def _described(metadata: Metadata) -> tuple[str, Tree]:
    """Return the byte order of the EXIF, and what of it can be read."""
    if not metadata.exif:
        return "<", Tree([])
    try:
        file = Directories(metadata.exif)
        first = next(file.chain())
    except MalformedPicture:
        return "<", Tree([])
    nested = {tag: _nested(file, first, tag) for tag in (_EXIF, _GPS)}
    return file.order, Tree(_kept(file.size, first), {tag: tree for tag, tree in nested.items() if tree is not None})
