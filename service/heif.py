"""HEIC, by libheif: what iPhones write. Its own turns and mirrors are applied by the library."""

import io
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pillow_heif
from pillow_heif import options as heif_options

from service.copies import joined
from service.metadata import Metadata, Sampling, upright, without_orientation
from service.xmp import upright_xmp

BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")

_SAMPLINGS: Final[dict[int, Sampling]] = {444: "4:4:4", 422: "4:2:2", 420: "4:2:0"}

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
        numbers: colour primaries and transfer characteristics (ITU-T H.273), 2 where they are not given.
        sampling: of colour differences, None for grey.
        frames: pictures in the file.
    """

    height: int
    width: int
    mode: str
    metadata: Metadata
    icc_profile: bytes | None
    numbers: tuple[int, int]
    sampling: Sampling | None
    frames: int


def _opened(data: bytes) -> Any:
    try:
        return pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    except ValueError as error:
        if "NCLX" not in str(error):
            raise
    # colour numbers that H.273 reserves; without them the picture is what its codec says
    return pillow_heif.open_heif(data.replace(b"colrnclx", b"freenclx"), convert_hdr_to_8bit=False, hdr_to_16bit=False)


def read_header(data: bytes) -> Found:
    """Read a file's header without decoding it; raises what libheif raises."""
    file = _opened(data)
    # the picture is upright already, whatever its EXIF says
    _, said = upright(file.info.get("exif"), file.info.get("xmp"), turned=True)
    width, height = file.size
    profile, nclx = file.info.get("icc_profile"), file.info.get("nclx_profile") or {}
    numbers = nclx.get("color_primaries", 2), nclx.get("transfer_characteristics", 2)
    sampling = _SAMPLINGS.get(file.info.get("chroma"))
    return Found(height, width, file.mode, said, profile, numbers, sampling, len(file))


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
    samples: npt.NDArray[np.uint8 | np.uint16],
    quality: int,
    metadata: Metadata,
    profile: bytes | None,
    sampling: Sampling,
) -> bytes:
    """Encode a picture.

    Args:
        samples: (H, W, C); one channel is grey, three RGB, four RGB and alpha. Of 16 bits ten are kept.
        quality: 1 to 100.
        metadata: what goes along, IPTC aside, for which the format has no place.
        profile: the colour profile.
        sampling: of colour differences. Many phones show 4:2:0 alone, which is HEVC's profile Main, or Main 10.
    """
    height, width, channels = samples.shape
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels] + (";16" if samples.dtype == np.uint16 else "")
    file = pillow_heif.from_bytes(mode, (width, height), joined(np.ascontiguousarray(samples).data.cast("B")))
    if profile:
        file.info["icc_profile"], file.info["icc_profile_type"] = profile, "prof"
    metadata = without_orientation(metadata, keep_upright=True)
    options: dict[str, Any] = {
        "quality": quality,
        "xmp": upright_xmp(metadata.xmp),  # the writer would make a box of an orientation that it names
        "chroma": sampling.replace(":", ""),
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
    return _as_main_10(written.getvalue())


_MAIN_10_INTRA: Final = re.compile(rb"\x04\x08\0\0(\x03?)\0\x9d\xb8")
"""Profile, compatibility and constraints of 10 bits in 4:2:0 (H.265, 7.3.3); 3 is there to prevent emulation."""


def _as_main_10(file: bytes) -> bytes:
    """Name a picture of 10 bits in 4:2:0 one of profile Main 10, which is all that x265 uses of Main 10 Intra.

    libheif asks for the latter, a range extension; decoders of phones look at the name.
    """
    samples = file.find(b"mdat")
    return _MAIN_10_INTRA.sub(lambda found: b"\2\x28\0\0" + found[1] + b"\0\x9d\xb8", file[:samples]) + file[samples:]
