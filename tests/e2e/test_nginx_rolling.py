"""Two replicas behind a real nginx: restarted in turn, and killed, while clients send."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError

from tests.e2e.conftest import Serve, Server, noise, png
from tests.e2e.nginx import Clients, Nginx, needs_nginx, passed_on, running_nginx
from tests.e2e.raw import wait_until
from tests.e2e.test_live import open_live
from tests.onnx_files import write_generator

pytestmark = needs_nginx

CLIENTS = 6
ROUNDS = int(os.environ.get("ROLLING_ROUNDS", "1"))  # more of them for a figure, `pytest -s` shows it
QUICK = {"threads": 1, "decode_workers": 2, "batch_sizes": "[1,2,4]"}
PICTURES = [png(noise(height, width, height)) for height, width in ((100, 100), (250, 400), (300, 300), (30, 900))]


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator that takes some 10 ms a tile, so that requests are found under way."""
    folder = tmp_path_factory.mktemp("slow")
    write_generator(folder / "iphone.onnx", convolutions=30)
    return folder


@pytest.fixture
def replicas(serve_session: Serve, slow_folder: Path) -> Iterator[list[Server]]:
    started = [serve_session(models=slow_folder, **QUICK) for _ in range(2)]
    yield started
    for each in started:
        each.process.kill()
        each.process.wait(60)


@pytest.fixture
def nginx(replicas: list[Server], tmp_path: Path) -> Iterator[Nginx]:
    with running_nginx(tmp_path, [each.url for each in replicas]) as running:
        yield running


def tell(what: str, nginx: Nginx, clients: Clients, **more: object) -> None:
    """Print the counts, which `pytest -s` shows."""
    counts = {str(status): count for status, count in clients.told.items()}
    again = [line["answered"] for line in passed_on(nginx.lines())]
    facts = {"answers": counts, "failed": len(clients.failures), "asked of both replicas": len(again)} | more
    print(f"\n{what}: {json.dumps(facts)}")


def answered_by(replica: Server, nginx: Nginx) -> int:
    """How many requests nginx has from a replica."""
    return sum(line["tried"].endswith(replica.url.removeprefix("http://")) for line in nginx.lines())


def wait_for_answers(replica: Server, nginx: Nginx) -> None:
    """Wait until nginx gets answers of a replica that it had none of since."""
    before = answered_by(replica, nginx)
    wait_until(lambda: answered_by(replica, nginx) > before)


def test_rolling_restart_under_load(
    serve_session: Serve, slow_folder: Path, replicas: list[Server], nginx: Nginx
) -> None:
    with Clients(nginx.url, PICTURES).sending(CLIENTS) as clients:
        clients.wait_for(CLIENTS)
        for place in [*range(len(replicas))] * ROUNDS:
            old = replicas[place]
            old.process.send_signal(signal.SIGTERM)
            old.wait_for("SIGTERM: requests to finish: [1-9]")
            # while the other one does its work; it is asked for WebSockets too, though the old one has fewer of them
            with open_live(nginx) as live:
                live.send(PICTURES[0])
                assert live.until("result", "problem")["type"] == "result"
            clients.wait_for(CLIENTS)
            assert old.process.wait(120) == 0
            replicas[place] = serve_session(models=slow_folder, port=httpx.URL(old.url).port or 0, **QUICK)
            wait_for_answers(replicas[place], nginx)
    tell("two replicas restarted in turn", nginx, clients, restarts=ROUNDS * len(replicas))
    assert clients.failures == []
    assert clients.told.keys() == {200}
    assert passed_on(nginx.lines()), "nothing met the restart"


def test_a_killed_replica_costs_only_its_own(replicas: list[Server], nginx: Nginx) -> None:
    killed, other = replicas
    with (
        Clients(nginx.url, PICTURES).sending(CLIENTS) as clients,
        open_live(killed) as on_killed,
        open_live(other) as on,
    ):
        clients.wait_for(CLIENTS)
        wait_until(lambda: killed.metric("pix2dslr_requests_in_flight") > 3)  # the WebSocket and the asking are two
        under_way = int(killed.metric("pix2dslr_requests_in_flight")) - 2
        killed.process.kill()
        clients.wait_for(3 * CLIENTS)
        with pytest.raises(ConnectionClosedError):
            on_killed.event()
        on.send(PICTURES[0])
        assert on.until("result", "problem")["type"] == "result"
    # nginx had sent nothing of their answers yet, and sent them again to the other one
    broke_off = [line for line in passed_on(nginx.lines()) if line["took"].partition(",")[0] > "0.005"]
    tell("a replica killed", nginx, clients, **{"under way there": under_way, "broke off there": len(broke_off)})
    assert clients.failures == []
    assert len(broke_off) >= under_way > 0
