"""The whole app without a socket: raw bodies of forms, and conversations of WS /live."""

import asyncio
import base64
import json
import math
import tempfile
import threading
import zipfile
from collections.abc import MutableMapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from service import codec, problems
from service.app import create_app
from service.settings import Settings
from tests.fuzz import requests
from tests.fuzz.target import Broken, Target
from tests.fuzz.targets import LIMITS
from tests.onnx_files import write_generator

_END_WITHIN_S: Final = 30
_SLOW_STEP_S: Final = 0.02
"""Of the event loop; the warning is a finding, as all that is logged."""
_ENDS: Final = ("result", "problem", "dropped", "cancelled")
_SECRETS: Final = ("Traceback", "/service/", "site-packages", "cv2", "numpy", "PIL", "tempfile")
"""What no answer may say."""

Message = MutableMapping[str, Any]


class _Running:
    """One app with its event loop in a thread; it lives as long as the process."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="pix2dslr-fuzz-"))
        write_generator(folder / "iphone.onnx")
        settings = Settings(
            models=folder,
            threads=1,
            batch_sizes=(1, 4),
            max_body_bytes=1 << 20,
            max_pixels=LIMITS.max_pixels,
            max_files=5,
            slow_step_s=_SLOW_STEP_S,
        )
        self.app = create_app(settings)
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self._run, args=(started,), daemon=True).start()
        if not started.wait(60):
            raise RuntimeError("the app did not become ready")

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._live(started))

    async def _live(self, started: threading.Event) -> None:
        async with self.app.router.lifespan_context(self.app):
            while self.app.state.parts.not_ready:  # noqa: ASYNC110  the service has no event for it
                await asyncio.sleep(0.01)
            started.set()
            await asyncio.Event().wait()

    def call(self, scope: Message, conversation: "_Conversation") -> None:
        """Serve one request or connection to its end."""

        async def served() -> None:
            await asyncio.wait_for(self.app(scope, conversation.receive, conversation.send), _END_WITHIN_S)

        asyncio.run_coroutine_threadsafe(served(), self.loop).result()


@cache
def _running() -> _Running:
    return _Running()


class _Conversation:
    """What the client says, in its order, and what it is told."""

    def __init__(self, says: list[Message], frames: float = 0) -> None:
        """Say this, and hang up once so many frames are done with."""
        self._says = says
        self._frames = frames
        self.told: list[Message] = []
        self._news = asyncio.Event()

    async def receive(self) -> Message:
        if self._says:
            return self._says.pop(0)
        while len(self.ends()) < self._frames:
            self._news.clear()
            await self._news.wait()
            if self.told[-1]["type"] == "websocket.close":
                break
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, message: Message) -> None:
        self.told.append(message)
        self._news.set()

    def events(self) -> list[Message]:
        return [json.loads(each["text"]) for each in self.told if each.get("text") is not None]

    def ends(self) -> list[int]:
        """Numbers of the frames that are done with."""
        return [each["frame"] for each in self.events() if each["type"] in _ENDS and each.get("frame") is not None]


def _scope(kind: str, path: str, headers: list[tuple[str, str]], query: str = "") -> Message:
    return {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
        "root_path": "",
        "raw_path": path.encode(), "query_string": query.encode("latin-1", "replace"), "subprotocols": [],
        "scheme": "http" if kind == "http" else "ws", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
        "headers": [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers],
    }  # fmt: skip


def _form(data: bytes) -> str:
    """A request: a line of JSON, its body behind it, which comes in pieces."""
    head, _, body = data.partition(b"\n")
    told = json.loads(head)
    size = told["piece"]
    pieces = [body[place : place + size] for place in range(0, len(body), size)] or [b""]
    says: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces) - 1}
        for place, piece in enumerate(pieces)
    ]
    conversation = _Conversation(says, frames=math.inf)  # it never hangs up
    headers = [("host", "localhost"), *map(tuple, told["headers"])]
    _running().call(_scope("http", told["path"], headers, told["query"]), conversation)
    start, *rest = conversation.told
    status = start["status"]
    answer = b"".join(each.get("body", b"") for each in rest)
    kind = dict(start["headers"]).get(b"content-type", b"").decode()
    if status >= 400:
        _check_problem(json.loads(answer), status, kind)
    elif kind == "application/zip":
        with zipfile.ZipFile(BytesIO(answer)) as archive:
            if archive.testzip() is not None or archive.namelist()[-1] != "errors.json":
                raise Broken("the zip is damaged")
            for problem in json.loads(archive.read("errors.json"))["errors"]:
                if problem["status"] >= 500:
                    raise Broken(f"{problem}")
    elif kind.startswith("image/"):
        codec.read_header(answer, LIMITS)
    return f"{told['path']} {status}"


def _check_problem(problem: Message, status: int, kind: str = problems.MEDIA_TYPE) -> None:
    if kind != problems.MEDIA_TYPE or problem["status"] != status or not problem["detail"]:
        raise Broken(f"{status} without a problem: {problem}")
    known = {f"urn:pix2dslr:problem:{each.type}": each.status for each in problems.all_problems()}
    if known[problem["type"]] != status or status >= 500:
        raise Broken(f"{status}: {problem}")
    if any(secret in problem["detail"] for secret in _SECRETS):
        raise Broken(f"it tells too much: {problem['detail']}")


def _live(data: bytes) -> str:
    """A conversation: JSON, a list of texts and of binaries in base64. Each binary message is a frame with one end."""
    says: list[Message] = [{"type": "websocket.connect"}]
    frames = 0
    for kind, content in json.loads(data):
        if kind == "text":
            says.append({"type": "websocket.receive", "text": content})
        else:
            says.append({"type": "websocket.receive", "bytes": base64.b64decode(content)})
            frames += 1
    conversation = _Conversation(says, frames)
    _running().call(_scope("websocket", "/live", [("host", "localhost")]), conversation)
    ends = conversation.ends()
    if frames and sorted(ends) != list(range(1, frames + 1)):
        raise Broken(f"of {frames} frames these ended: {ends}")
    for event in conversation.events():
        if event["type"] == "problem":
            _check_problem(event["problem"], event["problem"]["status"])
    for before, after in zip(conversation.told, conversation.told[1:], strict=False):
        if "bytes" in after and json.loads(before["text"])["type"] != "result":
            raise Broken("a picture without its result")
    kinds = sorted({event["type"] for event in conversation.events()} - {"ready", "accepted", "progress"})
    return " ".join(kinds) or "nothing"


TARGETS: Final = {"form": Target(requests.make_form, _form), "live": Target(requests.make_conversation, _live)}
