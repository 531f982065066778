"""What is fuzzed: how an input is made, and what must hold when the service is given it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Final

import numpy as np

from service import codec, colour, metadata
from service import exif as exif_blocks
from service import xmp as xmp_packets
from service.archive import Limits, MalformedZip, Names, TooManyFiles, UnusableEntry, UnzippedTooLarge, read_zip
from service.decoding import messages
from service.picture import Picture, PictureLimits
from service.view import View
from tests.fuzz import seeds, zips
from tests.fuzz.mutations import mutated
from tests.fuzz.target import Target, expect

LIMITS: Final = PictureLimits(max_pixels=4_000_000, max_frames=1000, max_scans=100)
_REFUSED: Final = (
    codec.UnsupportedFormat,
    codec.UnsupportedSamples,
    codec.MalformedPicture,
    codec.TooManyFrames,
    codec.TooManyScans,
)
_ROUND_TRIP_PIXELS: Final = 40_000
"""Larger pictures are decoded alone: some encoders take a second a megapixel."""


def _mutants(valid: Callable[[], Sequence[bytes]]) -> Callable[[random.Random], bytes]:
    def make(chance: random.Random) -> bytes:
        files = valid()
        return mutated(chance.choice(files), files, chance)

    return make


def _picture(data: bytes) -> str:
    """A file: header, pixels, colours as the network sees them, and every way of writing it again."""
    try:
        header = codec.read_header(data, LIMITS)
    except (*_REFUSED, codec.PictureTooLarge, MemoryError) as error:
        return type(error).__name__
    # as a decode worker tells it to the service
    text, behind = messages.packed(messages.Answer(header=header))
    told = messages.parsed(messages.Answer, text, lambda _: behind.pop(0))
    expect(told.header == header, "the header is another one once it was told")
    expect(0 < header.width * header.height <= LIMITS.max_pixels, "the header is beyond the limit")
    expect(header.frames >= 1 and 1 <= header.orientation <= 8, "frames or orientation make no sense")
    try:
        picture = codec.decode(data, header)
    except (codec.MalformedPicture, codec.UnsupportedSamples, MemoryError) as error:
        return f"{type(error).__name__} in decode"
    _check(picture, header.height, header.width)
    if header.height * header.width <= _ROUND_TRIP_PIXELS:
        _see(picture)
        for format_ in ("png", "tiff", codec.FORMATS[len(data) % len(codec.FORMATS)]):
            _round_trip(picture, format_)
    return f"decoded {picture.pixels.dtype}{' with alpha' * (picture.alpha is not None)}"


def _check(picture: Picture, height: int, width: int) -> None:
    expect(picture.pixels.shape == (height, width, 3), f"{picture.pixels.shape} is not the header's size")
    expect(picture.pixels.dtype in (np.uint8, np.uint16), "samples of another depth")
    if picture.alpha is not None:
        expect(picture.alpha.shape == (height, width), "the alpha's size differs")
        expect(picture.alpha.dtype == picture.pixels.dtype, "the alpha's depth differs")


def _see(picture: Picture) -> None:
    """The network's view, and an answer of the same colours carried back."""
    view, height = View(picture), picture.pixels.shape[0]
    context = view.context()
    expect(context.shape == (32, 32, 3) and context.dtype == np.uint8, "no context")
    seen = view.rows(0, height)
    expect(seen.shape == picture.pixels.shape, "the view is of another size")
    output = np.empty_like(picture.pixels)
    view.merge(0, height, colour.rounded(seen).astype(np.float32) / np.float32(255), 1.0, output)
    expect(bool((output == picture.pixels).all()), "an answer that changes nothing changed the picture")


def _round_trip(picture: Picture, format_: codec.Format) -> None:
    try:
        written = codec.encode(picture, format_)
    except (codec.SideTooLong, codec.NotWritable):
        return
    header = codec.read_header(written, replace(LIMITS, max_pixels=LIMITS.max_pixels * 2))
    again = codec.decode(written, header)
    _check(again, *picture.pixels.shape[:2])
    expect(header.format == format_, "written in another format")
    if format_ in ("png", "tiff"):
        expect(again.pixels.dtype == picture.pixels.dtype, "the depth is lost")
        if picture.header.icc_profile == header.icc_profile:
            expect(bool((again.pixels == picture.pixels).all()), f"the pixels are lost in {format_}")


def _metadata(data: bytes) -> str:
    """EXIF, XMP and Photoshop's resources: whatever they hold, nothing is raised."""
    orientation, exif = exif_blocks.upright_exif(data)
    expect(1 <= orientation <= 8, "no orientation")
    if exif is not None:
        expect(exif_blocks.upright_exif(exif)[0] == 1, "it is not upright afterwards")
    xmp = xmp_packets.upright_xmp(data)
    iptc = metadata.iptc_resource(data)
    texts = tuple(metadata.Text(metadata.COMMENT, data, *more) for more in ((), (b"\0",), (b"en\0", True)))
    for said in (metadata.Metadata(exif, xmp, iptc), metadata.Metadata(data, data, data, texts=texts)):
        segments = metadata.jpeg_segments(said)
        place = 0
        while place < len(segments):
            expect(segments[place] == 0xFF, "the segments do not follow one another")
            place += 2 + int.from_bytes(segments[place + 2 : place + 4], "big")
        metadata.into_jpeg(b"\xff\xd8\xff\xe0\0\2", segments)
        metadata.without_orientation(said)
    said = metadata.Metadata(exif, xmp, iptc, texts=texts)
    picture = Picture(np.zeros((2, 2, 3), np.uint8), codec.Header("jpeg", 2, 2, metadata=said))
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
            expect(seen.shape == samples.shape and seen.dtype == np.uint8, "converted to another shape")
            if space is not None and space.reversible:
                back = space.from_srgb(seen.astype(np.float32))
                expect(back.shape == samples.shape and bool(np.isfinite(back).all()), "no way back")
            if space is None or space.reversible:  # others are left as a picture is decoded
                _see(Picture(samples, codec.Header("png", 4, 5, icc_profile=usable, grey=grey)))
    return " ".join(kinds)


_ZIP_LIMITS: Final = Limits(files=20, file_bytes=1 << 20, total_bytes=4 << 20)


def _zip(data: bytes) -> str:
    try:
        files = read_zip(data, _ZIP_LIMITS)
    except (MalformedZip, TooManyFiles, UnzippedTooLarge) as error:
        return type(error).__name__
    expect(0 < len(files) <= _ZIP_LIMITS.files, "too many files")
    names, total = Names(), 0
    for file in files:
        name = names.take(file.name, (".png",))
        expect(
            ".." not in name.split("/") and not name.startswith(("/", "\\")) and "\0" not in name, f"a name {name!r}"
        )
        try:
            content = file.read()
        except UnusableEntry:
            continue
        expect(len(content) <= _ZIP_LIMITS.file_bytes, "a file beyond its limit")
        total += len(content)
    expect(total <= _ZIP_LIMITS.total_bytes, "more than all may have")
    return "read"


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
    }
