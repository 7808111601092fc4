"""The report in Chromium: on a phone and a desktop, light and dark, with the keyboard, and printed."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Request

import parfocal
from parfocal.report.live import write_live_page
from parfocal.run import open_runs
from tests.browser import A4, DESKTOP, PHONE, browser
from tests.evaluation.trained_run import trained

__all__ = ["browser", "trained"]


@pytest.fixture(scope="module")
def pages(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of two runs, and the page of a run in training."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(trained / "runs" / "resnet20", folder / "started")
    (folder / "started" / "metrics.json").unlink()
    report = parfocal.compare(trained / "runs", folder / "report.html").report_path
    assert report is not None
    return {
        "report": report,
        "live": write_live_page(open_runs([folder / "started"]), folder / "started" / "report.html"),
    }


@pytest.mark.parametrize("name", ["report", "live"])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_is_accessible_and_loads_nothing_from_a_server(
    browser: Browser, pages: dict[str, Path], name: str, color_scheme: str, size: dict[str, int]
) -> None:
    from tests.browser import find_accessibility_issues

    page = browser.new_page(viewport=size, color_scheme=color_scheme)  # type: ignore[arg-type]
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert find_accessibility_issues(page) == {}
    assert [request.url for request in requests if not request.url.startswith(("file:", "data:"))] == []
    page.close()


def test_the_keyboard_switches_confusion_matrices_between_counts_and_shares(
    browser: Browser, pages: dict[str, Path]
) -> None:
    page = browser.new_page(viewport=DESKTOP)  # type: ignore[arg-type]
    page.goto(pages["report"].as_uri())
    cell = page.locator(".matrix td[style]").first
    assert cell.inner_text().strip().isdigit()
    page.locator("#show-counts").focus()
    page.keyboard.press("ArrowRight")
    assert cell.inner_text().strip().endswith("%")
    page.close()


def test_everything_is_printed(browser: Browser, pages: dict[str, Path]) -> None:
    from tests.browser import find_accessibility_issues

    page = browser.new_page(viewport=A4)  # type: ignore[arg-type]
    page.goto(pages["report"].as_uri())
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    cell = page.locator(".matrix td[style]").first
    count, share = cell.inner_text().split()
    assert count.isdigit()
    assert share.endswith("%")
    assert not page.locator("nav").is_visible()
    # On paper nothing can be opened or scrolled.
    assert page.locator("details:not([open])").count() > 0
    assert page.get_by_text("training.batch_size", exact=True).is_visible()
    assert find_accessibility_issues(page) == {}
    page.close()
