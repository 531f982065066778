"""The page of a service that asks for a key, and the API reference, in a real browser."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, jpeg
from tests.browser.proxy import PrefixProxy
from tests.browser.test_photos import enhance, file
from tests.e2e.conftest import Serve, Server

KEY = "ann+0123456789/abcdef=="
EXPECTED = r"status of 401 "


@pytest.fixture(scope="module")
def closed(serve_session: Serve) -> Server:
    return serve_session(api_keys=f"ann:{KEY}")


@pytest.fixture
def asked(open_page: Open, closed: Server) -> Page:
    page = open_page(closed.url, expected_errors=EXPECTED)
    expect(page.locator("#key")).to_be_focused()
    return page


def enter(page: Page, key: str) -> None:
    page.locator("#key").fill(key)
    page.keyboard.press("Enter")


def test_it_asks_for_a_key_once_and_keeps_it_for_the_session(asked: Page) -> None:
    addresses = []
    asked.on("request", lambda request: addresses.append(request.url))
    asked.on("websocket", lambda websocket: addresses.append(websocket.url))
    enter(asked, "wrong-0123456789abcdef")
    expect(asked.get_by_text("This key is not valid.")).to_be_visible()
    enter(asked, KEY)
    expect(asked.locator("#key-box")).to_be_hidden()
    expect(asked.locator("#camera option")).to_have_count(3)
    enhance(asked, file(jpeg()))
    asked.reload()
    enhance(asked, file(jpeg()))
    expect(asked.locator("#key-box")).to_be_hidden()
    assert asked.evaluate("localStorage.length") == 0
    assert asked.evaluate("document.cookie") == ""
    assert not [address for address in addresses if "0123456789" in address]


def test_a_photo_that_came_before_the_key_waits_for_it(asked: Page) -> None:
    asked.set_input_files("#files", [file(jpeg())])
    enter(asked, KEY)
    expect(asked.locator("#download")).to_be_enabled()


def test_the_question_is_accessible(asked: Page) -> None:
    for scheme in ("light", "dark"):
        asked.emulate_media(color_scheme=scheme)
        found = Axe().run(asked)
        assert found.violations_count == 0, found.generate_report()
    asked.set_viewport_size({"width": 360, "height": 640})
    assert asked.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_reference_needs_no_other_host_and_no_leave(open_page: Open, server: Server) -> None:
    """Violations of its policy are errors in the console, which `open_page` looks for."""
    page = open_page(f"{server.url}/docs")
    expect(page.get_by_text("Enhance a picture, or several")).to_be_visible()
    page.get_by_text("List the generators").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table").get_by_text("iphone").first).to_be_visible()


def test_the_reference_behind_a_prefix(open_page: Open, server: Server) -> None:
    with PrefixProxy(server.url, "/photos") as proxy:
        page = open_page(f"{proxy.url}docs")
        expect(page.get_by_text("Enhance a picture, or several")).to_be_visible()
