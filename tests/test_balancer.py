"""deploy/nginx against the service's own settings, without nginx; tests/e2e/test_nginx.py runs it."""

import json
import re
from pathlib import Path
from typing import Final

from service.problems import all_problems, examples
from service.settings import Settings

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "nginx"
_UNITS: Final = {"": 1, "s": 1, "k": 1 << 10, "m": 1 << 20}


def directives(name: str) -> dict[str, list[str]]:
    """The arguments of each directive in a file, those of one that stands more than once in a row."""
    text = re.sub(r"(^|\s)#.*", "", (FOLDER / name).read_text())
    found: dict[str, list[str]] = {}
    for word, rest in re.findall(r"^\s*([a-z_]+)\s+([^;{}]+);", text, re.MULTILINE):
        found.setdefault(word, []).append(rest)
    return found


SERVER: Final = directives("nginx.conf")
UPSTREAM: Final = directives("upstream.conf")
DEFAULTS: Final = {name: field.default for name, field in Settings.model_fields.items()}


def number(values: list[str]) -> int:
    """The one value that a directive has, in seconds or bytes."""
    (value,) = values
    found = re.fullmatch(r"(\d+)([skm]?)", value)
    assert found
    return int(found[1]) * _UNITS[found[2]]


def test_limits_are_the_services_own() -> None:
    assert number(SERVER["client_max_body_size"]) == DEFAULTS["max_body_bytes"]
    assert number(SERVER["client_header_timeout"]) == DEFAULTS["header_timeout_s"]
    assert number(SERVER["client_body_timeout"]) == DEFAULTS["body_timeout_s"]
    assert number(SERVER["send_timeout"]) == DEFAULTS["send_timeout_s"]


def test_it_waits_longer_than_the_service_takes() -> None:
    assert number(SERVER["proxy_read_timeout"]) > DEFAULTS["request_timeout_s"]
    assert number(SERVER["worker_shutdown_timeout"]) > DEFAULTS["request_timeout_s"]
    # what was silent for that long is not tried again elsewhere
    assert number(SERVER["proxy_next_upstream_timeout"]) < number(SERVER["proxy_read_timeout"])


def test_it_ends_idle_connections_before_the_service_does() -> None:
    assert number(UPSTREAM["keepalive_timeout"]) < DEFAULTS["keep_alive_s"]


def test_only_what_is_safe_is_tried_again() -> None:
    (cases,) = SERVER["proxy_next_upstream"]
    assert set(cases.split()) == {"error", "timeout", "invalid_header", "http_503", "non_idempotent"}
    assert SERVER["proxy_request_buffering"] == ["on"], "only a body that it holds can be sent again"


def test_its_replicas_listen_where_it_asks() -> None:
    assert UPSTREAM["server"] == [f"pix2dslr:{DEFAULTS['port']} resolve max_fails=0"]


def test_what_it_answers_itself_are_the_services_problems() -> None:
    bodies = [
        json.loads(body.replace("$id", "0" * 32))
        for body in re.findall(r"return \d+ '(.*)';", (FOLDER / "nginx.conf").read_text())
    ]
    known = {f"urn:pix2dslr:problem:{each.type}": (each.title, each.status) for each in all_problems()}
    assert len(bodies) == 4
    for body in bodies:
        assert (body["title"], body["status"]) == known[body["type"]]
        assert body.keys() == examples()[body["type"].rpartition(":")[2]].keys()
