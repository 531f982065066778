"""What a picture came with comes back: an identity generator's whole way from bytes to bytes, in every format.

Files are written by Pillow, tifffile, libheif or OpenCV, and answers are read by another of them. `pytest -s` prints
the table of measured figures.
"""

import io
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
import skimage.color
import skimage.data
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps, IptcImagePlugin, PngImagePlugin

from service import heif
from service.codec import (
    FORMATS,
    Format,
    Header,
    MalformedPicture,
    NotWritable,
    Picture,
    PictureLimits,
    SideTooLong,
    answer_format,
    as_srgb,
    decode,
    encode,
    read_header,
)
from service.enhancer import Enhancer
from service.generator import Generator
from service.metadata import Metadata, jpeg_segments
from service.problems import words_for
from service.scheduler import Scheduler
from service.view import View
from service.xmp import upright_xmp
from tests import profiles
from tests.avif_files import cut
from tests.onnx_files import write_generator

pillow_heif.register_heif_opener()

Array = npt.NDArray[Any]
LOSSLESS: tuple[Format, ...] = ("png", "webp", "tiff", "bmp")
PROFILES: dict[str, Callable[[], bytes]] = {
    "Display P3": profiles.display_p3,
    "Adobe RGB": profiles.adobe_rgb,
    "ProPhoto RGB": profiles.prophoto,
    "Rec. 2020, curve in a table": profiles.rec2020_table,
    "lookup tables": lambda: profiles.scanner(one_way=False),
}
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Orientation="6" '
    b'dc:source="XMP-here"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
IPTC = b"\x1c\x02\x05\0\x09IPTC-here"
RELATIVE = ImageCms.Intent.RELATIVE_COLORIMETRIC
MAKE, ORIENTATION, GPS_IFD = 0x010F, 0x0112, 0x8825


class Table:
    """The rows of the fidelity table, printed when the module is done."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    def row(self, name: str, figure: str) -> None:
        self.rows[name] = figure


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table()
    yield made
    width = max(map(len, made.rows), default=0)
    print("\n\nAn identity pass, by what came in")
    for name, figure in made.rows.items():
        print(f"  {name:<{width}}  {figure}")


@pytest.fixture(scope="module")
def through(identity_scheduler: Scheduler) -> Callable[..., bytes]:
    """Enhances a file by a generator that changes nothing."""

    def enhance(
        data: bytes, format_: Format | None = None, quality: int = 100, metadata: bool = True, overlap: int = 32
    ) -> bytes:
        header = read_header(data, PictureLimits(10**7))
        picture = enhanced(identity_scheduler, decode(data, header), overlap)
        return encode(picture, answer_format(header, format_), quality, metadata, spend=True)

    return enhance


def enhanced(scheduler: Scheduler, picture: Picture, overlap: int = 32, strength: float = 1.0) -> Picture:
    enhancer = Enhancer(scheduler)
    height, width = picture.pixels.shape[:2]
    with enhancer.admit(height, width, "test", overlap, 60) as job:
        return enhancer.enhance(picture, job, overlap, strength).picture


Through = Callable[..., bytes]


def photo(height: int = 90, width: int = 130) -> Array:
    pixels: Array = skimage.data.chelsea()[80 : 80 + height, 100 : 100 + width].copy()
    pixels[:16, :24] = (255, 0, 0)
    return pixels


def chart(most: int = 255) -> Array:
    """Colours over the whole of a space in patches of 8x8, and greys: (208, 240, 3)."""
    steps = np.linspace(0, most, 9)
    patches = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    greys = np.repeat(np.linspace(0, most, 780 - len(patches))[:, None], 3, axis=1)
    cells = np.rint(np.concatenate([patches, greys])).reshape(26, 30, 3)
    large: Array = cells.repeat(8, 0).repeat(8, 1)
    return large.astype(np.uint8 if most == 255 else np.uint16)


def saved(image: Image.Image | Array, format_: str, **options: Any) -> bytes:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    if format_ == "heic":
        format_, options = "heif", {"quality": -1, "chroma": 444} | options
    written = io.BytesIO()
    image.save(written, format_.upper(), **options)
    return written.getvalue()


def opened(data: bytes) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def by_opencv(data: bytes) -> Array:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


def furthest(one: Any, other: Any) -> int:
    return int(np.abs(np.asarray(one, np.int64) - np.asarray(other, np.int64)).max())


def lab(pixels: Array, profile: bytes) -> Array:
    """CIELAB under D50 of 8-bit RGB in a profile's space, worked out by its numbers and not by Little CMS."""
    tags = {
        profile[at : at + 4]: profile[int.from_bytes(profile[at + 4 : at + 8], "big") :]
        for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12)
    }
    columns = [np.frombuffer(tags[name], ">i4", 3, 8) / 65_536 for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    samples, curve = pixels / np.iinfo(pixels.dtype).max, tags[b"rTRC"]
    if curve[:4] == b"para":
        linear = np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)
    elif curve[8:12] == b"\0\0\0\1":
        linear = samples ** (int.from_bytes(curve[12:14], "big") / 256)
    else:
        linear = samples**2.4
    return profiles.lab_of(linear @ np.array(columns))


def difference(one: Array, other: Array) -> Array:
    """The colour difference (CIEDE2000) of CIELAB colours."""
    return np.asarray(skimage.color.deltaE_ciede2000(one, other))


def exif(orientation: int = 1) -> Image.Exif:
    made = Image.Exif()
    made[MAKE], made[ORIENTATION] = "EXIF-here", orientation
    made.get_ifd(GPS_IFD)[2] = (52.0, 30.0, 0.0)
    return made


def jpeg_with_all(orientation: int = 6) -> bytes:
    plain = saved(photo(), "jpeg", quality=95, exif=exif(orientation), xmp=XMP)
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
    segment = b"Photoshop 3.0\0" + resource
    return plain[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


class TestOrientation:
    @pytest.mark.parametrize("format_", ["jpeg", "png", "webp", "tiff", "avif"])
    def test_all_eight(self, through: Through, table: Table, format_: Format) -> None:
        worst = 0
        for orientation in range(1, 9):
            options = {"lossless": True} if format_ == "webp" else {"quality": 95} if format_ != "tiff" else {}
            data = saved(photo(), format_, exif=exif(orientation), **options)
            upright = ImageOps.exif_transpose(opened(data)).convert("RGB")
            answer = opened(through(data, "png"))
            assert answer.getexif().get(ORIENTATION, 1) == 1
            assert answer.getexif()[MAKE] == "EXIF-here"
            worst = max(worst, furthest(answer, upright))
        assert worst <= (2 if format_ == "jpeg" else 0)
        table.row(f"orientation 1 to 8, {format_}", f"furthest sample {worst}, tag 1")

    def test_heic_is_turned_by_its_own_boxes(self, through: Through, table: Table) -> None:
        # libheif's writer turns the tag into boxes, which its reader obeys; a second turn would show
        data = saved(photo(), "heic", exif=exif(6).tobytes())
        answer = opened(through(data, "png"))
        worst = furthest(answer, np.rot90(photo(), -1))
        assert worst <= 6
        assert answer.getexif().get(ORIENTATION, 1) == 1
        table.row("orientation 6, heic", f"furthest sample {worst}")

    @pytest.mark.parametrize("format_", ["jpeg", "png", "tiff"])
    def test_the_thumbnail_is_dropped(self, through: Through, table: Table, format_: Format) -> None:
        thumbnail = saved(photo(40, 60), "jpeg")
        block = exif_with_thumbnail(thumbnail)
        data = saved(photo(), "jpeg", exif=block)
        assert thumbnail in data
        answer = through(data, format_)
        assert thumbnail[20:200] not in answer
        assert len(opened(answer).getexif().get_ifd(1)) == 0
        assert opened(answer).getexif()[MAKE] == "Toy"
        table.row(f"thumbnail, to {format_}", "dropped")


def exif_with_thumbnail(thumbnail: bytes) -> bytes:
    first = (
        struct.pack("<H", 2) + struct.pack("<HHI4s", MAKE, 2, 4, b"Toy\0") + struct.pack("<HHII", ORIENTATION, 3, 1, 3)
    )
    second_at = 8 + len(first) + 4
    second = (
        struct.pack("<H", 2)
        + struct.pack("<HHII", 0x201, 4, 1, second_at + 30)
        + struct.pack("<HHII", 0x202, 4, 1, len(thumbnail))
    )
    return b"Exif\0\0II*\0\x08\0\0\0" + first + struct.pack("<I", second_at) + second + bytes(4) + thumbnail


class TestMetadata:
    @pytest.mark.parametrize(
        ("format_", "iptc"),
        [("jpeg", True), ("png", True), ("tiff", True), ("webp", False), ("heic", False), ("avif", False)],
    )
    def test_is_kept(self, through: Through, table: Table, format_: Format, iptc: bool) -> None:
        answer = through(jpeg_with_all(), format_)
        kept = found_in(answer)
        assert kept == {"EXIF", "GPS", "XMP"} | ({"IPTC"} if iptc else set())
        assert opened(answer).getexif().get(ORIENTATION, 1) == 1
        assert b'tiff:Orientation="6"' not in answer
        again = found_in(through(answer, "jpeg"))
        assert again == kept, "and it is read again"
        table.row(f"metadata kept, {format_}", ", ".join(sorted(kept)))

    @pytest.mark.parametrize("format_", FORMATS)
    def test_is_stripped(self, through: Through, table: Table, format_: Format) -> None:
        answer = through(jpeg_with_all(), format_, metadata=False)
        assert found_in(answer) == set()
        assert not any(word in answer for word in (b"EXIF-here", b"XMP-here", b"IPTC-here", b"8BIM"))
        table.row(f"metadata stripped, {format_}", "nothing left")

    def test_what_others_write_is_found(self, through: Through) -> None:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
        digits = (b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC).hex()
        text.add_text("Raw profile type iptc", f"\niptc\n{len(digits) // 2}\n{digits}\n", zip=True)
        files = {
            "png": saved(photo(), "png", pnginfo=text, exif=exif()),
            "webp": saved(photo(), "webp", xmp=XMP, exif=exif()),
            "avif": saved(photo(), "avif", xmp=XMP, exif=exif()),
            "heic": saved(photo(), "heic", xmp=XMP, exif=exif().tobytes()),
            "tiff": saved(
                photo(), "tiff", tiffinfo={700: XMP, 33723: IPTC, MAKE: "EXIF-here", 34853: {2: (52.0, 30.0, 0.0)}}
            ),
        }
        for name, data in files.items():
            expected = {"EXIF", "GPS", "XMP"} | ({"IPTC"} if name in ("png", "tiff") else set())
            assert found_in(through(data, "jpeg")) == expected, name

    def test_a_cameras_own_notes_stay_where_they_are(self, through: Through) -> None:
        # their offsets count from the block's start, so the block must not be written anew
        note = bytes(range(256))
        block = exif_with_thumbnail(saved(photo(10, 10), "jpeg"))
        block = block[:6] + block[6:] + note
        answer = opened(through(saved(photo(), "jpeg", exif=block), "jpeg")).info["exif"]
        assert answer.index(note) == block.index(note)

    def test_xmp_of_a_gain_map_goes_with_the_gain_map(self, through: Through) -> None:
        packet = XMP.replace(
            b'dc:source="XMP-here"/>',
            b'dc:source="XMP-here" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" '
            b'xmlns:C="http://ns.google.com/photos/1.0/container/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
            b'xmp:Rating="5"><C:Directory><rdf:Seq><rdf:li>gainmap-here</rdf:li></rdf:Seq></C:Directory>'
            b"<xmp:Thumbnails><rdf:Alt>thumbnail-here</rdf:Alt></xmp:Thumbnails><xmp:Label>red</xmp:Label>"
            b"</rdf:Description>",
        )
        kept = opened(through(saved(photo(), "jpeg", xmp=packet), "jpeg")).info["xmp"]
        ET.fromstring(kept)  # noqa: S314  of its own making
        assert not any(word in kept for word in (b"hdrgm:Version", b"gainmap-here", b"thumbnail-here"))
        assert all(word in kept for word in (b"XMP-here", b'xmp:Rating="5"', b"<xmp:Label>red</xmp:Label>"))

    @settings(max_examples=50, deadline=None)
    @given(
        noise=st.lists(st.sampled_from([b"<hdrgm:a>", b"</hdrgm:a>", b'hdrgm:a="', b"<hdrgm:a/>", b"<", b" ", b"x"]))
    )
    def test_broken_xmp_does_not_cost_the_picture(self, noise: list[bytes]) -> None:
        packet = b'<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/">' + b"".join(noise)
        assert upright_xmp(packet) is not None

    @pytest.mark.parametrize(
        "unit", [b" ", b"<hdrgm:a", b' hdrgm:a="', b"hdrgm:" + b"a.", b"tiff:Orientation ", b"xmlns:"]
    )
    def test_hostile_xmp_is_read_in_linear_time(self, unit: bytes) -> None:
        def seconds(count: int) -> float:
            packet = b'<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/">' + unit * count
            start = time.process_time()
            jpeg_segments(Metadata(xmp=upright_xmp(packet)))
            return time.process_time() - start

        # a quadratic pass over four megabytes would take hours
        assert seconds(4_000_000 // len(unit)) < 10


def found_in(data: bytes) -> set[str]:
    """Which metadata another reader finds in a file."""
    image = opened(data)
    found = set()
    if image.getexif().get(MAKE) == "EXIF-here":
        found.add("EXIF")
    if image.getexif().get_ifd(GPS_IFD).get(2) == (52.0, 30.0, 0.0):
        found.add("GPS")
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    if "XMP-here" in (xmp if isinstance(xmp, str) else xmp.decode()):
        found.add("XMP")
    records = IptcImagePlugin.getiptcinfo(image) if image.format in ("JPEG", "TIFF") else None
    if (records or {}).get((2, 5)) == b"IPTC-here" or IPTC.hex() in str(image.info.get("Raw profile type iptc", "")):
        found.add("IPTC")
    return found


class TestColour:
    @pytest.mark.parametrize("format_", ["jpeg", "png", "webp", "tiff", "heic", "avif"])
    @pytest.mark.parametrize("name", [name for name in PROFILES if name != "lookup tables"])
    def test_a_profile_is_answered_in(self, through: Through, table: Table, name: str, format_: Format) -> None:
        profile = PROFILES[name]()
        answer = opened(through(saved(chart(), "png", icc_profile=profile), format_))
        assert answer.info["icc_profile"] == profile
        away = difference(lab(np.asarray(answer.convert("RGB")), profile), lab(chart(), profile))
        # what HEIC and AVIF lose is the codec's own 8-bit luma and chroma
        assert away.mean() < 1
        assert format_ not in ("png", "webp", "tiff") or away.max() == 0
        assert format_ != "jpeg" or away.max() < 3
        table.row(f"{name}, to {format_}", f"ΔE2000 mean {away.mean():.3f}, most {away.max():.3f}")

    @pytest.mark.parametrize("name", [name for name in PROFILES if name != "lookup tables"])
    def test_a_format_without_profiles_gets_srgb(self, through: Through, table: Table, name: str) -> None:
        profile = PROFILES[name]()
        image = opened(through(saved(chart(), "png", icc_profile=profile), "bmp"))
        srgb = profiles.matrix_profile([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)], profiles.srgb_curve())
        truth = lab(chart(), profile)
        linear = (
            profiles.xyz_of(truth)
            @ np.linalg.inv(profiles.primaries_to_xyz([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)])).T
        )
        inside = ((linear > -1e-4) & (linear < 1 + 1e-4)).all(axis=2)
        away = difference(lab(np.asarray(image), srgb), truth)[inside]
        assert away.mean() < 0.3
        assert np.percentile(away, 99) < 1
        table.row(f"{name}, to bmp (sRGB)", f"ΔE2000 mean {away.mean():.3f}, 99 % below {np.percentile(away, 99):.3f}")

    @pytest.mark.parametrize("name", PROFILES)
    def test_the_network_sees_srgb(self, name: str) -> None:
        profile = PROFILES[name]()
        data = saved(chart(), "png", icc_profile=profile)
        seen = View(decode(data, read_header(data, PictureLimits(10**7)))).rows(0, 10**6)
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB", RELATIVE)
        assert furthest(seen, transform.apply(Image.fromarray(chart()))) <= 1

    @pytest.mark.parametrize("name", PROFILES)
    def test_what_the_network_changes_reaches_the_profiles_space(self, name: str, tmp_path: Path) -> None:
        # of colours inside sRGB an inverting generator's answer is what Little CMS makes of the inverted sRGB
        profile = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[name]()))
        colours = np.random.default_rng(0).integers(40, 216, (150, 170, 3), np.uint8)
        transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), profile, "RGB", "RGB", RELATIVE)
        data = saved(transform.apply(Image.fromarray(colours)), "png", icc_profile=PROFILES[name]())
        picture = decode(data, read_header(data, PictureLimits(10**6)))
        generator = Generator(write_generator(tmp_path / "m.onnx", invert=True), device="cpu", threads=1)
        scheduler = Scheduler([lambda _: generator])
        answer, half = (enhanced(scheduler, picture, strength=strength) for strength in (1.0, 0.5))
        scheduler.close()
        inverted = transform.apply(Image.fromarray(255 - as_srgb(picture)))
        away = np.abs(np.asarray(inverted, int) - answer.pixels)
        assert away.mean() < (0.6 if name != "lookup tables" else 1)
        assert away.max() <= (2 if name != "lookup tables" else 8)
        middle = (answer.pixels.astype(int) + picture.pixels) / 2
        assert furthest(half.pixels, middle) <= 1
        assert answer.header.icc_profile == PROFILES[name]()

    @pytest.mark.parametrize("format_", ["png", "tiff", "jpeg"])
    def test_lookup_tables_both_ways(self, through: Through, table: Table, format_: Format) -> None:
        profile = PROFILES["lookup tables"]()
        answer = opened(through(saved(chart(), "png", icc_profile=profile), format_))
        assert answer.info["icc_profile"] == profile
        assert furthest(answer, chart()) <= (0 if format_ != "jpeg" else 12)
        table.row(f"lookup tables, to {format_}", f"furthest sample {furthest(answer, chart())}")

    def test_a_profile_of_one_way_becomes_srgb(self, through: Through, table: Table) -> None:
        answer = opened(through(saved(chart(), "png", icc_profile=profiles.scanner(one_way=True)), "png"))
        assert "icc_profile" not in answer.info
        srgb = profiles.matrix_profile([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)], profiles.srgb_curve())
        middle = (chart().min(axis=2) > 60) & (np.ptp(chart().astype(int), axis=2) < 100)
        away = difference(lab(np.asarray(answer), srgb), lab(chart(), profiles.adobe_rgb()))[middle]
        assert away.mean() < 1
        table.row("a scanner's one-way profile, to sRGB", f"ΔE2000 mean {away.mean():.3f}")

    def test_cmyk_becomes_srgb_by_its_profile(self, through: Through, table: Table) -> None:
        # light tints lie inside sRGB
        tints = np.stack(np.meshgrid(*[np.linspace(0, 90, 5)] * 4, indexing="ij"), axis=-1).reshape(25, 25, 4)
        cells = np.rint(tints).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        truth = profiles.press(cells / 255)
        srgb = profiles.matrix_profile([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)], profiles.srgb_curve())
        files = {
            "CMYK TIFF": saved(Image.fromarray(cells, "CMYK"), "tiff", icc_profile=profiles.cmyk()),
            "CMYK JPEG": saved(
                Image.fromarray(cells, "CMYK"), "jpeg", quality=100, subsampling=0, icc_profile=profiles.cmyk()
            ),
            "YCCK JPEG": ycck(cells, profiles.cmyk()),
        }
        for name, data in files.items():
            answer = opened(through(data, "png"))
            assert (answer.mode, "icc_profile" in answer.info) == ("RGB", False)
            away = difference(lab(np.asarray(answer), srgb), truth)
            assert away.mean() < 1, name
            table.row(f"{name}, to sRGB", f"ΔE2000 mean {away.mean():.3f}, most {away.max():.3f}")

    def test_cmyk_without_a_profile_has_ideal_inks(self, through: Through) -> None:
        cells = np.array([[[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8)
        image = Image.fromarray(cells.repeat(16, 0).repeat(16, 1), "CMYK")
        answer = np.asarray(opened(through(saved(image, "tiff"), "png")))[8, 8::16]
        assert furthest(answer, [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]]) == 0
        assert furthest(opened(through(ycck(np.asarray(image), None), "png")), image.convert("RGB")) <= 4

    def test_heic_that_names_display_p3_by_its_number(self, through: Through, table: Table) -> None:
        written = io.BytesIO()
        file = pillow_heif.from_bytes("RGB", chart().shape[1::-1], chart().tobytes())
        file.save(written, quality=-1, chroma=444, color_primaries=12, transfer_characteristic=13)
        answer = opened(through(written.getvalue(), "png"))
        given = ImageCms.ImageCmsProfile(io.BytesIO(answer.info["icc_profile"]))
        assert ImageCms.getProfileDescription(given).strip() == "Display P3"
        # Little CMS takes the written profile for what the test's own says
        ours = ImageCms.profileToProfile(answer, given, ImageCms.createProfile("sRGB"), RELATIVE)
        other = ImageCms.ImageCmsProfile(io.BytesIO(profiles.display_p3()))
        assert furthest(ours, ImageCms.profileToProfile(answer, other, ImageCms.createProfile("sRGB"), RELATIVE)) <= 2
        away = difference(lab(np.asarray(answer), profiles.display_p3()), lab(chart(), profiles.display_p3()))
        assert away.mean() < 0.3
        table.row("Display P3 by its number, heic to png", f"ΔE2000 mean {away.mean():.3f}, most {away.max():.3f}")

    def test_a_profile_stays_where_metadata_is_stripped(self, through: Through) -> None:
        answer = through(saved(photo(), "jpeg", icc_profile=profiles.display_p3()), "jpeg", metadata=False)
        assert opened(answer).info["icc_profile"] == profiles.display_p3()


def ycck(cells: Array, profile: bytes | None) -> bytes:
    """A JPEG as Photoshop writes it: YCbCr of the three coloured inks, and black inverted."""
    colours = np.asarray(Image.fromarray(np.ascontiguousarray(cells[:, :, :3])).convert("YCbCr"))
    planes = np.dstack([255 - colours, cells[:, :, 3]])
    options = {"icc_profile": profile} if profile else {}
    data = bytearray(saved(Image.fromarray(planes, "CMYK"), "jpeg", quality=100, subsampling=0, **options))
    data[data.index(b"Adobe\0") + 11] = 2
    return bytes(data)


class TestSamples:
    @pytest.mark.parametrize("source", ["png", "webp", "tiff", "bmp"])
    @pytest.mark.parametrize("target", ["png", "webp", "tiff"])
    def test_alpha_and_what_lies_under_it_are_untouched(
        self, through: Through, table: Table, source: Format, target: Format
    ) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (150, 170, 4), np.uint8)
        pixels[20:90, 30:140, 3] = 0
        if source == "bmp":
            done, encoded = cv2.imencode(".bmp", pixels[:, :, [2, 1, 0, 3]])
            assert done
            data = encoded.tobytes()
        else:
            options = {"lossless": True, "exact": True} if source == "webp" else {}
            data = saved(pixels, source, **options)
        answer = opened(through(data, target))
        assert answer.mode == "RGBA"
        assert furthest(answer, pixels) == 0
        table.row(f"alpha, {source} to {target}", "bit for bit, under clear parts too")

    def test_colour_is_bled_under_clear_parts(self) -> None:
        pixels = np.zeros((300, 300, 4), np.uint8)
        pixels[:, :, :3] = (0, 255, 0)  # garbage that must not be seen
        pixels[100:200, 100:200] = (200, 120, 40, 255)
        data = saved(pixels, "png")
        view = View(decode(data, read_header(data, PictureLimits(10**6))))
        np.testing.assert_allclose(view.rows(0, 300).reshape(-1, 3), [(200, 120, 40)] * 90_000, atol=1)
        np.testing.assert_allclose(view.context().reshape(-1, 3), [(200, 120, 40)] * 1024, atol=1)
        np.testing.assert_array_equal(view.rows(40, 168), view.rows(0, 300)[40:168])

    @pytest.mark.parametrize("target", ["png", "tiff"])
    @pytest.mark.parametrize(
        "kind", ["RGB", "RGBA", "grey", "RGB in P3", "grey in gamma 1.8", "RGB in planes", "tiles"]
    )
    def test_sixteen_bits(self, through: Through, table: Table, kind: str, target: Format) -> None:
        samples = np.random.default_rng(0).integers(0, 65_536, (140, 170, 4), np.uint16)
        channels: Array = samples if kind == "RGBA" else samples[:, :, 0] if "grey" in kind else samples[:, :, :3]
        options: dict[str, Any] = {"photometric": "minisblack" if "grey" in kind else "rgb"}
        if kind == "RGBA":
            options["extrasamples"] = ["unassalpha"]
        if kind.endswith("P3"):
            options["iccprofile"] = profiles.display_p3()
        if kind.endswith("1.8"):
            options["iccprofile"] = profiles.grey_gamma()
        if kind == "tiles":
            options |= {"tile": (64, 64), "compression": "zlib"}
        written = io.BytesIO()
        if kind == "RGB in planes":
            tifffile.imwrite(written, np.moveaxis(channels, 2, 0), planarconfig="separate", **options)
        else:
            tifffile.imwrite(written, channels, **options)
        answer = through(written.getvalue(), target)
        read = by_opencv(answer)
        if read.ndim == 3:
            read = read[:, :, [2, 1, 0, 3][: read.shape[2]]]
        assert read.dtype == np.uint16
        assert np.array_equal(read, channels)
        table.row(f"16 bits, {kind}, to {target}", "bit for bit")

    def test_sixteen_bits_upside_down_and_multiplied(self, through: Through) -> None:
        grey = np.random.default_rng(0).integers(0, 65_536, (40, 50), np.uint16)
        written = io.BytesIO()
        tifffile.imwrite(written, grey, photometric="miniswhite")
        assert np.array_equal(by_opencv(through(written.getvalue(), "png")), 65_535 - grey)
        alpha = np.full((40, 50), 32_768, np.uint16)
        colours = np.random.default_rng(1).integers(0, 32_768, (40, 50, 3), np.uint16)
        written = io.BytesIO()
        tifffile.imwrite(written, np.dstack([colours, alpha]), photometric="rgb", extrasamples=["assocalpha"])
        read = by_opencv(through(written.getvalue(), "png"))
        assert furthest(read[:, :, 2::-1], np.rint(colours * (65_535 / 32_768))) <= 1

    def test_ten_bits_of_heic(self, through: Through, table: Table) -> None:
        levels = np.linspace(0, 65_535, 256).astype(np.uint16)
        ramp = np.repeat(np.repeat(levels[None, :, None], 64, 0), 3, 2)
        written = io.BytesIO()
        pillow_heif.from_bytes("RGB;16", (256, 64), ramp.tobytes()).save(written, quality=-1, chroma=444)
        read = by_opencv(through(written.getvalue(), "png"))
        assert read.dtype == np.uint16
        assert furthest(read, ramp) < 3 * 64
        again = pillow_heif.open_heif(through(written.getvalue()), convert_hdr_to_8bit=False)
        assert again.info["bit_depth"] == 10
        table.row("10-bit HEIC, to 16-bit PNG", f"furthest {furthest(read, ramp) / 64:.1f} steps of 10 bits")

    def test_ten_bits_of_grey_heic(self, through: Through) -> None:
        ramp = np.repeat(np.linspace(0, 65_535, 256).astype(np.uint16)[None], 64, 0)
        written = io.BytesIO()
        pillow_heif.from_bytes("I;16", (256, 64), ramp.tobytes()).save(written, quality=-1)
        read = by_opencv(through(written.getvalue(), "png"))
        assert read.ndim == 2
        assert read.dtype == np.uint16
        assert furthest(read, ramp) < 64

    @pytest.mark.parametrize("source", ["jpeg", "png", "tiff", "bmp", "avif"])
    @pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "bmp"])
    def test_grey_stays_grey(self, through: Through, table: Table, source: Format, target: Format) -> None:
        grey = Image.fromarray(photo()).convert("L")
        data = saved(grey, source, **({"quality": 100} if source in ("jpeg", "avif") else {}))
        truth = opened(data)
        answer = opened(through(data, target))
        assert answer.mode == "L"
        worst = furthest(answer, truth.convert("L"))
        assert worst <= (1 if target == "jpeg" else 0)
        table.row(f"grey, {source} to {target}", f"1 channel, furthest sample {worst}")

    def test_grey_of_a_grey_profile(self, through: Through, table: Table) -> None:
        ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 64, 0)
        data = saved(ramp, "png", icc_profile=profiles.grey_gamma())
        kept = opened(through(data, "tiff"))
        assert (kept.mode, kept.info["icc_profile"]) == ("L", profiles.grey_gamma())
        assert furthest(kept, ramp) == 0
        linear = (np.arange(256) / 255) ** 1.8
        expected = 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
        answer = opened(through(data, "webp"))
        assert "icc_profile" not in answer.info
        worst = np.abs(np.asarray(answer)[30, :, 1] - expected).max()
        assert worst <= 0.6
        table.row("grey of gamma 1.8, to webp (sRGB)", f"furthest sample {worst:.2f}")

    @pytest.mark.parametrize(
        ("source", "mode"),
        [
            *(("png", mode) for mode in ("1", "P", "L", "LA", "RGBA")),
            *(("tiff", mode) for mode in ("1", "P", "L", "LA", "PA", "RGBA")),
            *(("bmp", mode) for mode in ("1", "P", "L")),
        ],
    )
    def test_kinds_of_pixels(self, through: Through, table: Table, mode: str, source: Format) -> None:
        image = Image.fromarray(photo()).convert("RGBA" if mode == "PA" else mode)
        if mode == "PA":
            image = Image.fromarray(photo()).convert("P").convert("PA")
        kind = "RGBA" if mode in ("LA", "PA", "RGBA") else "RGB"
        answer = opened(through(saved(image, source), "png"))
        assert furthest(answer.convert(kind), image.convert(kind)) == 0
        assert (answer.mode in ("L", "LA")) == (mode in ("1", "L", "LA"))
        table.row(f"{mode}, {source} to png", "bit for bit")

    @pytest.mark.parametrize(
        ("mode", "compression"),
        [
            *(("RGB", name) for name in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd")),
            *(("1", name) for name in ("group3", "group4")),
        ],
    )
    def test_compressions_of_tiff(self, through: Through, table: Table, mode: str, compression: str) -> None:
        data = saved(Image.fromarray(photo()).convert(mode), "tiff", compression=compression)
        worst = furthest(opened(through(data, "png")), opened(data).convert("L" if mode == "1" else "RGB"))
        assert worst == 0
        table.row(f"TIFF, {compression}, to png", f"furthest sample {worst}")

    @pytest.mark.parametrize("compression", [1, 5, 8, 32_773])
    def test_compressions_of_deep_tiff(self, through: Through, compression: int) -> None:
        samples = np.random.default_rng(0).integers(0, 65_536, (40, 50, 3), np.uint16)
        done, data = cv2.imencode(".tiff", samples, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
        assert done
        assert np.array_equal(by_opencv(through(data.tobytes(), "png")), samples)

    def test_planes_of_8_bits(self, through: Through) -> None:
        written = io.BytesIO()
        tifffile.imwrite(written, np.moveaxis(photo(), 2, 0), photometric="rgb", planarconfig="separate")
        assert furthest(opened(through(written.getvalue(), "png")), photo()) == 0

    @pytest.mark.parametrize(
        "options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}]
    )
    def test_kinds_of_jpeg(self, through: Through, table: Table, options: dict[str, Any]) -> None:
        data = saved(photo(), "jpeg", quality=95, **options)
        worst = furthest(opened(through(data, "png")), opened(data))
        assert worst <= 2
        name = "progressive" if "progressive" in options else ("4:4:4", "4:2:2", "4:2:0")[options["subsampling"]]
        table.row(f"JPEG {name}, to png", f"furthest sample {worst}")


class TestFormats:
    @pytest.mark.parametrize("source", FORMATS)
    @pytest.mark.parametrize("target", [None, *FORMATS])
    def test_every_format_to_every_format(
        self, through: Through, table: Table, source: Format, target: Format | None
    ) -> None:
        data = saved(photo(), source, **({"quality": 95} if source in ("jpeg", "webp", "avif") else {}))
        answer = through(data, target, quality=95)
        assert read_header(answer, PictureLimits(10**6)).format == (target or source)
        away = np.abs(np.asarray(opened(answer).convert("RGB"), int) - np.asarray(opened(data).convert("RGB"))).mean()
        assert away < (2.5 if (target or source) in ("jpeg", "webp", "heic", "avif") else 0.2)
        if target is None:
            table.row(f"{source}, as it came", f"mean difference {away:.2f} of 255")

    def test_without_an_encoder_heic_is_answered_as_jpeg(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # distributions build libheif without x265, which no wheel can be made to lack
        monkeypatch.setattr(heif, "can_encode", lambda: False)
        header = read_header(saved(photo(), "heic"), PictureLimits(10**6))
        assert answer_format(header) == "jpeg"
        with pytest.raises(NotWritable) as error:
            answer_format(header, "heic")
        assert "HEIC" in words_for(error.value)

    @pytest.mark.parametrize("format_", ["png", "webp", "avif", "tiff", "heic"])
    def test_the_first_frame_counts(self, through: Through, table: Table, format_: Format) -> None:
        frames = [Image.fromarray(photo()), Image.fromarray(photo()[::-1].copy()), Image.fromarray(255 - photo())]
        if format_ == "heic":
            file = pillow_heif.from_pillow(frames[0])
            for frame in frames[1:]:
                file.add_from_pillow(frame)
            written = io.BytesIO()
            file.save(written, quality=-1, chroma=444)
            data = written.getvalue()
        else:
            options = {"lossless": True} if format_ == "webp" else {"quality": 100} if format_ == "avif" else {}
            data = saved(frames[0], format_, save_all=True, append_images=frames[1:], **options)
        assert read_header(data, PictureLimits(10**6)).frames == 3
        away = np.abs(np.asarray(opened(through(data, "png")), int) - photo()).mean()
        assert away < (0 if format_ in ("png", "webp", "tiff") else 3) + 1e-9
        table.row(f"3 frames, {format_}", f"the first, mean difference {away:.2f}; 3 are told")

    @pytest.mark.parametrize("hidden", [True, False])
    def test_an_animated_png_is_answered_by_its_default_picture(self, through: Through, hidden: bool) -> None:
        # the one for programs that show stills, be it a part of the animation or not
        frames = [Image.fromarray(photo()), Image.fromarray(photo()[::-1].copy()), Image.fromarray(255 - photo())]
        data = saved(frames[0], "png", save_all=True, append_images=frames[1:], default_image=hidden)
        assert read_header(data, PictureLimits(10**6)).frames == 3
        assert furthest(opened(through(data)), photo()) == 0

    @pytest.mark.parametrize(
        ("mode", "chroma", "profile"),
        [("RGB", "420", 3), ("RGBA", "420", 3), ("RGB", "422", 4), ("RGB", "444", 4), ("RGB;16", "420", 2)],
    )
    def test_heic_keeps_its_profile(self, through: Through, mode: str, chroma: str, profile: int) -> None:
        pixels = np.dstack([photo(), photo()[:, :, 0]]) if mode == "RGBA" else photo()
        if mode == "RGB;16":
            pixels = pixels.astype(np.uint16) * 257
        written = io.BytesIO()
        pillow_heif.from_bytes(mode, (130, 90), pixels.tobytes()).save(written, quality=90, chroma=chroma)
        for quality in (50, 95, 100):
            assert hevc_profile(through(written.getvalue(), quality=quality)) == (
                profile,
                chroma,
                10 if profile == 2 else 8,
            )

    @pytest.mark.parametrize("source", ["jpeg", "png", "webp", "tiff", "bmp", "avif"])
    def test_heic_is_what_phones_show(self, through: Through, source: Format) -> None:
        options = {"subsampling": "4:4:4"} if source in ("jpeg", "avif") else {}
        assert hevc_profile(through(saved(photo(), source, **options), "heic")) == (3, "420", 8)

    def test_heic_is_cut_by_its_box(self, through: Through) -> None:
        file = pillow_heif.from_bytes("RGB", (130, 90), photo().tobytes())
        file.info["icc_profile"], file.info["icc_profile_type"] = bytes(100), "prof"
        written = io.BytesIO()
        file.save(written, quality=-1, chroma=444, save_nclx_profile=False)
        data = written.getvalue()
        place = data.index(b"colrprof") - 4  # its last property, whose place a cut and a gap take
        end = place + int.from_bytes(data[place : place + 4], "big")

        def with_cut(*where: int) -> bytes:
            box = cut(*where)
            return data[:place] + box + struct.pack(">I4s", end - place - len(box), b"free") + data[place + 48 :]

        assert furthest(opened(through(with_cut(40, 30, 5, -10), "png")), photo()[20:50, 50:90]) <= 6
        for broken in ((40, 30, 100, 0), (0, 30)):
            with pytest.raises(MalformedPicture):
                through(with_cut(*broken), "png")

    def test_ten_bits_for_phones(self, through: Through) -> None:
        written = io.BytesIO()
        tifffile.imwrite(written, photo().astype(np.uint16) * 257, photometric="rgb")
        answer = through(written.getvalue(), "heic")
        assert hevc_profile(answer) == (2, "420", 10)
        # the name alone is another than libheif gives
        read = np.asarray(pillow_heif.open_heif(answer, convert_hdr_to_8bit=True))
        assert np.abs(read.astype(int) - photo()).mean() < 2.5

    def test_a_gain_map_is_no_frame(self, through: Through, table: Table) -> None:
        first = Image.fromarray(photo())
        data = saved(first, "mpo", save_all=True, append_images=[first.resize((20, 20)).convert("L")], quality=95)
        assert read_header(data, PictureLimits(10**6)).frames == 1
        worst = furthest(opened(through(data, "png")), opened(saved(first, "jpeg", quality=95)))
        assert worst <= 2
        table.row("JPEG with a gain map behind it", f"the picture, furthest sample {worst}; 1 frame")


def hevc_profile(data: bytes) -> tuple[int, str, int]:
    """The profile, the sampling and the bits of a HEIC (ISO/IEC 14496-15, 8.3.3.1): 2 is Main 10, 3 still pictures."""
    record = data[data.index(b"hvcC") + 4 :]
    assert record[1] & 31 == 4 or record[2] & 0x20, "what calls itself Main can be decoded as such"
    return record[1] & 31, ("400", "420", "422", "444")[record[16] & 3], (record[17] & 7) + 8


class TestSides:
    @pytest.mark.parametrize(
        ("format_", "side", "other"), [("heic", 16_384, 64), ("heic", 4096, 1), ("avif", 32_768, 1), ("tiff", 10**6, 1)]
    )
    def test_the_longest_side(self, format_: Format, side: int, other: int) -> None:
        for height, width in ((side, other), (other, side)):
            data = encode(Picture(np.zeros((height, width, 3), np.uint8), Header("png", height, width)), format_)
            assert decode(data, read_header(data, PictureLimits(10**8))).pixels.shape == (height, width, 3)
        with pytest.raises(SideTooLong):
            answer_format(Header("png", other, side + 1), format_)

    @pytest.mark.parametrize("format_", FORMATS)
    @pytest.mark.parametrize("quality", [50, 95, 100])
    def test_small_ones(self, format_: Format, quality: int) -> None:
        dice = np.random.default_rng(0)
        for height, width in ((1, 1), (1, 2), (2, 1), (3, 5), (15, 15), (1, 300), (300, 1), (63, 65)):
            pixels = dice.integers(0, 256, (height, width, 4), np.uint8)
            pixels[:, :, 3] //= 2
            for alpha in (None, pixels[:, :, 3]):
                data = encode(Picture(pixels[:, :, :3], Header("png", height, width), alpha), format_, quality)
                result = decode(data, read_header(data, PictureLimits(10**6)))
                assert result.pixels.shape == (height, width, 3)
                assert (result.alpha is None) == (alpha is None or format_ == "jpeg")


class TestHostileTiff:
    def test_more_values_than_any_writer_lists_are_refused_unread(self) -> None:
        count = 1 << 21
        entries = struct.pack("<HHII", 256, 3, 1, 10) + struct.pack("<HHII", 257, 3, 1, 10)
        entries += struct.pack("<HHII", 273, 4, count, 200) + struct.pack("<HHII", 279, 4, count, 200)
        data = struct.pack("<4sIH", b"II*\0", 8, 4) + entries + bytes(4)
        with pytest.raises(MalformedPicture, match="too many values"):
            read_header(data.ljust(200 + 4 * count, b"\0"), PictureLimits(10**6))

    def test_a_tile_beyond_the_picture_is_refused_unread(self) -> None:
        written = io.BytesIO()
        tifffile.imwrite(written, photo(), photometric="rgb", tile=(64, 64))
        data = bytearray(written.getvalue())
        for tag in (322, 323):
            place = data.index(struct.pack("<H", tag), 8)
            assert struct.unpack_from("<I", data, place + 4) == (1,)
            struct.pack_into("<HII", data, place + 2, 4, 1, 65_520)
        with pytest.raises(MalformedPicture, match="tile"):
            read_header(bytes(data), PictureLimits(10**6))

    def test_directories_in_a_ring_are_counted_once(self) -> None:
        data = bytearray(saved(photo(), "tiff"))
        (first,) = struct.unpack_from("<I", data, 4)
        (entries,) = struct.unpack_from("<H", data, first)
        struct.pack_into("<I", data, first + 2 + 12 * entries, first)
        assert read_header(bytes(data), PictureLimits(10**6)).frames == 1


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    overlap=st.integers(0, 64),
    profile=st.sampled_from([None, *PROFILES]),
    bits=st.sampled_from([8, 16]),
    channels=st.integers(1, 4),
    target=st.sampled_from(LOSSLESS),
    seed=st.integers(0, 1000),
)
def test_an_identity_generator_gives_back_any_file_bit_for_bit(
    through: Through,
    height: int,
    width: int,
    overlap: int,
    profile: str | None,
    bits: int,
    channels: int,
    target: Format,
    seed: int,
) -> None:
    if target not in ("png", "tiff"):
        bits = 8
    dice = np.random.default_rng(seed)
    samples = dice.integers(0, 2**bits, (height, width, channels), np.uint8 if bits == 8 else np.uint16)
    if channels in (2, 4):
        samples[dice.random((height, width)) < 0.3, -1] = 0
    icc = None
    if target != "bmp" and (channels > 2 or target != "webp"):
        icc = profiles.grey_gamma(2.2) if profile and channels < 3 else PROFILES[profile]() if profile else None
    written = io.BytesIO()
    tifffile.imwrite(
        written,
        samples[:, :, 0] if channels == 1 else samples,
        photometric="minisblack" if channels < 3 else "rgb",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        iccprofile=icc,
    )
    answer = through(written.getvalue(), target, overlap=overlap)
    header = read_header(answer, PictureLimits(10**6))
    again = decode(answer, header)
    assert header.icc_profile == icc
    assert again.pixels.dtype == samples.dtype
    colours = samples[:, :, :3] if channels > 2 else np.repeat(samples[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(again.pixels, colours)
    if channels in (2, 4):
        # a format that drops an opaque alpha loses nothing
        alpha = again.alpha if again.alpha is not None else np.full((height, width), 2**bits - 1)
        np.testing.assert_array_equal(alpha, samples[:, :, -1])
