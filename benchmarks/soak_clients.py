"""The clients of a soak: they ask at given times or as fast as they are answered, and check every answer."""

import asyncio
import hashlib
import io
import json
import random
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import httpx
import numpy as np
import websockets
from websockets.asyncio.client import connect

from benchmarks.soak_mix import BARELY, Ask, Mix

TRIES: Final = 4
"""How often a client asks before it takes a 429 for an answer."""

MOST: Final = 4000
"""Requests that may be under way; beyond them the load is not what it should be, and they are counted as dropped."""

LATE_S: Final = 1.0
"""A request that begins this much after its time counts as dropped too: the generator did not keep up."""

LIVE_PAUSE_S: Final = 0.5


@dataclass(frozen=True)
class Answer:
    """How a request ended.

    Attributes:
        at: seconds since the epoch.
        took: seconds of its last try, from its first byte to the answer's last.
        what: its class: `ok` (and `unchanged`, 304, and `near`, right but for a rounding), `refused` (what bad input
            gets), `rejected` (429 or 503 with Retry-After), `late` (504), `hung up` (by the client, as planned),
            `wrong` (a picture, but not this request's), `unexplained`.
        tiles: of an `ok` one, else 0.
        name: the request's.
        detail: what was wrong.
    """

    at: float
    took: float
    what: str
    tiles: int
    name: str
    detail: str = ""


@dataclass
class Seen:
    """What the clients of a phase saw."""

    answers: list[Answer] = field(default_factory=list)
    tries: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    dropped: int = 0

    def counts(self) -> Counter[str]:
        """How many ended how."""
        return Counter(answer.what for answer in self.answers)

    def good(self, begin: float, end: float) -> tuple[float, float]:
        """Pictures and tiles a second that were answered right between two times."""
        right = [a for a in self.answers if a.what in ("ok", "near", "unchanged") and begin <= a.at < end]
        return len(right) / (end - begin), sum(answer.tiles for answer in right) / (end - begin)


class Clients:
    """Clients of one server; each request is sent over any of their connections."""

    def __init__(self, url: str, mix: Mix, seed: int = 0) -> None:
        self._url = url
        self._mix = mix
        self._rng = random.Random(seed)
        self._tags: dict[str, str] = {}
        self._digests = {ask.name: hashlib.sha256(ask.expected).digest() for ask in mix.asks if ask.kind == "picture"}

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[httpx.AsyncClient]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        async with httpx.AsyncClient(base_url=self._url, timeout=900, limits=limits, trust_env=False) as client:
            yield client

    async def closed(self, clients: int, seconds: float) -> Seen:
        """Let clients ask for as long, each again once it is answered; without bad input."""
        seen, end, mix = Seen(), time.time() + seconds, self._mix.good()

        async def one(http: httpx.AsyncClient) -> None:
            while time.time() < end:
                await self._ask(http, mix.draw(), seen, patient=True)

        async with self._http() as http, asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(one(http))
        return seen

    async def opened(self, rate: float, seconds: float, live: int) -> Seen:
        """Send requests at a rate, at random times (Poisson), whatever becomes of those before; and live frames."""
        seen, tasks, begin = Seen(), set[asyncio.Task[None]](), time.time()
        due = begin + self._rng.expovariate(rate)
        ended = asyncio.Event()
        async with self._http() as http:
            cameras = [asyncio.create_task(self._live(ended, seen)) for _ in range(live)]
            while due < begin + seconds:
                await asyncio.sleep(max(0.0, due - time.time()))
                seen.sent += 1
                if len(tasks) >= MOST or time.time() - due > LATE_S:
                    seen.dropped += 1
                else:
                    task = asyncio.create_task(self._one(http, seen))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                due += self._rng.expovariate(rate)
            ended.set()
            await asyncio.gather(*tasks, *cameras)
        return seen

    async def _one(self, http: httpx.AsyncClient, seen: Seen) -> None:
        ask, manner = self._mix.draw(), self._rng.random()
        if manner < 0.04 and ask.kind != "bad":
            start = time.perf_counter()
            try:
                async with asyncio.timeout(self._rng.expovariate(2)):
                    await self._ask(http, ask, seen, patient=False)
            except TimeoutError:
                seen.answers.append(Answer(time.time(), time.perf_counter() - start, "hung up", 0, ask.name))
            return
        await self._ask(http, ask, seen, patient=manner < 0.52)

    async def _ask(self, http: httpx.AsyncClient, ask: Ask, seen: Seen, *, patient: bool) -> None:
        """Ask up to `TRIES` times; patient clients wait as they are told, others come back at once."""
        answer = Answer(0, 0, "unexplained", 0, ask.name)
        for left in reversed(range(TRIES)):
            start = time.perf_counter()
            known = self._tags.get(ask.name) if self._rng.random() < 0.05 else None
            identity = uuid.uuid4().hex
            headers = {**ask.headers, "X-Request-ID": identity} | ({"If-None-Match": known} if known else {})
            wait = 0.0
            try:
                if "Content-Length" in ask.headers:
                    got = await _head_alone(http.base_url, ask.path, headers)
                else:
                    got = await http.post(ask.path, content=ask.body, headers=headers)
            except (httpx.TransportError, httpx.StreamError, OSError, EOFError) as error:
                what, detail = "unexplained", repr(error)
            else:
                seen.tries[got.status_code] += 1
                what, detail = self._judge(ask, got, identity, known)
                wait = float(got.headers.get("Retry-After", 0))
            took = time.perf_counter() - start
            tiles = ask.tiles if what in ("ok", "near") else 0
            answer = Answer(time.time(), took, what, tiles, ask.name, detail)
            if what != "rejected" or not left:
                break
            await asyncio.sleep(wait if patient else 0.1)
        seen.answers.append(answer)

    def _judge(self, ask: Ask, got: httpx.Response, identity: str, known: str | None) -> tuple[str, str]:
        status = got.status_code
        said = f"{status} {got.text[:300] if status >= 400 else got.headers}"
        if got.headers.get("X-Request-ID") != identity:
            return "wrong", f"another's id: {said}"
        if ask.kind == "bad" and status in ask.expected:
            return "refused", ""
        if status in (429, 503) and "Retry-After" in got.headers:
            return "rejected", ""
        if status == 504:
            return "late", said
        if status == 304 and known is not None:
            return "unchanged", ""
        if status != 200 or ask.kind == "bad":
            return "unexplained", said
        if ask.kind == "zip":
            return _judge_zip(got.content, ask.expected)
        if ask.kind == "evaluate":
            scores = got.json()
            same = all(scores[side] == expected for side, expected in ask.expected.items())
            return ("ok", "") if same else ("wrong", got.text[:300])
        if ask.kind == "unique":
            return judge_pixels(got.content, ask.expected)
        if self._tags.setdefault(ask.name, got.headers["ETag"]) != got.headers["ETag"]:
            return "wrong", f"another tag: {said}"
        if hashlib.sha256(got.content).digest() == self._digests[ask.name]:
            return "ok", ""
        return judge_pixels(got.content, cv2.imdecode(np.frombuffer(ask.expected, np.uint8), cv2.IMREAD_COLOR))

    async def _live(self, ended: asyncio.Event, seen: Seen) -> None:
        """One camera: a frame, its answer, a pause."""
        while not ended.is_set():
            try:
                async with connect(
                    self._url.replace("http", "ws") + "/live", max_size=None, proxy=None, ping_timeout=None
                ) as socket:
                    await socket.send(json.dumps({"strength": BARELY, "mode": "live"}))
                    while not ended.is_set():
                        await self._frame(socket, seen)
                        await asyncio.sleep(LIVE_PAUSE_S)
            except (OSError, websockets.WebSocketException) as error:
                seen.answers.append(Answer(time.time(), 0, "unexplained", 0, "live", repr(error)))
                await asyncio.sleep(1)

    async def _frame(self, socket: Any, seen: Seen) -> None:
        start = time.perf_counter()
        pixels = np.random.default_rng(self._rng.getrandbits(32)).integers(0, 256, (240, 320, 3), np.uint8)
        await socket.send(cv2.imencode(".bmp", pixels)[1].tobytes())
        while True:
            event = json.loads(await socket.recv())
            if event["type"] == "result":
                what, detail = judge_pixels(await socket.recv(), pixels)
                break
            if event["type"] == "problem":
                what, detail = "rejected" if "retry_after" in event else "unexplained", json.dumps(event)
                break
        took, tiles = time.perf_counter() - start, event["tiles"] if what == "ok" else 0
        seen.answers.append(Answer(time.time(), took, what, tiles, "live", detail))


async def _head_alone(url: httpx.URL, path: str, headers: dict[str, str]) -> httpx.Response:
    """Send a request's head, whose length promises more, and read the answer."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    lines = [f"POST {path} HTTP/1.1", f"Host: {url.netloc.decode()}", *(f"{k}: {v}" for k, v in headers.items())]
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode())
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        answered = dict(line.split(": ", 1) for line in rest if line)
        length = int(answered["content-length"])
        return httpx.Response(int(first.split()[1]), headers=answered, content=await reader.readexactly(length))
    finally:
        writer.close()


def judge_pixels(data: bytes, expected: Any) -> tuple[str, str]:
    """Compare a picture's pixels with those that it has to have: `ok`, `near` (by one level at most) or `wrong`."""
    got = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if got is None or expected is None:  # OpenCV here reads no HEIC
        return "wrong", "other bytes, in a format that is not decoded here"
    if got.shape != expected.shape:
        return "wrong", f"{got.shape} instead of {expected.shape}"
    off = int(cv2.absdiff(got, expected).max())
    return ("ok", "") if off == 0 else ("near" if off == 1 else "wrong", f"off by up to {off}")


def _judge_zip(data: bytes, expected: dict[str, bytes]) -> tuple[str, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = set(archive.namelist())
        errors = json.loads(archive.read("errors.json"))["errors"]
        for name in names & expected.keys():
            if archive.read(name) != expected[name]:
                return "wrong", f"{name} in a zip is another's"
    if any(error["status"] not in (429, 503) for error in errors) or not names <= {*expected, "errors.json"}:
        return "unexplained", f"{names}: {errors}"
    return ("rejected", "") if errors else ("ok", "")
