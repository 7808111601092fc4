"""Chromium for tests of pages, and checks that every page must pass: alt text, contrast, no overflow, labels."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}
A4 = {"width": 688, "height": 1017}
"""The area within the margins of a printed page."""

_LOW_CONTRAST = """() => {
  const parseColor = (color) => {
    const numbers = color.match(/[\\d.]+/g).map(Number);
    return color.startsWith("color(") ? numbers.map((value, index) => (index < 3 ? value * 255 : value)) : numbers;
  };
  const luminance = (rgb) => rgb.map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const backgroundOf = (element) => {
    for (let ancestor = element; ancestor; ancestor = ancestor.parentElement) {
      const color = parseColor(getComputedStyle(ancestor).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const issues = [];
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!hasText || !element.checkVisibility() || element.tagName === "OPTION") continue;
    const foreground = luminance(parseColor(getComputedStyle(element).color).slice(0, 3));
    const background = luminance(backgroundOf(element));
    const ratio = (Math.max(foreground, background) + 0.05) / (Math.min(foreground, background) + 0.05);
    if (ratio < 4.5) issues.push(`${element.tagName} ${element.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return issues;
}"""
# An image next to the text of its button is decoration; a screen reader would read its text twice.
_MISSING_ALT = """() => [...document.images]
  .filter((image) => image.checkVisibility() && !image.alt.trim() && !image.closest("button")?.innerText.trim())
  .map((image) => image.src.slice(0, 60))"""
_OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_MISSING_LABEL = """() => [...document.querySelectorAll("input, button, select, a, [tabindex]")]
  .filter((control) => control.checkVisibility()
    && !(control.labels?.length || control.ariaLabel || control.innerText?.trim()))
  .map((control) => control.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        assert not os.environ.get("PARFOCAL_SKIP_NOTHING"), "there is no Chromium"
        pytest.skip("there is no Chromium here; install it (apt install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()


def find_accessibility_issues(page: Page) -> dict[str, object]:
    """Return what makes an open page unusable for some people; empty if there is nothing."""
    issues = {
        "images without alt text": page.evaluate(_MISSING_ALT),
        "low contrast": page.evaluate(_LOW_CONTRAST),
        "wider than the window": page.evaluate(_OVERFLOW),
        "controls without a label": page.evaluate(_MISSING_LABEL),
    }
    return {name: issue for name, issue in issues.items() if issue}
