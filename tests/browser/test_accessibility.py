"""Accessibility by axe-core (WCAG 2.2 A and AA), in each state, light and dark, wide and narrow; and the keyboard."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, jpeg
from tests.browser.test_photos import enhance, file
from tests.e2e.conftest import Server

RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}
WINDOWS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


def check(page: Page, state: str) -> None:
    answer = Axe().run(page, options=RULES).response
    assert len(answer["passes"]) > 25, "the rules were applied"
    found = answer["violations"]
    told = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
    assert told == [], state


@pytest.mark.parametrize("window", WINDOWS)
def test_every_state(open_page: Open, server: Server, window: str) -> None:
    page = open_page(server.url, **WINDOWS[window])
    expect(page.locator("#camera option")).to_have_count(3)
    check(page, "empty")
    enhance(page, file(jpeg()))
    page.click("#details summary")
    check(page, "result")
    page.set_input_files("#reference-file", file(jpeg(), "ref.jpg"))
    expect(page.locator("#difference")).to_be_enabled()
    page.click("#difference")
    check(page, "reference")
    page.set_input_files("#files", [file(b"nothing", "x.jpg")])
    expect(page.locator("#failure")).to_be_visible()
    check(page, "error")
    page.click("#tab-live")
    check(page, "live")


def test_everything_is_reached_and_seen_by_keyboard(page: Page) -> None:
    enhance(page, file(jpeg()))
    page.evaluate("document.activeElement.blur()")
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        where, ring = page.evaluate(
            """() => {
                const element = document.activeElement;
                const drawn = element.id === "split" ? element.parentElement.querySelector(".grip") : element;
                return [element.id || element.textContent.trim(), getComputedStyle(drawn).outlineStyle];
            }"""
        )
        if where in seen or element_is_body(page):
            break
        assert ring != "none", f"{where} shows no focus"
        seen.append(where)
    assert {"tab-photos", "stage", "split", "zoom-full", "peek", "strength", "camera", "download", "align"} <= set(seen)
    page.keyboard.press("Home")


def element_is_body(page: Page) -> bool:
    return bool(page.evaluate("document.activeElement === document.body"))


def test_a_phone_scrolls_in_one_direction_alone(open_page: Open, server: Server) -> None:
    for width in (320, 390):
        page = open_page(server.url, viewport={"width": width, "height": 700}, is_mobile=True, has_touch=True)
        for tab in ("#tab-live", "#tab-photos"):
            page.click(tab)
            assert page.evaluate("document.documentElement.scrollWidth") == width
        enhance(page, file(jpeg()))
        assert page.evaluate("document.documentElement.scrollWidth") == width
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, select, a:not(.skip)")].filter((e) => e.offsetParent)
                .filter((e) => e.getBoundingClientRect().height < 24).map((e) => e.outerHTML)"""
        )
        assert small == [], "fingers need room"
