"""The log of a real server: every line of standard error is JSON, whatever happens, and tells what was answered."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.e2e.conftest import COMMAND, Run, Serve, Server, environment_with, noise, png
from tests.e2e.raw import frame, head, is_closed, open_socket, read_answer, shake_hands, wait_until
from tests.e2e.test_edge_logs import packed
from tests.onnx_files import write_generator

DARK = png(np.zeros((300, 400, 3), np.uint8))
LIGHT = png(noise(20, 20))
TRACE = "0af7651916cd43dd8448eb211c80319c"
READY = r'"message": "ready"'


def events(server: Server) -> list[dict[str, Any]]:
    """Every line so far; one that is no JSON fails the test."""
    return [json.loads(line) for line in list(server.log)]


def access(server: Server, identity: str) -> dict[str, Any]:
    """The line of the request with that id; waited for, since it is written when the answer has left."""
    found = server.wait_for(rf'"service.access".*"request_id": "{identity}"').string
    parsed: dict[str, Any] = json.loads(found)
    return parsed


def serve_json(serve_session: Serve, **settings: object) -> Server:
    server = serve_session(ready=False, log_format="auto", **settings)
    server.wait_for(READY)
    return server


def test_every_line_is_json_under_good_bad_and_killed_requests(serve_session: Serve, tmp_path: Path) -> None:
    # a device that fails on light pictures, decoding in the service's own process, where libraries may write, too
    write_generator(tmp_path / "iphone.onnx", fail_on_light=True)
    server = serve_json(serve_session, models=tmp_path, log_level="DEBUG", decode_workers=0, header_timeout_s=0.5)
    with server.client() as client:
        for data in (DARK, LIGHT, LIGHT[:60], b"GIF89a", b"\xff\xd8\xff\xe0" + bytes(500), b"II*\0" + bytes(500)):
            client.post("/enhance", files={"image": data})
            client.post("/evaluate", files={"image": data, "reference": LIGHT})
        client.post("/enhance", content=packed("a", "b", data=LIGHT), headers={"Content-Type": "application/zip"})
        client.get("/nowhere%0A{}")
    for hang_up_after in (head(content_length=1000), head(content_length=1000) + b"\0" * 500, b"GET / HTTP/1.1\r\nx"):
        with open_socket(server) as connection:
            connection.sendall(hang_up_after)
    with open_socket(server) as connection:
        connection.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        read_answer(connection)
    for origin in (None, Origin("https://evil.example")):
        url = server.url.replace("http", "ws") + "/live"
        with contextlib.suppress(InvalidStatus), connect(url, proxy=None, origin=origin) as live:
            live.recv(30)
            live.send(LIGHT)
            live.send("{")
            live.recv(30)
    for broken in (frame(b"\xff", opcode=1), frame(b"", opcode=3), frame(b"", claimed=1 << 40)):
        with open_socket(server) as connection:
            shake_hands(connection)
            connection.sendall(broken)
            assert is_closed(connection)
    with open_socket(server) as connection:  # a handshake that the library itself refuses
        connection.sendall(head("GET", "/live", connection="Upgrade", upgrade="websocket"))
        connection.recv(1000)
    with server.client() as client:
        client.get("/cameras", headers={"X-Request-ID": "the-last"})
    access(server, "the-last")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    told = events(server)
    assert {"service.access", "service.lanes", "service.server"} <= {event["logger"] for event in told}
    for event in told:
        assert {"time", "level", "logger", "message"} <= event.keys()
    assert {event.get("status") for event in told} >= {200, 400, 404, 415, 500, 101, 403, 499}
    assert not [event for event in told if "traceback" in event], "nothing here is the service's fault"
    failed = [event for event in told if event.get("problem") == "inference-failed"]
    assert failed
    assert failed[0]["tiles"] == 1


def test_an_access_line_tells_what_was_answered(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_json(serve_session, models=identity_folder, api_keys="ann:ann-sesame-0123456789")
    key = {"X-API-Key": "ann-sesame-0123456789"}
    with server.client() as client:
        sent = client.post(
            "/enhance",
            content=DARK,
            headers={**key, "X-Request-ID": "good", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
        )
        client.post("/enhance", content=b"GIF89a", headers={**key, "X-Request-ID": "bad"})
        client.post("/enhance", content=DARK, headers={"X-Request-ID": "unknown"})
        for path in ("/livez", "/readyz", "/healthz"):
            client.get(path, headers={"X-Request-ID": "probe"})
        client.get("/metrics", headers={**key, "X-Request-ID": "probe"})
    good = access(server, "good")
    assert good["message"] == "POST /enhance 200"
    assert (good["level"], good["method"], good["route"], good["status"]) == ("INFO", "POST", "/enhance", 200)
    assert (good["bytes_in"], good["bytes_out"]) == (len(DARK), len(sent.content))
    assert (good["camera"], good["device"], good["pixels"]) == ("iphone", "cpu", 120_000)
    assert (good["pictures"], good["tiles"]) == (1, int(sent.headers["x-pix2dslr-tiles"]))
    assert (good["client_key"], good["trace_id"]) == ("ann", TRACE)
    timing = re.search(r"total;dur=([\d.]+)", sent.headers["server-timing"])
    assert timing
    assert good["seconds"] * 1000 >= float(timing[1]) - 0.1
    assert "problem" not in good
    bad = access(server, "bad")
    assert (bad["status"], bad["problem"], bad["client_key"]) == (415, "unsupported-format", "ann")
    assert "tiles" not in bad
    unknown = access(server, "unknown")
    assert (unknown["status"], unknown["problem"], unknown["route"]) == (401, "unauthorized", "/enhance")
    assert unknown["bytes_in"] == 0
    assert "client_key" not in unknown
    assert not [event for event in events(server) if event.get("request_id") == "probe"]
    assert server.stop() == 0


def test_no_client_writes_a_line(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_json(serve_session, models=identity_folder, log_level="DEBUG")
    forged = '\n{"level": "CRITICAL", "message": "forged"}\n'
    with open_socket(server) as connection:
        connection.sendall(head("GET", "/%0a%7b%22level%22:%22CRITICAL%22%7d", x_request_id="a\\n{}", user_agent="{}"))
        read_answer(connection)
    with open_socket(server) as connection:
        connection.sendall(head("FORGED", "/enhance", x_request_id='"}'))
        read_answer(connection)
    with server.client() as client:
        files = {f"image{forged}": (f"a{forged}", DARK)}
        client.post("/enhance", params={"camera": forged, forged: "1"}, files=files, data={"camera": forged})
        # libraries in C that write to standard error by themselves are in the decode workers, whose words go nowhere
        damaged = bytearray(DARK)
        damaged[-20] ^= 0xFF
        client.post("/enhance", content=bytes(damaged))
        client.get("/cameras", headers={"X-Request-ID": "the-last"})
    access(server, "the-last")
    assert server.stop() == 0
    told = events(server)
    assert not [event for event in told if event["level"] == "CRITICAL"]
    assert "FORGED" not in "".join(server.log).upper()
    for event in told:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", event.get("request_id", "none"))


def test_a_live_connection_has_one_line(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_json(serve_session, models=identity_folder)
    url = server.url.replace("http", "ws") + "/live"
    with connect(url, proxy=None, additional_headers={"X-Request-ID": "live"}) as live:
        live.recv(30)
        for _ in range(3):
            live.send(DARK)
            while json.loads(live.recv(30))["type"] != "result":
                pass
            live.recv(30)
    line = access(server, "live")
    assert (line["method"], line["route"], line["status"]) == ("GET", "/live", 101)
    assert (line["pictures"], line["bytes_in"]) == (3, 3 * len(DARK))
    assert server.stop() == 0


def test_what_can_not_start_is_told_in_json(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    for settings in ({"models": tmp_path}, {"models": identity_folder, "api_keys_file": tmp_path / "none"}):
        done = run("serve", "--port", 0, log_format="json", **settings)
        assert done.returncode == 1
        told = [json.loads(line) for line in done.stderr.splitlines()]
        assert told[-1]["level"] in ("ERROR", "CRITICAL")


def test_on_a_terminal_it_is_text(identity_folder: Path) -> None:
    ours, theirs = pty.openpty()
    environment = environment_with({"models": identity_folder, "threads": 1, "log_format": "auto"})
    process = subprocess.Popen([COMMAND, "serve", "--port", "0"], stderr=theirs, env=environment)
    os.close(theirs)
    said = ""

    def reads(pattern: str) -> bool:
        nonlocal said
        with contextlib.suppress(OSError):  # the terminal is gone with the process
            said += os.read(ours, 65_536).decode()
        assert process.poll() is None, said
        return re.search(pattern, said) is not None

    try:
        wait_until(lambda: reads(r"\] ready\r\n"), 60)
        address = re.search(r"listening on (http://\S+)", said)
        assert address
        httpx.post(f"{address[1]}/enhance", content=DARK, trust_env=False, timeout=60).raise_for_status()
        wait_until(lambda: reads(r"INFO service.access \[[0-9a-f]{32}\] POST /enhance 200 method=POST .* tiles=\d+"))
    finally:
        process.terminate()
        assert process.wait(60) == 0
        os.close(ours)
    assert '{"' not in said


def test_a_crash_in_a_thread_and_a_warning_are_lines_of_json() -> None:
    program = """
import threading, warnings
from service.logs import set_up_log
set_up_log("INFO", "json")
warnings.warn("old\\nnews")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Broken:
    def __del__(self): raise ValueError("late")
del (broken := [Broken()])[0]
raise RuntimeError("the end")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["logger"] for event in told] == ["py.warnings", "service.logs", "service.logs", "service.logs"]
    for event, name in zip(told[1:], ("ZeroDivisionError", "ValueError: late", "RuntimeError: the end"), strict=True):
        assert name in event["traceback"]
    assert done.returncode == 1


@pytest.mark.parametrize("name", ["log_format", "traces"])
def test_a_format_that_is_none_ends_the_start(run: Run, name: str) -> None:
    done = run("serve", "--port", 0, **{name: "xml"})
    assert done.returncode == 1
    assert done.stderr.startswith(f"pix2dslr: setting {name}: ")
