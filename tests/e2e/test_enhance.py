import io
import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
import skimage.data
import tifffile
from PIL import Image

from service.quality import seam_index
from service.spec import TILE
from service.tiling import plan
from tests import profiles
from tests.e2e.conftest import Server, noise, pixels_of, png

pillow_heif.register_heif_opener()


def encoded(pixels: npt.NDArray[np.uint8], format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_, **options)
    return buffer.getvalue()


def test_a_photo_comes_back_enhanced(client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    answer = client.post("/enhance", files={"image": ("coffee.jpg", encoded(photo, "JPEG", quality=95))})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-pix2dslr-camera"] == "iphone"
    assert answer.headers["x-pix2dslr-device"] in ("cpu", "cuda")
    assert int(answer.headers["x-pix2dslr-tiles"]) == plan(400, 600).tiles
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
    assert stages.keys() >= {"decode", "queue", "inference", "blend", "encode", "total"}
    assert float(stages["total"]) >= float(stages["decode"]) + float(stages["encode"])
    output = pixels_of(answer.content)
    assert output.shape == photo.shape
    assert np.abs(output.astype(int) - photo).mean() > 2, "the generator changes a photo"
    correlation = np.corrcoef(output.ravel(), photo.ravel())[0, 1]
    assert correlation > 0.9, "and it is still the same photo"


def test_no_seams(client: httpx.Client) -> None:
    def enhance(source: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return pixels_of(client.post("/enhance", files={"image": png(source)}).content)

    stitched = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photo: npt.NDArray[np.uint8] = getattr(skimage.data, name)()
        source = photo[: photo.shape[0] // TILE * TILE, : photo.shape[1] // TILE * TILE]
        height, width = source.shape[:2]
        index = seam_index(source, enhance(source), plan(height, width))
        assert index is not None
        assert index <= 1.05
        side_by_side = np.zeros_like(source)
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                here = np.s_[top : top + TILE, left : left + TILE]
                side_by_side[here] = enhance(source[here])
        stitched.append(seam_index(source, side_by_side, plan(height, width, 0)))
    assert min(each or 0 for each in stitched) > 1.05
    assert max(each or 0 for each in stitched) > 2, "the measure sees tiles that are laid side by side"


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"])
@pytest.mark.parametrize("wanted", ["jpeg", "png", "webp", "tiff", "bmp", "avif", None])
def test_every_format_to_every_format(
    client: httpx.Client, photo: npt.NDArray[np.uint8], source: str, wanted: str | None
) -> None:
    data = {} if wanted is None else {"format": wanted}
    answer = client.post("/enhance", files={"image": encoded(photo[:90, :120], source)}, data=data)
    assert answer.status_code == 200
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == (wanted or source).upper()
        assert image.size == (120, 90)
    assert answer.headers["content-type"] == f"image/{(wanted or source).lower()}"


@pytest.mark.parametrize(
    ("accept", "format_"),
    [
        ("image/webp", "WEBP"),
        ("image/png;q=0.5, image/webp;q=0.9", "WEBP"),
        ("image/*", "JPEG"),
        ("text/html, */*", "JPEG"),
        ("image/jxl, image/png", "PNG"),
        ("image/avif;q=0.9, image/png;q=0.8", "AVIF"),
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "JPEG"),
        ("image/jpeg;q=0, image/webp;q=0.1", "WEBP"),
    ],
)
def test_the_accept_header_chooses(
    client: httpx.Client, photo: npt.NDArray[np.uint8], accept: str, format_: str
) -> None:
    files = {"image": encoded(photo[:50, :50], "JPEG")}
    answer = client.post("/enhance", files=files, headers={"Accept": accept})
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == format_
    assert "accept" in answer.headers["vary"].lower()


def test_a_raw_body_with_its_options_in_the_query(identity_server: Server) -> None:
    pixels = noise(70, 130)
    with identity_server.client() as client:
        answer = client.post(
            "/enhance", params={"overlap": "max"}, content=png(pixels), headers={"Content-Type": "image/png"}
        )
    np.testing.assert_array_equal(pixels_of(answer.content), pixels)


def test_identity_comes_back_bit_for_bit(identity_server: Server) -> None:
    with identity_server.client() as client:
        for height, width in ((1, 1), (1, 700), (128, 128), (129, 128), (333, 517)):
            pixels = noise(height, width)
            answer = client.post("/enhance", files={"image": png(pixels)})
            np.testing.assert_array_equal(pixels_of(answer.content), pixels)


def test_the_orientation_is_applied_and_alpha_kept(identity_server: Server, photo: npt.NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.dstack([photo, noise(400, 600)[:, :, :1]])
    with identity_server.client() as client:
        turned = client.post("/enhance", files={"image": encoded(photo, "PNG", exif=exif)})
        clear = client.post("/enhance", files={"image": encoded(alpha, "PNG")})
    np.testing.assert_array_equal(pixels_of(turned.content), np.rot90(photo, -1))
    with Image.open(io.BytesIO(turned.content)) as image:
        assert image.getexif()[0x0112] == 1
    with Image.open(io.BytesIO(clear.content)) as image:
        np.testing.assert_array_equal(np.asarray(image), alpha)


def test_what_an_iphone_sends_comes_back_as_it_came(identity_server: Server, photo: npt.NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Apple", 6
    profile = profiles.display_p3()
    file = encoded(photo, "HEIF", quality=-1, chroma=444, exif=exif.tobytes(), icc_profile=profile)
    with identity_server.client() as client:
        answer = client.post("/enhance", content=file, headers={"Content-Type": "image/heic"})
        as_jpeg = client.post(
            "/enhance", params={"format": "jpeg"}, content=file, headers={"Content-Type": "image/heic"}
        )
        scores = client.post("/evaluate", files={"image": file, "reference": file}).json()
    assert answer.headers["content-type"] == "image/heic"
    assert "x-pix2dslr-frames" not in answer.headers
    for body in (answer.content, as_jpeg.content):
        with Image.open(io.BytesIO(body)) as image:
            assert image.size == (400, 600)
            assert image.info["icc_profile"] == profile
            assert image.getexif()[0x010F] == "Apple"
            difference = np.asarray(image.convert("RGB"), int) - np.rot90(photo, -1)
            assert np.abs(difference).mean() < 2
    assert scores["input"]["psnr"] is None, "a picture is its own best reference, whatever its profile"


def test_an_animation_says_how_many_frames_there_are(identity_server: Server) -> None:
    frames = [Image.fromarray(noise(40, 50, seed)) for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    with identity_server.client() as client:
        answer = client.post("/enhance", files={"image": buffer.getvalue()})
    assert answer.headers["x-pix2dslr-frames"] == "3"
    np.testing.assert_array_equal(pixels_of(answer.content), noise(40, 50, 0))


def test_sixteen_bits_of_a_wide_gamut_come_back_bit_for_bit(identity_server: Server) -> None:
    samples = np.random.default_rng(0).integers(0, 65_536, (150, 170, 3), np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric="rgb", iccprofile=profiles.prophoto())
    with identity_server.client() as client:
        answer = client.post("/enhance", files={"image": buffer.getvalue()}, data={"metadata": "strip"})
    assert answer.headers["content-type"] == "image/tiff"
    decoded = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(np.asarray(decoded)[:, :, ::-1], samples)
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.info["icc_profile"] == profiles.prophoto(), "colour is no metadata"


def test_strength_and_overlap_matter(client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    def enhance(**options: str) -> npt.NDArray[np.uint8]:
        return pixels_of(client.post("/enhance", files={"image": png(photo)}, data=options).content)

    np.testing.assert_array_equal(enhance(strength="0"), photo)
    whole, half = enhance(strength="1"), enhance(strength="0.5")
    np.testing.assert_allclose(half, (photo.astype(int) + whole) / 2, atol=1.01)
    assert np.abs(enhance(overlap="fast").astype(int) - enhance(overlap="max")).max() > 0


def test_metadata_can_be_stripped(client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Apple"
    files = {"image": encoded(photo[:50, :50], "JPEG", exif=exif)}
    for choice, expected in (("keep", "Apple"), ("strip", None)):
        answer = client.post("/enhance", files=files, data={"metadata": choice})
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.getexif().get(0x010F) == expected


def test_a_reference_adds_scores(client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    answer = client.post("/enhance", files={"image": png(photo), "reference": png(photo)}, data={"strength": "0"})
    assert answer.headers["x-psnr"] == "inf"
    assert float(answer.headers["x-ssim"]) == pytest.approx(1)


def test_concurrent_requests_get_their_own_picture_back(identity_server: Server) -> None:
    dice = np.random.default_rng(0)
    pictures = [noise(int(dice.integers(1, 400)), int(dice.integers(1, 400)), seed) for seed in range(48)]

    def enhance(pixels: npt.NDArray[np.uint8]) -> bool:
        with identity_server.client() as client:
            answer = client.post("/enhance", files={"image": png(pixels)})
        return answer.status_code == 200 and np.array_equal(pixels_of(answer.content), pixels)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(enhance, pictures))
    assert identity_server.metric("pix2dslr_queue_tiles") == 0


def test_tiles_of_several_requests_shared_batches(identity_server: Server) -> None:
    with identity_server.client() as client:
        client.post("/enhance", files={"image": png(noise(600, 900))})
    assert identity_server.metric("pix2dslr_batch_tiles_count") < identity_server.metric("pix2dslr_tiles_total")
