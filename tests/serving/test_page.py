"""The page, driven in a real Chromium: by mouse, by keyboard alone, on a phone, with good, bad and many images."""

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
from playwright.sync_api import Browser, Page, Request, Route, expect

from parfocal.serving.server import serve_in_background
from tests.browser import PHONE, browser, find_accessibility_issues
from tests.data.example_files import encode_with_pillow

__all__ = ["browser"]

TOKEN = "0123456789abcdef"
BRING = """([kind, bytes]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([new Uint8Array(bytes)], "brought.bmp", { type: "image/bmp" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: carried, bubbles: true })
    : new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    yield from _opened(browser, site)


@pytest.fixture
def phone(browser: Browser, site: str) -> Iterator[Page]:
    yield from _opened(browser, site, viewport=PHONE, color_scheme="dark", has_touch=True)


def _opened(browser: Browser, site: str, **options: object) -> Iterator[Page]:
    """Open the page; at the end nothing may have been asked of others, and no script may have failed."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    opened, outside, errors = context.new_page(), [], []

    def asked(request: Request) -> None:
        if not request.url.startswith((site, "data:", "blob:")):
            outside.append(request.url)

    opened.on("request", asked)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if "Security Policy" in said.text else None)
    opened.goto(site)
    yield opened
    context.close()
    assert (outside, errors) == ([], [])


def _file(name: str, content: bytes) -> dict[str, object]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def _choose(page: Page, *files: dict[str, object]) -> None:
    page.get_by_label("Choose images").set_input_files(files)  # type: ignore[arg-type]


def _files(images: dict[str, bytes], count: int) -> list[dict[str, object]]:
    return [_file(f"{number}.bmp", content) for number, content in enumerate(list(images.values())[:count])]


def _held(page: Page, address: str, first: int = 0) -> Callable[[], None]:
    """Keep what the page asks at an address waiting, all but so many requests; the function lets it go on."""
    held: list[Route] = []
    left = [float(first)]

    def hold(route: Route) -> None:
        if left[0] > 0:
            left[0] -= 1
            route.continue_()
        else:
            held.append(route)

    def release() -> None:
        left[0] = math.inf
        for route in held:
            route.continue_()

    page.route(address, hold)
    return release


def _answered(page: Page, count: int) -> None:
    expect(page.get_by_role("status")).to_have_text(f"{count} answered.")


def test_a_good_image_is_graded_and_explained(page: Page, images: dict[str, bytes]) -> None:
    expect(page.get_by_text("No medical device.").first).to_be_visible()
    _choose(page, _file("cell.bmp", images["./new_dataset/test/0.bmp"]))
    _answered(page, 1)
    expect(page.get_by_role("heading", name="cell.bmp")).to_be_visible()
    expect(page.locator("#label")).to_contain_text("%")
    expect(page.locator("#meaning")).to_contain_text("24 images of validation")
    bars = page.get_by_role("table", name="Every class").get_by_role("row")
    expect(bars).to_have_count(3)
    expect(page.locator("#flags")).to_contain_text("blast")
    expect(page.locator("#operating")).to_contain_text("sensitivity=0.9")
    expect(page.get_by_role("slider")).to_be_visible()
    expect(page.get_by_role("img", name="cell.bmp, as the network sees it")).to_be_visible()
    expect(page.locator("#heat-said")).to_contain_text("Peak")


def test_the_heat_map_fades_and_changes_its_class(page: Page, images: dict[str, bytes]) -> None:
    _choose(page, _file("cell.bmp", images["./new_dataset/test/1.bmp"]))
    slider, heat = page.get_by_label("Heat map"), page.locator("#heat")
    expect(slider).to_be_visible()
    slider.fill("0")
    expect(heat).to_have_css("opacity", "0")
    slider.fill("100")
    expect(heat).to_have_css("opacity", "1")
    expect(page.locator("#opacity-said")).to_have_text("100 %")
    seen = []
    for name in ("normal", "blast"):
        page.get_by_label("What speaks for").select_option(name)
        expect(page.locator("#heat-said")).to_contain_text(f"speaks for {name}")
        seen.append(heat.get_attribute("src"))
    assert seen[0] != seen[1]


def test_networks_stand_side_by_side_and_are_switched(page: Page, images: dict[str, bytes]) -> None:
    expect(page.locator("#networks")).to_contain_text("resnet20")
    _choose(page, _file("cell.bmp", images["./new_dataset/test/0.bmp"]))
    rows = page.get_by_role("table", name="All networks on this image").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(page.get_by_role("radio", name="resnet20")).to_be_checked()
    page.get_by_role("radio", name="plain20").check()
    expect(page.get_by_role("radio", name="plain20")).to_be_checked()
    said = rows.nth(1).locator("td")
    expect(page.locator("#label")).to_have_text(f"{said.nth(0).inner_text()}: {said.nth(1).inner_text()}")
    expect(page.locator("#operating")).to_be_empty()
    expect(page.locator("#images")).to_contain_text(said.nth(1).inner_text())


def test_a_bad_image_has_its_reason_and_its_name_is_only_text(page: Page) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    _choose(page, _file(name, b"nonsense"))
    expect(page.get_by_role("status")).to_have_text("1 answered, 1 of them refused.")
    expect(page.locator("#unreadable")).to_have_text("The image cannot be read: text, not an image.")
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.locator("#label")).to_be_hidden()
    assert page.locator("img[src=x]").count() == 0


def test_many_images_are_a_history_and_a_csv(page: Page, images: dict[str, bytes]) -> None:
    many = [_file(f"{number}.bmp", content) for number, content in enumerate(images.values())]
    _choose(page, *many, _file('=cmd|"x",.png', b"nonsense"))
    expect(page.get_by_role("status")).to_have_text("13 answered, 1 of them refused.")
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
    page.get_by_role("button", name="Forget all").click()
    expect(page.locator("#history")).to_be_hidden()
    expect(page.locator("#answer")).to_be_hidden()


def test_what_is_forgotten_comes_no_more(page: Page, images: dict[str, bytes]) -> None:
    _choose(page, *_files(images, 1))
    _answered(page, 1)
    expect(page.get_by_role("slider")).to_be_visible()
    release = _held(page, "**/v1/grade", first=1)
    _choose(page, *_files(images, 8))
    expect(page.get_by_role("status")).to_have_text("2 of 9 answered …")
    with page.expect_event("requestfailed", lambda request: "v1/grade" in request.url):
        page.get_by_role("button", name="Forget all").click()
    expect(page.get_by_role("status")).to_be_empty()
    expect(page.locator("#history")).to_be_hidden()
    release()
    _choose(page, _file("last.bmp", images["./new_dataset/test/9.bmp"]))
    _answered(page, 1)
    expect(page.locator("#images button")).to_have_count(1)
    expect(page.locator("#images")).to_contain_text("last.bmp")


def test_the_map_of_a_forgotten_image_is_not_laid_over_another(page: Page, images: dict[str, bytes]) -> None:
    expect(page.locator("body[data-ready]")).to_be_visible()
    first, second = _held(page, "**/v1/explain?*"), _files(images, 2)[1]
    _choose(page, _files(images, 1)[0])
    _answered(page, 1)
    with page.expect_event("requestfailed", lambda request: "v1/explain" in request.url):
        page.get_by_role("button", name="Forget all").click()
    later = _held(page, "**/v1/explain?*")
    _choose(page, second)
    _answered(page, 1)
    first()
    expect(page.locator("#heat-said")).to_have_text("The heat map is being made …")
    later()
    expect(page.get_by_role("img", name="1.bmp, as the network sees it")).to_be_visible()


def test_answers_that_arrive_leave_the_user_where_they_are(page: Page, images: dict[str, bytes]) -> None:
    release = _held(page, "**/v1/grade", first=2)
    explained: list[str] = []
    page.on("request", lambda request: explained.append(request.url) if "v1/explain" in request.url else None)
    _choose(page, *_files(images, 8))
    listed = page.locator("#images button")
    expect(listed).to_have_count(2)
    expect(page.locator("#heat-said")).to_have_text("The heat map follows when all images are answered.")
    assert explained == []
    listed.nth(0).click()
    title = page.locator("#answer-title").inner_text()
    expect(page.get_by_role("slider")).to_be_visible()
    listed.nth(0).focus()
    release()
    _answered(page, 8)
    assert [name.split("\n")[0] for name in listed.all_inner_texts()] == [f"{number}.bmp" for number in range(8)]
    expect(page.locator("#answer-title")).to_have_text(title)
    expect(page.locator("#images button", has_text=title)).to_be_focused()
    expect(page.get_by_role("slider")).to_be_visible()
    assert len(explained) == 1


def test_only_the_last_of_many_images_is_explained_by_itself(page: Page, images: dict[str, bytes]) -> None:
    explained: list[str] = []
    page.on("request", lambda request: explained.append(request.url) if "v1/explain" in request.url else None)
    _choose(page, *_files(images, 8))
    _answered(page, 8)
    expect(page.get_by_role("img", name="7.bmp, as the network sees it")).to_be_visible()
    assert len(explained) == 1


def test_a_map_that_nobody_waits_for_is_not_fetched(page: Page, images: dict[str, bytes]) -> None:
    release = _held(page, "**/v1/explain?*")
    _choose(page, *_files(images, 2))
    _answered(page, 2)
    with page.expect_event("requestfailed", lambda request: "v1/explain" in request.url):
        page.locator("#images button").nth(0).click()
    release()
    expect(page.get_by_role("img", name="0.bmp, as the network sees it")).to_be_visible()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("<h1>Welcome</h1>", "The server's answer cannot be read. Is something between it and this page?"),
        ("{}", "The server's answer holds no image."),
        (
            '{"images": [{"answers": [{"network": "other", "unusual": []}]}]}',
            "The server has other networks now. Load this page anew.",
        ),
    ],
)
def test_an_answer_that_means_nothing_is_the_images_reason(
    page: Page, images: dict[str, bytes], answer: str, reason: str
) -> None:
    page.route("**/v1/grade", lambda route: route.fulfill(status=200, body=answer))
    _choose(page, *_files(images, 1))
    expect(page.get_by_role("status")).to_have_text("1 answered, 1 of them refused.")
    expect(page.locator("#unreadable")).to_have_text(reason)
    expect(page.locator("#images button")).to_have_count(1)


def test_an_example_that_does_not_come_is_told(page: Page) -> None:
    expect(page.locator("body[data-ready]")).to_be_visible()
    page.route("**/examples/cell-0", lambda route: route.fulfill(status=404, json={"detail": "There is none."}))
    page.get_by_role("button", name="Normal cell").click()
    expect(page.get_by_role("status")).to_have_text("There is none.")
    page.get_by_role("button", name="Blast").click()
    _answered(page, 1)


def test_a_start_that_fails_is_told_and_tried_again(page: Page, images: dict[str, bytes]) -> None:
    page.route("**/v1/models", lambda route: route.fulfill(status=500, body="broken"))
    page.reload()
    expect(page.get_by_role("status")).to_have_text("The server answered 500.")
    _choose(page, *_files(images, 1))
    expect(page.get_by_role("status")).to_have_text("0 of 1 answered … The server answered 500.")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").click()
    _answered(page, 1)
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    expect(page.locator("#networks")).to_contain_text("resnet20")


def test_what_is_unusual_is_said(page: Page) -> None:
    white = encode_with_pillow(Image.fromarray(np.full((48, 48, 3), 255, np.uint8)), "PNG")
    _choose(page, _file("white.png", white))
    expect(page.locator("#flags")).to_contain_text("Out of the ordinary")
    expect(page.locator("#meaning")).to_contain_text("this image is unlike")
    expect(page.locator("#images")).to_contain_text("look yourself")


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_images_may_be_pasted_and_dropped(page: Page, images: dict[str, bytes], way: str) -> None:
    expect(page.locator("body[data-ready]")).to_be_visible()
    page.evaluate(BRING, [way, list(images["./new_dataset/test/0.bmp"])])
    _answered(page, 1)
    expect(page.get_by_role("heading", name="brought.bmp")).to_be_visible()


def test_a_phone_shows_all_of_it(phone: Page, images: dict[str, bytes]) -> None:
    expect(phone.get_by_label("Take a photograph")).to_have_attribute("capture", "environment")
    phone.get_by_label("Take a photograph").set_input_files([_file("cell.bmp", images["./new_dataset/test/0.bmp"])])  # type: ignore[list-item]
    _answered(phone, 1)
    expect(phone.get_by_role("slider")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    answer, picture = phone.locator("#label").bounding_box(), phone.locator("#picture").bounding_box()
    assert answer
    assert picture
    assert answer["y"] < picture["y"]
    for button in phone.get_by_role("button").all() + phone.locator("label.way").all():
        if button.is_visible():
            box = button.bounding_box()
            assert box
            assert min(box["width"], box["height"]) >= 40
    assert find_accessibility_issues(phone) == {}


def test_light_colours_can_be_read(page: Page) -> None:
    page.get_by_role("button", name="Eye without disease").click()
    _answered(page, 1)
    expect(page.get_by_role("slider")).to_be_visible()
    assert find_accessibility_issues(page) == {}


def test_everything_is_done_by_keyboard_alone(page: Page) -> None:
    expect(page.get_by_role("button", name="Normal cell")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the images")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose images")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Take a photograph")).to_be_focused()
    for name in ("Normal cell", "Cell between the two", "Blast"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    _answered(page, 1)
    expect(page.get_by_role("slider")).to_be_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    _answered(page, 2)
    expect(page.get_by_role("heading", name="Cell between the two")).to_be_visible()
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
    expect(page.get_by_label("What speaks for")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("radio", name="resnet20")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="plain20")).to_be_focused()
    expect(page.get_by_role("radio", name="plain20")).to_be_checked()
    for name in ("Download as CSV", "Forget all", "Blast (drawn).jpg"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Blast (drawn).jpg")).to_be_visible()


def test_a_token_is_asked_for_once(browser: Browser, runs: list[Path], images: dict[str, bytes]) -> None:
    with serve_in_background(runs[:1], token=TOKEN) as address:
        for page in _opened(browser, address):
            dialog = page.get_by_role("dialog")
            expect(dialog).to_be_visible()
            dialog.get_by_label("Token").fill("wrong")
            page.keyboard.press("Enter")
            expect(dialog.get_by_role("alert")).to_have_text("This is not the token. Try again.")
            dialog.get_by_label("Token").fill(TOKEN)
            dialog.get_by_role("button", name="Go on").click()
            expect(dialog).to_be_hidden()
            _choose(page, _file("cell.bmp", images["./new_dataset/test/0.bmp"]))
            _answered(page, 1)
            page.get_by_role("link", name="For programs: the API").click()
            expect(page.get_by_role("heading", name="POST /v1/grade")).to_be_visible()


def test_the_token_may_be_given_later(browser: Browser, runs: list[Path], images: dict[str, bytes]) -> None:
    with serve_in_background(runs[:1], token=TOKEN) as address:
        for page in _opened(browser, address):
            dialog, status = page.get_by_role("dialog"), page.get_by_role("status")
            again = page.get_by_role("button", name="Sign in")
            expect(dialog).to_be_visible()
            _close(page)
            expect(status).to_have_text("This server asks for a token.")
            again.click()
            expect(dialog).to_be_visible()
            _close(page)
            again.click()
            _sign_in(page)
            expect(again).to_be_hidden()
            expect(status).to_be_empty()
            page.context.clear_cookies()
            _choose(page, *_files(images, 6))
            expect(dialog).to_be_visible()
            _close(page)
            expect(status).to_have_text("0 of 6 answered … This server asks for a token.")
            again.click()
            _sign_in(page)
            _answered(page, 6)


def test_a_server_that_is_gone_is_not_a_wrong_token(browser: Browser, runs: list[Path]) -> None:
    with serve_in_background(runs[:1], token=TOKEN) as address:
        for page in _opened(browser, address):
            said = page.get_by_role("dialog").get_by_role("alert")
            page.route("**/v1/session", lambda route: route.abort())
            page.get_by_role("textbox", name="Token").fill(TOKEN)
            page.keyboard.press("Enter")
            expect(said).to_have_text("The server does not answer. Is it still running?")
            page.unroute("**/v1/session")
            page.get_by_role("textbox", name="Token").fill("0123456789abcde€")
            page.keyboard.press("Enter")
            expect(said).to_have_text("This is not the token. Try again.")
            _sign_in(page)


def _close(page: Page) -> None:
    # A browser lets a page hold its dialog open once, and not twice.
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def _sign_in(page: Page) -> None:
    page.get_by_role("textbox", name="Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_commands_of_the_description_work(
    browser: Browser, runs: list[Path], images: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("one.jpg", "two.png"):
        (tmp_path / name).write_bytes(images["./new_dataset/test/0.bmp"])
    with serve_in_background(runs[:1], token=TOKEN) as address:
        for page in _opened(browser, address):
            _close(page)
            page.get_by_role("link", name="For programs: the API").click()
            _sign_in(page)
            expect(page.locator("body[data-ready]")).to_be_visible()
            commands = page.locator("pre").all_inner_texts()
            assert len(commands) == 7
            for command in commands:
                asked = command.replace("{name}", "resnet20").replace("curl ", "curl -fsS ", 1)
                environment = os.environ | {"PARFOCAL_TOKEN": TOKEN}
                subprocess.run(["sh", "-c", asked], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_commands_carry_no_token_where_none_is_asked_for(page: Page, site: str) -> None:
    page.goto(f"{site}docs")
    expect(page.get_by_text(f"curl {site}runs/{{name}}")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("Bearer")


def test_the_description_is_drawn_from_the_schema(page: Page, site: str) -> None:
    page.goto(f"{site}docs")
    for address in ("POST /v1/grade", "POST /v1/explain", "GET /v1/models", "GET /metrics", "Answer"):
        expect(page.get_by_role("heading", name=address, exact=True)).to_be_visible()
    expect(page.locator("main")).to_contain_text("Too much is waiting")
    assert find_accessibility_issues(page) == {}


def test_a_report_is_shown_whole(page: Page) -> None:
    page.get_by_role("link", name="Report of resnet20").click()
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("body")).to_contain_text("resnet20")
    broken = "[...document.images].filter((one) => !one.complete || one.naturalWidth === 0).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("getComputedStyle(document.body).maxWidth") != "none"


def test_a_report_is_found_whatever_its_run_is_called(browser: Browser, runs: list[Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs[0], tmp_path / "a#b 100%"))
    with serve_in_background(run) as address:
        for page in _opened(browser, address):
            page.get_by_role("link", name="Report of a#b 100%").click()
            expect(page.locator("h1")).to_be_visible()
            expect(page.locator("body")).to_contain_text("accuracy")
