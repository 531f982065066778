"""What /metrics says of a real server: names as documented, few labels, each refusal by its reason."""

import json
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from prometheus_client import Metric, parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from service.metrics import Metrics
from service.problems import all_problems
from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.raw import frame, head, is_closed, open_socket, read_answer, shake_hands, wait_until
from tests.e2e.test_docs import table_under
from tests.e2e.test_edge_logs import packed

GOOD = png(noise(20, 20))


def read_text(text: str) -> list[Metric]:
    return list(parser.text_string_to_metric_families(text))


def read_openmetrics(text: str) -> list[Metric]:
    """Raises ValueError where a line breaks the format."""
    return list(openmetrics_parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def metrics(server: Server) -> str:
    with server.client() as client:
        return client.get("/metrics").text


def samples(text: str) -> dict[str, float]:
    """Each sample by its whole name with labels."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def rejections(server: Server) -> Counter[str]:
    """How many there were by reason, without those at 0."""
    found = (name_and_value for name_and_value in samples(metrics(server)).items() if name_and_value[1])
    prefix, end = 'pix2dslr_rejections_total{reason="', '"}'
    return Counter({n[len(prefix) : -len(end)]: int(value) for n, value in found if n.startswith(prefix)})


@pytest.fixture(scope="module")
def used(serve_session: Serve, identity_folder: Any) -> Server:
    """A server that has met everything that has labels."""
    server = serve_session(models=identity_folder)
    with server.client() as client:
        client.post("/enhance", files={"image": GOOD}).raise_for_status()
        client.post("/enhance", files={"image": b"GIF89a"})
    return server


def test_the_table_of_metrics(used: Server) -> None:
    """docs/operating.md has every metric with its type, labels and meaning, and no other."""
    labels: dict[str, set[str]] = {}
    for family in read_text(metrics(used)):
        for sample in family.samples:
            labels.setdefault(family.name, set()).update(sample.labels.keys() - {"le"})
    expected = []
    for family in Metrics().registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        of_it = ", ".join(f"`{label}`" for label in sorted(labels.get(family.name, ())))
        expected.append(f"| `{name}` | {family.type} | {of_it} | {family.documentation} |")
    assert table_under("Metrics", "operating.md") == expected, "it should be:\n" + "\n".join(expected)


def test_names_follow_the_conventions() -> None:
    for family in Metrics().registry.collect():
        assert family.name.startswith(("pix2dslr_", "process_", "python_"))
        assert family.documentation.strip().endswith(".") or not family.name.startswith("pix2dslr_")
        assert not any(unit in family.name for unit in ("_ms", "milli", "_mb", "percent"))
    assert [family.name for family in Metrics().registry.collect() if family.name.endswith("_created")] == []


def test_both_formats_hold_the_same(used: Server) -> None:
    def shape(families: list[Metric]) -> dict[str, set[str]]:
        return {each.name: {sample.name for sample in each.samples} for each in families}

    with used.client() as client:
        plain = client.get("/metrics")
        asked = client.get(
            "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}
        )
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert asked.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert asked.text.endswith("# EOF\n")
    assert shape(read_text(plain.text)) == shape(read_openmetrics(asked.text))


def test_promtool_finds_nothing(used: Server) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: apt-get install prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=metrics(used), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_clients_make_no_series(used: Server) -> None:
    def ask(client: Any, number: int) -> None:
        path = f"/odd{number}" if number % 2 else f"/page/odd{number}"
        client.request(("GET", "POST", f"ODD{number}")[number % 3], path, headers={"X-Request-ID": f"odd{number}"})

    with used.client() as client:
        for number in range(6):
            ask(client, number)
        before = samples(metrics(used))
        for number in range(6, 1006):
            ask(client, number)
    after = samples(metrics(used))
    assert after.keys() == before.keys()
    assert not [name for name in after if "odd" in name.lower()]
    asked = [name for name in after if name.startswith("pix2dslr_requests_total") and "40" in name]
    assert sum(after[name] - before[name] for name in asked) == 1000


def test_gauges_say_what_is_there(used: Server) -> None:
    found = samples(metrics(used))
    assert found["pix2dslr_ready"] == 1
    assert found["pix2dslr_draining"] == 0
    assert found["pix2dslr_queue_limit_tiles"] == 16_384
    assert found["pix2dslr_body_limit_bytes"] == 1 << 30
    assert found["pix2dslr_queue_drain_seconds"] == 0
    assert found["pix2dslr_pixels_total"] == 400
    assert found["process_resident_memory_bytes"] > 10 << 20
    workers = found["pix2dslr_decode_workers"]
    assert workers >= 2
    assert found["pix2dslr_decode_workers_resident_memory_bytes"] > workers * (5 << 20)
    (info,) = [name for name in found if name.startswith("pix2dslr_generator_info")]
    assert 'camera="iphone"' in info
    assert f'weights_sha256="{"0" * 64}"' in info
    with connect(used.url.replace("http", "ws") + "/live", proxy=None) as live:
        live.recv(30)
        assert used.metric("pix2dslr_live_connections") == 1
    wait_until(lambda: used.metric("pix2dslr_live_connections") == 0)


def test_every_problem_is_there_at_0(serve_session: Serve, identity_folder: Any) -> None:
    server = serve_session(models=identity_folder, threads=1)
    prefix = "pix2dslr_rejections_total"
    found = {name: value for name, value in samples(metrics(server)).items() if name.startswith(prefix)}
    expected = {f'{prefix}{{reason="{problem.type}"}}' for problem in all_problems()}
    assert found.keys() == expected
    assert not any(found.values())
    assert server.stop() == 0


def test_each_refusal_is_counted_once_by_its_reason(serve_session: Serve, identity_folder: Any) -> None:
    server = serve_session(
        models=identity_folder,
        max_body_bytes=100_000,
        header_timeout_s=0.5,
        body_timeout_s=0.5,
        max_connections=20,
        rate_limit=12,
        trusted_hosts="127.0.0.1,localhost",
    )
    expected: Counter[str] = Counter()

    def one_more(reason: str, count: int = 1) -> None:
        expected[reason] += count
        wait_until(lambda: rejections(server) == expected)

    with server.client() as client:
        assert client.get("/nowhere").status_code == 404
        one_more("not-found")
        assert client.put("/enhance").status_code == 405
        one_more("method-not-allowed")
        assert client.get("/cameras", headers={"Host": "evil.example"}).status_code == 421
        one_more("unknown-host")
        assert client.post("/enhance", files={"image": b"GIF89a"}).status_code == 415
        one_more("unsupported-format")
        assert client.post("/enhance", content=b"\0" * 100_001).status_code == 413
        one_more("body-too-large")
        # in chunks: it is found out in the middle of a form, where the parser has an answer of its own
        chunks = iter(
            [b"--b\r\n", b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n', b"\0" * 100_001]
        )
        with suppress(Exception):
            client.post("/enhance", content=chunks, headers={"Content-Type": "multipart/form-data; boundary=b"})
        one_more("body-too-large")
        zipped = packed("a.png", data=b"no picture")
        answer = client.post("/enhance", content=zipped, headers={"Content-Type": "application/zip"})
        assert answer.status_code == 200
        one_more("unsupported-format")
    with open_socket(server) as connection:
        connection.sendall(head(content_length=1000) + b"\0")
        assert read_answer(connection).status == 408
    one_more("too-slow")
    # before there is a request
    with open_socket(server) as connection:
        connection.sendall(b"GET / HT")
        assert read_answer(connection).status == 408
    one_more("too-slow")
    with open_socket(server) as connection:
        connection.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert read_answer(connection).status == 400
    one_more("malformed-request")
    url = server.url.replace("http", "ws") + "/live"
    with pytest.raises(InvalidStatus), connect(url, proxy=None, origin=Origin("https://evil.example")):
        pass
    one_more("other-origin")
    with connect(url, proxy=None) as live:
        live.recv(30)
        live.send(b"no picture")
        assert json.loads(live.recv(30))["problem"]["status"] == 415
        one_more("unsupported-format")
        live.send("no options")
        assert json.loads(live.recv(30))["problem"]["status"] == 400
        one_more("malformed-request")
    for sent, reason in (
        (frame(b"\0", claimed=1000), "too-slow"),
        (frame(b"", claimed=100_001), "body-too-large"),
        (frame(b"", opcode=3), "malformed-request"),
        (frame(b"\xff", opcode=1), "malformed-request"),
    ):
        with open_socket(server) as connection:
            shake_hands(connection)
            connection.sendall(sent)
            assert is_closed(connection)
        one_more(reason)
    with open_socket(server) as connection:
        connection.sendall(head("GET", "/live", connection="Upgrade", upgrade="websocket"))
        assert b" 400 " in connection.recv(1000)
    one_more("malformed-request")
    with server.client() as client:
        for _ in range(12):
            if client.post("/enhance", content=GOOD).status_code == 429:
                break
        else:
            pytest.fail("the limit was never met")
    one_more("rate-limited")
    with ExitStack() as held:
        for _ in range(8):  # as many as one address may have of 20
            shake_hands(held.enter_context(open_socket(server)))
        with open_socket(server) as connection:
            connection.sendall(head("GET", "/metrics"))
            assert read_answer(connection).status == 503
    one_more("too-many-connections")
    assert server.stop() == 0


def test_scraping_disturbs_nobody(used: Server) -> None:
    """Under a scraper that never rests, everything is answered; and each scrape is whole."""

    def scrape(_: int) -> int:
        return len(read_text(metrics(used)))

    with ThreadPoolExecutor(2) as pool, used.client() as client:
        scrapes = pool.map(scrape, range(100))
        answers = [client.post("/enhance", files={"image": GOOD}).status_code for _ in range(50)]
        assert set(answers) == {200}
        assert min(scrapes) > 30
