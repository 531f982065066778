"""TIFF's samples: a page is described anew, as a file of that page alone, for libtiff, and coloured here.

libtiff, by way of Pillow, undoes the compression. Pillow reads some combinations of depth, channels, planes and extra
samples and not others. But whatever the pixels are, a row of them is a row of single grey samples too, only longer, and
as such every combination is read; what makes colours of the samples is the same for all of them.
"""

import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from service import tiff
from service.colour import cmyk_to_srgb, lab_to_srgb, rounded
from service.picture import MalformedPicture, Pixels, UnsupportedSamples
from service.tiff import Layout
from service.tiff_directories import CLASSIC, LONG, RATIONAL, SHORT, Entry, Tree, mark, numbers, packed

# Pillow itself reads samples that are not compressed, and takes YCbCr's for one at every pixel
TiffImagePlugin.READ_LIBTIFF = True

_COPIED: Final = (292, 293, 347, *range(512, 522), 529, 530, 531, 532)
"""Tags that say how samples are coded: fax options, tables of JPEGs, how YCbCr is sampled and meant."""
_LOSSLESS: Final = b"\xff\xc3\0"
"""A lossless JPEG's frame header."""
_PIECE: Final = 1 << 18
"""Pixels of CIELAB that are converted at a time."""
_ITU_RANGES: Final = ((0.0, 100.0), (-85.0, 85.0), (-75.0, 125.0))
"""Of L, a and b where a file names none (TIFF-FX, RFC 2301, tag 433)."""


def decode(data: bytes) -> tuple[Pixels, bool]:
    """Decode a file's picture.

    Args:
        data: the whole file.

    Returns:
        grey (H, W), grey and alpha, RGB or RGBA, as it lies in the file, over the full range of its dtype; and whether
        it was converted to sRGB, as inks and CIELAB are.

    Raises:
        MalformedPicture: it can't be decoded.
        UnsupportedSamples: it is of a rare kind that turns out not to be read.
    """
    layout = tiff.layout_of(data)
    try:
        samples = _one_by_one(data, layout) if _apart(layout) else _whole(data, layout)
    except OSError:
        if layout.compression == tiff.OLD_JPEG or (layout.jpeg and _LOSSLESS in data):
            raise UnsupportedSamples("JPEGs of an old or lossless kind", tiff.ANOTHER_COMPRESSION) from None
        raise
    colours, srgb = _coloured(samples[:, :, : layout.colours], layout)
    if layout.alpha is None:
        return np.ascontiguousarray(colours[:, :, 0] if colours.shape[2] == 1 else colours), srgb
    if layout.photometric in (1, 2) and layout.alpha == layout.colours:
        merged = np.ascontiguousarray(samples[:, :, : layout.alpha + 1])
    else:
        alpha = samples[:, :, layout.alpha : layout.alpha + 1]
        merged = np.concatenate([colours, alpha if alpha.dtype == colours.dtype else rounded(alpha)], axis=2)
    if layout.premultiplied:
        _divide(merged)
    return merged, srgb


def _apart(layout: Layout) -> bool:
    """Whether samples are coded one by one, or at least each channel for itself."""
    return layout.photometric != tiff.YCBCR and (not layout.jpeg or layout.planar or layout.channels == 1)


def _divide(samples: Pixels) -> None:
    """Undo the multiplication of colours (H, W, C) by the last channel, where they lie."""
    most = np.iinfo(samples.dtype).max
    for row in samples:
        share = np.maximum(row[:, -1:], 1).astype(np.float32) / np.float32(most)
        row[:, :-1] = np.minimum(np.rint(row[:, :-1] / share), most)


def _coloured(samples: Pixels, layout: Layout) -> tuple[Pixels, bool]:
    """Make grey or RGB of samples (H, W, C), and tell whether that is sRGB."""
    match layout.photometric:
        case 0:
            return np.subtract(np.iinfo(samples.dtype).max, samples, dtype=samples.dtype), False
        case tiff.PALETTE:
            return _looked_up(samples[:, :, 0], layout), False
        case tiff.INKS:
            inks = Image.fromarray(np.ascontiguousarray(rounded(samples)), "CMYK")
            return cmyk_to_srgb(inks, layout.icc_profile), True
        case tiff.CIELAB | tiff.ICCLAB | tiff.ITULAB:
            output = np.empty((*samples.shape[:2], 3), np.uint8)
            each = max(1, _PIECE // layout.width)
            for top in range(0, layout.height, each):
                rows = slice(top, top + each)
                output[rows] = lab_to_srgb(_lab(samples[rows], layout))
            return output, True
        case _:
            return samples, False


def _looked_up(indices: Pixels, layout: Layout) -> npt.NDArray[np.uint8]:
    """Look (H, W) up in the colour map.

    Raises:
        MalformedPicture: it holds fewer colours than there are indices.
    """
    colours = 1 << layout.bits
    given = np.array(layout.page.numbers(tiff.COLOUR_MAP), np.int64)
    if len(given) < 3 * colours or len(given) % 3:
        raise MalformedPicture("its colour map holds too few colours")
    table = given.reshape(3, -1)[:, :colours].T
    if table.max() > 255:  # else some writers' map of 8 bits, which libtiff knows too
        table = table >> 8
    return np.asarray(np.ascontiguousarray(table.astype(np.uint8))[indices])


def _lab(samples: Pixels, layout: Layout) -> npt.NDArray[np.float32]:
    """Return (H, W, 3) as L in 0..100, a and b."""
    deep = samples.dtype == np.uint16
    values = samples.astype(np.float32)
    if samples.shape[2] == 1:
        values = np.concatenate([values, np.zeros((*values.shape[:2], 2), np.float32)], axis=2)
    elif layout.photometric == tiff.CIELAB:
        values[:, :, 1:] = samples[:, :, 1:].view(np.int16 if deep else np.int8)
    if layout.photometric == tiff.ITULAB:
        for channel, (low, high) in enumerate(_ITU_RANGES):
            values[:, :, channel] = low + values[:, :, channel] * ((high - low) / 255)
        return values
    if layout.photometric == tiff.ICCLAB and samples.shape[2] == 3:
        values[:, :, 1:] -= 32_768 if deep else 128
    if deep:
        values[:, :, 1:] /= 256
    values[:, :, 0] *= 100 / ((65_280 if layout.photometric == tiff.ICCLAB else 65_535) if deep else 255)
    return values


def _one_by_one(data: bytes, layout: Layout) -> Pixels:
    """Decode samples that are coded one by one, as (H, W, C); of a palette they stay indices."""
    places, counts = _blocks(data, layout)
    planes = layout.channels if layout.planar else 1
    within = layout.channels // planes
    blocks = len(places) // planes
    decoded = []
    for plane in range(planes):
        here = slice(plane * blocks, (plane + 1) * blocks)
        rows = _by_pillow(
            _file_of(data, layout, layout.width * within, within, places[here], counts[here], _grey(layout))
        ).reshape(layout.height, layout.width, within)
        if layout.differences:
            tile = layout.page.number(tiff.TILE_WIDTH, layout.width)
            for left in range(0, layout.width, tile):
                columns = rows[:, left : left + tile]
                np.cumsum(columns, axis=1, dtype=rows.dtype, out=columns)
        decoded.append(rows)
    samples = decoded[0] if planes == 1 else np.concatenate(decoded, axis=2)
    if layout.photometric == tiff.PALETTE and layout.bits < 8:
        samples //= np.uint8(255 // ((1 << layout.bits) - 1))
    return samples


def _grey(layout: Layout) -> list[Entry]:
    order = layout.file.order
    return [
        numbers(order, tiff.BITS, SHORT, [layout.bits]),
        numbers(order, tiff.PHOTOMETRIC, SHORT, [1]),
        numbers(order, tiff.SAMPLES, SHORT, [1]),
    ]


def _whole(data: bytes, layout: Layout) -> Pixels:
    """Decode pixels whose channels are coded together, as (H, W, C): YCbCr as RGB, others as they are."""
    order, channels = layout.file.order, layout.channels
    kind, colours = (layout.photometric, 3) if layout.photometric == tiff.YCBCR else (1, 1) if channels < 3 else (2, 3)
    described = [
        numbers(order, tiff.BITS, SHORT, [layout.bits] * channels),
        numbers(order, tiff.PHOTOMETRIC, SHORT, [kind]),
        numbers(order, tiff.SAMPLES, SHORT, [channels]),
        numbers(order, tiff.PLANAR, SHORT, [2 if layout.planar else 1]),
    ]
    if channels > colours:
        described.append(numbers(order, tiff.EXTRA, SHORT, [2]))
    if layout.differences:
        described.append(numbers(order, tiff.PREDICTOR, SHORT, [2]))
    places, counts = _blocks(data, layout)
    samples = _by_pillow(_file_of(data, layout, layout.width, 1, places, counts, described))
    return samples if samples.ndim == 3 else samples[:, :, None]


def _blocks(data: bytes, layout: Layout) -> tuple[list[int], list[int]]:
    """Return where strips or tiles lie, and how many bytes each has; what a file leaves out follows from the rest.

    Raises:
        MalformedPicture: there are fewer than the picture needs.
    """
    page = layout.page
    tiled = tiff.TILE_WIDTH in page
    # old versions of libtiff wrote tiles under the numbers of strips
    places = list(page.numbers(tiff.TILE_OFFSETS if tiled and tiff.TILE_OFFSETS in page else tiff.OFFSETS))
    counts = list(page.numbers(tiff.TILE_COUNTS if tiled and tiff.TILE_COUNTS in page else tiff.COUNTS))
    width, height = _block_size(layout, counts)
    if width < 1 or height < 1:
        raise MalformedPicture("its tiles have no size")
    needed = -(-layout.width // width) * -(-layout.height // height) * (layout.channels if layout.planar else 1)
    if len(places) < needed:
        raise MalformedPicture(f"it has fewer {'tiles' if tiled else 'strips'} than its size needs")
    here = np.array(places[:needed], np.uint64)
    if needed and int(here.max()) >= len(data):
        raise MalformedPicture("a strip or tile lies outside the file")
    sizes = np.array([*counts[:needed], *[0] * (needed - len(counts))], np.uint64)
    if layout.compression == 1 and layout.photometric != tiff.YCBCR:
        # what the counts say is wrong in many old files, and is not needed
        row = -(-width * layout.bits * (1 if layout.planar else layout.channels) // 8)
        sizes[:] = row * height
        if not tiled and layout.height % height:
            down = -(-layout.height // height)
            sizes[down - 1 :: down] = row * (layout.height % height)
    if needed and int((here + sizes).max()) > len(data):
        raise MalformedPicture("the file ends early")
    ends = np.unique(np.append(here, len(data)))
    room = ends[np.searchsorted(ends, here, "right")] - here  # up to what follows
    return here.tolist(), np.where(sizes == 0, room, sizes).tolist()


def _block_size(layout: Layout, counts: list[int]) -> tuple[int, int]:
    page = layout.page
    if tiff.TILE_WIDTH in page:
        return page.number(tiff.TILE_WIDTH, 0), page.number(tiff.TILE_LENGTH, 0)
    rows = page.number(tiff.ROWS, 0)
    if not rows and layout.compression == 1 and len(counts) > 1:
        rows = counts[0] // max(-(-layout.width * layout.bits * (1 if layout.planar else layout.channels) // 8), 1)
    return layout.width, min(rows or layout.height, layout.height)


def _file_of(
    data: bytes,
    layout: Layout,
    width: int,
    stretch: int,
    places: list[int],
    counts: list[int],
    described: list[Entry],
) -> bytes:
    """Describe a page anew: a classic file whose only directory lies behind all that was there.

    Args:
        data: the file.
        layout: how it holds the picture.
        width: samples of a row, as they are described.
        stretch: how many of them were a pixel.
        places, counts: strips or tiles.
        described: the tags of the samples' kind.
    """
    order, page = layout.file.order, layout.page
    entries = [
        *described,
        numbers(order, tiff.WIDTH, LONG, [width]),
        numbers(order, tiff.LENGTH, LONG, [layout.height]),
        numbers(order, tiff.COMPRESSION, SHORT, [layout.compression]),
    ]
    across, down = _block_size(layout, counts)
    if tiff.TILE_WIDTH in page:
        entries.append(numbers(order, tiff.TILE_WIDTH, LONG, [across * stretch]))
        entries.append(numbers(order, tiff.TILE_LENGTH, LONG, [down]))
        tags = tiff.TILE_OFFSETS, tiff.TILE_COUNTS
    else:
        entries.append(numbers(order, tiff.ROWS, LONG, [down]))
        tags = tiff.OFFSETS, tiff.COUNTS
    if page.hint(tiff.FILL_ORDER) == 2 and not layout.jpeg:
        entries.append(numbers(order, tiff.FILL_ORDER, SHORT, [2]))
    entries += [numbers(order, tag, LONG, values) for tag, values in zip(tags, (places, counts), strict=True)]
    entries += [entry for tag in _COPIED for entry in [page.entry(tag)] if entry is not None and _sound(entry, order)]
    start = len(data) + len(data) % 2
    return b"".join(
        (mark(order, start), memoryview(data)[8:], bytes(len(data) % 2), packed(Tree(entries), order, start))
    )


def _sound(entry: Entry, order: str) -> bool:
    """Tell what a classic file holds, no fraction among it being over zero: libtiff refuses the picture for such."""
    fractions = np.frombuffer(entry.content, order + "u4") if entry.kind == RATIONAL else np.ones(2)
    return entry.kind <= CLASSIC and bool(fractions[1::2].all())


def _by_pillow(file: bytes) -> Pixels:
    """Decode a file of one page, as (H, W) or (H, W, C)."""
    with Image.open(io.BytesIO(file), formats=["TIFF"]) as image:
        image.load()
        bits = image.mode == "1"
        samples: Pixels = np.asarray(image)
    del image  # it holds the samples once more
    if bits:
        return np.multiply(samples, 255, dtype=np.uint8)
    return np.array(samples, samples.dtype.newbyteorder("="))  # its own can't be written to
