"""The text of a report, as tests read it."""

from typing import Any

import parfocal


def read_report(runs: Any) -> str:
    """Compare runs and return the page."""
    page = parfocal.compare(runs).report_path
    assert page is not None
    return page.read_text(encoding="utf-8")
