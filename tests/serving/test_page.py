"""The page in a real Chromium: by mouse, by keyboard alone, on a phone; with readable, unreadable and many images."""

import csv
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, expect

from parfocal.serving.server import serve_in_background
from tests.browser import PHONE, browser, find_accessibility_issues
from tests.data.example_files import encode_with_pillow

__all__ = ["browser"]

TOKEN = "0123456789abcdef"
PASTE_OR_DROP = """([kind, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "pasted.bmp", { type: "image/bmp" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    yield from _open_page(browser, site)


@pytest.fixture
def phone(browser: Browser, site: str) -> Iterator[Page]:
    yield from _open_page(browser, site, viewport=PHONE, color_scheme="dark", has_touch=True)


def _open_page(browser: Browser, site: str, **options: object) -> Iterator[Page]:
    """Open the page. At the end, check that it requested nothing from other sites and that no script failed."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page = context.new_page()
    other_sites: list[str] = []
    errors: list[str] = []

    def check_request(request: Request) -> None:
        if not request.url.startswith((site, "data:", "blob:")):
            other_sites.append(request.url)

    def check_message(message: ConsoleMessage) -> None:
        if "Security Policy" in message.text:
            errors.append(message.text)

    page.on("request", check_request)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", check_message)
    page.goto(site)
    yield page
    context.close()
    assert (other_sites, errors) == ([], [])


def _file(name: str, content: bytes) -> dict[str, object]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def _choose(page: Page, *files: dict[str, object]) -> None:
    page.get_by_label("Choose images").set_input_files(files)  # type: ignore[arg-type]


def _files(images: dict[str, bytes], count: int) -> list[dict[str, object]]:
    return [_file(f"{number}.bmp", content) for number, content in enumerate(list(images.values())[:count])]


def _hold_requests(page: Page, address: str, n_pass: int = 0) -> Callable[[], None]:
    """Hold the requests to an address, except for the first `n_pass`. Return a function that releases them."""
    held: list[Route] = []
    remaining = [float(n_pass)]

    def hold(route: Route) -> None:
        if remaining[0] > 0:
            remaining[0] -= 1
            route.continue_()
        else:
            held.append(route)

    def release() -> None:
        remaining[0] = math.inf
        for route in held:
            route.continue_()

    page.route(address, hold)
    return release


def _expect_processed(page: Page, n_images: int) -> None:
    text = "1 image processed." if n_images == 1 else f"{n_images} images processed."
    expect(page.get_by_role("status")).to_have_text(text)


def test_a_readable_image_is_predicted_and_explained(page: Page, images: dict[str, bytes]) -> None:
    expect(page.get_by_text("Not a medical device.").first).to_be_visible()
    _choose(page, _file("cell.bmp", images["./new_dataset/test/0.bmp"]))
    _expect_processed(page, 1)
    expect(page.get_by_role("heading", name="cell.bmp")).to_be_visible()
    expect(page.locator("#prediction")).to_contain_text("%")
    expect(page.locator("#calibration")).to_contain_text("24 validation images")
    bars = page.get_by_role("table", name="Probability of each class").get_by_role("row")
    expect(bars).to_have_count(3)
    expect(page.locator("#notes")).to_contain_text("blast")
    expect(page.locator("#operating-point")).to_contain_text("sensitivity=0.9")
    expect(page.get_by_role("slider")).to_be_visible()
    expect(page.get_by_role("img", name="cell.bmp, as the network sees it")).to_be_visible()
    expect(page.locator("#heatmap-caption")).to_contain_text("Peak")


def test_the_heat_map_fades_and_changes_its_class(page: Page, images: dict[str, bytes]) -> None:
    _choose(page, _file("cell.bmp", images["./new_dataset/test/1.bmp"]))
    slider, heatmap = page.get_by_label("Heat map opacity"), page.locator("#heatmap")
    expect(slider).to_be_visible()
    slider.fill("0")
    expect(heatmap).to_have_css("opacity", "0")
    slider.fill("100")
    expect(heatmap).to_have_css("opacity", "1")
    expect(page.locator("#opacity-value")).to_have_text("100 %")
    sources = []
    for name in ("normal", "blast"):
        page.get_by_label("Heat map class").select_option(name)
        expect(page.locator("#heatmap-caption")).to_contain_text(f"evidence for {name}")
        sources.append(heatmap.get_attribute("src"))
    assert sources[0] != sources[1]


def test_networks_are_compared_and_selected(page: Page, images: dict[str, bytes]) -> None:
    expect(page.locator("#networks")).to_contain_text("resnet20")
    _choose(page, _file("cell.bmp", images["./new_dataset/test/0.bmp"]))
    rows = page.get_by_role("table", name="All networks on this image").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(page.get_by_role("radio", name="resnet20")).to_be_checked()
    page.get_by_role("radio", name="plain20").check()
    expect(page.get_by_role("radio", name="plain20")).to_be_checked()
    cells = rows.nth(1).locator("td")
    expect(page.locator("#prediction")).to_have_text(f"{cells.nth(0).inner_text()}: {cells.nth(1).inner_text()}")
    expect(page.locator("#operating-point")).to_be_empty()
    expect(page.locator("#images")).to_contain_text(cells.nth(1).inner_text())


def test_an_unreadable_image_shows_its_reason_and_its_name_as_text(page: Page) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    _choose(page, _file(name, b"nonsense"))
    expect(page.get_by_role("status")).to_have_text("1 image processed, 1 failed.")
    expect(page.locator("#unreadable")).to_have_text("The image cannot be read: text, not an image.")
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.locator("#prediction")).to_be_hidden()
    assert page.locator("img[src=x]").count() == 0


def test_many_images_are_listed_and_downloaded_as_csv(page: Page, images: dict[str, bytes]) -> None:
    files = [_file(f"{number}.bmp", content) for number, content in enumerate(images.values())]
    _choose(page, *files, _file('=cmd|"x",.png', b"nonsense"))
    expect(page.get_by_role("status")).to_have_text("13 images processed, 1 failed.")
    listed = page.locator("#images button")
    expect(listed).to_have_count(13)
    listed.nth(3).click()
    expect(page.get_by_role("heading", name="3.bmp")).to_be_visible()
    expect(listed.nth(3)).to_have_attribute("aria-current", "true")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    rows = list(csv.DictReader(StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert len(rows) == 12 * 2 + 1
    assert [row["image"] for row in rows[::2]] == [f"{number}.bmp" for number in range(12)] + ['\'=cmd|"x",.png']
    assert rows[-1]["unreadable"].endswith("text, not an image.")
    assert all(
        float(row["probability:normal"]) + float(row["probability:blast"]) == pytest.approx(1) for row in rows[:-1]
    )
    assert {row["network"] for row in rows[:-1]} == {"resnet20", "plain20"}
    page.get_by_role("button", name="Clear session").click()
    expect(page.locator("#history")).to_be_hidden()
    expect(page.locator("#result")).to_be_hidden()


def test_images_of_a_cleared_session_do_not_return(page: Page, images: dict[str, bytes]) -> None:
    _choose(page, *_files(images, 1))
    _expect_processed(page, 1)
    expect(page.get_by_role("slider")).to_be_visible()
    release = _hold_requests(page, "**/v1/predict", n_pass=1)
    _choose(page, *_files(images, 8))
    expect(page.get_by_role("status")).to_have_text("2 of 9 images processed …")
    with page.expect_event("requestfailed", lambda request: "v1/predict" in request.url):
        page.get_by_role("button", name="Clear session").click()
    expect(page.get_by_role("status")).to_be_empty()
    expect(page.locator("#history")).to_be_hidden()
    release()
    _choose(page, _file("last.bmp", images["./new_dataset/test/9.bmp"]))
    _expect_processed(page, 1)
    expect(page.locator("#images button")).to_have_count(1)
    expect(page.locator("#images")).to_contain_text("last.bmp")


def test_the_heat_map_of_a_cleared_session_is_not_shown_over_another_image(
    page: Page, images: dict[str, bytes]
) -> None:
    expect(page.locator("body[data-ready]")).to_be_visible()
    first, second = _hold_requests(page, "**/v1/explain?*"), _files(images, 2)[1]
    _choose(page, _files(images, 1)[0])
    _expect_processed(page, 1)
    with page.expect_event("requestfailed", lambda request: "v1/explain" in request.url):
        page.get_by_role("button", name="Clear session").click()
    later = _hold_requests(page, "**/v1/explain?*")
    _choose(page, second)
    _expect_processed(page, 1)
    first()
    expect(page.locator("#heatmap-caption")).to_have_text("Computing the heat map …")
    later()
    expect(page.get_by_role("img", name="1.bmp, as the network sees it")).to_be_visible()


def test_results_that_arrive_do_not_replace_the_image_the_user_looks_at(page: Page, images: dict[str, bytes]) -> None:
    release = _hold_requests(page, "**/v1/predict", n_pass=2)
    explained: list[str] = []
    page.on("request", lambda request: explained.append(request.url) if "v1/explain" in request.url else None)
    _choose(page, *_files(images, 8))
    listed = page.locator("#images button")
    expect(listed).to_have_count(2)
    expect(page.locator("#heatmap-caption")).to_have_text("The heat map is computed after all images are processed.")
    assert explained == []
    listed.nth(0).click()
    title = page.locator("#result-title").inner_text()
    expect(page.get_by_role("slider")).to_be_visible()
    listed.nth(0).focus()
    release()
    _expect_processed(page, 8)
    assert [name.split("\n")[0] for name in listed.all_inner_texts()] == [f"{number}.bmp" for number in range(8)]
    expect(page.locator("#result-title")).to_have_text(title)
    expect(page.locator("#images button", has_text=title)).to_be_focused()
    expect(page.get_by_role("slider")).to_be_visible()
    assert len(explained) == 1


def test_only_the_last_of_many_images_is_explained_automatically(page: Page, images: dict[str, bytes]) -> None:
    explained: list[str] = []
    page.on("request", lambda request: explained.append(request.url) if "v1/explain" in request.url else None)
    _choose(page, *_files(images, 8))
    _expect_processed(page, 8)
    expect(page.get_by_role("img", name="7.bmp, as the network sees it")).to_be_visible()
    assert len(explained) == 1


def test_the_request_of_a_heat_map_that_is_not_needed_is_cancelled(page: Page, images: dict[str, bytes]) -> None:
    release = _hold_requests(page, "**/v1/explain?*")
    _choose(page, *_files(images, 2))
    _expect_processed(page, 2)
    with page.expect_event("requestfailed", lambda request: "v1/explain" in request.url):
        page.locator("#images button").nth(0).click()
    release()
    expect(page.get_by_role("img", name="0.bmp, as the network sees it")).to_be_visible()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("<h1>Welcome</h1>", "The server's response is not valid JSON. Is there a proxy in between?"),
        ("{}", "The server's response contains no image."),
        (
            '{"images": [{"predictions": [{"network": "other", "unusual": []}]}]}',
            "The server has loaded different networks. Reload this page.",
        ),
    ],
)
def test_an_invalid_response_is_shown_as_the_reason_of_the_image(
    page: Page, images: dict[str, bytes], body: str, reason: str
) -> None:
    page.route("**/v1/predict", lambda route: route.fulfill(status=200, body=body))
    _choose(page, *_files(images, 1))
    expect(page.get_by_role("status")).to_have_text("1 image processed, 1 failed.")
    expect(page.locator("#unreadable")).to_have_text(reason)
    expect(page.locator("#images button")).to_have_count(1)


def test_an_example_that_cannot_be_loaded_shows_its_reason(page: Page) -> None:
    expect(page.locator("body[data-ready]")).to_be_visible()
    page.route("**/examples/cell-0", lambda route: route.fulfill(status=404, json={"detail": "There is none."}))
    page.get_by_role("button", name="Normal cell").click()
    expect(page.get_by_role("status")).to_have_text("There is none.")
    page.get_by_role("button", name="Blast").click()
    _expect_processed(page, 1)


def test_a_failed_start_is_shown_and_can_be_repeated(page: Page, images: dict[str, bytes]) -> None:
    page.route("**/v1/models", lambda route: route.fulfill(status=500, body="broken"))
    page.reload()
    expect(page.get_by_role("status")).to_have_text("The server responded with status 500.")
    _choose(page, *_files(images, 1))
    expect(page.get_by_role("status")).to_have_text("0 of 1 images processed … The server responded with status 500.")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").click()
    _expect_processed(page, 1)
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    expect(page.locator("#networks")).to_contain_text("resnet20")


def test_an_unusual_image_is_marked(page: Page) -> None:
    white = encode_with_pillow(Image.fromarray(np.full((48, 48, 3), 255, np.uint8)), "PNG")
    _choose(page, _file("white.png", white))
    expect(page.locator("#notes")).to_contain_text("Unusual image")
    expect(page.locator("#calibration")).to_contain_text("this image is unlike")
    expect(page.locator("#images")).to_contain_text("please review")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_images_can_be_pasted_and_dropped(page: Page, images: dict[str, bytes], kind: str) -> None:
    expect(page.locator("body[data-ready]")).to_be_visible()
    page.evaluate(PASTE_OR_DROP, [kind, list(images["./new_dataset/test/0.bmp"])])
    _expect_processed(page, 1)
    expect(page.get_by_role("heading", name="pasted.bmp")).to_be_visible()


def test_a_phone_shows_the_whole_page(phone: Page, images: dict[str, bytes]) -> None:
    expect(phone.get_by_label("Take a photograph")).to_have_attribute("capture", "environment")
    phone.get_by_label("Take a photograph").set_input_files([_file("cell.bmp", images["./new_dataset/test/0.bmp"])])  # type: ignore[list-item]
    _expect_processed(phone, 1)
    expect(phone.get_by_role("slider")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    answer, picture = phone.locator("#prediction").bounding_box(), phone.locator("#picture").bounding_box()
    assert answer
    assert picture
    assert answer["y"] < picture["y"]
    for button in phone.get_by_role("button").all() + phone.locator("label.upload").all():
        if button.is_visible():
            box = button.bounding_box()
            assert box
            assert min(box["width"], box["height"]) >= 40
    assert find_accessibility_issues(phone) == {}


def test_the_light_colors_are_readable(page: Page) -> None:
    page.get_by_role("button", name="Eye without disease").click()
    _expect_processed(page, 1)
    expect(page.get_by_role("slider")).to_be_visible()
    assert find_accessibility_issues(page) == {}


def test_the_page_works_with_the_keyboard_alone(page: Page) -> None:
    expect(page.get_by_role("button", name="Normal cell")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the images")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose images")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Take a photograph")).to_be_focused()
    for name in ("Normal cell", "Borderline cell", "Blast"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    _expect_processed(page, 1)
    expect(page.get_by_role("slider")).to_be_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    _expect_processed(page, 2)
    expect(page.get_by_role("heading", name="Borderline cell")).to_be_visible()
    expect(page.get_by_role("slider")).to_be_visible()
    for name in ("Blast", "Eye without disease", "Eye, moderate disease", "Eye, proliferative disease"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name, exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("slider")).to_be_focused()
    before = page.get_by_role("slider").input_value()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("slider").input_value() != before
    page.keyboard.press("Tab")
    expect(page.get_by_label("Heat map class")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("radio", name="resnet20")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="plain20")).to_be_focused()
    expect(page.get_by_role("radio", name="plain20")).to_be_checked()
    for name in ("Download as CSV", "Clear session", "Blast (synthetic).jpg"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Blast (synthetic).jpg")).to_be_visible()


def test_the_page_asks_for_the_token_once(browser: Browser, runs: list[Path], images: dict[str, bytes]) -> None:
    with serve_in_background(runs[:1], token=TOKEN) as address:
        for page in _open_page(browser, address):
            dialog = page.get_by_role("dialog")
            expect(dialog).to_be_visible()
            dialog.get_by_label("Token").fill("wrong")
            page.keyboard.press("Enter")
            expect(dialog.get_by_role("alert")).to_have_text("Wrong token. Try again.")
            dialog.get_by_label("Token").fill(TOKEN)
            dialog.get_by_role("button", name="Continue").click()
            expect(dialog).to_be_hidden()
            _choose(page, _file("cell.bmp", images["./new_dataset/test/0.bmp"]))
            _expect_processed(page, 1)
            page.get_by_role("link", name="API documentation").click()
            expect(page.get_by_role("heading", name="POST /v1/predict")).to_be_visible()


def test_the_token_can_be_entered_later(browser: Browser, runs: list[Path], images: dict[str, bytes]) -> None:
    with serve_in_background(runs[:1], token=TOKEN) as address:
        for page in _open_page(browser, address):
            dialog, status = page.get_by_role("dialog"), page.get_by_role("status")
            sign_in = page.get_by_role("button", name="Sign in")
            expect(dialog).to_be_visible()
            _close(page)
            expect(status).to_have_text("This server requires a token.")
            sign_in.click()
            expect(dialog).to_be_visible()
            _close(page)
            sign_in.click()
            _sign_in(page)
            expect(sign_in).to_be_hidden()
            expect(status).to_be_empty()
            page.context.clear_cookies()
            _choose(page, *_files(images, 6))
            expect(dialog).to_be_visible()
            _close(page)
            expect(status).to_have_text("0 of 6 images processed … This server requires a token.")
            sign_in.click()
            _sign_in(page)
            _expect_processed(page, 6)


def test_a_stopped_server_is_not_reported_as_a_wrong_token(browser: Browser, runs: list[Path]) -> None:
    with serve_in_background(runs[:1], token=TOKEN) as address:
        for page in _open_page(browser, address):
            alert = page.get_by_role("dialog").get_by_role("alert")
            page.route("**/v1/session", lambda route: route.abort())
            page.get_by_role("textbox", name="Token").fill(TOKEN)
            page.keyboard.press("Enter")
            expect(alert).to_have_text("The server does not respond. Is it still running?")
            page.unroute("**/v1/session")
            page.get_by_role("textbox", name="Token").fill("0123456789abcde€")
            page.keyboard.press("Enter")
            expect(alert).to_have_text("Wrong token. Try again.")
            _sign_in(page)


def _close(page: Page) -> None:
    # A browser lets a page keep its dialog open once, but not twice.
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def _sign_in(page: Page) -> None:
    page.get_by_role("textbox", name="Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_commands_in_the_api_documentation_work(
    browser: Browser, runs: list[Path], images: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("one.jpg", "two.png"):
        (tmp_path / name).write_bytes(images["./new_dataset/test/0.bmp"])
    with serve_in_background(runs[:1], token=TOKEN) as address:
        for page in _open_page(browser, address):
            _close(page)
            page.get_by_role("link", name="API documentation").click()
            _sign_in(page)
            expect(page.locator("body[data-ready]")).to_be_visible()
            commands = page.locator("pre").all_inner_texts()
            assert len(commands) == 7
            for command in commands:
                script = command.replace("{name}", "resnet20").replace("curl ", "curl -fsS ", 1)
                environment = os.environ | {"PARFOCAL_TOKEN": TOKEN}
                subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_have_no_token_if_none_is_required(page: Page, site: str) -> None:
    page.goto(f"{site}docs")
    expect(page.get_by_text(f"curl {site}runs/{{name}}")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("Bearer")


def test_the_api_documentation_shows_the_openapi_description(page: Page, site: str) -> None:
    page.goto(f"{site}docs")
    for address in ("POST /v1/predict", "POST /v1/explain", "GET /v1/models", "GET /metrics", "Prediction"):
        expect(page.get_by_role("heading", name=address, exact=True)).to_be_visible()
    expect(page.locator("main")).to_contain_text("The server is busy")
    assert find_accessibility_issues(page) == {}


def test_a_report_is_complete(page: Page) -> None:
    page.get_by_role("link", name="Report of resnet20").click()
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("body")).to_contain_text("resnet20")
    broken = "[...document.images].filter((image) => !image.complete || image.naturalWidth === 0).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("getComputedStyle(document.body).maxWidth") != "none"


def test_the_report_of_a_run_with_special_characters_is_found(
    browser: Browser, runs: list[Path], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs[0], tmp_path / "a#b 100%"))
    with serve_in_background(run) as address:
        for page in _open_page(browser, address):
            page.get_by_role("link", name="Report of a#b 100%").click()
            expect(page.locator("h1")).to_be_visible()
            expect(page.locator("body")).to_contain_text("accuracy")
