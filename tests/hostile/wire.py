"""Bytes of connections that no client library sends, and talks over WS /live."""

import json
from collections.abc import Iterator

from tests.hostile import good
from tests.hostile.case import FORMAT, LARGE, MALFORMED, PARAMETER, REQUEST, Case, Talk, Wire
from tests.hostile.png import head

ANY = frozenset({"*"})
"""The HTTP library answers these itself, by a 4xx without a body of ours or by closing: there is no request yet."""

GOOD = good.png()


def request(*headers: str, body: bytes = b"", line: str = "POST /enhance HTTP/1.1") -> bytes:
    return "\r\n".join((line, "Host: localhost", *headers, "", "")).encode("latin-1") + body


def _requests() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    png = "Content-Type: image/png"
    close = "Connection: close"
    size = f"Content-Length: {len(GOOD)}"
    yield "a length that is negative", request(png, "Content-Length: -1", close), ANY
    yield "a length that is no number", request(png, "Content-Length: x", close), ANY
    yield "a length of 10^30", request(png, "Content-Length: 1" + "0" * 30, close), ANY | frozenset({"body-too-large"})
    yield (
        "a length of 65 MB and no body",
        request(png, "Content-Length: 68157440", close),
        frozenset({"body-too-large"}),
    )
    yield (
        "a length of 9999 digits",
        request(png, "Content-Length: " + "9" * 9999, close),
        ANY | frozenset({"body-too-large"}),
    )
    yield "two lengths", request(png, size, "Content-Length: 1", close, body=GOOD), ANY
    yield (
        "a length and chunks",
        request(png, size, "Transfer-Encoding: chunked", close, body=b"0\r\n\r\n"),
        ANY | REQUEST,
    )
    yield "a length shorter than the body", request(png, "Content-Length: 100", close, body=GOOD), ANY | MALFORMED
    yield (
        "a length longer than the body",
        request(png, f"Content-Length: {len(GOOD) + 100}", close, body=GOOD),
        ANY | MALFORMED,
    )
    chunked = "Transfer-Encoding: chunked"
    yield "a chunk of no number", request(png, chunked, close, body=b"zz\r\n"), ANY
    yield "a chunk of 2^64 bytes", request(png, chunked, close, body=b"ffffffffffffffff1\r\nx"), ANY
    yield "a negative chunk", request(png, chunked, close, body=b"-1\r\nx\r\n0\r\n\r\n"), ANY
    yield "a chunk that ends early", request(png, chunked, close, body=b"ff\r\nx"), ANY | MALFORMED
    yield "no last chunk", request(png, chunked, close, body=b"1\r\nx\r\n"), ANY | FORMAT
    yield "chunks of a byte", request(png, chunked, close, body=b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"), REQUEST
    yield "chunks in an unknown coding", request(png, "Transfer-Encoding: gzip, x", close, body=GOOD), ANY | REQUEST
    yield (
        "trailers by the thousand",
        request(png, chunked, close, body=b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * 5000 + b"\r\n"),
        ANY | FORMAT,
    )
    yield "a header of 200 kB", request("X: " + "x" * 200_000, close), ANY
    yield "10000 headers", request(*[f"X{i}: y" for i in range(10_000)], close), ANY
    yield "a header without a colon", request("nonsense", close), ANY
    yield "a header's name with a space", request("Content Type: image/png", close), ANY
    yield "a folded header", request("X: a\r\n b", png, size, close, body=bytes(len(GOOD))), ANY | FORMAT
    yield "NUL in a header", request("X: a\0b", close), ANY
    yield "a bare CR in a header", request("X: a\rSet-Cookie: b", close), ANY
    yield "no version", b"POST /enhance\r\n\r\n", ANY
    yield "HTTP 9.9", request(close, line="POST /enhance HTTP/9.9"), ANY | REQUEST
    yield "HTTP 2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ANY
    yield "TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200), ANY
    yield "zeros", bytes(10_000), ANY
    yield "a path of 100 kB", request(close, line="GET /" + "a" * 100_000 + " HTTP/1.1"), ANY | frozenset({"not-found"})
    yield "a path that leads out", request(close, line="GET /../../../etc/passwd HTTP/1.1"), frozenset({"not-found"})
    yield (
        "an encoded path that leads out",
        request(close, line="GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1"),
        frozenset({"not-found"}),
    )
    yield (
        "a page's path that leads out",
        request(close, line="GET /static/..%2f..%2fapp.py HTTP/1.1"),
        frozenset({"not-found"}),
    )
    yield "NUL in a path", request(close, line="GET /%00 HTTP/1.1"), frozenset({"not-found"})
    yield "a method of 10 kB", request(close, line="A" * 10_000 + " /enhance HTTP/1.1"), ANY
    yield "an unknown method", request(close, line="BREW /enhance HTTP/1.1"), ANY | frozenset({"method-not-allowed"})
    yield "TRACE", request(close, line="TRACE /enhance HTTP/1.1"), ANY | frozenset({"method-not-allowed"})
    yield "CONNECT", request(close, line="CONNECT localhost:22 HTTP/1.1"), ANY | frozenset({"not-found"})
    yield (
        "another host's address",
        request(close, line="GET http://169.254.169.254/latest/meta-data HTTP/1.1"),
        frozenset({"unknown-host"}),
    )
    yield "two hosts", request("Host: evil", close, line="GET /nowhere HTTP/1.1"), ANY | frozenset({"not-found"})
    smuggled = request(png, "Content-Length: 4", chunked, body=b"0\r\n\r\nGET /cameras HTTP/1.1\r\nHost: x\r\n\r\n")
    yield "a request in a request", smuggled, ANY | REQUEST
    yield "half a request", request(png, size)[:40], ANY
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    yield "a WebSocket without a key", request(*upgrade, line="GET /live HTTP/1.1"), ANY
    yield (
        "a WebSocket of another version",
        request(
            *upgrade[:2],
            "Sec-WebSocket-Version: 99",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            line="GET /live HTTP/1.1",
        ),
        ANY,
    )
    yield (
        "a WebSocket nowhere",
        request(*upgrade, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", line="GET /nowhere HTTP/1.1"),
        ANY,
    )
    evil = request(
        *upgrade,
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Origin: http://evil.example",
        line="GET /live HTTP/1.1",
    )
    yield "a WebSocket of another site's page", evil, ANY


def _talks() -> Iterator[tuple[str, tuple[str | bytes, ...], frozenset[str], bool]]:
    yield "frames of nonsense", (b"nonsense", b"\0" * 1000, b"<svg/>"), FORMAT, False
    yield "half a picture", (GOOD[: len(GOOD) // 2], good.jpeg()[:900]), MALFORMED, False
    yield "a frame of 65535x65535", (head(65_535, 65_535) + GOOD[33:],), LARGE | MALFORMED, False
    yield "an empty frame", (b"",), REQUEST, False
    yield "no JSON", ("nonsense", "", "\0", "{", "nul"), REQUEST, False
    yield "JSON that is no object", ("[]", "1", "null", '"x"', "1e999", "NaN"), REQUEST, False
    yield "lists 30000 deep", ("[" * 30_000,), REQUEST, False
    yield "lists 4000 deep", ("[" * 4000 + "]" * 4000,), REQUEST, False
    yield "objects 1500 deep", ('{"a":' * 1500 + "1" + "}" * 1500,), REQUEST | PARAMETER, False
    yield "a text of 10 MB", ("x" * 10_000_000,), ANY, True
    yield "a text of 30 kB", ("x" * 30_000,), REQUEST, False
    yield "an integer of 9000 digits", ('{"strength": ' + "9" * 9000 + "}",), REQUEST | PARAMETER, False
    yield "unknown options", ('{"__proto__": 1}', '{"strength": {}}', '{"camera": 5}', '{"mode": []}'), PARAMETER, False
    yield "half a surrogate", ('{"camera": "\\ud800", "x": 1}',), PARAMETER, False
    yield (
        "cancelling what is not there",
        ('{"type": "cancel", "frame": -1}', '{"type": "cancel", "frame": "x"}'),
        PARAMETER,
        False,
    )
    yield "equal keys", ('{"strength": 0, "strength": 7}',), PARAMETER, False
    yield "2000 tiny frames", (json.dumps({"mode": "live"}), *[b"x"] * 2000), FORMAT, False
    yield "a message of 65 MB", (bytes(65 << 20),), ANY, True
    yield "an unknown camera", ('{"camera": "../../etc/passwd"}', GOOD), frozenset({"unknown-camera"}), False


def cases() -> Iterator[Case]:
    for name, data, problems in _requests():
        yield Case(name, Wire(data), problems)
    for name, messages, problems, closes in _talks():
        yield Case(f"live: {name}", Talk(messages, closes), problems, seconds=20)
