"""What dashboard, rules and autoscaler ask for, against a real service and, where there is one, a real Prometheus."""

import itertools
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import prometheus
from benchmarks.panels import fill, read_panels
from benchmarks.prometheus import Prometheus, running_prometheus
from service.decoding.pool import DecodePool
from tests.deploy.promql import asked_by
from tests.deploy.queries import DEPLOY, NOT_OURS, shipped_queries
from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.test_faults_decoding import decode_workers
from tests.e2e.test_live import open_live

OF_TARGETS: Final = {"job", "instance", "namespace", "pod", "container", "resource", "alertname", "alertstate"}
"""Labels that the scraper adds, or other exporters have."""

BASE: Final = DEPLOY / "kubernetes" / "base"
QUERIES: Final = list(shipped_queries())
WITHIN_S: Final = 60


@pytest.fixture(scope="module")
def watched(serve_session: Serve, identity_folder: Path) -> Server:
    """A service to which something of every kind has happened."""
    server = serve_session(models=identity_folder)
    use(server, 0)
    if DecodePool.possible():
        before = decode_workers(server)
        before[0].kill()
        deadline = time.monotonic() + WITHIN_S
        while "pix2dslr_decode_workers_ended_total{" not in exposition(server):
            assert time.monotonic() < deadline
            use(server, 1)
    return server


def use(server: Server, seed: int) -> None:
    """Send what is enhanced, what is refused, and a frame of a live picture."""
    with server.client() as client:
        assert client.post("/enhance", files={"image": png(noise(200, 300, seed))}).status_code == 200
        assert client.post("/enhance", files={"image": b"no picture"}).status_code == 415
    with open_live(server) as live:
        live.send(png(noise(20, 20, seed)))
        live.until("result")


def exposition(server: Server) -> str:
    with server.client() as client:
        return client.get("/metrics").text


def exposed_by(server: Server) -> dict[str, set[str]]:
    """Label names of each sample that the service exposes."""
    exposed: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition(server)):
        for sample in family.samples:
            exposed.setdefault(sample.name, set()).update(sample.labels)
    return exposed


def test_every_metric_and_label_is_exposed(watched: Server) -> None:
    exposed = exposed_by(watched)
    recorded = {name.rpartition(" ")[2] for name, _ in QUERIES if ":" in name}
    for where, expr in QUERIES:
        asked = asked_by(expr)
        for name in asked.matched.keys() - NOT_OURS - recorded:
            assert name in exposed, f"{where} asks for {name}"
            assert asked.matched[name] <= exposed[name] | OF_TARGETS, f"{where} asks for labels of {name}"
        labels = set().union(*(exposed.get(name, set()) for name in asked.matched))
        assert asked.grouped <= labels | OF_TARGETS, where


@contextmanager
def used_all_the_time(server: Server) -> Iterator[None]:
    """Use it in another thread, so that rates are of something."""
    enough, failed = threading.Event(), list[BaseException]()

    def go() -> None:
        try:
            for seed in itertools.count():
                if enough.is_set():
                    return
                use(server, seed)
        except BaseException as error:  # noqa: BLE001  told below
            failed.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
    assert not failed, failed


def numbers(series: list[dict[str, Any]]) -> list[float]:
    return [value for each in series if math.isfinite(value := float(each["value"][1]))]


@pytest.mark.skipif(not prometheus.find(), reason=prometheus.HOW)
def test_a_real_prometheus_answers_every_query(watched: Server, tmp_path: Path) -> None:
    """Rules are loaded and evaluated, no query is an error, and every panel has something to show."""
    panels = [query for panel in read_panels() for query in panel.queries]
    left = {fill(query.expr, rate_interval="10s") for query in panels}
    assert left
    with (
        used_all_the_time(watched),
        open_live(watched),
        running_prometheus([watched.url.removeprefix("http://")], tmp_path) as running,
    ):
        answer_to_all(running)
        deadline = time.monotonic() + WITHIN_S
        while left:
            left = {expr for expr in left if not numbers(running.instant(expr))}
            assert time.monotonic() < deadline, left
        recorded = [where.rpartition(" ")[2] for where, _ in QUERIES if ":" in where]
        assert len(recorded) == 4
        while not all(numbers(running.instant(name)) for name in recorded):
            assert time.monotonic() < deadline, recorded
        firing = {each["metric"]["alertname"] for each in running.instant('ALERTS{alertstate="firing"}')}
        assert not firing


def test_the_settings_of_kubernetes_serve_probes_and_metrics_on_the_second_port(
    serve_session: Serve, identity_folder: Path
) -> None:
    told = {name.removeprefix("PIX2DSLR_").lower(): value for name, value in literals_of_base().items()}
    server = serve_session(**{**told, "metrics_port": 0, "metrics_host": "127.0.0.1", "models": identity_folder})
    second = server.wait_for(r"metrics and health on (http://\S+)")[1]
    container = deployment()["spec"]["template"]["spec"]["containers"][0]
    paths = {container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    with server.client() as client:
        assert {client.get(second + path).status_code for path in paths} == {200}
        assert client.get(second + "/metrics").status_code == 200
        assert client.get("/metrics").status_code == 404
    assert server.stop() == 0


def literals_of_base() -> dict[str, str]:
    (generator,) = yaml.safe_load((BASE / "kustomization.yaml").read_text())["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generator["literals"])


def deployment() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((BASE / "deployment.yaml").read_text())
    return tree


def answer_to_all(running: Prometheus) -> None:
    for _, expr in QUERIES:
        running.instant(fill(expr, rate_interval="10s"))  # raises where Prometheus can't run it
