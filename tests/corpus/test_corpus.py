import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tests import profiles
from tests.corpus.__main__ import order_of
from tests.corpus.children import Child
from tests.corpus.comparing import Look, agreed, is_fault, metadata_faults, refusal_class
from tests.corpus.reading import DECODERS, read
from tests.corpus.spaces import space_of
from tests.corpus.trying import format_of
from tests.hostile import good


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    made = Child(60)
    yield made
    made.close()


@pytest.fixture
def pixels(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return photo[100:164, 200:296]


def written(pixels: npt.NDArray[Any], format_: str = "PNG", **options: Any) -> bytes:
    return good.saved(pixels, format_, **options)


def deep(pixels: npt.NDArray[np.uint8], low: int) -> bytes:
    """A PNG of 16 bits whose low bytes are all this."""
    done, data = cv2.imencode(".png", pixels[:, :, ::-1].astype(np.uint16) * 256 + low)
    assert done
    return data.tobytes()


def with_alpha(pixels: npt.NDArray[np.uint8], alpha: int) -> npt.NDArray[np.uint8]:
    return np.dstack([pixels, np.full(pixels.shape[:2], alpha, np.uint8)])


def kinds(child: Child, folder: Path, sent: bytes, answer: bytes, suffix: str = "png") -> set[str]:
    """Kinds of the faults that are found in an answer."""
    source, file = folder / "sent", folder / f"answer.{suffix}"
    source.write_bytes(sent)
    file.write_bytes(answer)
    seen = agreed([child.look(decoder, source, {suffix: file}) for decoder in DECODERS], suffix)
    assert seen is not None
    return {fault.partition(":")[0] for fault in seen.faults}


def test_right_answers_have_no_fault(child: Child, tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    p3 = profiles.display_p3()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = written(np.rot90(pixels), exif=exif)
    for sent, answer, suffix in (
        (written(pixels), written(pixels), "png"),
        (written(pixels), written(pixels, "JPEG", quality=95), "jpeg"),
        (written(pixels, icc_profile=p3), written(pixels, icc_profile=p3), "png"),
        (turned, written(pixels), "png"),
        (deep(pixels, 77), deep(pixels, 77), "png"),
        (written(with_alpha(pixels, 90)), written(with_alpha(pixels, 90)), "png"),
    ):
        assert kinds(child, tmp_path, sent, answer, suffix) == set()


def test_wrong_answers_are_noticed(child: Child, tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    sent = written(pixels)
    assert kinds(child, tmp_path, sent, written(pixels[:, :, ::-1])) == {"colour"}
    assert kinds(child, tmp_path, sent, written(pixels[:-1])) == {"size"}
    assert kinds(child, tmp_path, sent, written(np.rot90(pixels))) == {"size"}
    assert kinds(child, tmp_path, sent, written(pixels[::-1])) == {"colour"}
    assert kinds(child, tmp_path, sent, written(with_alpha(pixels, 90))) == {"alpha"}
    assert kinds(child, tmp_path, written(with_alpha(pixels, 90)), sent) == {"alpha"}
    assert kinds(child, tmp_path, written(pixels, icc_profile=profiles.adobe_rgb()), sent) == {"colour"}
    assert kinds(child, tmp_path, deep(pixels, 200), sent) == {"depth"}
    assert kinds(child, tmp_path, deep(pixels, 200), deep(pixels, 0)) == {"depth"}
    assert kinds(child, tmp_path, sent, written(pixels)[:-2000]) == {"answer"}
    light = np.clip(pixels.astype(int) + 4, 0, 255).astype(np.uint8)
    assert kinds(child, tmp_path, sent, written(light, "JPEG", quality=95), "jpeg") == {"colour"}


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    return data[:33] + b"".join(chunks) + data[33:]


GAMMA = chunk(b"gAMA", (45_455).to_bytes(4))
ADOBE_RGB = (31_270, 32_900, 64_000, 33_000, 21_000, 71_000, 15_000, 6_000)


@pytest.mark.parametrize(
    "said",
    [
        chunk(b"cICP", bytes([12, 13, 0, 1])),
        chunk(b"gAMA", (100_000).to_bytes(4)),
        GAMMA + chunk(b"cHRM", b"".join(number.to_bytes(4) for number in ADOBE_RGB)),
    ],
    ids=["cICP", "gAMA", "cHRM"],
)
def test_colours_of_a_png_without_a_profile_count(
    child: Child, tmp_path: Path, pixels: npt.NDArray[np.uint8], said: bytes
) -> None:
    plain, marked = written(pixels), with_chunks(written(pixels), said)
    assert kinds(child, tmp_path, marked, plain) == {"colour"}
    assert kinds(child, tmp_path, marked, marked) == set()


def test_a_png_that_says_srgb_by_its_gamma_may_lose_it(pixels: npt.NDArray[np.uint8]) -> None:
    assert space_of(with_chunks(written(pixels), GAMMA)).profile is None


def test_nclx_of_an_avif_counts(child: Child, tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    plain = written(pixels, "AVIF", quality=100, subsampling="4:4:4")
    at = plain.index(b"colrnclx") + 8
    p3, hdr = (
        plain[:at] + bytes([0, primaries, 0, transfer]) + plain[at + 4 :] for primaries, transfer in ((12, 13), (9, 16))
    )
    assert space_of(plain).profile is None
    assert kinds(child, tmp_path, plain, written(read("pillow", plain).pixels)) == set()
    assert kinds(child, tmp_path, p3, written(read("pillow", plain).pixels)) == {"colour"}
    assert space_of(hdr).hdr
    assert kinds(child, tmp_path, hdr, plain, "avif") == {"colour"}


def test_the_first_page_that_is_no_preview_counts(pixels: npt.NDArray[np.uint8]) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(pixels[::4, ::4], subfiletype=1)
        writer.write(pixels)
    for decoder in DECODERS:
        assert np.array_equal(read(decoder, file.getvalue()).pixels, pixels)


def test_a_file_on_which_a_decoder_hangs_or_crashes_ends_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "waits.png")
    (tmp_path / "good.png").write_bytes(good.png())
    child = Child(2)
    assert child.look("pillow", tmp_path / "waits.png", {}).error == "it took more than 2 s"
    assert child.look("pillow", tmp_path / "good.png", {}).reads
    child.close()
    assert child.look("vips", tmp_path / "good.png", {}).reads
    child.close()


def test_metadata_that_is_gone_or_changed_is_named() -> None:
    before = {
        "IFD0:Artist": "Ann", "GPS:GPSLatitude": "1 deg", "IPTC:City": "Bern", "IFD0:Orientation": "Rotate 90 CW",
        "IFD1:ThumbnailLength": 4000, "ExifIFD:FNumber": 2.8, "Canon:OwnerName": "Ann", "JFIF:XResolution": 300,
        "JFIF:ResolutionUnit": "inches",
    }  # fmt: skip
    after = {"IFD0:Artist": "Bob", "XMP-exif:GPSLatitude": "1 deg", "ExifIFD:FNumber": 2.8, "JFIF:XResolution": 1}
    assert metadata_faults(before, before, strict=True) == []
    assert metadata_faults(before, after, strict=True) == [
        "metadata: 2 gone: GPS:GPSLatitude, IPTC:City",
        "metadata: 2 changed: IFD0:Artist 'Ann' -> 'Bob', JFIF:XResolution '300' -> '1'",
    ]
    assert "GPS" not in str(metadata_faults(before, after, strict=False))


def test_a_resolution_may_be_counted_in_another_unit() -> None:
    by_centimetres = {"IFD0:XResolution": 118.1100038, "IFD0:YResolution": 50, "IFD0:ResolutionUnit": "cm"}
    by_inches = {"IFD0:XResolution": 299.9994, "IFD0:YResolution": 127, "IFD0:ResolutionUnit": "inches"}
    assert metadata_faults(by_centimetres, by_inches, strict=True) == []
    assert metadata_faults(by_inches, by_centimetres, strict=True) == []
    assert metadata_faults(by_inches, {**by_centimetres, "IFD0:YResolution": 51}, strict=True)
    none = {"JFIF:XResolution": 0, "JFIF:YResolution": 0, "JFIF:ResolutionUnit": "inches"}
    assert metadata_faults(none, {"JFIF:XResolution": 1, "JFIF:YResolution": 1}, strict=True) == []


@pytest.mark.parametrize("exponent", [0.35, 1, 2.5])
def test_the_gamma_of_a_grey_png_counts(
    child: Child, tmp_path: Path, pixels: npt.NDArray[np.uint8], exponent: float
) -> None:
    grey = pixels[:, :, 1]
    light = (grey / 255) ** (1 / exponent)
    shown = np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # sRGB's curve
    shown = np.rint(shown * 255).astype(np.uint8)
    marked = with_chunks(written(grey), chunk(b"gAMA", round(exponent * 100_000).to_bytes(4)))
    assert kinds(child, tmp_path, marked, written(shown)) == set()
    assert kinds(child, tmp_path, marked, written(grey)) == {"colour"}


def test_a_refusal_is_a_fault_where_every_decoder_reads_the_file() -> None:
    reads, complains = Look("pillow"), Look("vips", complaint="ends early")
    broken = Look("vips", "no such format", unreadable=True)
    assert is_fault("malformed-picture", [reads, reads])
    assert not is_fault("malformed-picture", [reads, complains])
    assert not is_fault("unsupported-samples", [reads, reads])
    assert refusal_class([reads, broken]) == "refused-though-readable"
    assert refusal_class([complains, broken]) == "refused-rightly"


def test_the_order_is_one_of_the_seed_and_repeats_come_later() -> None:
    files = [Path(str(number)) for number in range(100)]
    order = order_of(files, 7, 10)
    assert order == order_of(files, 7, 10) != order_of(files, 8, 10)
    first = [file for file, again in order if not again]
    assert sorted(first) == sorted(files) != first
    repeated = [file for file, again in order if again]
    assert len(repeated) == 10
    assert all(order.index((file, True)) > order.index((file, False)) for file in repeated)


def test_formats_are_told_by_their_first_bytes() -> None:
    made = {"jpeg": good.jpeg(), "png": good.png(), "webp": good.webp(), "bmp": good.bmp(), "avif": good.avif()}
    assert {format_of(data) for data in made.values()} == set(made)
    assert format_of(b"") == format_of(b"GIF89a") == "other"
