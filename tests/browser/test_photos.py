"""The page as its visitors use it: photos."""

import io
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect

from service.tiling import plan
from tests.browser.conftest import Open, jpeg
from tests.browser.proxy import PrefixProxy
from tests.e2e.conftest import Serve, Server, png
from tests.e2e.nginx import needs_nginx, running_nginx

ImageArray = npt.NDArray[np.uint8]

BIG = jpeg("astronaut", 3000)
"""Some seconds' work for two cores: time enough to look at it, and to cancel."""


def file(data: bytes, name: str = "photo.jpg", kind: str = "image/jpeg") -> FilePayload:
    return {"name": name, "mimeType": kind, "buffer": data}


def enhance(page: Page, *files: FilePayload) -> None:
    page.set_input_files("#files", list(files))
    expect(page.locator("#download")).to_be_enabled()


def stage(page: Page) -> ImageArray:
    return np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB"))


def split(page: Page) -> int:
    return int(page.locator("#split").input_value())


def saved(page: Page, button: str = "#download") -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def pixels(data: bytes) -> ImageArray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end


def test_a_photo_is_enhanced_and_saved_as_the_service_answers_it(page: Page, server: Server) -> None:
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#limits")).to_contain_text("100 megapixels")
    expect(page.locator("#camera option")).to_have_count(3)
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files([file(jpeg(), "holiday.jpg")])
    expect(page.locator("#download")).to_be_enabled()
    expect(page.locator("#empty")).to_be_hidden()
    expect(page.locator("#status")).to_have_text("holiday.jpg is enhanced")
    name, data = saved(page)
    assert name == "holiday-enhanced.jpg"
    with server.client() as client:
        assert data == client.post("/enhance", files={"image": jpeg()}).content


def test_progress_is_told_in_tiles(page: Page) -> None:
    page.evaluate(
        """() => {
            window.told = [];
            new MutationObserver(() => told.push(document.querySelector("#working-text").textContent))
              .observe(document.querySelector("#working-text"), { childList: true });
        }"""
    )
    enhance(page, file(BIG))
    told = [re.match(r"([\d,]+) of ([\d,]+) tiles", text) for text in page.evaluate("told")]
    counts = [(int(m[1].replace(",", "")), int(m[2].replace(",", ""))) for m in told if m]
    assert len(counts) > 5
    assert counts == sorted(counts)
    assert {total for _, total in counts} == {plan(3000, 3000).tiles}


def test_the_divider_by_mouse_and_keyboard(page: Page) -> None:
    white = np.full((400, 500, 3), 200, np.uint8)
    enhance(page, file(png(white), "grey.png", "image/png"))
    assert split(page) == 50
    box = page.locator("#stage").bounding_box()
    assert box is not None
    left, middle = box["x"] + (box["width"] - box["height"] * 500 / 400) / 2, box["y"] + box["height"] / 2
    width = box["height"] * 500 / 400
    page.mouse.move(left + width / 2, middle)
    page.mouse.down()
    page.mouse.move(left + width * 0.25, middle, steps=4)
    page.mouse.up()
    assert abs(split(page) - 25) <= 1
    slider = page.get_by_role("slider", name="Divider between before and after")
    expect(slider).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert abs(split(page) - 27) <= 1
    page.keyboard.press("End")
    assert split(page) == 100
    plain = stage(page)[200, 200:700]
    assert np.abs(plain.astype(int) - 200).max() <= 1, "all as it came"
    page.keyboard.press("Home")
    changed = stage(page)[200, 300:600]
    assert np.abs(changed.astype(int) - 200).mean() > 2, "all enhanced"
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    assert split(page) == 1
    page.keyboard.down("b")
    assert np.abs(stage(page)[200, 300:600].astype(int) - 200).max() <= 1, "held: as it came"
    page.keyboard.up("b")
    assert np.abs(stage(page)[200, 300:600].astype(int) - 200).mean() > 2


def test_zoom_and_pan(page: Page) -> None:
    photo = skimage.data.astronaut().repeat(4, axis=0).repeat(4, axis=1)
    enhance(page, file(png(photo), "big.png", "image/png"))
    page.locator("#stage").focus()
    page.keyboard.press("End")
    page.locator("#split").focus()
    page.keyboard.press("End")
    page.click("#zoom-full")
    expect(page.locator("#zoom")).to_have_text("100\u202f%")
    expect(page.locator("#zoom-full")).to_have_attribute("aria-pressed", "true")

    def shows(x: int, y: int) -> bool:
        """Whether the stage shows the photo's own pixels with (x, y) in its left top corner."""
        shown = stage(page)[80:-80, 120:400]
        there = photo[y + 80 : y + 80 + shown.shape[0], x + 120 : x + 400]
        return float(np.abs(shown.astype(int) - there).mean()) < 3

    height, width = stage(page).shape[:2]
    x, y = (photo.shape[1] - width) // 2, (photo.shape[0] - height) // 2
    assert shows(x, y)
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert shows(x + 64, y + 64)
    page.locator("#stage").hover(position={"x": 300, "y": 100})
    page.mouse.down()
    box = page.locator("#stage").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 350, box["y"] + 130, steps=3)
    page.mouse.up()
    assert shows(x + 14, y + 34)
    page.keyboard.press("0")
    expect(page.locator("#zoom-fit")).to_have_attribute("aria-pressed", "true")
    page.mouse.wheel(0, -400)
    expect(page.locator("#zoom-fit")).to_have_attribute("aria-pressed", "false")


def test_strength_reblends_at_once_and_is_in_what_is_saved(page: Page, server: Server) -> None:
    source: ImageArray = skimage.data.astronaut()
    enhance(page, file(png(source), "a.png", "image/png"))
    whole = pixels(saved(page)[1]).astype(float)
    page.locator("#split").focus()
    page.keyboard.press("Home")
    page.click("#zoom-full")
    done = server.metric("pix2dslr_tiles_total")
    for share in (100, 50, 0):
        page.locator("#strength").fill(str(share))
        expect(page.locator("#strength-out")).to_have_text(f"{share}\u202f%")
        shown = stage(page)
        top, left = (shown.shape[0] - 512) // 2, (shown.shape[1] - 512) // 2
        there = np.s_[max(-top, 0) + 60 : 300, 100:400]
        wanted = source + (whole - source) * share / 100
        here = shown[top + there[0].start : top + 300, left + 100 : left + 400]
        assert np.abs(here - wanted[there]).max() <= 2
    assert server.metric("pix2dslr_tiles_total") == done, "without a second run"
    page.locator("#strength").fill("40")
    half = pixels(saved(page)[1])
    with server.client() as client:
        answer = client.post("/enhance", files={"image": png(source)}, data={"strength": "0.4"})
    np.testing.assert_array_equal(half, pixels(answer.content))
    assert server.metric("pix2dslr_tiles_total") > done


def test_the_format_that_is_chosen_is_saved(page: Page) -> None:
    enhance(page, file(jpeg()))
    page.select_option("#format", "webp")
    name, data = saved(page)
    assert name == "photo-enhanced.webp"
    assert Image.open(io.BytesIO(data)).format == "WEBP"


def test_another_camera_or_overlap_runs_again(page: Page, server: Server) -> None:
    enhance(page, file(jpeg()))
    page.select_option("#camera", "sony")
    expect(page.locator("#facts")).to_contain_text("Sony")
    page.select_option("#overlap", "max")
    page.click("#details summary")
    expect(page.locator("#facts")).to_contain_text("Tiles54")
    with server.client() as client:
        answer = client.post("/enhance", files={"image": jpeg()}, data={"camera": "sony", "overlap": "max"})
    assert saved(page)[1] == answer.content


def test_details_and_the_seam_index_on_demand(page: Page) -> None:
    enhance(page, file(jpeg()))
    page.click("#details summary")
    expect(page.locator("#facts")).to_contain_text("Generator")
    expect(page.locator("#facts")).not_to_contain_text("Seam index")
    page.click("#measure")
    expect(page.locator("#facts")).to_contain_text(re.compile(r"Seam index[01]\.\d{3}"))


@pytest.mark.parametrize("align", [False, True], ids=["as it is", "lined up"])
def test_a_reference_shows_scores_and_a_map(page: Page, server: Server, align: bool) -> None:
    truth: ImageArray = skimage.data.astronaut()
    dim = (truth * 0.7).astype(np.uint8)
    other = truth[12:, 20:] if align else truth
    enhance(page, file(png(dim), "dim.png", "image/png"))
    expect(page.locator("#difference")).to_be_disabled()
    if align:
        page.set_input_files("#reference-file", file(png(other), "ref.png", "image/png"))
        expect(page.locator("#reference-note")).to_contain_text("The reference has another size")
        page.check("#align")
    else:
        page.set_input_files("#reference-file", file(png(other), "ref.png", "image/png"))
    expect(page.locator("#difference")).to_be_enabled()
    with server.client() as client:
        form = {"align": str(align).lower()}
        scores = client.post("/evaluate", files={"image": png(dim), "reference": png(other)}, data=form).json()
    assert page.inner_text("#psnr-before") == f"{scores['input']['psnr']:.2f}"
    assert page.inner_text("#psnr-after") == f"{scores['output']['psnr']:.2f}"
    gain = scores["output"]["psnr"] - scores["input"]["psnr"]
    assert f"the photo is {gain:.1f} dB nearer to the reference" in page.inner_text("#reference-note")
    assert page.inner_text("#ssim-after") == f"{scores['output']['ssim']:.4f}"
    page.click("#difference")
    expect(page.locator("#legend")).to_be_visible()
    shown = stage(page).astype(int)
    width = shown.shape[1]
    lit = shown.sum(axis=2)
    before, after = lit[150:450, width // 2 - 200 : width // 2 - 30], lit[150:450, width // 2 + 30 : width // 2 + 200]
    assert before.mean() > after.mean() * 1.2, "the dim half is farther from the reference"
    page.click("#difference")
    expect(page.locator("#legend")).to_be_hidden()
    page.click("#drop-reference")
    expect(page.locator("#scores")).to_be_hidden()


def test_a_failing_photo_says_why_and_costs_no_other(page: Page) -> None:
    page.set_input_files(
        "#files", [file(jpeg()), file(b"no picture at all", "notes.jpg"), file(jpeg("cat"), "cat.jpg")]
    )
    entries = page.locator("#strip button")
    for i, state in enumerate(("done", "failed", "done")):
        expect(entries.nth(i)).to_have_attribute("data-state", state)
    expect(page.locator("#failure")).to_be_hidden()
    entries.nth(1).click()
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("This is not a photo that can be read")
    expect(page.locator("#failure-id")).to_contain_text("notes.jpg")
    page.click("#remove")
    expect(entries).to_have_count(2)
    expect(page.locator("#failure")).to_be_hidden()
    expect(page.locator("#download-all")).to_have_text("Download all 2")
    names: list[str] = []
    page.on("download", lambda download: names.append(download.suggested_filename))
    with page.expect_event("download", lambda _: len(names) == 2):
        page.click("#download-all")
    assert names == ["photo-enhanced.jpg", "cat-enhanced.jpg"]


def test_cancelling_stops_the_work_on_the_server(page: Page, server: Server) -> None:
    page.set_input_files("#files", [file(BIG)])
    expect(page.locator("#working-text")).to_contain_text("tiles")
    assert server.metric("pix2dslr_queue_tiles") > 0
    page.click("#cancel")
    expect(page.locator("#failure-title")).to_have_text("Cancelled")
    until(lambda: server.metric("pix2dslr_queue_tiles") == 0)
    ended = 'pix2dslr_live_frames_total{end="cancelled"}'
    assert server.metric(ended) >= 1
    page.click("#retry")
    expect(page.locator("#download")).to_be_enabled()


def test_removing_a_photo_stops_its_work_and_the_next_one_is_done(page: Page) -> None:
    page.set_input_files("#files", [file(BIG, "big.jpg"), file(jpeg(), "small.jpg")])
    expect(page.locator("#working-text")).to_contain_text("tiles")
    page.get_by_role("button", name="Remove this photo").click()
    expect(page.locator("#strip button")).to_have_count(1)
    expect(page.locator("#download")).to_be_enabled()
    assert saved(page)[0] == "small-enhanced.jpg"
    page.get_by_role("button", name="Remove this photo").click()
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#choose")).to_be_focused()


def test_leaving_the_page_stops_the_work_too(page: Page, server: Server) -> None:
    page.set_input_files("#files", [file(BIG)])
    expect(page.locator("#working-text")).to_contain_text("tiles")
    page.goto("about:blank")
    until(lambda: server.metric("pix2dslr_queue_tiles") == 0)


@pytest.mark.parametrize("orientation", [3, 6, 5])
def test_both_sides_are_upright(page: Page, orientation: int) -> None:
    enhance(page, file(jpeg(orientation=orientation)))
    sizes = page.evaluate("[...document.querySelectorAll('.layer img')].map((i) => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[600, 400]] * 2 if orientation < 5 else [[400, 600]] * 2
    page.locator("#split").focus()
    page.keyboard.press("End")
    before = stage(page).astype(float)
    page.keyboard.press("Home")
    after = stage(page).astype(float)
    middle = np.s_[100:-100, 330:600]
    assert np.corrcoef(before[middle].ravel(), after[middle].ravel())[0, 1] > 0.9


def drop(page: Page, target: Locator, event: str, data: bytes) -> None:
    transfer = page.evaluate_handle(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" }));
            return transfer;
        }""",
        list(data),
    )
    name = "clipboardData" if event == "paste" else "dataTransfer"
    if event == "paste":
        page.evaluate("(clipboardData) => dispatchEvent(new ClipboardEvent('paste', { clipboardData }))", transfer)
    else:
        target.dispatch_event(event, {name: transfer})


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_photos_are_dropped_or_pasted(page: Page, event: str) -> None:
    drop(page, page.locator("#stage"), event, jpeg())
    expect(page.locator("#download")).to_be_enabled()
    assert saved(page)[0] == "dropped-enhanced.jpg"


def test_nothing_jumps_when_a_photo_comes_and_is_done(page: Page) -> None:
    def places() -> list[object]:
        return [
            page.locator(name).bounding_box() for name in ("#stage", "#toolbar", "aside", "#strip-box", "#download")
        ]

    empty = places()
    page.set_input_files("#files", [file(BIG)])
    expect(page.locator("#working")).to_be_visible()
    assert places() == empty
    expect(page.locator("#download")).to_be_enabled()
    assert places() == empty


def test_behind_a_prefix_and_a_proxy(open_page: Open, server: Server) -> None:
    with PrefixProxy(server.url) as proxy:
        page = open_page(proxy.url)
        enhance(page, file(jpeg()))
        expect(page.locator("#facts")).to_contain_text("Size")
        page.context.close()


def test_where_no_websocket_gets_through_the_photo_goes_by_post(open_page: Open, server: Server) -> None:
    with PrefixProxy(server.url, websockets=False) as proxy:
        page = open_page(proxy.url, expected_errors="WebSocket connection to")
        enhance(page, file(jpeg()))
        with server.client() as client:
            assert saved(page)[1] == client.post("/enhance", files={"image": jpeg()}).content
        page.set_input_files("#files", [file(b"nothing", "x.jpg")])
        expect(page.locator("#failure-title")).to_have_text("This is not a photo that can be read")
        page.context.close()


def test_a_service_that_goes_and_comes_again_loses_nothing(open_page: Open, serve_session: Serve) -> None:
    first = serve_session()
    with PrefixProxy(first.url) as proxy:
        # which of the two depends on whether the proxy had read the whole request when it gave up
        page = open_page(proxy.url, expected_errors="ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|WebSocket connection to")
        enhance(page, file(jpeg()))
        assert first.stop() == 0
        page.set_input_files("#files", [file(jpeg("cat"), "cat.jpg")])
        page.locator("#strip button").nth(1).click()
        expect(page.locator("#failure-title")).to_have_text("The service can't be reached")
        page.locator("#strip button").nth(0).click()
        expect(page.locator("#failure")).to_be_hidden()
        expect(page.locator("#download")).to_be_enabled()
        second = serve_session()
        proxy.turn_to(second.url)
        page.locator("#strip button").nth(1).click()
        page.click("#retry")
        expect(page.locator("#download")).to_be_enabled()
        assert second.metric('pix2dslr_live_frames_total{end="result"}') == 1, "over the WebSocket again"
        page.context.close()
    assert second.stop() == 0


def test_a_service_that_is_still_starting_is_waited_for(open_page: Open, serve_session: Serve) -> None:
    server = serve_session(ready=False)
    page = open_page(server.url, expected_errors="status of 503")
    enhance(page, file(jpeg()))
    expect(page.locator("#camera option")).to_have_count(3)
    assert server.stop() == 0


@needs_nginx
def test_behind_a_proxy_one_that_is_still_starting_is_waited_for(
    open_page: Open, serve_session: Serve, tmp_path: Path
) -> None:
    server = serve_session(ready=False)
    with running_nginx(tmp_path, [server.url]) as nginx:
        page = open_page(nginx.url, expected_errors="503")
        enhance(page, file(jpeg()))
        assert [line["status"] for line in nginx.lines() if line["route"] == "/live"][:1] == ["503"], "no WebSocket yet"
        assert server.metric('pix2dslr_live_frames_total{end="result"}') == 1, "and one in the end"
        page.context.close()
    assert server.stop() == 0


def test_a_full_queue_is_waited_for(open_page: Open, serve_session: Serve) -> None:
    server = serve_session(max_queued_tiles=10)
    with ThreadPoolExecutor(1) as pool, server.client() as client:
        page = open_page(server.url)
        big = pool.submit(lambda: client.post("/enhance", files={"image": BIG}))
        until(lambda: server.metric("pix2dslr_queue_tiles") > 0)
        page.set_input_files("#files", [file(jpeg())])
        expect(page.locator("#working-text")).to_contain_text("The service is busy: trying again in")
        assert big.result().status_code == 200
        expect(page.locator("#download")).to_be_enabled()
    assert server.stop() == 0


def test_a_file_of_too_many_bytes_is_not_even_sent(
    open_page: Open, serve_session: Serve, identity_folder: Path
) -> None:
    server = serve_session(models=identity_folder, max_body_bytes=100_000)
    page = open_page(server.url)
    page.set_input_files("#files", [file(BIG)])
    expect(page.locator("#failure-title")).to_have_text("This file is too large")
    expect(page.locator("#retry")).to_be_hidden()
    assert server.metric("pix2dslr_requests_in_flight") == 2, "the connection is still open"
    page.context.close()
    assert server.stop() == 0


def test_a_transparent_picture_shows_one_side_at_a_time(page: Page) -> None:
    clear = np.full((300, 300, 4), (250, 10, 10, 128), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(clear).save(buffer, "PNG")
    enhance(page, file(buffer.getvalue(), "clear.png", "image/png"))
    shown = stage(page).astype(float)
    middle = shown.shape[1] // 2
    before, after = (
        shown[200, middle - 150 : middle - 50].mean(axis=0),
        shown[200, middle + 50 : middle + 150].mean(axis=0),
    )
    ground = shown[5, 50]
    wanted = (ground + np.array([250, 10, 10])) / 2
    assert np.abs(before - wanted).max() < 4
    assert after[2] > 60, "the ground shines through it still, as it would not through two"


def test_a_photo_that_the_browser_can_not_show_is_shown_by_the_service(page: Page) -> None:
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.coffee()).save(buffer, "TIFF")
    enhance(page, file(buffer.getvalue(), "scan.tif", "image/tiff"))
    sizes = page.evaluate("[...document.querySelectorAll('.layer img')].map((i) => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[600, 400], [600, 400]]
    page.locator("#split").focus()
    page.keyboard.press("End")
    before = stage(page).astype(float)
    page.keyboard.press("Home")
    middle = np.s_[100:-100, 330:600]
    assert 2 < np.abs(stage(page).astype(float) - before)[middle].mean() < 60, "enhanced, and the same photo"
    name, data = saved(page)
    assert name == "scan-enhanced.tif"
    assert Image.open(io.BytesIO(data)).format == "TIFF"
