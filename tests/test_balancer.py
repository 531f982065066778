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
    assert number(SERVER["client_body_timeout"]) <= DEFAULTS["body_timeout_s"]
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


def test_one_client_gets_a_part_of_everything() -> None:
    places = dict(each.split() for each in SERVER["limit_conn"])
    assert {zone: int(count) for zone, count in places.items()} == {
        "client": 128,
        "large_of_client": 16,
        "everybody": 1024,
        "large_of_everybody": 96,
    }
    assert SERVER["limit_conn_zone"] == [
        "$client zone=client:10m",
        "$large_from zone=large_of_client:10m",
        "all zone=everybody:32k",
        "$large zone=large_of_everybody:32k",
    ]
    assert SERVER["limit_conn_status"] == SERVER["limit_req_status"] == ["429"]


def test_all_bodies_together_have_room_where_the_configuration_says() -> None:
    places = {zone: int(count) for zone, count in (each.split() for each in SERVER["limit_conn"])}
    large = places["large_of_everybody"] * DEFAULTS["max_body_bytes"]
    small = (places["everybody"] - places["large_of_everybody"]) * 10_000_000
    assert large + small < 16e9
    for name, told in (("deploy/nginx/nginx.conf", "16 GB"), ("docker-compose.scale.yml", "16 GB")):
        assert told in (FOLDER.parents[1] / name).read_text()


def test_what_it_logs_of_requests_is_its_own() -> None:
    text = (FOLDER / "nginx.conf").read_text()
    (line,) = re.findall(r"log_format json .*?;\n", text, re.DOTALL)
    assert not re.search(r"\$(uri|request|request_uri|request_method|args|remote_\w+|http_\w+|client)\b", line)
    # the first is nginx's own; errors of a request name the client's address and its first line
    assert SERVER["error_log"] == ["stderr warn", "stderr emerg"]


def test_its_replicas_listen_where_it_asks() -> None:
    assert UPSTREAM["server"] == [f"pix2dslr:{DEFAULTS['port']} resolve max_fails=0"]


def test_what_it_answers_itself_are_the_services_problems() -> None:
    bodies = [
        json.loads(body.replace("$id", "0" * 32))
        for body in re.findall(r"return \d+ '(.*)';", (FOLDER / "nginx.conf").read_text())
    ]
    known = {f"urn:pix2dslr:problem:{each.type}": (each.title, each.status) for each in all_problems()}
    assert len(bodies) == 6
    for body in bodies:
        assert (body["title"], body["status"]) == known[body["type"]]
        assert body.keys() == examples()[body["type"].rpartition(":")[2]].keys()
