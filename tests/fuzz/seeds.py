"""Valid files of every kind by several encoders, small enough that thousands are tried in a minute."""

import io
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import pillow_heif
import tifffile
from PIL import ExifTags, Image

from service import codec, metadata
from service.exif import upright_exif
from service.picture import Header, Picture
from service.xmp import upright_xmp
from tests import avif_files, profiles
from tests.png_files import chunk, png, rows_of, with_chunks

Pixels = npt.NDArray[np.uint8 | np.uint16]

XMP: Final = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" tiff:Orientation="6" hdrgm:Version="1.0">'
    b"<xmp:Thumbnails><rdf:Alt/></xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta>"
    b'<?xpacket end="w"?>'
)
IPTC: Final = b"\x1c\x02\x78\x00\x05hello\x1c\x02\x19\x00\x03key"
_SIZES: Final = ((24, 17), (1, 1), (40, 33))


@cache
def exif(orientation: int = 6) -> bytes:
    """A block as a phone writes it: two directories of its own, and a thumbnail."""
    written = Image.Exif()
    written[ExifTags.Base.Make] = "Maker of cameras"
    written[ExifTags.Base.Orientation] = orientation
    written[ExifTags.Base.XResolution] = 72.0
    inner = written.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = 24, 17
    inner[ExifTags.Base.MakerNote] = bytes(range(64))
    written.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return written.tobytes()


def exif_with_thumbnail() -> bytes:
    """A big-endian block whose second directory names a thumbnail."""
    first = struct.pack(">HHHIHH", 1, 0x0112, 3, 1, 6, 0)
    second = struct.pack(">HHHIIHHII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, 20)
    head = b"MM\0*" + struct.pack(">I", 8) + first + struct.pack(">I", 26) + second + bytes(4)
    return head.ljust(56, b"\0") + b"\xff\xd8" + bytes(16) + b"\xff\xd9"


def _pixels(size: tuple[int, int], channels: int, dtype: Any = np.uint8) -> Pixels:
    """A gradient with noise, so that there is something to code and to predict."""
    height, width = size
    ramp = np.add.outer(np.arange(height), np.arange(width))[:, :, None] * 3 + np.arange(channels) * 40
    noise = np.random.default_rng(height * width + channels).integers(0, 24, (height, width, channels))
    samples = (ramp + noise) % 256
    return (samples * 257 if dtype == np.uint16 else samples).astype(dtype)


def _pillow(format_: str, mode: str, size: tuple[int, int], **options: Any) -> bytes:
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "1": 1, "P": 3, "YCbCr": 3, "LAB": 3}[mode]
    raw = _pixels(size, channels)
    image = Image.fromarray(raw[:, :, 0] if channels == 1 else raw)
    if mode in ("1", "P", "CMYK", "YCbCr"):
        image = image.convert("RGB").convert(mode)
    elif mode == "LAB":
        image = Image.frombytes("LAB", image.size, raw.tobytes())
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _opencv(suffix: str, channels: int, size: tuple[int, int], dtype: Any = np.uint8, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, _pixels(size, channels, dtype), options)
    assert done
    return data.tobytes()


def _ours(format_: codec.Format, size: tuple[int, int], dtype: Any = np.uint8, *, alpha: bool = False) -> bytes:
    said = metadata.Metadata(upright_exif(exif())[1], upright_xmp(XMP), IPTC)
    header = Header(format_, *size, metadata=said, icc_profile=profiles.display_p3())
    clear = np.ascontiguousarray(_pixels(size, 1, dtype)[:, :, 0]) if alpha else None
    return codec.encode(Picture(_pixels(size, 3, dtype), header, clear), format_, 95)


def _animated(format_: str, mode: str = "RGB") -> bytes:
    frames = [Image.fromarray(_pixels((24, 17 + 0 * i), len(mode)) + np.uint8(i * 9)) for i in range(3)]
    file = io.BytesIO()
    frames[0].save(file, format_, save_all=True, append_images=frames[1:], duration=40)
    return file.getvalue()


def _jpeg() -> Iterator[bytes]:
    for size in _SIZES:
        yield _pillow("JPEG", "RGB", size, quality=90)
        yield _opencv(".jpg", 3, size, np.uint8, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    size = _SIZES[2]
    yield _pillow("JPEG", "L", size, progressive=True, exif=exif())
    yield _pillow("JPEG", "CMYK", size, icc_profile=profiles.cmyk())
    yield _pillow("JPEG", "RGB", size, exif=exif(), icc_profile=profiles.adobe_rgb(), xmp=XMP, comment=b"hello")
    yield _pillow("JPEG", "RGB", size, subsampling=2, restart_marker_blocks=1, optimize=True)
    yield _opencv(".jpg", 1, size, np.uint8, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    yield _animated("MPO")
    yield _ours("jpeg", size)


def _png() -> Iterator[bytes]:
    for size in _SIZES:
        yield _opencv(".png", 3, size)
        yield _opencv(".png", 4, size, np.uint16)
    size = _SIZES[2]
    yield _opencv(".png", 1, size, np.uint16)
    yield _pillow("PNG", "LA", size)
    yield _pillow("PNG", "L", size, transparency=7)
    yield _pillow("PNG", "1", size)
    yield _pillow("PNG", "P", size, transparency=bytes(range(200)))
    yield _pillow("PNG", "P", size, bits=4)
    yield _pillow(
        "PNG", "RGB", size, exif=exif(), icc_profile=profiles.display_p3(), dpi=(72, 72), transparency=(1, 2, 3)
    )
    yield _animated("PNG", "RGBA")
    yield png(11, 13, rows_of(_pixels((13, 11), 3), 8, interlaced=True), interlaced=True)
    colours = chunk(b"gAMA", b"\0\0\xb1\x9e") + chunk(b"cHRM", struct.pack(">8I", *(9000 * n for n in range(1, 9))))
    clear = chunk(b"tRNS", b"\0\1")
    yield png(7, 5, rows_of(np.arange(35).reshape(5, 7, 1) % 4, 2), 2, 0, colours + clear)
    yield with_chunks(_pillow("PNG", "RGB", size), chunk(b"cICP", b"\x0c\x0d\0\0"), colours)
    yield _ours("png", size, np.uint16, alpha=True)
    yield _ours("png", size)


def _webp() -> Iterator[bytes]:
    for size in _SIZES:
        yield _pillow("WEBP", "RGB", size, quality=80)
        yield _opencv(".webp", 4, size, np.uint8, cv2.IMWRITE_WEBP_QUALITY, 101)
    size = _SIZES[2]
    yield _pillow("WEBP", "RGBA", size, quality=60, alpha_quality=50)
    yield _pillow("WEBP", "RGB", size, lossless=True, exif=exif(), icc_profile=profiles.display_p3(), xmp=XMP)
    yield _animated("WEBP")
    yield _animated("WEBP", "RGBA")
    yield _ours("webp", size, alpha=True)


def _tiff() -> Iterator[bytes]:
    size = _SIZES[2]
    for mode, compression in (
        ("RGB", "raw"), ("RGB", "tiff_lzw"), ("RGBA", "tiff_adobe_deflate"), ("L", "packbits"), ("RGB", "jpeg"),
        ("1", "group4"), ("1", "group3"), ("1", "tiff_ccitt"), ("CMYK", "tiff_lzw"), ("LA", "raw"), ("P", "raw"),
        ("LAB", "raw"), ("YCbCr", "jpeg"),
    ):  # fmt: skip
        yield _pillow("TIFF", mode, size, compression=compression)
    yield _pillow("TIFF", "RGB", size, exif=exif(), icc_profile=profiles.display_p3())
    yield _opencv(".tiff", 3, size, np.uint16)
    yield _opencv(".tiff", 4, size, np.uint16)
    yield _opencv(".tiff", 1, size, np.uint16)
    for options in (
        {"planarconfig": "separate", "photometric": "rgb"},
        {"tile": (16, 16), "photometric": "rgb"},
        {"tile": (16, 16), "photometric": "rgb", "compression": "zlib", "predictor": True},
        {"photometric": "rgb", "rowsperstrip": 8, "byteorder": ">", "metadata": None},
        {"photometric": "rgb", "rowsperstrip": 8, "byteorder": ">", "bigtiff": True},
        {"photometric": "rgb", "tile": (16, 16), "planarconfig": "separate", "compression": "zlib", "bigtiff": True},
        {"photometric": "cielab"},
        {"photometric": "icclab", "tile": (16, 16), "compression": "zlib", "predictor": True},
    ):
        planar = options.get("planarconfig") == "separate"
        for dtype in (np.uint8, np.uint16):
            file = io.BytesIO()
            samples = _pixels(size, 3, dtype)
            tifffile.imwrite(file, np.moveaxis(samples, 2, 0) if planar else samples, **options)
            yield file.getvalue()
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as pages:
        for side in (16, 20, 24):
            pages.write(
                _pixels((side, side), 1, np.uint16)[:, :, 0],
                photometric="minisblack",
                extratags=[(700, 1, len(XMP), XMP, True)],
            )
    yield file.getvalue()
    file = io.BytesIO()
    tifffile.imwrite(file, _pixels(size, 2, np.uint16), photometric="minisblack", extrasamples=["assocalpha"])
    yield file.getvalue()
    yield _ours("tiff", size, alpha=True)
    yield _ours("tiff", size, np.uint16)


def _bmp() -> Iterator[bytes]:
    for size in _SIZES:
        yield _opencv(".bmp", 3, size)
        yield _pillow("BMP", "P", size)
    yield _opencv(".bmp", 4, _SIZES[2])
    yield _opencv(".bmp", 1, _SIZES[2])
    yield _pillow("BMP", "1", _SIZES[2])
    # run lengths of 8 bits: 4x2 pixels
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    coded = b"\4\7\0\0\2\1\0\2\5\6\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(coded), 0, 0, 256, 0)
    yield b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + len(coded), 0, 0, 14 + 40 + 1024) + head + palette + coded
    # 16 bits by masks, from the top
    head = struct.pack("<IiiHHIIiiII", 40, 4, -2, 1, 16, 3, 16, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    yield b"BM" + struct.pack("<IHHI", 14 + 52 + 16, 0, 0, 14 + 52) + head + bytes(range(16))


def _heif(format_: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    deep = mode.endswith("16")
    channels = len(mode.partition(";")[0])
    samples = _pixels(size, channels, np.uint16 if deep else np.uint8)
    file = pillow_heif.from_bytes(mode, (size[1], size[0]), np.ascontiguousarray(samples).tobytes())
    if profile := options.pop("icc_profile", None):
        file.info["icc_profile"], file.info["icc_profile_type"] = profile, "prof"
    if options.pop("twice", False):
        file.add_frombytes(mode, (size[1], size[0]), np.ascontiguousarray(samples).tobytes())
    written = io.BytesIO()
    file.save(written, format=format_, **options)
    return written.getvalue()


def _heic() -> Iterator[bytes]:
    size = (64, 80)
    preset: dict[str, Any] = {"enc_params": {"preset": "ultrafast"}}
    yield _heif("HEIF", size, quality=60, **preset)
    yield _heif("HEIF", size, "RGBA", exif=exif(), xmp=XMP, icc_profile=profiles.display_p3(), **preset)
    yield _heif("HEIF", size, "RGB;16", save_nclx_profile=True, **preset)
    yield _heif("HEIF", size, "L", **preset)
    yield _heif("HEIF", size, twice=True, **preset)
    yield _ours("heic", size)


def _avif() -> Iterator[bytes]:
    size = (32, 24)
    yield _pillow("AVIF", "RGB", size, quality=60, speed=10)
    yield _pillow("AVIF", "RGBA", size, exif=exif(), xmp=XMP, icc_profile=profiles.display_p3(), speed=10)
    yield _pillow("AVIF", "RGB", (1, 1), subsampling="4:4:4", speed=10)
    yield _animated("AVIF")
    pixels = _pixels((64, 64), 3).astype(np.uint8)
    yield avif_files.file(pixels, avif_files.cut(20, 10, 1), avif_files.turn(1), avif_files.mirror(0))
    yield avif_files.file([pixels] * 2, avif_files.turn(3), grid=(1, 2))
    yield _ours("avif", size)


_MAKERS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "jpeg": _jpeg, "png": _png, "webp": _webp, "tiff": _tiff, "bmp": _bmp, "heic": _heic, "avif": _avif
}  # fmt: skip


@cache
def pictures(format_: str) -> tuple[bytes, ...]:
    """Valid files of one format, those that this installation can't write aside."""
    if format_ == "heic" and not codec.writable("heic"):
        return ()
    return tuple(_MAKERS[format_]())


def all_profiles() -> tuple[bytes, ...]:
    """Valid colour profiles of every kind."""
    return (
        profiles.display_p3(), profiles.adobe_rgb(), profiles.prophoto(), profiles.rec2020_table(),
        profiles.grey_gamma(),
        profiles.cmyk(), profiles.scanner(one_way=True), profiles.scanner(one_way=False),
    )  # fmt: skip
