"""Write a report and read it back, for tests."""

from typing import Any

import parfocal


def read_report(runs: Any) -> str:
    """Compare runs and return the HTML of the report."""
    path = parfocal.compare(runs).report_path
    assert path is not None
    return path.read_text(encoding="utf-8")
