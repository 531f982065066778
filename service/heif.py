"""HEIC, by libheif: what iPhones write. Its own turns and mirrors are applied by the library."""

import io
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pillow_heif
from pillow_heif import options as heif_options

from service.metadata import Metadata, upright, without_orientation
from service.xmp import upright_xmp

BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")

# none of these is answered, and each costs a look at further items of the file
heif_options.THUMBNAILS = heif_options.DEPTH_IMAGES = heif_options.AUX_IMAGES = False


@dataclass(frozen=True)
class Found:
    """What a file says of its primary picture.

    Attributes:
        height, width: pixels once upright.
        mode: such as `RGB`, `RGBA;10` or `L`.
        metadata: EXIF and XMP.
        icc_profile: the colour profile, None where there is none.
        display_p3: whether it has none and is in Display P3 by its numbers (ITU-T H.273).
        frames: pictures in the file.
    """

    height: int
    width: int
    mode: str
    metadata: Metadata
    icc_profile: bytes | None
    display_p3: bool
    frames: int


def _opened(data: bytes) -> Any:
    return pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)


def read_header(data: bytes) -> Found:
    """Read a file's header without decoding it; raises what libheif raises."""
    file = _opened(data)
    # the picture is upright already, whatever its EXIF says
    _, said = upright(file.info.get("exif"), file.info.get("xmp"), turned=True)
    width, height = file.size
    profile, numbers = file.info.get("icc_profile"), file.info.get("nclx_profile") or {}
    # transfers 1, 6, 14 and 15 are those of video, which every viewer takes for sRGB's 13
    in_p3 = numbers.get("color_primaries") == 12 and numbers.get("transfer_characteristics") in (1, 6, 13, 14, 15)
    return Found(height, width, file.mode, said, profile, not profile and in_p3, len(file))


def decode(data: bytes) -> npt.NDArray[np.uint8 | np.uint16]:
    """Decode the primary picture.

    Returns:
        (H, W) or (H, W, C), uint8, or uint16 where it has more than 8 bits, over the full range; raises what libheif
        raises.
    """
    file = _opened(data)
    mode, _, bits = file.mode.partition(";")
    samples: npt.NDArray[np.uint8 | np.uint16] = np.array(np.asarray(file))
    if samples.dtype == np.uint16:
        most = (1 << int(bits or 16)) - 1
        samples = ((samples.astype(np.uint32) * 65_535 + most // 2) // most).astype(np.uint16)
    return _straightened(samples) if mode.endswith("a") else samples


def _straightened(samples: npt.NDArray[np.uint8 | np.uint16]) -> npt.NDArray[np.uint8 | np.uint16]:
    """Divide colours by the alpha that they are multiplied with."""
    most = np.iinfo(samples.dtype).max
    alpha = np.maximum(samples[:, :, -1:], 1).astype(np.float32)
    colours = np.minimum(np.rint(samples[:, :, :-1] * (np.float32(most) / alpha)), most)
    return np.concatenate([colours.astype(samples.dtype), samples[:, :, -1:]], axis=2)


@cache
def can_encode() -> bool:
    """Whether this build of libheif brings an encoder for HEVC."""
    return bool(pillow_heif.libheif_info()["HEIF"])


def encode(
    samples: npt.NDArray[np.uint8 | np.uint16], quality: int, metadata: Metadata, profile: bytes | None
) -> bytes:
    """Encode a picture.

    Args:
        samples: (H, W, C); one channel is grey, three RGB, four RGB and alpha. Of 16 bits ten are kept.
        quality: 1 to 100.
        metadata: what goes along, IPTC aside, for which the format has no place.
        profile: the colour profile.
    """
    height, width, channels = samples.shape
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels] + (";16" if samples.dtype == np.uint16 else "")
    file = pillow_heif.from_bytes(mode, (width, height), np.ascontiguousarray(samples).tobytes())
    if profile:
        file.info["icc_profile"], file.info["icc_profile_type"] = profile, "prof"
    metadata = without_orientation(metadata, keep_upright=True)
    options: dict[str, Any] = {
        "quality": quality,
        "xmp": upright_xmp(metadata.xmp),  # the writer would make a box of an orientation that it names
        "chroma": "420" if quality < 90 else "444",
        "save_nclx_profile": not profile,
        "enc_params": {"preset": "ultrafast"},  # a fifth of the time for a tenth more bytes
    }
    for exif in (metadata.exif and b"Exif\0\0" + metadata.exif, None):
        written = io.BytesIO()
        try:
            file.save(written, exif=exif, **options)
        except Exception:
            if exif is None:
                raise
            continue  # broken metadata must not cost the picture
        break
    return written.getvalue()
