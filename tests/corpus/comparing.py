"""What is wrong with an answer, and which class a file belongs to: all pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tests.corpus.reading import Reading


@dataclass(frozen=True)
class Tolerance:
    """Most that an answer may differ, in levels of 8 bits.

    Attributes:
        mean: of all absolute differences.
        high: the 99th percentile of them.
        shift: of a channel's mean.
    """

    mean: float
    high: float
    shift: float


LOSSLESS: Final = Tolerance(1, 6, 1)
"""Of PNG: decoders differ in how they spread colour over pixels, and in how they round 12 bits to 8."""
LOSSY: Final = Tolerance(6, 48, 2)
"""Of an answer in the file's own format, encoded anew."""
DEEP_MEAN: Final = 24
"""Most that 16-bit samples may differ on average, of 65,535; rounding to 8 bits makes it 64."""


@dataclass(frozen=True)
class Difference:
    """What is wrong with an answer.

    Attributes:
        faults: each as `kind: words`, with size, colour, alpha or depth as its kind.
        mean, high, largest: of the differences, in levels.
        deep: whether samples of 16 bits were compared.
    """

    faults: tuple[str, ...]
    mean: float = 0
    high: float = 0
    largest: float = 0
    deep: bool = False


def difference(truth: Reading, answer: Reading, tolerance: Tolerance, *, depth: bool, alpha: bool) -> Difference:
    """Compare an answer with the file that was sent, both read by one decoder.

    Args:
        truth: the file.
        answer: its answer.
        tolerance: of pixels.
        depth: whether the answer's format holds 16 bits.
        alpha: whether it holds alpha; where it does not, pixels of files that have some are not compared.
    """
    if (truth.height, truth.width) != (answer.height, answer.width):
        sizes = f"{truth.width}x{truth.height} came back as {answer.width}x{answer.height}"
        return Difference((f"size: {sizes}",))
    faults = []
    if depth and truth.deep and not answer.deep:
        faults.append("depth: 16 bits came back as 8")
    if truth.hdr:
        return Difference((*faults, "colour: PQ or HLG was answered"))
    if truth.alpha is not None and not alpha:
        return Difference(tuple(faults))
    visible = None if truth.alpha is None else truth.alpha > 0
    faults += _alpha_faults(truth.alpha, answer.alpha, tolerance)
    before, after = _levels(truth.pixels), _levels(answer.pixels)
    apart = after - before if visible is None else (after - before)[visible]
    if not apart.size:
        return Difference(tuple(faults))
    size = np.abs(apart)
    mean, high, largest = float(size.mean()), float(np.percentile(size, 99)), float(size.max())
    shift = float(np.abs(apart.reshape(-1, 3).mean(axis=0)).max())
    if depth and truth.deep and answer.deep and tolerance is LOSSLESS and DEEP_MEAN / 257 < mean <= tolerance.mean:
        faults.append(f"depth: 16 bits differ by {mean * 257:.0f} of 65535")
    elif mean > tolerance.mean or high > tolerance.high or shift > tolerance.shift:
        faults.append(f"colour: mean {mean:.2f}, 99 % {high:.1f}, largest {largest:.0f}, shift {shift:.2f}")
    return Difference(tuple(faults), mean, high, largest, truth.pixels.dtype == np.uint16)


def _levels(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(257 if pixels.dtype == np.uint16 else 1)


def _alpha_faults(
    truth: npt.NDArray[Any] | None, answer: npt.NDArray[Any] | None, tolerance: Tolerance
) -> Sequence[str]:
    if truth is None and answer is None:
        return []
    if truth is None or answer is None:
        there = truth if answer is None else answer
        assert there is not None
        if _levels(there).min() == 255:  # an alpha that hides nothing may come and go
            return []
        return ["alpha: it is lost"] if answer is None else ["alpha: there was none"]
    apart = np.abs(_levels(answer) - _levels(truth))
    mean, largest = float(apart.mean()), float(apart.max())
    return [f"alpha: mean {mean:.2f}, largest {largest:.0f}"] if mean > tolerance.mean else []


RESOLUTION: Final = ("JFIF:XResolution", "JFIF:YResolution", "PNG-pHYs:PixelsPerUnitX", "PNG-pHYs:PixelsPerUnitY")
_TIFF_RESOLUTION: Final = ("IFD0:XResolution", "IFD0:YResolution")
_UNIT: Final = "IFD0:ResolutionUnit"

STRUCTURE: Final = re.compile(
    r"""(SourceFile|ExifTool|System|File|Composite|ICC[-_].*|JFIF|IFD[1-9]\d*|SubIFD.*|MPF\d*|MPImage\d*|Adobe|JUMBF
        |PreviewIFD|GainMap.*|HDRGM.*|APP\d+|RIFF|Trailer|Ducky|FlashPix|Photoshop|Meta|MakerNotes|QuickTime|ItemList
        |PNG-(cICP|pHYs)|XMP-G(Depth|Image|Audio)|AROT|Ocad|SPIFF|Jpeg2000|JPS|CIFF|InfiRay.*|PrintIM|Leaf.*|Nikon.*Scan.*|HTML|Samsung)$""",
    re.VERBOSE,
)
"""Groups of exiftool's that belong to the file, to its colours or to another picture in it."""
STRUCTURAL: Final = re.compile(
    r"""(.*Offsets?|.*ByteCounts?|Strip.*|Tile.*|Rows?PerStrip|Image(Width|Height|Length|Size)|Exif(Byte|Image).*
        |BitsPerSample|SamplesPerPixel|SampleFormat|SubfileType|OldSubfileType|ExtraSamples|Predictor|FillOrder|JPEG.*
        |Compression|CompressedBitsPerPixel|PhotometricInterpretation|PlanarConfiguration|ColorMap|YCbCr.*|ReferenceBlackWhite
        |Thumbnail.*|Preview.*|OtherImage.*|JpgFromRaw.*|Orientation|Padding|OffsetSchema|ICC_?Profile.*|InterColorProfile
        |T4Options|T6Options|Group3Options|Group4Options|PageNumber|InkSet|NumberofInks|DotRange|HalftoneHints
        |BitDepth|ColorType|Filter|Interlace|Palette|Transparency|Gamma|SRGBRendering|ProfileName|BackgroundColor
        |SignificantBits|WhitePoint[XY]?|(Red|Green|Blue)[XY]|PrimaryChromaticities|.*Histogram|SuggestedPalette
        |Animation.*|XMPToolkit|Warning|Error|HasExtendedXMP|GainMap.*|HDR.*|Version|Directory.*|Container.*|Item.*
        |MotionPhoto.*|MicroVideo.*|DepthMap.*|Interop.*|RelatedImage.*|CurrentIPTCDigest|IPTCDigest|PhotoshopThumbnail|ExifVersion
        |ComponentsConfiguration|FlashpixVersion|ColorSpace|PixelUnits|PixelsPerUnit[XY]|.*Profile|GlobalParametersIFD
        |MakerNote.*|ApplicationNotes|ImageSourceData|FreeOffsets|SubIFD.*|CodingMethods|CellLength|CellWidth
        |Threshh?olding|CleanFaxData|(Consecutive)?BadFaxLines|MSPropertySetStorage|IntergraphPacketData|GrayResponse.*|Extended.*|Exif|ModifyDate|RawProfile.*|Matteing|DataType|ImageDepth
        |Min(imum)?SampleValue|Max(imum)?SampleValue|SMin.*|SMax.*|IPTC-NAA)$""",
    re.VERBOSE | re.IGNORECASE,
)
"""Tags that say how a file is built, or that go with a thumbnail, a preview or another picture in it."""


def metadata_faults(before: Mapping[str, Any], after: Mapping[str, Any], strict: bool) -> list[str]:
    """Say which of exiftool's tags (`-j -G1`) are gone or have changed, none of them structural.

    Args:
        before, after: tags by `Group:Name`.
        strict: whether the tags' groups stay too, as they do within one format.
    """
    before, after = _in_inches(before), _in_inches(after)
    kept = {name.partition(":")[2]: value for name, value in after.items()}
    gone, changed = [], []
    for name, value in before.items():
        group, _, tag = name.partition(":")
        if name in RESOLUTION and before.get("JFIF:ResolutionUnit") != "None":
            # a JFIF without a unit says an aspect alone
            if any(str(before.get(each)) == "0" for each in RESOLUTION):  # no resolution, and no aspect
                continue
        elif STRUCTURE.match(group) or STRUCTURAL.match(tag) or "MakerNote" in group or _by_a_camera(group):
            continue
        now = after.get(name, None if strict and group.startswith(("IPTC", "GPS")) else kept.get(tag))
        if now is None and re.match(r"IPTC\d", group):  # exiftool's name for what comes in further blocks
            now = value if any(f"{each}:{tag}" in after for each in ("IPTC", group)) else None
        if now is None:
            gone.append(name)
        elif str(now) != str(value) and not _equal_numbers(now, value):
            changed.append(f"{name} {str(value)[:40]!r} -> {str(now)[:40]!r}")
    return [f"metadata: {len(each)} {what}: {', '.join(each[:6])}" for what, each in
            (("gone", gone), ("changed", changed)) if each]  # fmt: skip


def _in_inches(tags: Mapping[str, Any]) -> Mapping[str, Any]:
    """Count a resolution by inches where it is counted by centimetres: the unit may change."""
    if tags.get(_UNIT) != "cm":
        return tags
    counted = {name: round(float(tags[name]) * 2.54, 3) for name in _TIFF_RESOLUTION if _is_number(tags.get(name))}
    return {**tags, **counted, _UNIT: "inches"}


def _is_number(value: object) -> bool:
    return re.fullmatch(r"\d+(\.\d*)?", str(value)) is not None


_KNOWN: Final = re.compile(r"(IFD0|ExifIFD|GPS|InteropIFD|IPTC\d*|XMP-.*|PNG)$")


def _by_a_camera(group: str) -> bool:
    """Whether a group is of a maker's note or of a program's own block."""
    return _KNOWN.match(group) is None


def _equal_numbers(one: object, other: object) -> bool:
    try:
        return bool(np.isclose(float(str(one)), float(str(other)), rtol=1e-3))
    except ValueError:
        return False


@dataclass(frozen=True)
class Look:
    """What a decoder makes of a file and its answers; small, so that it can be sent between processes.

    Attributes:
        decoder: which.
        error: why the file can't be read or compared; empty where it was.
        complaint: what is wrong with the file though it was read.
        unreadable: whether `error` means that it can't be read at all.
        answers: what is wrong with each answer, by its format.
    """

    decoder: str
    error: str = ""
    complaint: str = ""
    unreadable: bool = False
    answers: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def reads(self) -> bool:
        """Whether the decoder reads the file without complaint."""
        return not self.unreadable and not self.complaint


def agreed(looks: Iterable[Look], format_: str) -> Difference | None:
    """What is wrong with an answer: that of the decoder that it agrees with best; None where none can compare it.

    A decoder that complains of the file is asked only where none reads it whole. One that reads 16 bits says what
    became of them.
    """
    seen = [look for look in looks if format_ in look.answers]
    found = [look.answers[format_] for look in [look for look in seen if not look.complaint] or seen]
    best = min(found, key=lambda each: (len(each.faults), each.mean), default=None)
    deep = next((fault for each in found if each.deep for fault in each.faults if fault.startswith("depth")), None)
    if best is None or deep is None or deep in best.faults:
        return best
    return replace(best, faults=(*best.faults, deep))


def refusal_class(looks: Sequence[Look]) -> str:
    """The class of a file that was refused by a documented problem."""
    return "refused-though-readable" if any(look.reads for look in looks) else "refused-rightly"


def is_fault(problem: str, looks: Sequence[Look]) -> bool:
    """Whether a refusal is wrong beyond doubt: every decoder reads the file without complaint."""
    return problem == "malformed-picture" and bool(looks) and all(look.reads and not look.error for look in looks)
