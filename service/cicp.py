"""Colour by numbers: what ITU-T H.273's primaries and transfer characteristics say, as an ICC profile.

AVIF and HEIC hold the numbers in `colr` (ISO/IEC 14496-12, 12.1.5), PNG in `cICP`.
"""

from functools import lru_cache
from typing import Final

import numpy as np

from service.icc import NODES, SRGB, Chromaticities, curve_of, grey_profile, parametric, rgb_profile, table
from service.picture import UnsupportedSamples

_D65: Final = (0.3127, 0.3290)
_C: Final = (0.310, 0.316)
_SMPTE: Final = Chromaticities((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65)
_PRIMARIES: Final = {
    1: ("BT.709", SRGB),
    4: ("BT.470 M", Chromaticities((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C)),
    5: ("BT.470 B/G", Chromaticities((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65)),
    6: ("SMPTE 170M", _SMPTE),
    7: ("SMPTE 240M", _SMPTE),
    8: ("film", Chromaticities((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C)),
    9: ("BT.2020", Chromaticities((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65)),
    10: ("XYZ", Chromaticities((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3))),
    11: ("DCI-P3", Chromaticities((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351))),
    12: ("Display P3", Chromaticities((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65)),
    22: ("EBU 3213", Chromaticities((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65)),
}
_SRGB_CURVE: Final = parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_PLACES: Final = np.linspace(0, 1, 16 * 255 + 1)
"""Where curves are sampled: at every sample of 8 bits, and at 15 places between two of them."""
_TRANSFERS: Final = {
    # the video curves, which browsers take for sRGB's: a camera's curve is not what a display undoes
    **dict.fromkeys((1, 6, 11, 12, 13, 14, 15), ("sRGB curve", _SRGB_CURVE)),
    4: ("gamma 2.2", parametric(2.2)),
    5: ("gamma 2.8", parametric(2.8)),
    7: ("SMPTE 240M curve", parametric(1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913)),
    8: ("linear", parametric(1.0)),
    **{
        number: ("logarithmic", table(np.where(_PLACES > 0, 10 ** (decades * (_PLACES - 1)), 0)))
        for number, decades in ((9, 2.0), (10, 2.5))
    },
    17: ("SMPTE 428 curve", parametric(2.6)),
}
_PEAKS: Final = {17: 52.37 / 48}
"""Light of the highest sample where that is brighter than white."""
_HIGH_DYNAMIC_RANGE: Final = {16: "PQ", 18: "HLG"}


def known(primaries: int, transfer: int) -> bool:
    """Whether both numbers say something, be it that the samples are of high dynamic range."""
    return primaries in _PRIMARIES and (transfer in _TRANSFERS or transfer in _HIGH_DYNAMIC_RANGE)


@lru_cache(maxsize=32)
def profile_of(primaries: int, transfer: int, *, grey: bool = False, narrow: int = 0) -> bytes | None:
    """Write the profile that two numbers stand for; what is unspecified or reserved means sRGB.

    Args:
        primaries: `ColourPrimaries` (H.273, 8.1).
        transfer: `TransferCharacteristics` (8.2).
        grey: whether the samples are grey, for which the primaries don't count.
        narrow: 8 or 16, the depth of samples that leave head and foot room (8.3), 0 for the full range.

    Returns:
        the profile, None for sRGB.

    Raises:
        UnsupportedSamples: they are of high dynamic range.
    """
    if transfer in _HIGH_DYNAMIC_RANGE:
        raise UnsupportedSamples(
            f"of high dynamic range ({_HIGH_DYNAMIC_RANGE[transfer]})", "save the picture in standard dynamic range"
        )
    space, colours = _PRIMARIES.get(primaries, _PRIMARIES[1])
    shape, curve = _TRANSFERS.get(transfer, _TRANSFERS[13])
    if curve == _SRGB_CURVE and (grey or colours == SRGB) and not narrow:
        return None
    peak = _PEAKS.get(transfer, 1.0)
    if narrow:
        shape, curve = f"{shape}, narrow range", _narrowed(curve, narrow)
    if grey:
        if peak > 1:
            curve = table(np.minimum(np.interp(_PLACES, NODES, peak * curve_of(curve)), 1))
        return grey_profile(f"Grey, {shape}", curve)
    return rgb_profile(space if curve == _SRGB_CURVE else f"{space}, {shape}", colours, curve, peak)


def _narrowed(curve: bytes, bits: int) -> bytes:
    """Write a curve whose black is at 16 of 8 bits and whose white is at 235."""
    scale = (1 << bits) - 1
    black, white = (16 << bits - 8) / scale, (235 << bits - 8) / scale
    return table(np.interp((_PLACES - black) / (white - black), NODES, curve_of(curve)))
