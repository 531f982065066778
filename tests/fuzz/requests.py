"""What clients might send: forms and raw bodies, and conversations of WS /live."""

import base64
import json
import random
from typing import Final

from tests.fuzz import seeds, zips
from tests.fuzz.mutations import mutated


def _anything(chance: random.Random) -> bytes:
    """A picture, a changed one, a zip, or noise."""
    way = chance.random()
    valid = seeds.pictures(chance.choice(("jpeg", "png", "webp", "tiff", "bmp", "avif")))
    if way < 0.4:
        return chance.choice(valid)
    if way < 0.7:
        return mutated(chance.choice(valid), valid, chance)
    if way < 0.85:
        return chance.choice(zips.all_zips()) if way < 0.78 else mutated(chance.choice(zips.all_zips()), (), chance)
    return chance.randbytes(chance.choice((0, 1, 100)))


_NAMES: Final = (
    "image",
    "image",
    "image",
    "reference",
    "strength",
    "format",
    "metadata",
    "camera",
    "align",
    "",
    "x" * 300,
    "\0",
    'a"b',
)
_VALUES: Final = (
    "0.5",
    "1",
    "png",
    "strip",
    "iphone",
    "true",
    "nan",
    "-1",
    "",
    "null",
    "9" * 5000,
    "ü",
    "\0",
    "1e999",
    "[1]",
)
_DISPOSITIONS: Final = (
    'form-data; name="{}"; filename="a.jpg"', 'form-data; name="{}"; filename="a.jpg"', 'form-data; name="{}"',
    "form-data; name={}", 'form-data; name="{}"; filename="../../a\r\n b"', "form-data", "attachment; name=\"{}\"", "",
    "form-data; name=\"{}\"; filename*=utf-8''%ff%00", 'form-data; name="{}"; name="image"; filename=""',
    'form-data; name="{}"; filename="' + "a" * 9000 + '"', "form-data; name=\"{}\"; filename=\"\xff\u202e\"",
)  # fmt: skip
_TYPES: Final = (
    "multipart/form-data; boundary={}", "multipart/form-data; boundary={}", "multipart/form-data; boundary={}",
    'multipart/form-data; boundary="{}"', "multipart/form-data", "multipart/form-data; boundary=", "image/jpeg",
    "image/",
    "multipart/form-data; boundary={}; charset=utf-16", "multipart/form-data; boundary={}; charset=nonsense",
    "application/zip", "application/octet-stream", "text/plain", "", "multipart/mixed; boundary={}",
    "multipart/form-data; boundary=" + "b" * 300,
)  # fmt: skip
_QUERIES: Final = (
    "",
    "",
    "",
    "strength=0.5",
    "strength=nan",
    "format=png&format=tiff",
    "x=1",
    "strength=%00",
    "camera=%ff",
    "=&&=",
    "overlap=max&",
)


def make_form(chance: random.Random) -> bytes:
    """Make a request: a line of JSON with its path, query and headers, and its body behind it."""
    boundary = chance.choice(("b", "----------------1234", "'()+_,-./:=?", "a" * 70))
    body = b""
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 8, 40))):
        name = chance.choice(_NAMES)
        text = chance.random() < 0.5 and name not in ("image", "reference")
        content = chance.choice(_VALUES).encode() if text else _anything(chance)
        disposition = chance.choice(_DISPOSITIONS[2:] if text else _DISPOSITIONS).format(name)
        head = f"Content-Disposition: {disposition}\r\n".encode() if disposition else b""
        if chance.random() < 0.2:
            head += chance.choice(
                (b"Content-Type: image/png\r\n", b"X: " + b"y" * 9000 + b"\r\n", b"nonsense\r\n", b"A: b\n", b": \r\n")
            )
        if chance.random() < 0.1:
            head += b"Content-Transfer-Encoding: base64\r\n"
        body += b"--" + boundary.encode() + b"\r\n" + head + b"\r\n" + content + b"\r\n"
    body += (
        b"--"
        + boundary.encode()
        + chance.choice((b"--\r\n", b"--\r\n", b"--\r\n", b"", b"--", b"\r\n", b"--\r\nepilogue"))
    )
    kind = chance.choice(_TYPES).format(boundary)
    if not kind.startswith("multipart") and chance.random() < 0.8:
        body = _anything(chance)
    if chance.random() < 0.4:
        body = mutated(body, (), chance)
    headers = [["content-type", kind]] if kind else []
    if chance.random() < 0.8:
        headers.append(["content-length", str(len(body))])
    if chance.random() < 0.2:
        headers.append(list(chance.choice((
            ("accept", "image/webp"), ("accept", ",;q=\xff"), ("content-encoding", "gzip"), ("if-none-match", "*"),
            ("x-request-id", "\x7f\xff" * 90), ("origin", "http://[::"), ("content-length", "٣"), ("accept", "*/*;q=0"),
        ))))  # fmt: skip
    told = {
        "path": chance.choice(("/enhance", "/enhance", "/evaluate")), "query": chance.choice(_QUERIES),
        "headers": headers,
        "piece": chance.choice((1 << 16, 1 << 16, 1000, 37)),
    }  # fmt: skip
    return json.dumps(told).encode() + b"\n" + body


_TEXTS: Final = (
    "{}", "", "[]", "null", '{"type": "cancel"}', '{"type": "cancel", "frame": 1}', '{"type": "cancel", "frame": 0}',
    '{"mode": "live"}', '{"mode": "live", "strength": 0}', '{"mode": "photo", "seam_index": true}', '{"mode": 3}',
    '{"type": "options", "format": "png"}', '{"strength": NaN}', '{"strength": 1e400}', "[" * 9000,
    '{"type": "cancel", "frame": 1e30}',
    '{"a": ' * 900, '"\\ud800"', '{"camera": "\\ud800"}', '{"camera": "nobody"}', "x" * 20_000,
    '{"encoder_quality": 9' + "9" * 4999 + "}",
    '{"type": ["cancel"]}', '{"\\u0000": 1}', '{"format": null, "camera": null}', '{"strength": true}',
    '{"overlap": "max"}',
)  # fmt: skip


def make_conversation(chance: random.Random) -> bytes:
    """Make what a client says on WS /live: JSON, a list of texts and of binaries in base64."""
    says = []
    for _ in range(chance.choice((1, 2, 3, 6, 12))):
        if chance.random() < 0.5:
            text = chance.choice(_TEXTS)
            if chance.random() < 0.2:
                text = mutated(text.encode(), (), chance).decode("utf-8", "replace")
            says.append(["text", text])
        else:
            says.append(["binary", base64.b64encode(_anything(chance)).decode()])
    return json.dumps(says).encode()
