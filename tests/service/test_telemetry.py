"""The stopwatch: one source for header, metrics and spans."""

import re
import time

import pytest

from service.metrics import Metrics
from service.telemetry import Stage, Stopwatch
from service.tracing import trace_of


def test_a_stage_in_pieces_is_one_from_its_first_moment_to_its_last() -> None:
    watch = Stopwatch()
    watch.add("blend", Stage(1.0, 10.0, 11.0))
    watch.add("blend", Stage(0.5, 14.0, 14.5))
    assert watch.stages == {"blend": Stage(1.5, 10.0, 14.5)}
    assert watch.seconds["blend"] == 1.5


def test_a_stage_that_fails_counts() -> None:
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch.stage("decode"):
        _ = 1 / 0
    stage = watch.stages["decode"]
    assert stage.seconds == stage.end - stage.start >= 0


def test_once_stopped_everybody_is_told_the_same() -> None:
    watch, metrics = Stopwatch(), Metrics()
    with watch.stage("decode"):
        time.monotonic()
    watch.facts = {"pixels": 1234}
    metrics.picture_done(watch)
    header = watch.server_timing()
    while time.monotonic() < watch.start + watch.seconds["total"] + 0.001:
        pass
    assert watch.server_timing() == header
    text = metrics.text()[0].decode()
    for name, milliseconds in re.findall(r"(\w+);dur=([\d.]+)", header):
        found = re.search(rf'pix2dslr_stage_seconds_sum{{stage="{name}"}} (\S+)', text)
        assert found
        assert f"{float(found[1]) * 1000:.1f}" == milliseconds
    assert "pix2dslr_pixels_total 1234.0" in text


def test_a_traceparent_is_read_as_it_is_defined() -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    assert trace_of({"traceparent": f"00-{trace}-{span}-01"}) == trace
    assert trace_of({"traceparent": f"cc-{trace}-{span}-01-what-comes-later"}) == trace
    for broken in ("", trace, f"00-{'0' * 32}-{span}-01", f"00-{trace.upper()}-{span}-01", f"00-{trace}-{span}-01\n"):
        assert trace_of({"traceparent": broken}) == ""
