"""BMP: telling it from texts, samples in bit fields of any widths, and what is not read, which Pillow calls damaged."""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.picture import MalformedPicture, UnsupportedSamples

_HEADERS: Final = (12, 16, 40, 52, 56, 64, 108, 124)
"""Sizes of the second header: OS/2 1 and 2, and Windows' since 3."""
_OS2: Final = (12, 16, 64)
_FIELDS: Final = 3
_ALPHA_FIELDS: Final = 6
_BLOCK: Final = 1 << 20
"""Samples that are taken apart at once: each takes 8 bytes meanwhile."""


@dataclass(frozen=True)
class Fields:
    """Where the samples of a BMP with bit fields are.

    Attributes:
        height, width: in pixels.
        top_down: whether the first row is the topmost.
        bits: of a pixel, 16 or 32.
        offset: of the first row in the file.
        masks: of red, green, blue and alpha; 0 for what there is none of.
    """

    height: int
    width: int
    top_down: bool
    bits: int
    offset: int
    masks: tuple[int, ...]


def is_bmp(data: bytes) -> bool:
    """Whether it is a BMP: a text would have letters where there are zeros, or a hotspot in OS/2's."""
    return data[:2] == b"BM" and (data[6:10] == bytes(4) or int.from_bytes(data[14:18], "little") in _HEADERS)


def fields_of(data: bytes) -> Fields | None:
    """Return where samples in bit fields are; None where the file has none of these.

    Raises:
        UnsupportedSamples: they are of a kind that nothing here reads.
        MalformedPicture: the fields make no sense.
    """
    size = int.from_bytes(data[14:18], "little")
    if size == 16:
        raise UnsupportedSamples("behind a short header of OS/2")
    if size < 40 or len(data) < 54:
        return None
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if (size in _OS2 and compression in (3, 4)) or (size not in _OS2 and compression in (4, 5)):
        raise UnsupportedSamples("compressed as JPEG, PNG, Huffman or RLE24")
    if bits == 2:
        raise UnsupportedSamples("of 2 bits")
    if compression not in (_FIELDS, _ALPHA_FIELDS):
        return None
    count = 4 if compression == _ALPHA_FIELDS or size >= 56 else 3
    if bits not in (16, 32) or len(data) < 54 + 4 * count:
        raise MalformedPicture("its bit fields make no sense")
    masks = struct.unpack_from(f"<{count}I", data, 54)
    if any(not _is_solid(mask) or mask >> bits for mask in masks) or not any(masks[:3]):
        raise MalformedPicture("its bit fields make no sense")
    offset = int.from_bytes(data[10:14], "little")
    return Fields(abs(height), width, height < 0, bits, offset, (*masks, 0)[:4])


def _is_solid(mask: int) -> bool:
    """Whether a mask's bits lie side by side, or there is none."""
    low = mask & -mask
    return mask == 0 or ((mask // low) & (mask // low + 1)) == 0


def decode(data: bytes, fields: Fields) -> npt.NDArray[np.uint8]:
    """Decode samples in bit fields to uint8 (H, W, 3) in RGB, or (H, W, 4) with alpha.

    Alpha that is 0 everywhere is left out, as browsers do: programs leave the field as it is.

    Raises:
        MalformedPicture: the file ends early.
    """
    stride = (fields.width * fields.bits + 31) // 32 * 4
    if fields.offset + stride * fields.height > len(data):
        raise MalformedPicture("the file is damaged or ends early")
    lines = np.frombuffer(data, np.uint8, stride * fields.height, fields.offset).reshape(fields.height, stride)
    values = lines.view("<u2" if fields.bits == 16 else "<u4")[:, : fields.width]
    if not fields.top_down:
        values = values[::-1]
    masks = fields.masks if fields.masks[3] else fields.masks[:3]
    samples = np.zeros((fields.height, fields.width, len(masks)), np.uint8)
    rows = max(1, _BLOCK // max(1, fields.width))
    for first in range(0, fields.height, rows):
        block = values[first : first + rows].astype(np.uint64)
        for channel, mask in enumerate(masks):
            if mask:
                low = mask & -mask
                most = mask // low
                taken = (block & np.uint64(mask)) // np.uint64(low)
                samples[first : first + rows, :, channel] = (
                    taken * np.uint64(255) + np.uint64(most // 2)
                ) // np.uint64(most)
    return samples if len(masks) == 3 or samples[:, :, 3].any() else samples[:, :, :3]
