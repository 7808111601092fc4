"""`parfocal demo` produces data, runs and a report, and resumes where it was interrupted."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from parfocal.commands import app, demo
from parfocal.recipe import load_recipe
from tests.report.read_report import draw_blank_figures


def test_the_demo_writes_runs_reports_and_submissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_recipe = load_recipe("demo", size=32, crop_size=32, epochs=1)
    monkeypatch.setattr(demo, "RECIPE", quick_recipe)
    monkeypatch.setattr(demo, "NETWORKS", ["resnet20", "plain20"])
    monkeypatch.setattr(demo, "N_IMAGES", 60)
    for figures in (nullcontext(), draw_blank_figures()):
        with figures:
            result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
        assert result.exit_code == 0, result.output
        assert "majority" in result.output
        assert f"Open {tmp_path / 'demo' / 'report.html'}" in result.output
        assert result.output.splitlines()[-1].endswith(f"parfocal serve {tmp_path / 'demo'}")
    for network in ("resnet20", "plain20"):
        assert (tmp_path / "demo" / network / "submission.csv").is_file()
    assert (tmp_path / "demo" / "figures" / "accuracy.png").is_file()


def test_the_demo_trains_three_networks_from_scratch_with_one_recipe() -> None:
    assert demo.NETWORKS == ["resnet18", "resnet50", "resnet152"]
    assert demo.RECIPE == "demo"
