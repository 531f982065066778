"""What a hostile client sends to keep the event loop busy: sizes that a client chooses, of every kind that it may."""

import json
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from tests.e2e.conftest import Server
from tests.e2e.raw import frame, shake_hands
from tests.hostile import good, jpeg, png, riff, zips
from tests.hostile.attacked import HOSTILE, connect, drain, exchange
from tests.hostile.forms import FORM, form, part
from tests.hostile.wire import request

KEY: Final = "a-key-of-the-attacked-server"
_CLOSE: Final = "Connection: close"
_LONG: Final = 60_000_000
_QUIET_S: Final = 1.0
"""Silence after which a WebSocket is taken for idle."""

Stop = Callable[[Server], None]


def _post(data: bytes, kind: str, *headers: str, path: str = "/enhance") -> bytes:
    told = (f"Content-Type: {kind}", f"Content-Length: {len(data)}", _CLOSE, *headers)
    return request(*told, body=data, line=f"POST {path} HTTP/1.1")


def _get(path: str, *headers: str) -> bytes:
    return request(_CLOSE, *headers, line=f"GET {path} HTTP/1.1")


def _sends(make: Callable[[], bytes], connections: int = 1) -> Stop:
    """Send what is made by each of some connections at once."""
    return lambda server: exchange(server, make(), connections)


def _named(count: int, name: Callable[[int], str]) -> bytes:
    """A form of files of one byte."""
    return _post(form(*(part(file=name(i), data=b"x") for i in range(count))).data, FORM)


def _zip_named(count: int, name: Callable[[int], str]) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    packed, check = packer.compress(b"x") + packer.flush(), zlib.crc32(b"x")
    return _post(zips.of_packed((name(i).encode(), packed, 1, check) for i in range(count)), zips.KIND)


def _chunked(data: bytes, *headers: str) -> bytes:
    return request("Content-Type: image/png", "Transfer-Encoding: chunked", _CLOSE, *headers, body=data)


def _tiny_chunks(*headers: str) -> bytes:
    return _chunked(b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n", *headers)


def _webp() -> bytes:
    exif = riff.chunk(b"EXIF", b"II*\0" + bytes(56_000_000))
    return riff.riff(riff.extended(48, 40, 8), good.webp()[12:], exif)


def _png_text() -> bytes:
    """A picture with a megabyte of text in a thousand chunks."""
    return png.with_chunks(*[png.chunk(b"tEXt", b"Comment\0" + b"x" * 1000)] * 1000)


def _talks(*messages: bytes) -> Stop:
    """Send frames on WS /live, and read what comes until it is silent."""

    def talk(server: Server) -> None:
        with connect(server, HOSTILE) as connection:
            shake_hands(connection, host="localhost")
            try:
                for each in messages:
                    connection.sendall(each)
            except OSError:  # it was closed
                return
            drain([connection], 15, _QUIET_S)

    return talk


def pings(seconds: float = 5.0) -> Stop:
    """Send pings as fast as they are taken, and read nothing."""
    block = (struct.pack("!BBI", 0x89, 0x80 | 125, 0) + bytes(125)) * 500

    def flood(server: Server) -> None:
        with connect(server, HOSTILE, timeout=0.2, receive_buffer=4096) as connection:
            shake_hands(connection, host="localhost")
            until, left = time.monotonic() + seconds, block
            while time.monotonic() < until:
                try:
                    left = left[connection.send(left) :] or block
                except TimeoutError:
                    continue
                except OSError:
                    return

    return flood


def _many_pipelined(count: int) -> bytes:
    return request(line="GET /livez HTTP/1.1") * count + _get("/livez")


STOPS: Final[Mapping[str, Stop]] = {
    "form of 1000 equal names": _sends(lambda: _named(1000, lambda _: "a.jpg")),
    "form of 1000 equal, deep, long names": _sends(lambda: _named(1000, lambda _: f"{'d' * 170}/" * 16 + "a.jpg")),
    "zip of 16 names of 65 kB": _sends(lambda: _zip_named(16, lambda i: "a/" * 32_700 + f"{i}.jpg")),
    "zip of 1000 names of 4 kB": _sends(lambda: _zip_named(1000, lambda i: "a/" * 2000 + f"{i}.jpg")),
    "zip of 1000 equal names": _sends(lambda: _zip_named(1000, lambda _: "a.jpg")),
    "zip of 65535 entries": _sends(lambda: _zip_named(65_535, lambda _: "")),
    "240 kB of one-byte chunks": _sends(_tiny_chunks),
    "240 kB of one-byte chunks x 8": _sends(_tiny_chunks, 8),
    "trailers by the thousand x 8": _sends(lambda: _chunked(b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * 40_000 + b"\r\n"), 8),
    "3000 fields x 50": _sends(lambda: _get("/cameras", *["a:b"] * 3000), 50),
    "10000 parameters x 20": _sends(lambda: _get("/cameras?" + "a=1&" * 10_000), 20),
    "Accept of 1000 types x 50": _sends(
        lambda: _post(good.png(), "image/png", "Accept: " + "image/x;q=0.1," * 1000), 50
    ),
    "If-None-Match of 2000 tags x 50": _sends(
        lambda: _post(good.png(), "image/png", "If-None-Match: " + '"abc",' * 2000), 50
    ),
    "10000 pipelined requests": _sends(lambda: _many_pipelined(10_000)),
    "500 connections at once": _sends(lambda: _get("/livez"), 500),
    "/openapi.json x 100": _sends(lambda: _get("/openapi.json"), 100),
    "/metrics x 100": _sends(lambda: _get("/metrics"), 100),
    "form of 60 MB": _sends(lambda: _post(form(part(data=bytes(_LONG))).data, FORM)),
    "form of 100000 fields": _sends(lambda: _post(form(*[part("x", b"1", file=None)] * 100_000).data, FORM)),
    "form of 5 MB of fields for a part": _sends(lambda: _post(form(part(more=b"X: y\r\n" * 800_000)).data, FORM)),
    "body of 60 MB": _sends(lambda: _post(bytes(_LONG), "image/png")),
    "WebP with EXIF of 56 MB": _sends(lambda: _post(_webp(), "image/webp")),
    "JPEG of 60 MB of comments": _sends(
        lambda: _post(jpeg.with_segments(*[jpeg.segment(0xFE, bytes(60_000))] * 1000), "image/jpeg")
    ),
    "PNG of 1000 texts": _sends(lambda: _post(_png_text(), "image/png")),
    "WebSocket: text of 60 MB": _talks(frame(bytes(_LONG), opcode=1)),
    "WebSocket: message of 60 MB": _talks(frame(bytes(_LONG))),
    "WebSocket: deep text": _talks(*[frame(b"[" * 9000, opcode=1)] * 200),
    "WebSocket: 20000 texts": _talks(frame(b"x", opcode=1) * 20_000),
    "WebSocket: messages in 9000 pieces": _talks(
        *[frame(b"", opcode=1, final=False) + frame(b"", opcode=0, final=False) * 9000 + frame(b"", opcode=0)] * 10
    ),
    "WebSocket: options of 9 kB": _talks(
        *[frame(json.dumps({f"x{i}": i for i in range(800)}).encode(), opcode=1)] * 200
    ),
    "WebSocket: pings, unread": pings(),
}
"""By name, on a server without keys."""

KEYED: Final[Mapping[str, Stop]] = {
    "240 kB of one-byte chunks, no key": _sends(_tiny_chunks),
    "240 kB of one-byte chunks, a key": _sends(lambda: _tiny_chunks(f"X-API-Key: {KEY}")),
    "3000 fields x 50, no key": _sends(lambda: _get("/cameras", *["a:b"] * 3000), 50),
    "wrong keys of 15 kB x 50": _sends(lambda: _get("/cameras", "Authorization: Bearer " + "x" * 15_000), 50),
    "1000 keys x 50": _sends(lambda: _get("/cameras", *[f"X-API-Key: {'x' * 8}"] * 1000), 50),
    "/openapi.json x 100, no key": _sends(lambda: _get("/openapi.json"), 100),
}
"""By name, on a server with this key."""
