"""Several pictures in one request."""

import io
import json
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from service.tiling import plan
from tests.e2e.conftest import Serve, Server, noise, pixels_of, png
from tests.e2e.raw import head
from tests.e2e.test_problems import BIG, BIG_TILES, GOOD, MOST_ON_DEVICE, problem

Files = list[tuple[str, tuple[str, bytes]]]


def several(**named: bytes) -> Files:
    return [("image", (name, data)) for name, data in named.items()]


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def unzipped(answer: httpx.Response) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The pictures of an answer by name, and its errors."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    assert list(files)[-1] == "errors.json"
    return files, json.loads(files.pop("errors.json"))["errors"]


def test_several_files_come_back_in_a_zip(identity_server: Server) -> None:
    pictures = {f"{i}.png": noise(30 + i, 50, i) for i in range(9)}
    with identity_server.client() as client:
        answer = client.post("/enhance", files=several(**{name: png(pixels) for name, pixels in pictures.items()}))
    files, errors = unzipped(answer)
    assert errors == []
    assert files.keys() == pictures.keys()
    for name, pixels in pictures.items():
        np.testing.assert_array_equal(pixels_of(files[name]), pixels)
    assert answer.headers["x-pix2dslr-camera"] == "iphone"
    assert "enhanced.zip" in answer.headers["content-disposition"]
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


@pytest.mark.parametrize("way", ["body", "file"])
def test_a_zip_comes_back_as_a_zip_with_its_folders(
    client: httpx.Client, way: str, photo: npt.NDArray[np.uint8]
) -> None:
    """By the shipped generator, and each as it would be alone."""
    sent = {"a.png": png(photo[:200]), "in/a.png": png(photo[200:]), "in/deep/b.png": png(photo[:, :300])}
    if way == "body":
        headers = {"Content-Type": "application/zip"}
        answer = client.post("/enhance", content=zipped(sent), headers=headers, params={"strength": "0.5"})
    else:
        answer = client.post("/enhance", files={"image": ("all.zip", zipped(sent))}, data={"strength": "0.5"})
    files, errors = unzipped(answer)
    assert errors == []
    assert files.keys() == sent.keys()
    for name, data in sent.items():
        alone = client.post("/enhance", files={"image": data}, data={"strength": "0.5"})
        np.testing.assert_array_equal(pixels_of(files[name]), pixels_of(alone.content))


def test_those_that_fail_are_named_and_the_others_are_answered(identity_server: Server) -> None:
    sent = {
        "good.png": png(noise(40, 40)),
        "text.jpg": b"no picture",
        "half.png": GOOD[: len(GOOD) // 2],
        "nested.zip": zipped({"x.png": GOOD}),
        "../../up.png": png(noise(20, 30)),
        "empty.png": b"",
    }
    with identity_server.client() as client:
        answer = client.post("/enhance", content=zipped(sent), headers={"Content-Type": "application/zip"})
    files, errors = unzipped(answer)
    assert files.keys() == {"good.png", "up.png"}
    told = {error["name"]: (error["index"], error["type"].rpartition(":")[2], error["status"]) for error in errors}
    assert told == {
        "text.jpg": (1, "unsupported-format", 415),
        "half.png": (2, "malformed-picture", 400),
        "nested.zip": (3, "unusable-entry", 422),
        "empty.png": (5, "unsupported-format", 415),
    }
    assert {error["request_id"] for error in errors} == {answer.headers["x-request-id"]}
    assert all(error["title"] and error["detail"] for error in errors)


def test_an_empty_file_or_a_zip_among_others_costs_them_nothing(identity_server: Server) -> None:
    with identity_server.client() as client:
        files, errors = unzipped(client.post("/enhance", files=several(a=GOOD, b=b"", c=zipped({"d": GOOD}))))
    assert files.keys() == {"a.png"}
    told = [(error["name"], error["type"].rpartition(":")[2]) for error in errors]
    assert told == [("b", "unsupported-format"), ("c", "unusable-entry")]


def test_names_are_kept_numbered_and_fit_the_format(identity_server: Server) -> None:
    files = [("image", (name, GOOD)) for name in ("a.png", "a.png", "b.jpg", "A.PNG")]
    with identity_server.client() as client:
        as_they_came, _ = unzipped(client.post("/enhance", files=files))
        as_webp, _ = unzipped(client.post("/enhance", files=files, data={"format": "webp"}))
        accepted, _ = unzipped(client.post("/enhance", files=files, headers={"Accept": "image/jpeg"}))
    assert as_they_came.keys() == {"a.png", "a (2).png", "b.png", "A (3).PNG"}
    assert as_webp.keys() == {"a.webp", "a (2).webp", "b.webp", "A (3).webp"}
    assert accepted.keys() == {"a.jpg", "a (2).jpg", "b.jpg", "A (3).jpg"}
    for name, data in as_webp.items():
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "WEBP", name


@pytest.fixture(scope="module")
def narrow(serve_session: Serve, identity_folder: Any) -> Server:
    return serve_session(models=identity_folder, max_files=5, max_unzipped_bytes=100_000, max_body_bytes=50_000)


def test_what_is_wrong_with_the_whole_is_told_at_once(narrow: Server) -> None:
    as_zip = {"Content-Type": "application/zip"}
    with narrow.client() as client:

        def post(data: bytes, **options: str) -> httpx.Response:
            return client.post("/enhance", content=data, headers=as_zip, params=options)

        problem(post(b"no zip"), "malformed-request", 400)
        problem(post(zipped({"a": GOOD})[:-5]), "malformed-zip", 400)
        problem(post(zipped({"in/": b""})), "malformed-zip", 400)
        problem(post(zipped({f"{i}": GOOD for i in range(6)})), "too-many-files", 413)
        problem(client.post("/enhance", files=[("image", GOOD)] * 6), "too-many-files", 413)
        problem(client.post("/enhance", files=[("image", b"x")] * 60), "too-many-files", 413)
        problem(post(bomb(200_000)), "unzipped-too-large", 413)
        problem(post(zipped({"a": GOOD}), camera="kodak"), "unknown-camera", 422)
        problem(post(zipped({"a": GOOD}), strength="2"), "invalid-parameter", 422)
        files = [("image", GOOD), ("image", GOOD), ("reference", GOOD)]
        problem(client.post("/enhance", files=files), "malformed-request", 400)
        problem(client.post("/evaluate", files=[*files, ("image", GOOD)]), "malformed-request", 400)
        problem(
            client.post("/evaluate", files={"image": zipped({"a": GOOD}), "reference": GOOD}), "unsupported-format", 415
        )
        # one of them within the whole, and too large for itself
        _, errors = unzipped(post(bomb(60_000)))
        assert [error["type"].rpartition(":")[2] for error in errors] == ["unusable-entry"]
        files_, errors = unzipped(post(zipped({f"{i}.png": GOOD for i in range(5)})))
        assert len(files_) == 5
        assert errors == []


def bomb(size: int) -> bytes:
    """A zip of one file of zeros that takes a thousandth of its size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"\0" * size)
    return buffer.getvalue()


def test_entries_are_there_as_they_are_done(server: Server) -> None:
    """The first picture of many can be read while the last ones still wait."""
    count = 12
    photo = png(noise(500, 500))
    with (
        server.client() as client,
        client.stream("POST", "/enhance", files=[("image", ("a.png", photo))] * count) as answer,
    ):
        came = answer.iter_raw()
        first = next(came)
        assert first.startswith(b"PK\3\4")
        assert server.metric("pix2dslr_requests_in_flight") >= 2, "this one, and the one that asks"
        early = inflate_first(first, came)
        done = server.metric("pix2dslr_queue_tiles")
        assert pixels_of(early).shape == (500, 500, 3)
        assert done > 0, "others are not done yet"
        rest = b"".join(came)
    assert rest.endswith(b"\0\0"), "the directory, with no comment"


def inflate_first(begun: bytes, came: Iterator[bytes]) -> bytes:
    """Read the first entry from a stream as a reader without the directory does."""
    while len(begun) < 30:
        begun += next(came)
    name, extra = struct.unpack("<2H", begun[26:30])
    inflater = zlib.decompressobj(-15)
    data = inflater.decompress(begun[30 + name + extra :])
    while not inflater.eof:
        data += inflater.decompress(next(came))
    return data


def test_a_client_that_hangs_up_cancels_all(serve_session: Serve) -> None:
    server = serve_session()
    body = zipped({f"{i}.png": BIG for i in range(20)})
    url = httpx.URL(server.url)
    assert url.port is not None
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(head(content_type="application/zip", content_length=len(body)) + body)
        while not server.metric("pix2dslr_tiles_total"):
            pass
    while server.metric("pix2dslr_queue_tiles") or server.metric("pix2dslr_requests_in_flight") > 1:
        pass
    done = server.metric("pix2dslr_tiles_total")
    with server.client() as client:
        assert client.post("/enhance", files={"image": GOOD}).status_code == 200
    after = server.metric("pix2dslr_tiles_total")
    assert after - done <= MOST_ON_DEVICE + 1
    assert after < 4 * BIG_TILES, "what was under way was dropped, and the rest not begun"
    assert server.stop() == 0


def test_a_full_queue_makes_them_wait_and_not_fail(serve_session: Serve) -> None:
    server = serve_session(max_queued_tiles=30)
    photo = png(noise(500, 500))  # 25 tiles: one at a time
    with server.client() as client:
        files, errors = unzipped(client.post("/enhance", files=[("image", ("a.png", photo))] * 5))
    assert errors == []
    assert len(files) == 5
    assert server.stop() == 0


def test_a_slow_reader_holds_back_the_work_and_not_the_service(serve_session: Serve, identity_folder: Any) -> None:
    """Answers wait in a few hands, not in memory all at once."""
    server = serve_session(models=identity_folder)
    count = 30
    picture = png(noise(700, 700))
    body = zipped({f"{i}.png": picture for i in range(count)})
    url = httpx.URL(server.url)
    assert url.port is not None
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((url.host, url.port))
        connection.sendall(head(content_type="application/zip", content_length=len(body)) + body)
        while not server.metric("pix2dslr_tiles_total"):
            pass
        others, settled = 0, False
        with server.client() as client:
            while not settled:
                before = server.metric("pix2dslr_tiles_total")
                for _ in range(20):
                    assert client.post("/enhance", files={"image": GOOD}).status_code == 200, "others are served"
                others += 20
                settled = server.metric("pix2dslr_tiles_total") - before == 20
        theirs = server.metric("pix2dslr_tiles_total") - others
        assert 0 < theirs < plan(700, 700).tiles * count / 2
    assert server.stop() == 0
