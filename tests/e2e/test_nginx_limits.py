"""What one client gets of a real nginx with the shipped limits, and what is left for others."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import Serve, Server, noise, pixels_of, png
from tests.e2e.nginx import Nginx, free_port, needs_nginx, running_nginx
from tests.e2e.raw import Answer, head, read_answer, wait_until
from tests.e2e.test_live import open_live
from tests.e2e.test_problems import problem
from tests.test_balancer import SERVER as SHIPPED

pytestmark = needs_nginx

GOOD: Final = png(noise(20, 20))
ONE: Final = "127.0.0.2"
OTHER: Final = "127.0.0.3"
PLACES: Final = {
    zone: int(places) for zone, places in (each.split() for each in SHIPPED["limit_conn"]) if zone != "everybody"
}
LARGE: Final = 10_000_000


@pytest.fixture(scope="module")
def replica(serve_session: Serve, identity_folder: Path) -> Server:
    return serve_session(models=identity_folder, threads=1, decode_workers=2, trusted_proxies="127.0.0.1")


@pytest.fixture(scope="module")
def nginx(replica: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with running_nginx(tmp_path_factory.mktemp("nginx"), [replica.url]) as running:
        yield running


def open_from(nginx: Nginx, address: str) -> socket.socket:
    url = httpx.URL(nginx.url)
    return socket.create_connection((url.host, url.port or 0), timeout=30, source_address=(address, 0))


def client_at(nginx: Nginx, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=nginx.url, transport=transport, timeout=120, trust_env=False)


def photo_from(nginx: Nginx, address: str) -> httpx.Response:
    with client_at(nginx, address) as client:
        return client.post("/enhance", files={"image": GOOD})


@contextmanager
def held(nginx: Nginx, address: str, count: int, **headers: object) -> Iterator[None]:
    """Requests whose bodies don't come; taken, since nginx says to each that it may go on."""
    with ExitStack() as open_ones:
        for _ in range(count):
            connection = open_ones.enter_context(open_from(nginx, address))
            connection.sendall(head(expect="100-continue", **headers))
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
        yield


def asked(nginx: Nginx, address: str, **headers: object) -> Answer:
    with open_from(nginx, address) as connection:
        connection.sendall(head(**headers))
        return read_answer(connection)


def test_an_office_behind_one_address_passes(nginx: Nginx) -> None:
    """64 people at once: each opens the page, sends a photo and has the webcam on."""
    people = 64

    def work(person: int) -> list[int]:
        with client_at(nginx, ONE) as client:
            answers = [client.get(path) for path in ("/", "/page/app.js", "/page/style.css", "/cameras")]
            answers.append(client.post("/enhance", files={"image": GOOD}, data={"format": "png"}))
            assert np.array_equal(pixels_of(answers[-1].content), pixels_of(GOOD)), person
            return [answer.status_code for answer in answers]

    with ExitStack() as webcams, ThreadPoolExecutor(people) as pool:
        for _ in range(people):
            live = webcams.enter_context(open_live(nginx, source_address=(ONE, 0)))
        assert list(pool.map(work, range(people))) == [[200] * 5] * people
        live.say(format="png")
        live.send(GOOD)
        assert live.until("result", "problem")["type"] == "result"


def test_one_client_has_so_many_requests_at_once(nginx: Nginx) -> None:
    with held(nginx, ONE, PLACES["client"], content_length=len(GOOD)):
        refused = photo_from(nginx, ONE)
        problem(refused, "too-many-at-once", 429)
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["cache-control"] == "no-store"
        assert photo_from(nginx, OTHER).status_code == 200
    wait_until(lambda: photo_from(nginx, ONE).status_code == 200)


@pytest.mark.parametrize("size", [{"content_length": LARGE}, {"transfer_encoding": "chunked"}], ids=["large", "open"])
def test_one_client_has_few_large_bodies_on_disk(nginx: Nginx, size: dict[str, object]) -> None:
    with held(nginx, ONE, PLACES["large_of_client"], **size):
        assert asked(nginx, ONE, content_length=LARGE).problem == "too-many-at-once"
        assert asked(nginx, ONE, transfer_encoding="chunked").problem == "too-many-at-once"
        assert photo_from(nginx, ONE).status_code == 200, "smaller ones have places of their own"
        with held(nginx, OTHER, 1, content_length=LARGE):
            pass


def test_health_is_answered_when_all_places_are_taken(replica: Server, tmp_path: Path) -> None:
    full: dict[str, str] = {"limit_conn everybody": "2"}
    with running_nginx(tmp_path, [replica.url], **full) as nginx, held(nginx, ONE, 2, content_length=len(GOOD)):
        problem(photo_from(nginx, OTHER), "too-many-at-once", 429)
        with client_at(nginx, OTHER) as client:
            assert [client.get(path).status_code for path in ("/livez", "/readyz", "/healthz")] == [200] * 3


def test_requests_a_second_are_counted_by_client(replica: Server, tmp_path: Path) -> None:
    slow = {"limit_req_zone": "$client zone=requests:10m rate=1r/m", "limit_req": "zone=requests burst=3 nodelay"}
    with running_nginx(tmp_path, [replica.url], **slow) as nginx:
        with client_at(nginx, ONE) as client:
            answers = [client.get("/cameras") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
        problem(answers[-1], "rate-limited", 429)
        assert photo_from(nginx, OTHER).status_code == 200


def test_a_client_is_an_address_and_of_ipv6_a_network_of_64_bits(replica: Server, tmp_path: Path) -> None:
    """Told by the realip module, as behind a proxy for TLS: this machine may have one address of IPv6 alone."""
    found = "$client zone=requests:10m rate=1r/m; set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For"
    slow = {"limit_req_zone": found, "limit_req": "zone=requests"}
    with running_nginx(tmp_path, [replica.url], **slow) as nginx, nginx.client() as client:

        def status(address: str) -> int:
            return client.get("/cameras", headers={"X-Forwarded-For": address}).status_code

        assert status("192.0.2.1") == 200
        assert status("192.0.2.1") == 429
        assert status("192.0.2.2") == 200
        # with a byte that ends lines, and one that ends strings
        assert status("2001:db8:0:a0a::1") == 200
        assert status("2001:db8:0:a0a:ffff:a00:0:2") == 429
        assert status("2001:db8:0:a0b::1") == 200
        assert status("::1") == 200


def test_the_logs_hold_no_word_of_a_client(replica: Server, tmp_path: Path) -> None:
    words = ("127.0.0.2", "secret", "BREW")
    with running_nginx(tmp_path, [replica.url, f"http://127.0.0.1:{free_port()}"]) as nginx:
        with client_at(nginx, ONE) as client:
            asks = [
                client.get("/secret?secret", headers={"Referer": "secret", "User-Agent": "secret"}),
                client.request("BREW", "/enhance"),
                # beyond client_body_buffer_size: goes to disk, which nginx would warn of
                client.post("/enhance?secret", files={"secret": ("secret", bytes(1 << 20))}),
                client.post("/enhance", content=bytes(1000), headers={"X-Request-ID": "no secret"}),
            ]
            # too large, and a replica that is not there: errors, told with address and request line
            asks += [client.get("/cameras?secret") for _ in range(4)]
        asked(nginx, ONE, content_length=(64 << 20) + 1)
        wait_until(lambda: len(nginx.lines()) > len(asks))
        seen = {(line["method"], line["route"]) for line in nginx.lines()}
        assert seen == {("GET", "other"), ("other", "/enhance"), ("POST", "/enhance"), ("GET", "/cameras")}
        assert any("," in line["tried"] for line in nginx.lines()), "the one that is not there was never asked"
        log = "".join((nginx.folder / name).read_text() for name in ("access.log", "error.log"))
    assert not [word for word in words if word in log]
