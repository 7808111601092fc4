"""How a run and a comparison are shown in a notebook."""

import shutil
from pathlib import Path

import parfocal
from parfocal.run import Run
from tests.evaluation.trained_run import trained

__all__ = ["trained"]


def test_a_run_shows_its_metrics_or_its_number_of_epochs(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    html = run._repr_html_()
    assert f"<td>{run.read_metrics()['test']['accuracy']:.3f}</td>" in html
    shutil.copytree(run.folder, tmp_path / "<odd>")
    unfinished = Run(tmp_path / "<odd>")
    (unfinished.folder / "metrics.json").unlink()
    assert "&lt;odd&gt;: not finished" in unfinished._repr_html_()
    assert "<td>3</td>" in unfinished._repr_html_()


def test_a_comparison_shows_metrics_and_differences(trained: Path, tmp_path: Path) -> None:
    html = parfocal.compare(trained / "runs", tmp_path / "report.html")._repr_html_()
    assert "plain20 – resnet20" in html or "resnet20 – plain20" in html
    assert f"Report: {tmp_path / 'report.html'}" in html
