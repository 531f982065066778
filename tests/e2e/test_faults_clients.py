"""Clients that hang up at random points, and one that pauses: what they leave behind, and what others notice."""

import asyncio
import contextlib
import json
import random
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from websockets.asyncio.client import connect

from service.decoding.pool import decode_workers
from service.tiling import plan
from tests.e2e.conftest import Serve, Server, noise, pixels_of, png

SMALL = png(noise(150, 200))
BIG = png(np.zeros((1000, 1000, 3), np.uint8))
BIG_TILES = plan(1000, 1000).tiles
BIG_HANGS = ("sent", "half-closed")
POINTS = ("connected", "headers", "body", "sent", "half-closed", "answer", "zip")
AT_A_TIME = 250
MOST_MORE_MB = 48
"""Memory that a second storm may add to the first one's: what a few pictures take."""


def wait_until(met: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def descriptors(server: Server) -> int:
    """How many the server has open; once all its workers run."""
    process = psutil.Process(server.process.pid)
    wait_until(lambda: len(process.children()) >= decode_workers(), "all workers run")
    return int(process.num_fds())


def at_rest(server: Server, most_descriptors: int) -> float:
    """Wait until nothing is left of any client; return MB of resident memory."""
    # the one in flight is the question itself
    wait_until(lambda: server.metric("pix2dslr_requests_in_flight") == 1, "no request is left")
    assert server.metric("pix2dslr_queue_tiles") == 0
    wait_until(lambda: descriptors(server) <= most_descriptors, "no connection is left")
    return float(psutil.Process(server.process.pid).memory_info().rss / 2**20)


def still_right(server: Server, expected: bytes) -> None:
    """The server is ready, answers as before, and ran no tile but those of that answer."""
    tiles = server.metric("pix2dslr_tiles_total")
    with server.client() as client:
        assert client.get("/readyz").status_code == 200
        answer = client.post("/enhance", files={"image": SMALL})
    assert answer.status_code == 200
    assert answer.content == expected
    assert server.metric("pix2dslr_tiles_total") == tiles + plan(150, 200).tiles


def form(*pictures: bytes) -> bytes:
    """A whole request."""
    request = httpx.Request("POST", "http://localhost/enhance", files=[("image", data) for data in pictures])
    body = request.read()
    head = f"POST /enhance HTTP/1.1\r\nHost: localhost\r\nContent-Type: {request.headers['Content-Type']}\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


async def hang_up(server: Server, point: str, requests: dict[str, bytes], rng: random.Random) -> None:
    """One client, gone at some point without a word or with a reset."""
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    request = requests["zip" if point == "zip" else "big" if point in BIG_HANGS else "small"]
    head = request.index(b"\r\n\r\n")
    sent = {"connected": 0, "headers": rng.randrange(1, head), "body": rng.randrange(head + 4, len(request))}
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(request[: sent.get(point, len(request))])
        await writer.drain()
        if point == "half-closed":
            writer.write_eof()
        if point in ("answer", "zip"):
            async with asyncio.timeout(rng.uniform(0.5, 3)):
                await reader.read(rng.randrange(1, 2000))
        elif point in BIG_HANGS:
            await asyncio.sleep(rng.uniform(0, 1))  # some wait then, some are decoded, some have tiles on the device
    if rng.random() < 0.5:  # with a reset, as a process that is killed with bytes unread
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def storm(server: Server, count: int, seed: int) -> None:
    rng = random.Random(seed)
    requests = {"small": form(SMALL), "big": form(BIG), "zip": form(SMALL, BIG, SMALL)}

    async def all_clients() -> None:
        room = asyncio.Semaphore(AT_A_TIME)

        async def one(point: str) -> None:
            async with room:
                await hang_up(server, point, requests, rng)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(POINTS[number % len(POINTS)]))

    asyncio.run(all_clients())


@pytest.fixture(scope="module")
def stormy(serve_session: Serve) -> Server:
    return serve_session()


def test_a_thousand_clients_that_hang_up_leave_nothing_behind(stormy: Server) -> None:
    before = descriptors(stormy)
    with stormy.client() as client:
        expected = client.post("/enhance", files={"image": SMALL}).content
    memory = []
    for seed in (1, 2):
        storm(stormy, 500, seed)
        memory.append(at_rest(stormy, before))
        still_right(stormy, expected)
    assert stormy.metric("pix2dslr_tiles_total") < 1000 / len(POINTS) * BIG_TILES, "most of them were dropped"
    assert memory[1] < memory[0] + MOST_MORE_MB
    assert not [line for line in stormy.log if " ERROR " in line or "Traceback" in line]


async def _leave_live(server: Server, rng: random.Random) -> None:
    async with connect(server.url.replace("http", "ws") + "/live", max_size=None, proxy=None) as live:
        await live.recv()
        await live.send(json.dumps({"mode": rng.choice(["photo", "live"])}))
        for _ in range(rng.randrange(4)):
            await live.send(rng.choice([SMALL, BIG]))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rng.uniform(0, 1)):
                async for _ in live:
                    pass
        live.transport.abort()


def test_live_clients_that_vanish_leave_nothing_behind(stormy: Server) -> None:
    before = descriptors(stormy)
    with stormy.client() as client:
        expected = client.post("/enhance", files={"image": SMALL}).content
    rng = random.Random(3)

    async def all_clients() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(150):
                group.create_task(_leave_live(stormy, rng))

    asyncio.run(all_clients())
    at_rest(stormy, before)
    still_right(stormy, expected)
    assert not [line for line in stormy.log if " ERROR " in line or "Traceback" in line]


@pytest.mark.parametrize("count", [1, 3], ids=["picture", "zip"])
def test_a_client_that_pauses_reading_disturbs_nobody(identity_server: Server, count: int) -> None:
    """Its answer is far more than the socket's buffers hold; it reads on at the end and has all of it."""
    pixels = noise(1500, 1500)
    url = urlsplit(identity_server.url)
    paused = socket.socket()
    paused.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with paused:
        paused.settimeout(60)
        paused.connect((url.hostname, url.port))
        paused.sendall(form(*[png(pixels)] * count).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        answer = paused.recv(1)

        def other(number: int) -> bool:
            own = noise(60 + number, 90, number)
            with identity_server.client() as client:
                got = client.post("/enhance", files={"image": png(own)})
            return got.status_code == 200 and np.array_equal(pixels_of(got.content), own)

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(other, range(50)))
        pieces = [answer]
        while piece := paused.recv(1 << 20):
            pieces.append(piece)
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    if count == 1:
        np.testing.assert_array_equal(pixels_of(body), pixels)
    else:
        assert body.count(b"errors.json") == 2, "in an entry and in the directory"
