"""WS /live on a real server, by another client than the page's."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.codec import FORMATS
from service.quality import seam_index
from service.tiling import plan
from tests.e2e.conftest import Serve, Server, noise, pixels_of, png

GOOD = png(noise(20, 20))
BIG = png(np.zeros((1600, 1600, 3), np.uint8))
BIG_TILES = plan(1600, 1600).tiles

Event = dict[str, Any]


class Live:
    """A connection, and what came on it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.ready: Event = self.event()

    def send(self, picture: bytes) -> None:
        self.socket.send(picture)

    def say(self, **message: object) -> None:
        self.socket.send(json.dumps(message))

    def event(self) -> Event:
        text = self.socket.recv(60)
        assert isinstance(text, str)
        event: Event = json.loads(text)
        if event["type"] == "result":
            event["picture"] = self.socket.recv(60)
            assert len(event["picture"]) == event["bytes"]
        return event

    def until(self, *types: str) -> Event:
        while (event := self.event())["type"] not in types:
            pass
        return event


@contextmanager
def open_live(server: Server, **options: Any) -> Iterator[Live]:
    url = server.url.replace("http", "ws") + "/live"
    with connect(url, max_size=None, proxy=None, **options) as socket:
        yield Live(socket)


@pytest.fixture
def live(server: Server) -> Iterator[Live]:
    with open_live(server) as made:
        yield made


def test_a_photo_with_its_progress(live: Live, client: httpx.Client, photo: npt.NDArray[np.uint8]) -> None:
    assert live.ready == {
        "type": "ready",
        "formats": list(FORMATS),
        "max_bytes": 64 << 20,
        "max_pixels": 100_000_000,
    }
    live.say(strength=0.5, format="png", seam_index=True)
    live.send(png(photo))
    tiles = plan(400, 600).tiles
    assert live.event() == {"type": "accepted", "frame": 1, "tiles": tiles}
    done = 0
    while (event := live.event())["type"] == "progress":
        assert event["frame"] == 1
        assert done < event["done"] <= event["total"] == tiles
        done = event["done"]
    assert done == tiles
    assert event["type"] == "result"
    facts = {"frame": 1, "camera": "iphone", "tiles": tiles, "width": 600, "height": 400, "media_type": "image/png"}
    assert event.items() >= facts.items()
    assert event["device"] in ("cpu", "cuda")
    assert event["timings"].keys() >= {"decode", "queue", "inference", "blend", "quality", "encode", "total"}
    output = pixels_of(event["picture"])
    assert event["seam_index"] == pytest.approx(seam_index(photo, output, plan(400, 600)))
    posted = client.post("/enhance", files={"image": png(photo)}, data={"strength": "0.5"})
    np.testing.assert_array_equal(output, pixels_of(posted.content))


def test_options_hold_until_others_come(identity_server: Server) -> None:
    with open_live(identity_server) as live:
        live.say(format="webp", encoder_quality=100)
        live.send(GOOD)
        live.send(GOOD)
        live.say(type="options")
        live.send(GOOD)
        kinds = [live.until("result")["media_type"] for _ in range(3)]
    assert kinds == ["image/webp", "image/webp", "image/png"]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("no JSON", "malformed-request"),
        ("[1]", "malformed-request"),
        ("[" * 9_999, "malformed-request"),
        (json.dumps({"camera": "x" * 10_000}), "malformed-request"),
        ('{"strength": 2}', "invalid-parameter"),
        ('{"strenght": 1}', "invalid-parameter"),
        ('{"mode": "film"}', "invalid-parameter"),
        ('{"type": "cancel", "frame": "x"}', "invalid-parameter"),
        ('{"type": "stop"}', "invalid-parameter"),
        (b"", "malformed-request"),
        (b"GIF89a", "unsupported-format"),
        (GOOD[: len(GOOD) // 2], "malformed-picture"),
    ],
    ids=lambda value: None if isinstance(value, str) and len(value) > 100 else str(value)[:24],
)
def test_a_problem_leaves_the_connection_usable(identity_server: Server, message: str | bytes, problem: str) -> None:
    with open_live(identity_server) as live:
        live.socket.send(message)
        event = live.until("problem")
        assert event["frame"] == (1 if isinstance(message, bytes) else None)
        assert event["problem"].keys() == {"type", "title", "status", "detail", "request_id"}
        assert event["problem"]["type"] == f"urn:pix2dslr:problem:{problem}"
        response = live.socket.response
        assert response is not None
        assert event["problem"]["request_id"] == response.headers["x-request-id"]
        live.send(GOOD)
        np.testing.assert_array_equal(pixels_of(live.until("result")["picture"]), noise(20, 20))


def test_names_in_any_case(identity_server: Server) -> None:
    with open_live(identity_server) as live:
        live.say(format="JPG", camera="iPhone", strength=0)
        live.send(GOOD)
        assert live.event()["tiles"] == 0
        result = live.event()
        assert (result["media_type"], result["camera"], result["tiles"]) == ("image/jpeg", "iphone", 0)


def test_an_unknown_camera_is_the_frames_problem(live: Live) -> None:
    live.say(camera="kodak")
    live.send(GOOD)
    assert live.event()["problem"]["type"] == "urn:pix2dslr:problem:unknown-camera"


def test_of_live_frames_only_the_latest_is_done(live: Live, photo: npt.NDArray[np.uint8]) -> None:
    live.say(mode="live", format="jpeg")
    files = [png(np.roll(photo, 10 * i, axis=1)) for i in range(12)]
    for data in files:
        live.send(data)
    ends: dict[int, str] = {}
    while len(ends) < len(files):
        event = live.event()
        assert event["type"] in ("accepted", "dropped", "result"), "no progress of live frames"
        if event["type"] != "accepted":
            ends[event["frame"]] = event["type"]
    assert set(ends.values()) == {"dropped", "result"}
    assert ends[len(files)] == "result", "the last one is never dropped"
    assert list(ends.values()).count("result") < len(files) / 2, "a queue would have done them all"


def test_photos_wait_in_order_and_not_without_end(live: Live) -> None:
    live.send(BIG)
    live.until("accepted")
    for _ in range(6):
        live.send(GOOD)
    ended: list[tuple[str, int]] = []
    while len(ended) < 7:
        event = live.until("result", "problem")
        ended.append((event["type"], event["frame"]))
    assert ended == [("problem", 6), ("problem", 7), *(("result", number) for number in range(1, 6))]


@pytest.mark.parametrize("by", ["message", "frame", "closing", "breaking"])
def test_cancelling_drops_the_tiles(serve_session: Serve, by: str) -> None:
    server = serve_session()
    with open_live(server) as live:
        live.send(BIG)
        live.send(GOOD)
        live.until("progress")
        assert server.metric("pix2dslr_queue_tiles") > 0
        if by == "message":
            live.say(type="cancel")
            assert {live.until("cancelled")["frame"], live.until("cancelled")["frame"]} == {1, 2}
        elif by == "frame":
            live.say(type="cancel", frame=1)
            assert live.until("cancelled")["frame"] == 1
            assert live.until("result")["frame"] == 2
        elif by == "closing":
            live.socket.close()
        else:
            live.socket.socket.shutdown(2)
        while server.metric("pix2dslr_queue_tiles"):
            pass
    assert server.metric("pix2dslr_tiles_total") < BIG_TILES, "the rest was dropped"
    if by == "message":
        assert server.metric('pix2dslr_live_frames_total{end="cancelled"}') == 2
    with server.client() as client:
        assert client.post("/enhance", files={"image": GOOD}).status_code == 200
    assert server.stop() == 0


def test_draining_finishes_the_running_frame_and_closes(serve_session: Serve) -> None:
    server = serve_session()
    with open_live(server) as idle, open_live(server) as live:
        live.send(BIG)
        live.send(GOOD)
        live.until("progress")
        server.process.send_signal(signal.SIGTERM)
        waiting = live.until("problem")
        assert (waiting["frame"], waiting["problem"]["status"]) == (2, 503)
        assert live.until("result")["frame"] == 1
        for each in (live, idle):
            with pytest.raises(ConnectionClosed) as closed:
                each.event()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "The service is shutting down.")
    assert server.process.wait(60) == 0


def test_an_idle_connection_keeps_nobody_from_ending(serve_session: Serve) -> None:
    server = serve_session()
    with open_live(server), open_live(server):
        assert server.stop() == 0


def test_while_it_drains_others_are_refused_with_the_reason(serve_session: Serve) -> None:
    server = serve_session()
    with ThreadPoolExecutor(1) as pool, server.client() as client:
        big = pool.submit(lambda: client.post("/enhance", files={"image": BIG}))
        while not server.metric("pix2dslr_queue_tiles"):
            pass
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("SIGTERM")
        url = server.url.replace("http", "ws") + "/live"
        with connect(url, proxy=None) as socket, pytest.raises(ConnectionClosed) as closed:
            socket.recv(60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
        assert "shutting down" in closed.value.rcvd.reason
        through_a_proxy = {"X-Forwarded-For": "192.0.2.1", "X-Request-ID": "handshake"}
        with pytest.raises(InvalidStatus) as refused, connect(url, proxy=None, additional_headers=through_a_proxy):
            pass
        answer = refused.value.response
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert json.loads(answer.body or b"")["type"] == "urn:pix2dslr:problem:not-ready"
        assert answer.headers["x-request-id"] == json.loads(answer.body or b"")["request_id"] == "handshake"
        assert server.metric('pix2dslr_requests_total{route="/live",status="503"}') >= 1
        assert big.result().status_code == 200
    assert server.process.wait(60) == 0


def test_a_message_of_too_many_bytes_closes_the_connection(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_session(models=identity_folder, max_body_bytes=100_000)
    with open_live(server) as live:
        assert live.ready["max_bytes"] == 100_000
        live.send(png(noise(150, 200)))
        live.until("result")
        live.send(b"x" * 100_001)
        with pytest.raises(ConnectionClosed) as closed:
            live.event()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    with open_live(server) as live:
        live.send(GOOD)
        live.until("result")
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("origin", "headers", "passes"),
    [
        (None, {}, True),
        ("{url}", {}, True),
        ("http://evil.example", {}, False),
        ("null", {}, False),
        ("http://127.0.0.1:1", {}, False),
        ("https://photos.example", {"X-Forwarded-Host": "photos.example"}, True),
        ("https://photos.example", {"X-Forwarded-Host": "photos.example:443, inner"}, True),
        ("https://evil.example", {"X-Forwarded-Host": "photos.example"}, False),
    ],
)
def test_only_the_pages_own_site_may_connect(
    identity_server: Server, origin: str | None, headers: dict[str, str], passes: bool
) -> None:
    named = None if origin is None else origin.format(url=identity_server.url)
    if passes:
        with open_live(identity_server, origin=named, additional_headers=headers) as live:
            live.send(GOOD)
            live.until("result")
        return
    with pytest.raises(InvalidStatus) as refused, open_live(identity_server, origin=named, additional_headers=headers):
        pass
    assert refused.value.response.status_code == 403


def test_connections_and_frames_are_counted(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_session(models=identity_folder)
    with open_live(server) as live:
        live.send(GOOD)
        live.until("result")
        live.send(b"GIF89a")
        live.until("problem")
    counted = 'pix2dslr_requests_total{route="/live",status="101"}'
    with server.client() as client:
        while counted not in client.get("/metrics").text:
            pass
    assert server.metric(counted) == 1
    assert server.metric('pix2dslr_live_frames_total{end="result"}') == 1
    assert server.metric('pix2dslr_live_frames_total{end="problem"}') == 1
    assert server.metric("pix2dslr_requests_in_flight") == 1, "this one"
    assert server.stop() == 0
