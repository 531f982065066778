"""A real Chromium, headless, with a fake camera, on pages of a real server."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import skimage.data
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser import chromium
from tests.e2e.conftest import Server, identity_folder, serve_session, server

__all__ = ["identity_folder", "serve_session", "server"]

WAIT_MS = 60_000
"""Patient: a photo takes seconds on two cores that a browser shares."""

FLAGS = [
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
]

Open = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


# by module: its event loop runs in the main thread for as long as it lives, and other tests start their own there
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        pytest.skip(chromium.HOW)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def browser_without_camera(browser: Browser) -> Iterator[Browser]:
    made = browser.browser_type.launch(executable_path=chromium.find())
    yield made
    made.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens pages; at the end none may have logged an error, or asked another host for anything."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []
    hosts: set[str] = set()
    ours: set[str] = set()

    def open_(url: str, *, expected_errors: str = "", in_browser: Browser = browser, **options: object) -> Page:
        context = in_browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})  # type: ignore[arg-type]
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        ours.add(urlsplit(url).netloc)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.on("websocket", lambda websocket: hosts.add(urlsplit(websocket.url).netloc))
        page.on("pageerror", lambda error: errors.append(str(error)))

        def logged(kind: str, text: str) -> None:
            refused = re.search(r"responded with a status of (415|422) ", text)  # what tests provoke; never 404
            if (
                kind in ("error", "warning")
                and not refused
                and not (expected_errors and re.search(expected_errors, text))
            ):
                errors.append(text)

        page.on("console", lambda message: logged(message.type, message.text))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []
    assert {host for host in hosts if host} <= ours, "nothing comes from elsewhere"


@pytest.fixture
def page(open_page: Open, server: Server) -> Page:
    return open_page(server.url)


def jpeg(name: str = "coffee", width: int = 0, orientation: int = 1) -> bytes:
    """A photo of scikit-image's as a JPEG file, perhaps enlarged, perhaps with an EXIF orientation."""
    image = Image.fromarray(getattr(skimage.data, name)())
    if width:
        image = image.resize((width, round(width * image.height / image.width)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, exif=exif)
    return buffer.getvalue()
