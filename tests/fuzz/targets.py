"""What is fuzzed: how an input is made, and what must hold when the service is given it."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np

from service import codec, colour, metadata, negotiation, spec
from service.archive import Limits, MalformedZip, Names, TooManyFiles, UnusableEntry, UnzippedTooLarge, read_zip
from service.picture import Picture, PictureLimits
from service.view import View
from tests.fuzz import seeds, zips
from tests.fuzz.mutations import mutated

LIMITS: Final = PictureLimits(max_pixels=4_000_000, max_frames=1000, max_scans=100)
_REFUSED: Final = (codec.UnsupportedFormat, codec.MalformedPicture)
_ROUND_TRIP_PIXELS: Final = 40_000
"""Larger pictures are decoded alone: some encoders take a second a megapixel."""


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(frozen=True)
class Target:
    """One thing that is fuzzed.

    Attributes:
        make: an input, by chance.
        run: gives it to the service; raises whatever nobody promised. What it returns is kept as a kind of outcome.
    """

    make: Callable[[random.Random], bytes]
    run: Callable[[bytes], str]


def _expect(holds: bool, words: str) -> None:
    if not holds:
        raise Broken(words)


def _mutants(valid: Callable[[], Sequence[bytes]]) -> Callable[[random.Random], bytes]:
    def make(chance: random.Random) -> bytes:
        files = valid()
        return mutated(chance.choice(files), files, chance)

    return make


def _picture(data: bytes) -> str:
    """A file: header, pixels, colours as the network sees them, and every way of writing it again."""
    try:
        header = codec.read_header(data, LIMITS)
    except (*_REFUSED, codec.PictureTooLarge) as error:
        return type(error).__name__
    _expect(0 < header.width * header.height <= LIMITS.max_pixels, "the header is beyond the limit")
    _expect(header.frames >= 1 and 1 <= header.orientation <= 8, "frames or orientation make no sense")
    try:
        picture = codec.decode(data, header)
    except codec.MalformedPicture:
        return "MalformedPicture in decode"
    _check(picture, header.height, header.width)
    if header.height * header.width <= _ROUND_TRIP_PIXELS:
        _see(picture)
        for format_ in ("png", "tiff", codec.FORMATS[len(data) % len(codec.FORMATS)]):
            _round_trip(picture, format_)
    return f"decoded {picture.pixels.dtype}{' with alpha' * (picture.alpha is not None)}"


def _check(picture: Picture, height: int, width: int) -> None:
    _expect(picture.pixels.shape == (height, width, 3), f"{picture.pixels.shape} is not the header's size")
    _expect(picture.pixels.dtype in (np.uint8, np.uint16), "samples of another depth")
    if picture.alpha is not None:
        _expect(picture.alpha.shape == (height, width), "the alpha's size differs")
        _expect(picture.alpha.dtype == picture.pixels.dtype, "the alpha's depth differs")


def _see(picture: Picture) -> None:
    """The network's view, and an answer of the same colours carried back."""
    view, height = View(picture), picture.pixels.shape[0]
    context = view.context()
    _expect(context.shape == (32, 32, 3) and context.dtype == np.uint8, "no context")
    seen = view.rows(0, height)
    _expect(seen.shape == picture.pixels.shape, "the view is of another size")
    output = np.empty_like(picture.pixels)
    view.merge(0, height, colour.rounded(seen).astype(np.float32) / np.float32(255), 1.0, output)
    _expect(bool((output == picture.pixels).all()), "an answer that changes nothing changed the picture")


def _round_trip(picture: Picture, format_: codec.Format) -> None:
    try:
        written = codec.encode(picture, format_)
    except (codec.SideTooLong, codec.NotWritable):
        return
    header = codec.read_header(written, replace(LIMITS, max_pixels=LIMITS.max_pixels * 2))
    again = codec.decode(written, header)
    _check(again, *picture.pixels.shape[:2])
    _expect(header.format == format_, "written in another format")
    if format_ in ("png", "tiff"):
        _expect(again.pixels.dtype == picture.pixels.dtype, "the depth is lost")
        if picture.header.icc_profile == header.icc_profile:
            _expect(bool((again.pixels == picture.pixels).all()), f"the pixels are lost in {format_}")


def _metadata(data: bytes) -> str:
    """EXIF, XMP and Photoshop's resources: whatever they hold, nothing is raised."""
    orientation, exif = metadata.upright_exif(data)
    _expect(1 <= orientation <= 8, "no orientation")
    if exif is not None:
        _expect(metadata.upright_exif(exif)[0] == 1, "it is not upright afterwards")
    metadata.upright_exif(data, keep_thumbnail=True)
    xmp = metadata.upright_xmp(data)
    iptc = metadata.iptc_resource(data)
    for said in (metadata.Metadata(exif, xmp, iptc), metadata.Metadata(data, data, data)):
        segments = metadata.jpeg_segments(said)
        place = 0
        while place < len(segments):
            _expect(segments[place] == 0xFF, "the segments do not follow one another")
            place += 2 + int.from_bytes(segments[place + 2 : place + 4], "big")
        metadata.into_jpeg(b"\xff\xd8\xff\xe0\0\2", segments)
    picture = Picture(
        np.zeros((2, 2, 3), np.uint8), codec.Header("jpeg", 2, 2, metadata=metadata.Metadata(exif, xmp, iptc))
    )
    for format_ in codec.FORMATS:
        if format_ not in ("heic", "avif") or len(data) % 8 == 0:  # these take ten times as long
            _round_trip(picture, format_)
    return f"exif {exif is not None}, iptc {iptc is not None}"


def _profile(data: bytes) -> str:
    """A colour profile: none, or one that converts there and back without a word."""
    kinds = []
    for grey in (False, True):
        usable = colour.usable(data, grey=grey)
        space = colour.space_of(usable, grey=grey)
        kinds.append(type(space).__name__)
        colour.is_srgb(usable)
        for dtype in (np.uint8, np.uint16):
            samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (4, 5, 3), dtype, endpoint=True)
            if grey:
                samples = np.repeat(samples[:, :, :1], 3, axis=2)
            seen = colour.converted(samples, space)
            _expect(seen.shape == samples.shape and seen.dtype == np.uint8, "converted to another shape")
            if space is not None and space.reversible:
                back = space.from_srgb(seen.astype(np.float32))
                _expect(back.shape == samples.shape and bool(np.isfinite(back).all()), "no way back")
            if space is None or space.reversible:  # others are left as a picture is decoded
                _see(Picture(samples, codec.Header("png", 4, 5, icc_profile=usable, grey=grey)))
    return " ".join(kinds)


_ZIP_LIMITS: Final = Limits(files=20, file_bytes=1 << 20, total_bytes=4 << 20)


def _zip(data: bytes) -> str:
    try:
        files = read_zip(data, _ZIP_LIMITS)
    except (MalformedZip, TooManyFiles, UnzippedTooLarge) as error:
        return type(error).__name__
    _expect(0 < len(files) <= _ZIP_LIMITS.files, "too many files")
    names, total = Names(), 0
    for file in files:
        name = names.take(file.name, (".png",))
        _expect(
            ".." not in name.split("/") and not name.startswith(("/", "\\")) and "\0" not in name, f"a name {name!r}"
        )
        try:
            content = file.read()
        except UnusableEntry:
            continue
        _expect(len(content) <= _ZIP_LIMITS.file_bytes, "a file beyond its limit")
        total += len(content)
    _expect(total <= _ZIP_LIMITS.total_bytes, "more than all may have")
    return "read"


@dataclass
class _Node:
    name: str
    type: str
    shape: Sequence[int | str | None]


_SPEC: Final[dict[str, Any]] = {
    "inputs": [["tiles", "tensor(uint8)", ["N", 128, 128, 3]], ["context", "tensor(uint8)", ["N", 32, 32, 3]]],
    "outputs": [["enhanced", "tensor(float)", ["N", 128, 128, 3]]],
    "metadata": {
        "pix2dslr.version": "1", "camera": "iphone", "architecture": "unet", "tile": "128", "overlap": "32",
        "trained_on": "x", "psnr": "22.5", "ssim": "0.8", "created": "2026-01-01", "weights_sha256": "0" * 64,
    },
}  # fmt: skip
_ODD: Final = (
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "64",
    "65",
    "٣٢",
    "²",
    "9" * 5000,
    "0x20",
    " 32",
    "\0",
    "tiles",
    None,
    -1,
    0,
    128,
    2**70,
)


def _make_spec(chance: random.Random) -> bytes:
    told: dict[str, Any] = json.loads(json.dumps(_SPEC))
    for _ in range(chance.choice((1, 1, 2, 3))):
        odd = chance.choice(_ODD)
        way = chance.randrange(5)
        if way < 3:
            key = chance.choice(list(told["metadata"]) or ["camera"])
            if chance.random() < 0.2:
                del told["metadata"][key]
            else:
                told["metadata"][key] = str(odd)
        else:
            nodes = told[chance.choice(("inputs", "outputs"))]
            node: list[Any] = chance.choice(nodes) if nodes else ["x", "y", []]
            place = chance.randrange(4)
            if place < 2:
                node[place] = str(odd)
            elif place == 2 and node[2]:
                node[2][chance.randrange(len(node[2]))] = odd
            else:
                nodes.append(list(node)) if chance.random() < 0.5 or not nodes else nodes.remove(node)
    return json.dumps(told).encode()


def _spec(data: bytes) -> str:
    told = json.loads(data)
    inputs, outputs = ([_Node(*node) for node in told[name]] for name in ("inputs", "outputs"))
    try:
        found = spec.read_spec(inputs, outputs, told["metadata"])
    except spec.ContractBroken as error:
        return error.clause
    _expect(0 <= found.overlap <= spec.TILE // 2, "an overlap beyond half a tile")
    # what it says is answered by GET /cameras, and JSON has no NaN
    json.dumps([found.psnr, found.ssim], allow_nan=False)
    again = found.metadata()
    _expect(again["camera"] == told["metadata"]["camera"], "another camera")
    return "read"


_WORDS: Final = (
    "image/png", "image/*", "*/*", "image/jpeg", "*", "/", "image/", ";", ",", "q=", "q=0", "q=1.0", "q=nan", "q=1e999",
    "q=-0", "q=0.5;q=0.7", " ", "\t", '"', "W/", '"x"', "\xff", "image/webp;q=0.9", "text/html", "=", "image/png/x",
)  # fmt: skip


def _make_header(chance: random.Random) -> bytes:
    words = [chance.choice(_WORDS) for _ in range(chance.choice((1, 2, 5, 12, 2000)))]
    return chance.choice((", ", ";", "", ",")).join(words).encode("latin-1")


def _header(data: bytes) -> str:
    text = data.decode("latin-1")
    others = ["image/png", "image/webp", "application/zip"]
    chosen = negotiation.accepted(text, "image/jpeg", others)
    _expect(chosen in ("image/jpeg", *others), f"{chosen} was never offered")
    tag = negotiation.entity_tag(data, text)
    _expect(not negotiation.is_known([text], tag), "known without being named")
    _expect(negotiation.is_known([text + "," + tag], tag), "not known though named")
    return chosen


def _metadata_blocks() -> tuple[bytes, ...]:
    resources = b"8BIM\x04\x04\0\0" + len(seeds.IPTC).to_bytes(4, "big") + seeds.IPTC
    return (
        seeds.exif(),
        seeds.exif_with_thumbnail(),
        b"Exif\0\0" + seeds.exif(8),
        seeds.XMP,
        seeds.IPTC,
        resources,
        resources * 3,
    )


@cache
def targets() -> dict[str, Target]:
    """Return all that run without a server, by name."""

    def of(format_: str) -> Callable[[], Sequence[bytes]]:
        return lambda: seeds.pictures(format_)

    pictures = {f"codec-{name}": Target(_mutants(of(name)), _picture) for name in codec.FORMATS if seeds.pictures(name)}
    return pictures | {
        "metadata": Target(_mutants(_metadata_blocks), _metadata),
        "profile": Target(_mutants(seeds.all_profiles), _profile),
        "zip": Target(_mutants(zips.all_zips), _zip),
        "spec": Target(_make_spec, _spec),
        "header": Target(_make_header, _header),
    }
