"""API keys, hosts and the order of defence, on a real server."""

import base64
import json
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from service.edge.headers import SECURITY_HEADERS
from tests.e2e.conftest import Run, Serve, Server, noise, png
from tests.e2e.raw import head, open_socket, pump, read_answer, wait_until
from tests.e2e.test_problems import GOOD, problem

ANN, BOB, EVE = "ann-0123456789abcdef", "bob+0123456789/abcdef==", "eve-0123456789abcdef"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"# one a line\n\nann:{ANN}\n")
    return path


@pytest.fixture(scope="module")
def closed(serve_session: Serve, identity_folder: Path, keys: Path) -> Server:
    return serve_session(
        models=identity_folder,
        api_keys_file=keys,
        api_keys=f"bob:{BOB}",
        max_body_bytes=2_000_000,
        cors_origins="https://photos.example",
    )


def enhance(server: Server, **headers: str) -> httpx.Response:
    with server.client() as client:
        return client.post("/enhance", files={"image": GOOD}, headers=headers)


@pytest.mark.parametrize("key", [ANN, BOB])
def test_a_key_lets_in_by_either_header(closed: Server, key: str) -> None:
    assert enhance(closed, Authorization=f"Bearer {key}").status_code == 200
    assert enhance(closed, Authorization=f"bearer  {key}").status_code == 200
    assert enhance(closed, **{"X-API-Key": key}).status_code == 200
    assert enhance(closed, **{"X-API-Key": key, "Authorization": "Basic eDp5"}).status_code == 200, "a proxy's own"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {EVE}"},
        {"Authorization": ANN},
        {"Authorization": f"Basic {ANN}"},
        {"Authorization": "Bearer"},
        {"X-API-Key": ANN[:-1]},
        {"X-API-Key": "ann"},
        {"X-API-Key": f"ann:{ANN}"},
        {"X-API-Key": "\xe9" * 20},
    ],
)
def test_nothing_else_does(closed: Server, headers: dict[str, str]) -> None:
    with closed.client() as client:
        encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        answer = client.post("/enhance", files={"image": GOOD}, headers=list(encoded.items()))
        problem(answer, "unauthorized", 401)
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        for path in ("/cameras", "/metrics", "/nowhere", "/enhance/"):
            assert client.get(path, headers=list(encoded.items())).status_code == 401, path
        for path in ("/livez", "/readyz", "/healthz", "/", "/page/app.js", "/docs", "/openapi.json"):
            assert client.get(path, headers=list(encoded.items())).status_code == 200, path


@pytest.mark.parametrize("path", ["//enhance", "/page/../enhance", "/page/%2e%2e/enhance", "/page//enhance"])
def test_no_way_of_writing_a_path_gets_past_the_key(closed: Server, path: str) -> None:
    with open_socket(closed) as connection:
        connection.sendall(head("POST", path, content_length=len(GOOD)) + GOOD)
        assert read_answer(connection).status in (401, 404, 405)


def test_another_origins_page_can_send_a_key_and_read_that_it_needs_one(closed: Server) -> None:
    origin = {"Origin": "https://photos.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-api-key"}
    with closed.client() as client:
        assert client.options("/enhance", headers={**origin, **asked}).status_code == 200
        refused = client.post("/enhance", files={"image": GOOD}, headers=origin)
    problem(refused, "unauthorized", 401)
    assert refused.headers["access-control-allow-origin"] == origin["Origin"]


def live(server: Server, key: str | None, **headers: str) -> str:
    """Open /live with the key as a page does, have a picture enhanced, and return what its last event was."""
    offered = None
    if key is not None:
        encoded = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
        offered = [Subprotocol("pix2dslr"), Subprotocol(f"pix2dslr.key.{encoded}")]
    url = server.url.replace("http", "ws") + "/live"
    with connect(url, proxy=None, subprotocols=offered, additional_headers=headers) as socket:
        assert socket.subprotocol == (None if key is None else "pix2dslr"), "never the one that holds the key"
        socket.send(GOOD)
        while True:
            message = socket.recv(60)
            if isinstance(message, str) and (kind := json.loads(message)["type"]) in ("result", "problem"):
                return str(kind)


def test_a_websocket_brings_its_key_as_a_subprotocol(closed: Server) -> None:
    assert live(closed, ANN) == "result"
    assert live(closed, BOB) == "result"
    assert live(closed, None, **{"X-API-Key": ANN}) == "result", "who can, sends the header"
    for wrong in (EVE, "", "\xff"):
        with pytest.raises(ConnectionClosed) as caught:
            live(closed, wrong)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 3000


def test_the_key_comes_before_the_body(closed: Server) -> None:
    """100 GB are announced, and not even a byte of them is waited for."""
    with open_socket(closed) as connection:
        connection.sendall(head(content_length=100 << 30))
        answer = read_answer(connection)
        assert (answer.status, answer.problem) == (401, "unauthorized")
        assert answer.headers["connection"] == "close"
        pump(connection, 60)


def test_who_sends_all_before_reading_still_gets_the_answer(closed: Server) -> None:
    """To close at once would reset the connection, and the answer would be lost with it."""
    with open_socket(closed) as connection:
        connection.sendall(head(content_length=16 << 20))
        for _ in range(16):
            connection.sendall(b"\0" * (1 << 20))
        assert read_answer(connection).status == 401


def test_then_the_claimed_length_before_the_client_is_told_to_go_on(closed: Server) -> None:
    with open_socket(closed) as connection:
        connection.sendall(head(content_length=100 << 20, expect="100-continue", x_api_key=ANN))
        answer = read_answer(connection)  # 413, and no 100 before it
        assert (answer.status, answer.problem) == (413, "body-too-large")
        assert answer.headers["connection"] == "close"
    with open_socket(closed) as connection:
        connection.sendall(head(content_length="9" * 20, x_api_key=ANN))
        assert read_answer(connection).status == 413
    with open_socket(closed) as connection:
        connection.sendall(head(content_length=len(GOOD), expect="100-continue", x_api_key=ANN))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(GOOD)
        assert read_answer(connection).status == 200


def test_then_what_comes(closed: Server) -> None:
    with open_socket(closed) as connection:
        connection.sendall(head(transfer_encoding="chunked", x_api_key=ANN))
        for _ in range(40):  # no more than a little beyond the limit, and no end
            connection.sendall(b"10000\r\n" + b"\0" * 65_536 + b"\r\n")
        answer = read_answer(connection)
        assert (answer.status, answer.problem) == (413, "body-too-large")
        pump(connection, 60)
    assert enhance(closed, **{"X-API-Key": ANN}).status_code == 200


def test_the_file_is_read_again_and_a_broken_one_changes_nothing(closed: Server, keys: Path) -> None:
    lines = keys.read_text()
    with closed.client() as client:

        def lets_in(key: str) -> bool:
            return client.get("/cameras", headers={"X-API-Key": key}).status_code == 200

        keys.write_text(lines + f"eve:{EVE}\n")
        wait_until(lambda: lets_in(EVE))
        keys.write_text("nonsense of " + EVE)
        line = closed.wait_for("API keys: line 1 has no name")
        assert lets_in(EVE)
        assert EVE not in line.string
        keys.unlink()
        closed.wait_for("API keys: the file can't be read")
        assert lets_in(ANN)
        keys.write_text("")
        closed.wait_for("API keys: there is no key")
        assert lets_in(ANN)
        assert not lets_in("")
        url = closed.url.replace("http", "ws") + "/live"
        with connect(url, proxy=None, additional_headers={"X-API-Key": EVE}) as socket:
            assert json.loads(socket.recv(60))["type"] == "ready"
            keys.write_text(lines)
            wait_until(lambda: not lets_in(EVE))
            assert lets_in(ANN)
            socket.send(GOOD)
            with pytest.raises(ConnectionClosed) as caught:
                socket.recv(60)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 3000, "a key that is revoked ends what it opened"
        assert lets_in(BOB)
    told = [line for line in closed.log if "API keys" in line]
    assert len(told) == 5, "each change in one line"


@pytest.mark.parametrize("content", [None, "", "# none\n", "ann:short", "ann", f"ann:{ANN}\nbob:{ANN}\n", "\xff"])
def test_it_does_not_start_with_keys_that_it_cannot_read(run: Run, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content, "latin-1")
    done = run("serve", "--port", "0", api_keys_file=path)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "API keys" in done.stderr
    assert ANN not in done.stderr


def test_a_broken_key_in_the_environment_is_not_told(run: Run) -> None:
    done = run("serve", "--port", "0", api_keys="ann:too,short")
    assert done.returncode != 0
    assert "api_keys" in done.stderr
    assert "too" not in done.stderr.replace("too long", "")


@pytest.fixture(scope="module")
def named(serve_session: Serve, identity_folder: Path) -> Server:
    return serve_session(
        models=identity_folder,
        trusted_hosts="photos.example, *.lan",
        metrics_port=0,
        docs="false",
    )


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("photos.example", True),
        ("PHOTOS.example:8443", True),
        ("a.b.lan", True),
        ("lan", False),
        ("evil-lan", False),
        ("photos.example.evil", False),
        ("127.0.0.1", False),
        ("[::1]:80", False),
        ("", False),
    ],
)
def test_only_known_hosts_are_answered(named: Server, host: str, known: bool) -> None:
    with named.client() as client:
        answer = client.post("/enhance", files={"image": GOOD}, headers={"Host": host})
        if known:
            assert answer.status_code == 200
        else:
            problem(answer, "unknown-host", 421)
        assert client.get("/livez", headers={"Host": host}).status_code == 200, "probes ask for an address"


def test_metrics_and_health_have_a_port_of_their_own(named: Server) -> None:
    url = named.wait_for(r"metrics and health on (http://\S+)").group(1)
    host = {"Host": "photos.example"}
    with named.client() as public, httpx.Client(base_url=url, trust_env=False) as private:
        assert "pix2dslr_tiles_total" in private.get("/metrics").text
        for path in ("/livez", "/readyz", "/healthz"):
            assert private.get(path).status_code == 200
            assert public.get(path).status_code == 200
        problem(public.get("/metrics", headers=host), "not-found", 404)
        for path in ("/enhance", "/cameras", "/", "/docs"):
            problem(private.get(path), "not-found", 404)


def test_both_ports_end_with_the_process(serve_session: Serve, identity_folder: Path) -> None:
    server = serve_session(models=identity_folder, metrics_port=0)
    url = server.wait_for(r"metrics and health on (http://\S+)").group(1)
    with httpx.Client(base_url=url, trust_env=False) as private, open_socket(server):
        assert private.get("/livez").status_code == 200  # and both connections stay open
        assert server.stop() == 0


def test_docs_can_be_switched_off(named: Server) -> None:
    host = {"Host": "photos.example"}
    with named.client() as client:
        for path in ("/docs", "/openapi.json", "/redoc"):
            assert client.get(path, headers=host).status_code == 404
        page = client.get("/", headers=host)
    assert page.status_code == 200
    assert 'href="docs"' not in page.text, "no link leads nowhere"
    assert 'id="choose"' in page.text


def test_every_answer_says_what_browsers_may_do_with_it(server: Server) -> None:
    with server.client() as client:
        for path in ("/", "/page/app.js", "/docs", "/openapi.json", "/livez", "/metrics", "/nowhere", "/cameras"):
            headers = client.get(path).headers
            for name in SECURITY_HEADERS:
                assert len(headers.get_list(name)) == 1, (path, name)
            assert "unsafe-eval" not in headers["content-security-policy"]
        done = client.post("/enhance", files={"image": png(noise(9, 9))})
        assert done.headers["content-security-policy"].startswith("default-src 'none'; frame-ancestors 'none'")
    with open_socket(server) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = read_answer(connection)
        assert (answer.status, answer.problem) == (400, "malformed-request")
        assert answer.headers["x-content-type-options"] == "nosniff"
