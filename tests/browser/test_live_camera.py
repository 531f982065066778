"""The live part, with Chromium's fake camera."""

import re

from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Open
from tests.e2e.conftest import Serve, Server


def test_frames_come_back_enhanced(page: Page, server: Server) -> None:
    page.click("#tab-live")
    page.select_option("#live-size", "320x240")
    page.click("#live-start")
    expect(page.locator("#live-start")).to_have_text("Stop")
    expect(page.locator("#live-fps")).to_have_text(re.compile(r"^\d+\.\d$"))
    expect(page.locator("#live-latency")).to_have_text(re.compile(r"^\d+ ms$"))
    # the fake camera's disc turns: what is shown changes
    page.wait_for_function(
        """() => {
            window.sums ??= new Set();
            const copy = new OffscreenCanvas(320, 240);
            const context = copy.getContext("2d", { willReadFrequently: true });
            context.drawImage(document.querySelector("#enhanced"), 0, 0);
            const { data } = context.getImageData(0, 0, 320, 240);
            window.colour = [0, 0, 0];
            for (let i = 0; i < data.length; i++) if (i % 4 < 3) window.colour[i % 4] += data[i] / 76800;
            window.sums.add(window.colour.join());
            return window.sums.size > 5;
        }""",
        polling=50,
    )
    assert page.evaluate("[document.querySelector('#enhanced').width, document.querySelector('#enhanced').height]") == [
        320,
        240,
    ]
    # green, as the camera is: the picture is the camera's, not nothing
    colour = page.evaluate("colour")
    assert colour[1] > 60
    assert colour[1] > colour[0] + 30
    assert colour[1] > colour[2] + 30
    # at strength 0 a frame comes back as the camera gave it: the disc's ground is plain
    page.get_by_role("slider", name="Strength").filter(visible=True).fill("0")
    page.wait_for_function(
        """() => {
            const copy = new OffscreenCanvas(320, 240);
            const context = copy.getContext("2d", { willReadFrequently: true });
            context.drawImage(document.querySelector("#enhanced"), 0, 0);
            const { data } = context.getImageData(100, 180, 120, 40);
            const greens = data.filter((_, i) => i % 4 === 1);
            return Math.max(...greens) - Math.min(...greens) <= 3;
        }""",
        polling=50,
    )
    page.click("#live-start")
    expect(page.locator("#live-start")).to_have_text("Start the camera")
    assert page.evaluate("document.querySelector('#raw').srcObject") is None, "the camera's light is off"
    results = server.metric('pix2dslr_live_frames_total{end="result"}')
    assert results > 5


def test_another_tab_stops_the_camera(page: Page) -> None:
    page.click("#tab-live")
    page.click("#live-start")
    expect(page.locator("#live-start")).to_have_text("Stop")
    page.locator("#tab-live").press("ArrowLeft")
    expect(page.locator("#photos")).to_be_visible()
    page.click("#tab-live")
    expect(page.locator("#live-start")).to_have_text("Start the camera")


def test_without_a_camera_it_says_so(open_page: Open, server: Server, browser_without_camera: Browser) -> None:
    page = open_page(server.url, in_browser=browser_without_camera, permissions=["camera"])
    page.click("#tab-live")
    page.click("#live-start")
    expect(page.locator("#live-failure")).to_contain_text("There is no camera")
    expect(page.locator("#live-start")).to_be_enabled()


def test_the_service_going_down_stops_the_camera(open_page: Open, serve_session: Serve) -> None:
    server = serve_session()
    page = open_page(server.url)
    page.click("#tab-live")
    page.select_option("#live-size", "320x240")
    page.click("#live-start")
    expect(page.locator("#live-fps")).to_have_text(re.compile(r"^\d"))
    assert server.stop() == 0
    expect(page.locator("#live-failure")).to_contain_text("The service is shutting down")
    expect(page.locator("#live-start")).to_have_text("Start the camera")
