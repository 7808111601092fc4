"""The page of a run while it trains: there after each epoch, and in the end the report takes its place."""

from pathlib import Path

import parfocal
from parfocal.report.figures import find_best_epoch
from parfocal.report.live import make_live_callback
from parfocal.run import Run
from tests.cells import SMALL_RECIPE


def test_the_page_is_redrawn_after_each_epoch(cells: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def watch(run: Run) -> None:
        page = make_live_callback()(run)
        assert page is not None
        seen.append(page.read_text(encoding="utf-8"))

    (run,) = parfocal.train(cells, out=tmp_path / "runs", after_epoch=watch, **{**SMALL_RECIPE, "epochs": 3})
    for number, page in enumerate(seen, start=1):
        assert f"resnet20: epoch {number} of 3" in page
        assert 'http-equiv="refresh"' in page
        assert (", about " in page) == (number < 3)
    assert len(seen) == 3
    page = run.folder / "report.html"
    assert parfocal.compare(run).report_path == page
    assert "refresh" not in page.read_text(encoding="utf-8")


def test_several_runs_have_a_page_together_as_soon_as_the_second_has_begun(cells: Path, tmp_path: Path) -> None:
    together: list[bool] = []
    changes = {**SMALL_RECIPE, "epochs": 1, "model": ["resnet20", "plain20"]}

    def watch(run: Run) -> None:
        make_live_callback()(run)
        together.append((tmp_path / "runs" / "report.html").is_file())

    parfocal.train(cells, out=tmp_path / "runs", after_epoch=watch, **changes)
    assert together == [False, True]
    page = (tmp_path / "runs" / "report.html").read_text(encoding="utf-8")
    assert "resnet20" in page
    assert "plain20: epoch 1 of 1" in page


def test_where_drawing_takes_longer_than_an_epoch_it_waits(cells: Path, tmp_path: Path) -> None:
    redraw, drawn = make_live_callback(), []
    parfocal.train(cells, out=tmp_path / "runs", after_epoch=lambda run: drawn.extend([redraw(run), redraw(run)]),
                   **{**SMALL_RECIPE, "epochs": 1})  # fmt: skip
    assert drawn[0] is not None
    assert drawn[1] is None


def test_the_best_epoch_so_far_is_the_one_that_is_chosen_in_the_end(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "select": "loss"})
    chosen = run.read_metrics()["best_epoch"]
    (run.folder / "metrics.json").unlink()
    assert find_best_epoch(run) == chosen
