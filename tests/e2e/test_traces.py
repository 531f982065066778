"""Spans as a real collector gets them, and that header, metrics, log and spans tell of a request alike."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect

from tests.e2e.collector import Collector, Span, collector
from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.raw import head, open_socket, read_answer, wait_until
from tests.e2e.test_edge_logs import packed
from tests.e2e.test_logs import READY, access
from tests.onnx_files import write_generator

PICTURE = png(np.zeros((600, 800, 3), np.uint8))
LIGHT = png(noise(20, 20))
STAGES = ["decode", "queue", "inference", "blend", "encode"]


def serve_traced(
    serve_session: Serve,
    url: str,
    *,
    delay_ms: int = 100,
    variables: Mapping[str, str] | None = None,
    **settings: object,
) -> Server:
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": str(delay_ms), **(variables or {})}
    server = serve_session(ready=False, log_format="json", traces="otlp", variables=told, **settings)
    server.wait_for(READY)
    return server


@pytest.fixture(scope="module")
def received() -> Iterator[Collector]:
    with collector() as made:
        yield made


@pytest.fixture(scope="module")
def traced(serve_session: Serve, tmp_path_factory: pytest.TempPathFactory, received: Collector) -> Server:
    """A server whose device fails on all that is not black."""
    folder = tmp_path_factory.mktemp("failing")
    write_generator(folder / "iphone.onnx", fail_on_light=True)
    return serve_traced(serve_session, received.url, models=folder)


def parent() -> tuple[str, str, dict[str, str]]:
    """A new trace, a span in it, and the header that tells of both."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-01"}


def tree(received: Collector, trace: str) -> tuple[Span, list[Span]]:
    """The request's span of a trace, waited for, and the others."""

    def complete() -> list[Span]:
        return [span for span in received.of(trace) if "http.route" in span.attributes]

    wait_until(lambda: bool(complete()))
    (root,) = complete()
    return root, [span for span in received.of(trace) if span is not root]


def test_header_metrics_log_and_spans_tell_the_same(traced: Server, received: Collector) -> None:
    def sums() -> dict[str, float]:
        with traced.client() as client:
            text = client.get("/metrics").text
        found = re.findall(r'pix2dslr_(?:stage|request)_seconds_sum{(?:stage|route)="([\w/]+)"} (\S+)', text)
        return {name: float(value) for name, value in found}

    before, (trace, span, headers) = sums(), parent()
    began = time.time()
    with traced.client() as client:
        answer = client.post("/enhance", content=PICTURE, headers={**headers, "X-Request-ID": "same"})
    assert answer.status_code == 200
    ended = time.time()
    line = access(traced, "same")
    after = sums()
    told = {name: float(ms) / 1000 for name, ms in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"])}
    assert list(told) == [*STAGES, "total"]
    root, stages = tree(received, trace)
    assert sorted(stage.name for stage in stages) == sorted(STAGES)
    for stage in stages:
        assert stage.parent == root.id
        seconds = stage.attributes["pix2dslr.seconds"]
        assert seconds == pytest.approx(told[stage.name], abs=0.000_051)
        assert after[stage.name] - before[stage.name] == pytest.approx(seconds, abs=1e-9)
        assert root.start_ns <= stage.start_ns <= stage.end_ns <= root.end_ns
        assert stage.end - stage.start >= seconds - 1e-5
        if stage.name in ("decode", "encode"):  # in one piece
            assert stage.end - stage.start == pytest.approx(seconds, abs=1e-5)
    at = {stage.name: stage for stage in stages}
    assert at["decode"].end_ns <= at["queue"].start_ns <= at["inference"].start_ns <= at["blend"].start_ns
    assert at["queue"].end_ns <= at["inference"].end_ns <= at["blend"].end_ns <= at["encode"].start_ns
    assert began <= root.start <= ended
    assert root.start + told["total"] <= root.end <= ended + 5  # its last byte may be read before it is told
    assert line["trace_id"] == trace
    assert after["/enhance"] - before.get("/enhance", 0.0) == pytest.approx(line["seconds"], abs=1e-6)
    assert line["seconds"] == pytest.approx(root.end - root.start, abs=2e-6)
    assert told["total"] <= line["seconds"]
    assert (root.parent, root.name, root.failed) == (span, "POST /enhance", False)
    tiles = int(answer.headers["x-pix2dslr-tiles"])
    assert line["tiles"] == tiles
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/enhance",
        "http.response.status_code": 200,
        "pix2dslr.request_id": "same",
        "pix2dslr.camera": "iphone",
        "pix2dslr.device": "cpu",
        "pix2dslr.tiles": tiles,
        "pix2dslr.pictures": 1,
        "pix2dslr.megapixels": 0.48,
    }
    assert root.resource["service.name"] == "pix2dslr"
    assert root.resource["telemetry.sdk.language"] == "python"


def test_problems_mark_their_spans(traced: Server, received: Collector) -> None:
    damaged = bytearray(LIGHT)
    damaged[-30] ^= 0xFF
    for data, problem, status, failed, names in (
        (LIGHT, "inference-failed", 500, True, ["decode", "queue", "inference"]),
        (b"GIF89a", "unsupported-format", 415, False, []),
        (bytes(damaged), "malformed-picture", 400, False, ["decode"]),
    ):
        trace, _, headers = parent()
        with traced.client() as client:
            assert client.post("/enhance", content=data, headers=headers).status_code == status
        root, stages = tree(received, trace)
        assert root.attributes["error.type"] == problem
        assert root.attributes["http.response.status_code"] == status
        assert root.failed == failed
        assert [stage.name for stage in stages] == names


def test_what_the_edge_refuses_and_who_hangs_up_have_spans_too(traced: Server, received: Collector) -> None:
    trace, _, headers = parent()
    with traced.client() as client:
        client.get("/secret-path", headers=headers)
    root, _ = tree(received, trace)
    assert root.name == "GET other"
    assert "secret" not in str(root)
    trace, _, headers = parent()
    with open_socket(traced) as connection:
        connection.sendall(head(content_length=1000, **headers))
    root, _ = tree(received, trace)
    assert root.attributes["http.response.status_code"] == 499
    assert root.attributes["error.type"] == "cancelled"


def test_each_of_several_pictures_has_a_span_around_its_stages(traced: Server, received: Collector) -> None:
    trace, _, headers = parent()
    zipped = packed("a.png", "b.png", data=png(np.zeros((30, 30, 3), np.uint8)))
    with traced.client() as client:
        client.post("/enhance", content=zipped, headers={**headers, "Content-Type": "application/zip"})
    root, others = tree(received, trace)
    pictures = [span for span in others if span.name == "picture"]
    assert [picture.parent for picture in pictures] == [root.id] * 2
    assert {picture.attributes["pix2dslr.tiles"] for picture in pictures} == {1}
    for picture in pictures:
        assert {span.name for span in others if span.parent == picture.id} == set(STAGES)
    assert root.attributes["pix2dslr.pictures"] == 2


def test_each_frame_of_a_live_connection_has_a_span(traced: Server, received: Collector) -> None:
    trace, _, headers = parent()
    with connect(traced.url.replace("http", "ws") + "/live", proxy=None, additional_headers=headers) as live:
        live.recv(30)
        for data, end in ((PICTURE, "result"), (LIGHT, "problem")):
            live.send(data)
            while json.loads(live.recv(30))["type"] != end:
                pass
            if end == "result":
                live.recv(30)
    root, others = tree(received, trace)
    good, bad = sorted((span for span in others if span.name == "frame"), key=lambda span: span.start_ns)
    assert good.parent == bad.parent == root.id
    assert {span.name for span in others if span.parent == good.id} == set(STAGES)
    assert bad.attributes["error.type"] == "inference-failed"
    assert root.attributes["http.response.status_code"] == 101


def test_what_clients_send_breaks_nothing_and_is_not_logged(traced: Server) -> None:
    """OpenTelemetry's own propagators quote in their warnings what they can't read."""
    word = "sesame"
    for value in (
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        f"{word}={word}".encode(),
        f"{word}, ={word},{word}\xff=1,{word}=\xff".encode("latin-1"),
        (f"{word}=" + "a" * 9000).encode(),
        ",".join(f"{word}{number}=1" for number in range(400)).encode(),
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-" + word.encode(),
        b"\xff\xfe" + word.encode(),
    ):
        for name in (b"traceparent", b"tracestate", b"baggage"):
            others = {b"traceparent": b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", name: value}
            told = b"".join(b"%s: %s\r\n" % each for each in others.items())
            with open_socket(traced) as connection:
                connection.sendall(b"GET /cameras HTTP/1.1\r\nHost: localhost\r\n" + told + b"\r\n")
                assert read_answer(connection).status == 200
    with traced.client() as client:
        client.get("/cameras", headers={"X-Request-ID": "after-nasty"})
    access(traced, "after-nasty")
    assert word not in "".join(traced.log)


def test_exemplars_name_traces(traced: Server) -> None:
    trace, _, headers = parent()
    with traced.client() as client:
        client.get("/cameras", headers=headers)

        def named() -> bool:
            accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
            return f'{{trace_id="{trace}"}}' in client.get("/metrics", headers=accept).text

        wait_until(named)
        assert trace not in client.get("/metrics").text


def test_what_is_left_is_sent_at_the_end_and_the_environment_rules(
    serve_session: Serve, identity_folder: Path, received: Collector
) -> None:
    variables = {"OTEL_SERVICE_NAME": "photos", "OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    server = serve_traced(
        serve_session, received.url, delay_ms=3_600_000, models=identity_folder, threads=1, variables=variables
    )
    trace, _, headers = parent()
    with server.client() as client:
        client.post("/enhance", content=LIGHT, headers=headers).raise_for_status()
        client.post("/enhance", content=LIGHT, headers={"X-Request-ID": "not-sampled"}).raise_for_status()
    unsampled = access(server, "not-sampled")["trace_id"]
    assert not received.of(trace)
    assert server.stop() == 0
    root, stages = tree(received, trace)
    assert root.resource["service.name"] == "photos"
    assert len(stages) == len(STAGES)
    assert not received.of(unsampled)


@pytest.mark.parametrize("away", [True, False], ids=["away", "silent"])
def test_a_collector_that_does_not_answer_costs_no_request(
    serve_session: Serve, identity_folder: Path, away: bool
) -> None:
    with collector() as made:
        made.holds.set()
        url = "http://127.0.0.1:9" if away else made.url  # nothing listens there
        server = serve_traced(serve_session, url, delay_ms=10, models=identity_folder, threads=1)
        with server.client() as client:
            for _ in range(30):
                answer = client.post("/enhance", content=LIGHT)
                assert answer.status_code == 200
            if not away:
                assert made.asked.wait(30)
            # while its thread waits for the collector, others are answered
            assert client.post("/enhance", content=LIGHT).status_code == 200
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
    told = [json.loads(line) for line in list(server.log)]
    assert len([event for event in told if event["logger"].startswith("opentelemetry")]) < 5


def test_without_the_extra_it_ends_with_one_line() -> None:
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; sys.argv = ['pix2dslr', 'serve', '--port', '0'];"
        "from service.cli import app; app()"
    )
    done = run_python(program, PIX2DSLR_TRACES="otlp", PIX2DSLR_LOG_FORMAT="text")
    assert done.returncode == 1
    assert done.stderr == "pix2dslr: traces: install the extra otel: pip install 'pix2dslr[otel]'\n"


def test_nothing_of_the_sdk_is_imported_unless_it_is_asked_for() -> None:
    program = (
        "import sys; from service.app import create_app; from service.settings import Settings; create_app(Settings());"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    assert run_python(program).stdout == "[]\n"


def run_python(program: str, **variables: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIX2DSLR_", "OTEL_"))}
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment | variables,
        timeout=60,
        check=False,
    )
