"""Lines of the log, without a server."""

import json
import logging
import sys
from typing import Any

import pytest

from service.logs import JsonFormatter, TextFormatter, is_json

NASTY = 'a\nb\r\n{"level": "CRITICAL"}\x1b[31m\u2028\u202e\0\ud800 "quoted" ünï'


def record(message: str, *args: object, error: BaseException | None = None, **members: object) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("service.test", logging.WARNING, __file__, 1, message, args, exc_info)
    made.__dict__.update({"request_id": "-", "trace_id": "", **members})
    return made


def failure() -> Exception:
    def fail(depth: int) -> None:
        if depth:
            fail(depth - 1)
        raise ValueError(NASTY)

    try:
        fail(3)
    except ValueError as error:
        return error
    raise AssertionError


def told(*args: Any, **members: Any) -> dict[str, Any]:
    line = JsonFormatter().format(record(*args, **members))
    assert line.isascii()
    assert line.isprintable(), "one line, whatever splits lines"
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_a_line_of_json_has_what_is_known() -> None:
    event = told("%d tiles", 3)
    assert event.keys() == {"time", "level", "logger", "message"}
    assert (event["level"], event["logger"], event["message"]) == ("WARNING", "service.test", "3 tiles")
    assert event["time"][10] == "T"
    assert event["time"].endswith("Z")
    event = told("x", request_id="r1", trace_id="t1", seconds=0.25, tiles=3)
    assert (event["request_id"], event["trace_id"], event["seconds"], event["tiles"]) == ("r1", "t1", 0.25, 3)


def test_whatever_is_logged_stays_a_line_and_a_member() -> None:
    event = told("%s", NASTY, camera=NASTY, level="CRITICAL", what=object())
    assert event["message"] == event["camera"] == NASTY
    assert event["level"] == "WARNING", "no member takes the place of another"
    assert "object" in event["what"]


def test_a_traceback_is_a_member() -> None:
    event = told("failed", error=failure())
    assert event["message"] == "failed"
    assert event["traceback"].startswith("Traceback")
    assert event["traceback"].count(", in fail\n") == 4
    assert NASTY in event["traceback"]


def test_text_stays_a_line() -> None:
    line = TextFormatter().format(record("%s", NASTY, camera="a b", seconds=0.1234567, status=200))
    assert line.isprintable()
    assert "service.test [-] a\\nb\\r\\n{" in line
    assert line.endswith(' camera="a b" seconds=0.123457 status=200')


def test_text_has_the_traceback_below() -> None:
    first, *rest = TextFormatter().format(record("failed", error=failure())).splitlines()
    assert first.endswith("service.test [-] failed")
    assert rest[0].startswith("Traceback")


@pytest.mark.parametrize(("terminal", "expected"), [(True, False), (False, True)])
def test_auto_is_text_on_a_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool, expected: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert is_json("auto") == expected
    assert is_json("json")
    assert not is_json("text")
