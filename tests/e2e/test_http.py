"""What HTTP asks of every resource: conditions, methods, other origins."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.codec import writable
from service.settings import Settings
from tests.e2e.conftest import Serve, Server, noise, pixels_of, png
from tests.e2e.test_problems import GOOD, problem

PAGE = "https://photos.example"


def test_who_has_the_answer_gets_304_and_nothing_is_computed(server: Server) -> None:
    picture = {"image": png(noise(200, 200))}
    with server.client() as client:
        first = client.post("/enhance", files=picture)
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "private, no-cache"
        assert first.headers["vary"] == "Accept"
        tiles = server.metric("pix2dslr_tiles_total")
        for known in (tag, f"W/{tag}", f'"other", {tag}'):
            again = client.post("/enhance", files=picture, headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
            assert again.headers["vary"] == "Accept"
            assert again.headers["cache-control"] == first.headers["cache-control"]
            assert "content-type" not in again.headers
        assert server.metric("pix2dslr_tiles_total") == tiles
        for unknown in ('"other"', "*"):
            computed = client.post("/enhance", files=picture, headers={"If-None-Match": unknown})
            assert computed.status_code == 200
            assert computed.headers["etag"] == tag
            assert computed.content == first.content, "the tag is a strong one"


def test_one_tag_stands_for_the_same_bytes_whatever_else_shares_the_batches(server: Server) -> None:
    pictures = [png(noise(150 + 40 * i, 260, i)) for i in range(4)]

    def enhance(i: int) -> tuple[str, bytes]:
        with server.client() as client:
            answer = client.post("/enhance", files={"image": pictures[i % 4]}, data={"format": "png"})
        return answer.headers["etag"], answer.content

    alone = dict(enhance(i) for i in range(4))
    assert len(alone) == 4
    with ThreadPoolExecutor(8) as pool:
        for tag, body in pool.map(enhance, range(40)):
            assert alone[tag] == body


def test_the_tag_depends_on_all_that_the_answer_does(server: Server) -> None:
    picture = noise(40, 40)
    asked: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"camera": "sony"}, {}),
        ({"strength": "0.5"}, {}),
        ({"overlap": "max"}, {}),
        ({"format": "jpeg"}, {}),
        ({"format": "jpeg", "encoder_quality": "50"}, {}),
        ({"metadata": "strip"}, {}),
        ({}, {"Accept": "image/webp"}),
    ]
    with server.client() as client:

        def tag(data: dict[str, str], headers: dict[str, str], **files: bytes) -> str:
            files = {"image": png(picture), **files}
            return client.post("/enhance", files=files, data=data, headers=headers).headers["etag"]

        tags = [tag(*each) for each in asked]
        tags += [tag({}, {}, image=png(noise(40, 40, 1))), tag({}, {}, reference=png(picture))]
        assert len(set(tags)) == len(tags)
        assert tag({"camera": "iphone", "strength": "1"}, {"Accept": "*/*"}) == tags[0], (
            "what is said and what is meant"
        )
        named = tag({"format": "jpeg"}, {})
        for alias in ("jpg", "JPEG", " Jpg ", "jfif"):
            assert tag({"format": alias, "camera": "iPhone"}, {}) == named
        raw = client.post("/enhance", content=png(picture), headers={"Content-Type": "image/png"})
        assert raw.headers["etag"] == tags[0], "however it was sent"


@pytest.mark.parametrize(
    ("name", "own"),
    [
        *[(name, "jpeg") for name in ("jpg", "JPEG", "Jpg", "jpe", "jfif", " jpeg")],
        *[(name, "tiff") for name in ("tif", "TIF", "Tiff")],
        *[(name, "heic") for name in ("heif", "HEIF", "hif", "HEIC")],
        *[(name, name.lower()) for name in ("PNG", "WebP", "BMP", "Avif")],
    ],
)
def test_formats_are_known_by_any_of_their_names(identity_server: Server, name: str, own: str) -> None:
    if own == "heic" and not writable("heic"):
        pytest.skip("this installation can't write HEIC")
    with identity_server.client() as client:
        form = client.post("/enhance", files={"image": png(noise(70, 70))}, data={"format": name, "camera": "IPHONE"})
        query = client.post("/enhance", content=png(noise(70, 70)), params={"format": name, "camera": " iPhone "})
    assert form.headers["content-type"] == query.headers["content-type"] == f"image/{own}"
    assert form.headers["x-pix2dslr-camera"] == "iphone"
    assert form.content == query.content


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("image/jpg", "image/jpeg"),
        ("image/pjpeg;q=0.9, image/x-png;q=0.8", "image/jpeg"),
        ("image/tif", "image/tiff"),
        ("image/x-ms-bmp", "image/bmp"),
        ("image/heif", "image/heic"),
        ("IMAGE/JPG", "image/jpeg"),
    ],
)
def test_media_types_that_are_not_registered_are_understood(
    identity_server: Server, accept: str, answered: str
) -> None:
    with identity_server.client() as client:
        answer = client.post("/enhance", files={"image": png(noise(70, 70))}, headers={"Accept": accept})
    assert answer.headers["content-type"] == answered


@pytest.mark.parametrize(
    "kind",
    [
        *("image/jpg", "image/pjpeg", "image/x-png", "image/tif", "image/heif", "image/x-ms-bmp", "IMAGE/PNG"),
        *("binary/octet-stream", "application/octet-stream; charset=binary", "Application/Octet-Stream", "", None),
    ],
)
def test_a_body_is_taken_whatever_a_store_calls_it(identity_server: Server, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    with identity_server.client() as client:
        answer = client.post("/enhance", content=png(noise(20, 30)), headers=headers)
    assert answer.status_code == 200
    np.testing.assert_array_equal(pixels_of(answer.content), noise(20, 30))


def test_another_generator_gives_another_tag(server: Server, identity_server: Server) -> None:
    tags = set()
    for each in (server, identity_server):
        with each.client() as client:
            tags.add(client.post("/enhance", files={"image": GOOD}).headers["etag"])
    assert len(tags) == 2


def test_what_may_be_kept(client: httpx.Client) -> None:
    cameras = client.get("/cameras")
    assert cameras.headers["cache-control"] == "no-cache"
    again = client.get("/cameras", headers={"If-None-Match": cameras.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("/livez", "/healthz", "/readyz", "/metrics", "/nowhere"):
        assert client.get(path).headers["cache-control"] == "no-store", path
    assert client.post("/enhance", files={"image": b"x"}).headers["cache-control"] == "no-store"
    scores = client.post("/evaluate", files={"image": GOOD, "reference": GOOD})
    assert scores.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/cameras", "/livez", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # whose numbers grow
        assert head.headers["content-length"] == get.headers["content-length"]
        assert head.headers.get("etag") == get.headers.get("etag")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/enhance", "POST, OPTIONS"),
        ("/evaluate", "POST, OPTIONS"),
        ("/cameras", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
def test_the_methods_of_each_path(client: httpx.Client, path: str, allow: str) -> None:
    options = client.options(path)
    assert (options.status_code, options.content) == (204, b"")
    assert options.headers["allow"] == allow
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - set(allow.split(", ")):
        refused = client.request(method, path)
        assert refused.status_code == 405
        assert refused.headers["allow"] == allow
        if method != "HEAD":
            problem(refused, "method-not-allowed", 405)


def test_a_path_that_is_not_there_has_no_methods(client: httpx.Client) -> None:
    assert client.options("/nowhere").status_code == 404
    assert client.head("/nowhere").status_code == 404
    assert client.head("/nowhere").content == b""


def test_a_body_of_the_wrong_kind_is_told_what_is_taken(client: httpx.Client) -> None:
    assert client.post("/enhance", json={}).headers["accept-post"] == "multipart/form-data, image/*, application/zip"
    packed = client.post("/enhance", content=GOOD, headers={"Content-Encoding": "gzip", "Content-Type": "image/png"})
    assert packed.headers["accept-encoding"] == "identity"
    assert client.post("/enhance", content=GOOD).status_code == 200, "without a type it is what it looks like"


def preflight(client: httpx.Client, origin: str, **more: str) -> httpx.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST", **more}
    return client.options("/enhance", headers=headers)


def test_pages_of_other_origins_are_kept_out_until_configured(client: httpx.Client) -> None:
    refused = client.post("/enhance", files={"image": GOOD}, headers={"Origin": PAGE})
    problem(refused, "other-origin", 403)
    for answer in (preflight(client, PAGE), refused):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "{url}"}, 200),
        ({"Origin": "{url}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://photos.example", "X-Forwarded-Host": "photos.example"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "{url}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/enhance", "/evaluate"])
def test_what_a_page_of_another_site_posts_is_refused(
    identity_server: Server, path: str, headers: dict[str, str], status: int
) -> None:
    told = {name: value.format(url=identity_server.url) for name, value in headers.items()}
    files = {"image": GOOD, "reference": GOOD}
    with identity_server.client() as client:
        answer = client.post(path, files=files, headers=told)
        assert answer.status_code == status
        if status == 403:
            problem(answer, "other-origin", 403)
        assert client.get("/livez", headers=told).status_code == 200


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("localhost:3000", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("rebound.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.2", False),
        ("192.0.2.1:8000", False),
    ],
)
def test_on_loopback_the_service_answers_for_few_names(identity_server: Server, host: str, known: bool) -> None:
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    with identity_server.client() as client:
        answer = client.post("/enhance", files={"image": GOOD}, headers=headers)
        if known:
            assert answer.status_code == 200
        else:
            problem(answer, "unknown-host", 421)
        assert client.get("/metrics", headers={"Host": host}).status_code == (200 if known else 421)
        assert client.get("/readyz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "settings",
    [{"host": "0.0.0.0"}, {"trusted_proxies": "127.0.0.1"}, {"trusted_hosts": "photos.example"}],  # noqa: S104
    ids=["on all addresses", "behind a proxy of the machine", "by its name"],
)
def test_a_service_for_others_answers_for_its_own_name(
    serve_session: Serve, identity_folder: object, settings: dict[str, str]
) -> None:
    server = serve_session(models=identity_folder, metrics_port=0, **settings)
    metrics = server.wait_for(r"metrics and health on http://\S+:(\d+)").group(1)
    with server.client() as client:
        assert client.post("/enhance", files={"image": GOOD}, headers={"Host": "photos.example"}).status_code == 200
        rebound = client.get(f"http://127.0.0.1:{metrics}/metrics", headers={"Host": "rebound.evil.example"})
        assert rebound.status_code == (421 if "trusted_hosts" in settings else 200)
    assert server.stop() == 0


def test_pages_of_configured_origins_may_use_it_and_read_its_headers(
    serve_session: Serve, identity_folder: object
) -> None:
    server = serve_session(models=identity_folder, cors_origins=f"{PAGE}, http://localhost:5173", max_body_bytes=10_000)
    with server.client() as client:
        allowed = preflight(client, PAGE, **{"Access-Control-Request-Headers": "if-none-match, content-type"})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in allowed.headers
        refused = preflight(client, "https://elsewhere.example")
        assert "access-control-allow-origin" not in refused.headers

        done = client.post("/enhance", files={"image": GOOD}, headers={"Origin": PAGE})
        assert done.headers["access-control-allow-origin"] == PAGE
        assert done.headers["vary"] == "Accept, Origin"
        exposed = set(done.headers["access-control-expose-headers"].lower().split(", "))
        ours = {name for name in done.headers if name.startswith("x-") or name in ("etag", "server-timing")}
        ours -= {"x-content-type-options"}  # for the browser alone
        assert ours <= exposed
        failed = client.post("/enhance", files={"image": b"x" * 20_000}, headers={"Origin": PAGE})
        problem(failed, "body-too-large", 413)
        assert failed.headers["access-control-allow-origin"] == PAGE, "its page can read what was wrong"
        cross = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
        assert client.post("/enhance", files={"image": GOOD}, headers=cross).status_code == 200
        other = client.post("/enhance", files={"image": GOOD}, headers={"Origin": "https://elsewhere.example"})
        problem(other, "other-origin", 403)
        assert "access-control-allow-origin" not in other.headers
    assert server.stop() == 0


def test_the_document_is_asked_for_again_only_where_it_changed(client: httpx.Client) -> None:
    first = client.get("/openapi.json")
    assert first.json() == create_app(Settings()).openapi()
    again = client.get("/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/openapi.json", headers={"If-None-Match": '"other"'}).content == first.content


@pytest.mark.parametrize("path", ["/enhance", "/livez", "/nowhere"])
def test_a_query_of_more_parameters_than_there_are(client: httpx.Client, path: str) -> None:
    many = "&".join(f"a{i}=1" for i in range(33))
    answer = client.post(f"{path}?{many}", content=b"x", headers={"Content-Type": "image/png"})
    problem(answer, "malformed-request", 400)
    assert client.get(f"{path}?{many}").status_code == 400
