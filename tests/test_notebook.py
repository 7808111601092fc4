"""In a notebook a run and a comparison show themselves, with names escaped."""

import shutil
from pathlib import Path

import parfocal
from parfocal.run import Run
from tests.evaluation.trained_run import trained

__all__ = ["trained"]


def test_a_run_shows_what_it_reached(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    shown = run._repr_html_()
    assert f"<td>{run.read_metrics()['test']['accuracy']:.3f}</td>" in shown
    shutil.copytree(run.folder, tmp_path / "<odd>")
    begun = Run(tmp_path / "<odd>")
    (begun.folder / "metrics.json").unlink()
    assert "&lt;odd&gt;: not finished" in begun._repr_html_()
    assert "<td>3</td>" in begun._repr_html_()


def test_a_comparison_shows_figures_and_differences(trained: Path, tmp_path: Path) -> None:
    shown = parfocal.compare(trained / "runs", tmp_path / "report.html")._repr_html_()
    assert "plain20 – resnet20" in shown or "resnet20 – plain20" in shown
    assert f"Report: {tmp_path / 'report.html'}" in shown
