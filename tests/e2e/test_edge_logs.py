"""What the log may not hold: keys, file names, pieces of pictures, wherever they were sent, whatever went wrong."""

import contextlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.e2e.conftest import Serve, png
from tests.e2e.raw import head, open_socket
from tests.e2e.test_problems import GOOD
from tests.onnx_files import write_generator

KEY = "ann-sesame-0123456789"
WRONG = "eve-sesame-0123456789"
NAME = "wedding.png"
SECRETS = ("sesame", "wedding", "pixelpixel")


def packed(*names: str, data: bytes = GOOD) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return buffer.getvalue()


def test_nothing_that_is_a_clients_is_logged(serve_session: Serve, tmp_path: Path) -> None:
    # a device that fails on light pictures, and a log that tells all it ever does
    write_generator(tmp_path / "iphone.onnx", fail_on_light=True)
    server = serve_session(models=tmp_path, api_keys=f"ann:{KEY}", log_level="DEBUG", rate_limit=1000)
    dark = png(np.zeros((30, 30, 3), np.uint8))
    files = [dark, GOOD, b"pixelpixel", GOOD[:40] + b"pixelpixel", b"\xff\xd8\xff\xe0pixelpixel", b"II*\0pixelpixel"]
    with server.client() as client:
        for key in (KEY, WRONG):
            for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
                for data in files:
                    form = {"image": (NAME, data), "reference": (f"../{NAME}\x00", data)}
                    client.post("/enhance", files=form, headers=headers)
                    client.post("/enhance", files={"image": (NAME, data)}, data={NAME: NAME}, headers=headers)
                    client.post("/evaluate", files=form, headers=headers)
                for body in (packed(NAME, f"../{NAME}"), packed(NAME, data=b"pixelpixel"), b"PK\3\4wedding"):
                    client.post("/enhance", files={"image": (NAME, body)}, headers=headers)
                client.get(f"/{NAME}", params={"key": key, NAME: NAME}, headers=headers)
                client.post("/enhance", params={"camera": NAME}, files={"image": (NAME, dark)}, headers=headers)
        client.get("/cameras", headers={"X-Request-ID": "plain-id"})
    with open_socket(server) as connection:
        connection.sendall(f"GET /{NAME}?{KEY} HTTP/9\r\nX-API-Key {KEY}\r\n\r\n".encode())
        connection.recv(1000)
    with open_socket(server) as connection:  # and hang up in the middle
        connection.sendall(head(content_length=1000, x_api_key=KEY, x_forwarded_for=NAME) + b"pixelpixel")
    url = server.url.replace("http", "ws") + f"/live?{NAME}"
    for protocols in (["pix2dslr", "pix2dslr.key.YW5uLXNlc2FtZS0wMTIzNDU2Nzg5"], ["pix2dslr", "pix2dslr.key.sesame"]):
        with (
            contextlib.suppress(ConnectionClosed),
            connect(url, proxy=None, subprotocols=[Subprotocol(each) for each in protocols]) as socket,
        ):
            socket.send(json.dumps({"camera": NAME}))
            for data in files:
                socket.send(data)
            for _ in range(7):  # ready, and at least one event a picture
                socket.recv(60)
    assert server.stop() == 0
    log = "".join(server.log)
    assert "InferenceFailed" in log or "failed" in log, "the device did fail, and was told of"
    for secret in SECRETS:
        assert secret not in log.lower(), secret


def test_hanging_up_is_no_error(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_session(models=identity_folder)
    for kind in ("image/png", "multipart/form-data; boundary=b"):
        for _ in range(5):
            with open_socket(server) as connection:
                connection.sendall(head(content_length=1000, content_type=kind) + b"--b\r\n")
    while server.metric("pix2dslr_requests_in_flight") > 1:
        pass
    assert server.stop() == 0
    assert not [line for line in server.log if "ERROR" in line or "Traceback" in line]
