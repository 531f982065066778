"""What clients meet at a real nginx with the shipped configuration, in front of the service."""

import io
import signal
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.conftest import Serve, Server, noise, pixels_of, png
from tests.e2e.nginx import Nginx, free_port, needs_nginx, running_nginx
from tests.e2e.raw import head, open_socket, read_answer, wait_until
from tests.e2e.test_live import open_live
from tests.e2e.test_problems import problem

pytestmark = needs_nginx

GOOD = png(noise(20, 20))
LIMIT = 64 << 20


@pytest.fixture(scope="module")
def replica(serve_session: Serve, identity_folder: Path) -> Server:
    return serve_session(models=identity_folder, threads=1, decode_workers=2)


@pytest.fixture(scope="module")
def nginx(replica: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with running_nginx(tmp_path_factory.mktemp("nginx"), [replica.url]) as running:
        yield running


def test_answers_and_problems_pass_unchanged(replica: Server, nginx: Nginx) -> None:
    asked = {"X-Request-ID": "the-same"}
    with replica.client() as direct, nginx.client() as through:
        for body, options, status in ((GOOD, {}, 200), (GOOD, {"strength": "2"}, 422), (b"no picture", {}, 415)):
            ours, theirs = (
                client.post("/enhance", files={"image": body}, data=options, headers=asked)
                for client in (direct, through)
            )
            assert theirs.status_code == ours.status_code == status
            assert theirs.content == ours.content
            # each server has its own of these
            own = {"date", "server", "server-timing", "connection"}
            assert {k: v for k, v in theirs.headers.items() if k not in own} == {
                k: v for k, v in ours.headers.items() if k not in own
            }


def test_the_request_id_is_the_same_in_both_logs(nginx: Nginx) -> None:
    with nginx.client() as client:
        given = client.get("/cameras").headers["x-request-id"]
        assert nginx.line_of(given)["route"] == "/cameras"
        kept = client.get("/cameras", headers={"X-Request-ID": "from.the-client_1"})
        assert nginx.line_of("from.the-client_1")["status"] == "200"
        assert kept.headers["x-request-id"] == "from.the-client_1"
        made = client.get("/cameras", headers={"X-Request-ID": 'no "id"'}).headers["x-request-id"]
        assert nginx.line_of(made)["status"] == "200"


def test_photos_and_webcams_over_a_websocket(nginx: Nginx) -> None:
    picture = noise(200, 300)
    with open_live(nginx, additional_headers={"Origin": nginx.url}) as live:
        live.say(format="png")
        live.send(png(picture))
        assert live.until("accepted")["tiles"] > 1
        assert np.array_equal(pixels_of(live.until("result")["picture"]), picture)
    with pytest.raises(InvalidStatus) as refused, open_live(nginx, additional_headers={"Origin": "http://other.test"}):
        pass
    assert refused.value.response.status_code == 403


def test_a_big_body(nginx: Nginx) -> None:
    big = png(noise(2300, 3000))
    assert len(big) > 20_000_000
    with nginx.client() as client:
        answer = client.post("/enhance", files={"image": big}, data={"format": "png"})
        assert answer.status_code == 200
        assert np.array_equal(pixels_of(answer.content), pixels_of(big))


def test_a_body_over_the_limit_gets_the_services_problem(nginx: Nginx) -> None:
    with open_socket(nginx) as connection:
        connection.sendall(head(content_length=LIMIT + 1))
        answer = read_answer(connection)
    assert (answer.status, answer.problem) == (413, "body-too-large")
    assert answer.headers["content-type"] == "application/problem+json"
    with open_socket(nginx) as connection:  # as many as may be are no matter of nginx's
        connection.sendall(head(content_length=LIMIT, expect="100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")


def test_a_slow_sender_holds_nothing_of_a_replica(replica: Server, nginx: Nginx) -> None:
    with open_socket(nginx) as connection:
        connection.sendall(head(content_length=len(GOOD)))
        for byte in GOOD[:-1]:
            connection.sendall(bytes([byte]))
        assert replica.metric("pix2dslr_requests_in_flight") == 1  # the one that asks
        connection.sendall(GOOD[-1:])
        answer = read_answer(connection)
    assert answer.status == 200
    assert np.array_equal(pixels_of(answer.body), pixels_of(GOOD))


def test_zips_arrive_as_they_are_made(replica: Server, nginx: Nginx) -> None:
    pictures = [("image", (f"{size}.png", png(noise(size, size)))) for size in (20, 2500)]
    with nginx.client() as client, client.stream("POST", "/enhance", files=pictures) as answer:
        assert answer.status_code == 200
        came = b""
        parts = answer.iter_raw()
        while GOOD[:4] not in came:  # the small one's first bytes
            came += next(parts)
        assert replica.metric("pix2dslr_requests_in_flight") == 2, "this one, and the one that asks"
        came += b"".join(parts)
    with zipfile.ZipFile(io.BytesIO(came)) as entries:
        assert entries.testzip() is None
        assert len(entries.namelist()) == 3


def test_429_reaches_the_client_whoever_it_claims_to_be(
    serve_session: Serve, replica: Server, identity_folder: Path, tmp_path: Path
) -> None:
    limited = serve_session(
        models=identity_folder, threads=1, decode_workers=2, trusted_proxies="127.0.0.1", rate_limit=2
    )
    other_addresses = [{"X-Forwarded-For": f"192.0.2.{i}"} for i in range(3)]
    with running_nginx(tmp_path, [limited.url]) as nginx, nginx.client() as client:
        answers = [client.post("/enhance", files={"image": GOOD}, headers=claim) for claim in other_addresses]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        problem(answers[2], "rate-limited", 429)
        assert int(answers[2].headers["retry-after"]) >= 1
    with running_nginx(tmp_path, [limited.url, replica.url]) as nginx, nginx.client() as client:
        answers = [client.post("/enhance", files={"image": GOOD}) for _ in range(6)]
        lines = [nginx.line_of(answer.headers["x-request-id"]) for answer in answers]
        assert {(line["answered"], line["tried"]) for line in lines if line["status"] == "429"} == {
            ("429", limited.url.removeprefix("http://"))
        }, "it is no reason to ask another"


def test_metrics_are_each_replicas_own(replica: Server, nginx: Nginx) -> None:
    with nginx.client() as client, replica.client() as direct:
        refused = client.get("/metrics")
        problem(refused, "not-found", 404)
        assert refused.headers["cache-control"] == "no-store"
        assert refused.json() == direct.get("/nothing").json() | {"request_id": refused.headers["x-request-id"]}
        assert client.get("/readyz").json()["ready"] is True


def test_without_any_replica_clients_are_told_to_come_back(tmp_path: Path) -> None:
    with (
        running_nginx(tmp_path, [f"http://127.0.0.1:{free_port()}" for _ in range(2)]) as nobody,
        nobody.client() as client,
    ):
        refused = client.post("/enhance", files={"image": GOOD})
        problem(refused, "not-ready", 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert nobody.line_of(refused.headers["x-request-id"])["answered"] == "502, 502 : 502, 502"


def test_a_replica_that_loads_or_drains_is_passed_over(
    serve_session: Serve, replica: Server, identity_folder: Path, tmp_path: Path
) -> None:
    draining = serve_session(models=identity_folder, threads=1, decode_workers=2)
    with (
        running_nginx(tmp_path, [draining.url, replica.url]) as both,
        both.client() as client,
        open_socket(draining) as holding,
    ):
        holding.sendall(head(content_length=2) + b"x")  # a body that still comes holds the drain up
        wait_until(lambda: draining.metric("pix2dslr_requests_in_flight") > 1)
        draining.process.send_signal(signal.SIGTERM)
        draining.wait_for("SIGTERM")
        answers = [client.get("/cameras") for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 8
        seen = [both.line_of(answer.headers["x-request-id"])["answered"] for answer in answers]
        assert set(seen) == {"200", "503, 200"}
        holding.sendall(b"x")
        assert read_answer(holding).problem == "unsupported-format"
    assert draining.process.wait(60) == 0


def test_nginx_told_to_quit_finishes_what_runs(replica: Server, tmp_path: Path) -> None:
    with running_nginx(tmp_path, [replica.url]) as leaving, open_socket(leaving) as connection:
        connection.sendall(head("GET", "/cameras"))
        assert read_answer(connection).status == 200
        connection.sendall(head(content_length=len(GOOD)) + GOOD[:-1])
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        leaving.process.send_signal(signal.SIGQUIT)  # as the image's STOPSIGNAL

        def closed() -> bool:
            try:
                httpx.get(f"{leaving.url}/livez", timeout=5, trust_env=False)
            except httpx.ConnectError:
                return True
            return False

        wait_until(closed)
        connection.sendall(GOOD[-1:])
        assert read_answer(connection).status == 200
        connection.close()
        assert leaving.process.wait(30) == 0


def test_the_access_log_is_json_whatever_is_asked(nginx: Nginx) -> None:
    with nginx.client() as client:
        answer = client.get('/"%0a\\')
    line = nginx.line_of(answer.headers["x-request-id"])
    assert (line["status"], line["route"]) == ("404", "other")
