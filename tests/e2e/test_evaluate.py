import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest

from service.quality import psnr, ssim
from tests.e2e.conftest import pixels_of, png


def test_scores_before_and_after(client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    dull = (photo * 0.6).astype(np.uint8)
    files = {"image": png(dull), "reference": png(photo)}
    answer = client.post("/evaluate", files=files)
    assert answer.status_code == 200
    body = answer.json()
    enhanced = pixels_of(client.post("/enhance", files={"image": png(dull)}).content)
    assert body["input"]["psnr"] == pytest.approx(psnr(dull, photo))
    assert body["output"]["psnr"] == pytest.approx(psnr(enhanced, photo))
    assert body["output"]["ssim"] == pytest.approx(ssim(enhanced, photo))
    assert body["gain"]["psnr"] == pytest.approx(body["output"]["psnr"] - body["input"]["psnr"])
    assert 0.8 < body["seam_index"] <= 1.05
    assert (body["width"], body["height"]) == (600, 400)
    assert body["timings"].keys() >= {"decode", "inference", "quality", "total"}
    assert body["alignment"] is None


def test_equal_pictures_have_no_psnr(client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    files = {"image": png(photo), "reference": png(photo)}
    body = client.post("/evaluate", files=files, data={"strength": "0"}).json()
    assert body["output"] == {"psnr": None, "ssim": pytest.approx(1), "colour_difference": 0}
    assert body["gain"]["psnr"] is None
    assert body["seam_index"] is None


def test_a_reference_that_is_off_is_aligned(client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    turn = cv2.getRotationMatrix2D((300, 200), 3, 1.05)
    turned = np.asarray(cv2.warpAffine(photo, turn, (600, 400), flags=cv2.INTER_CUBIC), np.uint8)
    files = {"image": png(photo), "reference": png(turned)}
    off = client.post("/evaluate", files=files).json()
    aligned = client.post("/evaluate", files=files, data={"align": "true"}).json()
    assert off["alignment"] is None
    assert aligned["alignment"]["inliers"] > 50
    assert aligned["input"]["psnr"] > off["input"]["psnr"] + 5


def test_a_turned_reference_is_told_from_a_foreign_one(client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    files = {"image": png(photo), "reference": png(photo[::-1, ::-1])}
    answer = client.post("/evaluate", files=files, data={"align": "true"})
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:pix2dslr:problem:not-aligned"
    assert "turned or mirrored" in answer.json()["detail"]


def test_the_comparison_as_a_picture(client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    files = {"image": png(photo), "reference": png(photo[:, ::-1])}
    answer = client.post("/evaluate", files=files, headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    comparison = pixels_of(answer.content)
    assert comparison.shape == (400, 3 * 600 + 2 * 8, 3)
    np.testing.assert_array_equal(comparison[:, :600], photo)
    np.testing.assert_array_equal(comparison[:, -600:], photo[:, ::-1])
