"""A real Chromium for tests of pages, and what is asked of every page: words for pictures, contrast, no overflow."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}
A4 = {"width": 688, "height": 1017}
"""What the margins of a sheet leave."""

_LOW_CONTRAST = """() => {
  const numbers = (colour) => {
    const found = colour.match(/[\\d.]+/g).map(Number);
    return colour.startsWith("color(") ? found.map((one, place) => (place < 3 ? one * 255 : one)) : found;
  };
  const light = (rgb) => rgb.map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (!own || !element.checkVisibility() || element.tagName === "OPTION") continue;
    const [ink, paper] = [light(numbers(getComputedStyle(element).color).slice(0, 3)), light(ground(element))];
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) bad.push(`${element.tagName} ${element.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""
# Beside the words of its own button a picture is ornament, and would only be read out twice.
_MISSING_ALT = """() => [...document.images]
  .filter((one) => one.checkVisibility() && !one.alt.trim() && !one.closest("button")?.innerText.trim())
  .map((one) => one.src.slice(0, 60))"""
_OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_MISSING_LABEL = """() => [...document.querySelectorAll("input, button, select, a, [tabindex]")]
  .filter((one) => one.checkVisibility() && !(one.labels?.length || one.ariaLabel || one.innerText?.trim()))
  .map((one) => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        assert not os.environ.get("PARFOCAL_SKIP_NOTHING"), "there is no Chromium"
        pytest.skip("there is no Chromium here; install one (apt install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


def find_accessibility_issues(page: Page) -> dict[str, object]:
    """Return what of an open page some people could not use; nothing where all is well."""
    found = {
        "pictures without words": page.evaluate(_MISSING_ALT),
        "too faint": page.evaluate(_LOW_CONTRAST),
        "wider than the window": page.evaluate(_OVERFLOW),
        "controls without a name": page.evaluate(_MISSING_LABEL),
    }
    return {name: value for name, value in found.items() if value}
