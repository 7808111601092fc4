"""The text of a report, as tests read it."""

from typing import Any

import parfocal


def page_of(runs: Any) -> str:
    """Compare runs and return the page."""
    page = parfocal.compare(runs).page
    assert page is not None
    return page.read_text(encoding="utf-8")
