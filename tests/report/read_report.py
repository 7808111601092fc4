"""Write a report and read it back, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import parfocal
from parfocal.io import write_text
from parfocal.report import live, report


@contextmanager
def draw_blank_figures() -> Iterator[None]:
    """Write blank figures during the block: drawing takes most of the time of a report."""

    def write_blank_figure(_: object, folder: Path, name: str) -> None:
        write_text(folder / f"{name}.svg", "<svg/>")

    blank = Figure()
    with pytest.MonkeyPatch.context() as patch:
        for module in (report, live):
            patch.setattr(module, "save_figure", write_blank_figure)
            # `draw_figures` calls the others, and `draw_score_curves` also decides which curves there are.
            for name in set(vars(module)) - {"draw_figures", "draw_score_curves"}:
                if name.startswith("draw_"):
                    patch.setattr(module, name, lambda *_: blank)
        yield


def read_report(runs: Any) -> str:
    """Compare runs and return the HTML of the report, in which the figures are blank."""
    with draw_blank_figures():
        path = parfocal.compare(runs).report_path
    assert path is not None
    return path.read_text(encoding="utf-8")
