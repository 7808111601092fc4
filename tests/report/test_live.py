"""The page of a run in training: rewritten after each epoch, and replaced by the report at the end."""

from pathlib import Path

import parfocal
from parfocal.report.learning_curves import find_best_epoch
from parfocal.report.live import make_live_callback
from parfocal.run import Run
from tests.cells import SMALL_RECIPE


def test_the_page_is_rewritten_after_each_epoch(cells: Path, tmp_path: Path) -> None:
    pages: list[str] = []

    def rewrite(run: Run) -> None:
        page = make_live_callback()(run)
        assert page is not None
        pages.append(page.read_text(encoding="utf-8"))

    (run,) = parfocal.train(cells, out=tmp_path / "runs", after_epoch=rewrite, **{**SMALL_RECIPE, "epochs": 3})
    for number, page in enumerate(pages, start=1):
        assert f"resnet20: epoch {number} of 3" in page
        assert 'http-equiv="refresh"' in page
        assert (", about " in page) == (number < 3)
    assert len(pages) == 3
    path = run.folder / "report.html"
    assert parfocal.compare(run).report_path == path
    assert "refresh" not in path.read_text(encoding="utf-8")


def test_several_runs_have_a_shared_page_as_soon_as_the_second_has_started(cells: Path, tmp_path: Path) -> None:
    has_shared_page: list[bool] = []
    changes = {**SMALL_RECIPE, "epochs": 1, "model": ["resnet20", "plain20"]}

    def rewrite(run: Run) -> None:
        make_live_callback()(run)
        has_shared_page.append((tmp_path / "runs" / "report.html").is_file())

    parfocal.train(cells, out=tmp_path / "runs", after_epoch=rewrite, **changes)
    assert has_shared_page == [False, True]
    page = (tmp_path / "runs" / "report.html").read_text(encoding="utf-8")
    assert "resnet20" in page
    assert "plain20: epoch 1 of 1" in page


def test_if_drawing_takes_longer_than_an_epoch_the_page_is_not_rewritten_each_time(cells: Path, tmp_path: Path) -> None:
    rewrite = make_live_callback()
    pages: list[Path | None] = []

    def rewrite_twice(run: Run) -> None:
        pages.extend([rewrite(run), rewrite(run)])

    parfocal.train(cells, out=tmp_path / "runs", after_epoch=rewrite_twice, **{**SMALL_RECIPE, "epochs": 1})
    first, second = pages
    assert first is not None
    assert second is None


def test_the_best_epoch_so_far_is_the_one_that_is_kept_at_the_end(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "select": "loss"})
    best_epoch = run.read_metrics()["best_epoch"]
    (run.folder / "metrics.json").unlink()
    assert find_best_epoch(run) == best_epoch
