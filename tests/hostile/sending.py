"""Sends a case to a running service and says what is wrong with the answer."""

import io
import json
import socket
import zipfile
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.hostile import good
from tests.hostile.case import Body, Case, File, Pair, Talk, Wire

_PROBLEM: Final = "application/problem+json"
_LEAKS: Final = (
    "traceback", "/var", "/usr", "/home", "/root", "site-packages", ".py", "cv2", "opencv", "pillow", "pil.", "libjpeg",
    "libpng", "libtiff", "libheif", "libavif", "onnx", "zlib", "zipfile", "starlette", "multipart parser", "errno",
    "0x", "struct", "memory", "exception", "errortype", "passwd",
)  # fmt: skip
"""What no client may read: paths, and the words of libraries."""
_QUIET_S: Final = 0.3
"""Seconds of silence after which the rest of a connection that waits for more is closed."""


def send(case: Case, client: httpx.Client) -> list[str]:
    """Send a case; return what is wrong with its answer, nothing where all is as it should be."""
    match case.sent:
        case File(data, kind, raw):
            if raw:
                answer = client.post("/enhance", content=data, headers={"Content-Type": kind})
            else:
                answer = client.post("/enhance", files={"image": ("photo.jpg", data, kind)})
        case Body(data, kind, path, headers):
            types = [(b"Content-Type", kind.encode("latin-1")), *((n.encode(), v.encode()) for n, v in headers)]
            answer = client.post(path, content=data, headers=types)
        case Pair(image, reference, path):
            answer = client.post(path, files={"image": image, "reference": reference})
        case Wire(data):
            return _wire(case, str(client.base_url), data)
        case Talk():
            return _talk(case, case.sent, str(client.base_url))
    return _judged(case, answer.status_code, answer.headers.get("content-type", ""), answer.content)


def _judged(case: Case, status: int, kind: str, body: bytes) -> list[str]:
    if status == 200 and kind == "application/zip" and case.entries:
        return _judged_zip(case, body)
    if status == 200:
        return [] if case.harmless else ["it was answered with 200"]
    if not 400 <= status < 500:
        return [f"{status} {body[:300]!r}"]
    if kind != _PROBLEM:
        return [] if "*" in case.problems else [f"{status} is no problem: {body[:100]!r}"]
    return list(problem_faults(json.loads(body), status, case.problems))


def problem_faults(problem: dict[str, Any], status: int | None, allowed: frozenset[str]) -> Iterator[str]:
    """Say what is wrong with a problem.

    Args:
        problem: its members.
        status: of the answer; None where it is one of several in a zip.
        allowed: names of those that may be answered; `*` for any.
    """
    name = str(problem["type"]).removeprefix("urn:pix2dslr:problem:")
    if name not in allowed and "*" not in allowed:
        yield f"{problem['status']} {name}: {problem['detail']}"
    if status not in (None, problem["status"]) or not 400 <= problem["status"] < 500:
        yield f"status {status}, and the problem says {problem['status']}"
    words = f"{problem['title']} {problem['detail']}".lower()
    yield from (f"the detail says {leak!r}: {words[:200]}" for leak in _LEAKS if leak in words)
    if len(words) > 1000:
        yield f"the detail has {len(words)} characters"


def _judged_zip(case: Case, body: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        names = archive.namelist()
        errors = json.loads(archive.read("errors.json"))["errors"]
    wrong = [fault for error in errors for fault in problem_faults(error, None, case.problems)]
    wrong += [f"the answer holds {name!r}" for name in names if ".." in name or name.startswith(("/", "\\"))]
    return wrong if len(errors) == case.entries else [*wrong, f"{len(errors)} of {case.entries} entries are refused"]


def _wire(case: Case, url: str, data: bytes) -> list[str]:
    parts = urlsplit(url)
    answer = b""
    with socket.create_connection((parts.hostname, parts.port), case.seconds) as connection:
        try:
            connection.sendall(data)
            connection.settimeout(_QUIET_S)
            answer = connection.recv(65_536)
        except TimeoutError:  # it waits for more, as it has to
            pass
        except OSError:  # it closed before all was sent
            return []
        try:
            connection.settimeout(case.seconds)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                answer += piece
        except TimeoutError:
            return [f"the connection stays open after {answer[:100]!r}"]
        except OSError:
            pass
    if not answer:
        return [] if "*" in case.problems else ["the connection was closed without an answer"]
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    status = int(lines[0].split()[1])
    size = next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), len(body))
    body = body[:size]  # what follows is the answer to what follows
    kind = next((line.partition(":")[2].strip() for line in lines if line.startswith("content-type:")), "")
    if any(line.startswith(("set-cookie:", "x-evil:")) for line in lines):
        return ["the answer has a header of ours"]
    return _judged(case, status, kind, body)


def _talk(case: Case, talk: Talk, url: str) -> list[str]:
    """Say it all, then send a good picture on the same connection, whose answer ends the talk."""
    wrong: list[str] = []
    problems = 0
    frames = sum(isinstance(message, bytes) for message in talk.messages) + 1
    with connect(url.replace("http", "ws").rstrip("/") + "/live", max_size=None, proxy=None) as connection:
        try:
            for message in (*talk.messages, '{"format": "png"}', good.png()):
                connection.send(message)
            while True:
                text = connection.recv(case.seconds)
                event = json.loads(text) if isinstance(text, str) else {}
                if event.get("type") == "problem":
                    problems += 1
                    wrong += problem_faults(event["problem"], None, case.problems)
                if event.get("frame") == frames and event.get("type") in ("result", "problem"):
                    if event["type"] == "problem":
                        wrong.append("the good picture after it is refused")
                    break
        except ConnectionClosed as closed:
            said = closed.rcvd.code if closed.rcvd else None
            return wrong if talk.closes and said in (1009, None) else [*wrong, f"the connection was closed: {said}"]
    return [*wrong, *([] if problems else ["nothing was refused"]), *(["it stays open"] if talk.closes else [])]
