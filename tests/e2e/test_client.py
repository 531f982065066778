"""The example client: what the document gives, and good for the real service."""

import io
import math
import zipfile
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from pix2dslr_client import Client, EnhanceOptions, EvaluateOptions, Problem

from examples.regenerate import MODELS, models
from service.app import create_app
from service.settings import Settings
from tests.e2e.conftest import Server, noise, pixels_of, png
from tests.e2e.test_problems import GOOD


@pytest.fixture
def api(server: Server) -> Iterator[Client]:
    with Client(server.url) as made:
        yield made


def test_its_models_are_what_the_document_gives() -> None:
    assert models() == MODELS.read_text(), "run: python examples/regenerate.py"


def test_it_has_every_operation() -> None:
    paths = create_app(Settings()).openapi()["paths"].values()
    operations = {operation["operationId"] for methods in paths for operation in methods.values()}
    assert operations - {"healthz"} <= set(dir(Client))  # healthz is livez


def test_a_picture(api: Client, photo: npt.NDArray[np.uint8]) -> None:
    done = api.enhance(png(photo), EnhanceOptions(strength=0, format="webp", encoder_quality=100), reference=png(photo))
    np.testing.assert_array_equal(pixels_of(done.data), photo)
    assert (done.media_type, done.camera, done.psnr, done.ssim) == ("image/webp", "iphone", math.inf, 1.0)
    enhanced = api.enhance(png(photo))
    assert enhanced.psnr is None
    assert np.abs(pixels_of(enhanced.data).astype(int) - photo).mean() > 2
    assert api.enhance_if_new(png(photo), enhanced.etag) is None
    other = api.enhance_if_new(png(photo), enhanced.etag, EnhanceOptions(strength=0.5))
    assert other is not None
    assert other.etag != enhanced.etag


def test_several(api: Client) -> None:
    pictures = [("a.png", png(noise(30, 40))), ("in/b.png", b"nothing"), ("in/c.png", png(noise(50, 40)))]
    to = io.BytesIO()
    failed = api.enhance_several(pictures, to, EnhanceOptions(strength=0))
    assert [(error.index, error.name, error.status) for error in failed.errors] == [(1, "in/b.png", 415)]
    with zipfile.ZipFile(to) as archive:
        assert sorted(archive.namelist()) == ["a.png", "errors.json", "in/c.png"]
        np.testing.assert_array_equal(pixels_of(archive.read("in/c.png")), noise(50, 40))
    with pytest.raises(Problem):
        api.enhance_several([("a.png", GOOD)], io.BytesIO(), EnhanceOptions(camera="kodak"))


def test_scores(api: Client, photo: npt.NDArray[np.uint8]) -> None:
    scores = api.evaluate(png(photo), png(photo), EvaluateOptions(align=False))
    assert scores.input.psnr is None
    assert scores.output.psnr is not None
    assert (scores.width, scores.height) == (600, 400)


def test_what_there_is_and_how_it_is(api: Client) -> None:
    assert "iphone" in [camera.name for camera in api.cameras().cameras]
    assert api.livez().alive
    assert api.readyz().ready
    assert "pix2dslr_tiles_total" in api.metrics()


def test_a_problem_is_an_exception(api: Client) -> None:
    with pytest.raises(Problem) as caught:
        api.enhance(b"GIF89a")
    assert caught.value.details.type == "urn:pix2dslr:problem:unsupported-format"
    assert caught.value.retry_after is None
    assert "JPEG" in str(caught.value)
