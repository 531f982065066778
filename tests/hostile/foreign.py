"""What is no picture of ours under a picture's name and type, and files that are two things at once."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from tests.hostile import good
from tests.hostile.case import FORMAT, MALFORMED, REQUEST, Case, File
from tests.hostile.heif import box
from tests.hostile.jpeg import segment, with_segments
from tests.hostile.png import chunk, with_chunks

BOTH = "it is a whole, good picture; only the picture in it is read, and none of the rest is answered"


def zipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def _others() -> Iterator[tuple[str, bytes]]:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><script>alert(1)</script></svg>'
    yield "SVG", svg
    yield "SVG with a declaration", b'<?xml version="1.0"?>' + svg
    yield "SVG behind a byte order mark", b"\xef\xbb\xbf" + svg
    yield "SVG with an outside entity", b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + svg
    yield "SVG, deflated", b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + zlib.compress(svg)
    yield "PDF", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) (r) file\n"
    yield "EPS of DOS", b"\xc5\xd0\xd3\xc6" + bytes(100)
    yield "GIF", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(100)
    for brand in (b"isom", b"mp42", b"qt  ", b"3gp4", b"M4A "):
        yield f"video {brand.decode().strip()}", box(b"ftyp", brand + bytes(4) + brand) + box(b"moov", bytes(100))
    yield "WebM", b"\x1a\x45\xdf\xa3" + bytes(100)
    yield "AVI", b"RIFF\x64\0\0\0AVI LIST" + bytes(100)
    yield "MPEG", b"\0\0\1\xba" + bytes(100)
    yield "ELF", b"\x7fELF\2\1\1" + bytes(100)
    yield "Windows program", b"MZ\x90\0" + bytes(100)
    yield "Java class", b"\xca\xfe\xba\xbe" + bytes(100)
    yield "shell script", b"#!/bin/sh\nrm -rf /\n"
    yield "HTML", b"<!DOCTYPE html><script>alert(document.cookie)</script>"
    yield "JSON", b'{"image": "x"}'
    yield (
        "pickle",
        b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
    )
    yield "NumPy array", b"\x93NUMPY\1\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
    yield "ICO", b"\0\0\1\0\1\0" + bytes(100)
    yield "PSD", b"8BPS\0\1" + bytes(100)
    yield "JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)
    yield "JPEG 2000 codestream", b"\xff\x4f\xff\x51" + bytes(100)
    yield "JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100)
    yield "JPEG XR", b"II\xbc\1" + bytes(100)
    yield "OpenEXR", b"\x76\x2f\x31\x01" + bytes(100)
    yield "Radiance HDR", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 65535 +X 65535\n"
    yield "PPM", b"P6 65535 65535 255\n" + bytes(100)
    yield "PFM", b"PF\n65535 65535\n-1.0\n" + bytes(100)
    yield "TGA", bytes([0, 0, 2]) + bytes(9) + b"\xff\xff\xff\xff\x18\0"
    yield "FITS", b"SIMPLE  =                    T"
    yield "DICOM", bytes(128) + b"DICM" + bytes(100)
    yield "WMF", b"\xd7\xcd\xc6\x9a" + bytes(100)
    yield "7z", b"7z\xbc\xaf\x27\x1c" + bytes(100)
    yield "gzip", b"\x1f\x8b\x08" + bytes(100)
    yield "RAR", b"Rar!\x1a\7\1\0" + bytes(100)
    yield "zeros", bytes(1000)
    yield "a byte", b"\xff"
    yield "noise", b"\0" + np.random.default_rng(6).bytes(5000)
    yield "a text that begins as BMP's", b"BMW is a maker of cars, and this is no bitmap."


def _marks() -> Iterator[tuple[str, bytes]]:
    """Marks of pictures, wrong by a little."""
    yield "JPEG without its last byte", b"\xff\xd8"
    yield "JPEG turned round", good.jpeg()[::-1]
    yield "JPEG behind a space", b" " + good.jpeg()
    yield "PNG with a Unix line end", good.png().replace(b"\r\n", b"\n", 1)
    yield "PNG that lost its high bit", b"\x09" + good.png()[1:]
    yield "RIFX", b"RIFX" + good.webp()[4:]
    yield "TIFF of 43", b"II\x2b\0" + bytes(100)
    yield "TIFF of two orders", b"IM*\0" + bytes(100)
    yield "BMP of OS/2's array", b"BA" + good.bmp()[2:]
    yield "a base64 of a PNG", b"data:image/png;base64,iVBORw0KGgo="
    yield "PNG in UTF-16", good.png()[:200].decode("latin-1").encode("utf-16")


def _polyglots() -> Iterator[tuple[str, bytes, frozenset[str], str]]:
    zip_ = zipped(**{"index.html": b"<script>alert(1)</script>"})
    yield "JPEG and zip", good.jpeg() + zip_, MALFORMED, BOTH
    yield "PNG and zip", good.png() + zip_, MALFORMED, BOTH
    yield "JPEG with HTML in a comment", with_segments(segment(0xFE, b"<script>alert(1)</script>")), MALFORMED, BOTH
    yield "PNG with HTML in a text", with_chunks(chunk(b"tEXt", b"a\0<script>alert(1)</script>")), MALFORMED, BOTH
    yield "JPEG with PHP in EXIF", with_segments(segment(0xE1, b"Exif\0\0<?php system($_GET[0]); ?>")), MALFORMED, BOTH
    yield "BMP and script", good.bmp() + b"/*`;alert(1)//*/", MALFORMED, BOTH
    yield "WebP and zip", good.webp() + zip_, MALFORMED, BOTH
    yield "PDF and JPEG", b"%PDF-1.7\n" + good.jpeg(), FORMAT, ""
    yield "zip and JPEG", zip_ + good.jpeg(), frozenset({"malformed-zip", "malformed-picture"}) | REQUEST, ""
    yield "HTML and PNG", b"<!--" + good.png(), FORMAT, ""
    yield "GIF and JPEG", b"GIF89a" + good.jpeg(), FORMAT, ""
    yield "TIFF's mark and JPEG", b"II*\0" + good.jpeg(), MALFORMED, ""
    yield "JPEG's mark and PNG", b"\xff\xd8\xff" + good.png(), MALFORMED, ""
    yield "PNG's mark and JPEG", good.png()[:8] + good.jpeg(), MALFORMED, ""
    yield "WebP's mark and PNG", good.webp()[:12] + good.png(), MALFORMED, ""
    yield "HEIC's mark and JPEG", box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + good.jpeg(), MALFORMED, ""
    yield "BMP's mark and HTML", b"BM" + bytes(12) + b"<html>" * 20, MALFORMED, ""


def cases() -> Iterator[Case]:
    types = ("image/jpeg", "image/png", "image/svg+xml", "image/webp", "image/x-unknown")
    for number, (name, data) in enumerate((*_others(), *_marks())):
        file = File(data, types[number % len(types)], raw=number % 3 == 0)
        yield Case(name, file, FORMAT | MALFORMED if data[:2] == b"BM" else FORMAT)
    for name, data, problems, why in _polyglots():
        if name == "zip and JPEG":
            # a zip of a page: the zip is answered, with an entry that is no picture
            continue
        yield Case(name, File(data), problems, why)
