"""Mistakes of a run: the right images, kept in its folder, and computed again only if the predictions change."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfocal.evaluation.predictions import Predictions
from parfocal.report.mistakes import find_most_confident_mistakes, find_most_confused_pairs, load_mistakes
from parfocal.run import Run
from tests.evaluation.trained_run import rewrite_file, trained
from tests.report.read_report import read_report

__all__ = ["trained"]

PROBABILITIES = np.array(
    [[0.9, 0.1, 0], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4], [0, 0, 1.0]]
)
TRUTH = np.array([0, 0, 0, 1, 2, 0])
PREDICTIONS = Predictions(tuple("abcdef"), tuple("abcdef"), TRUTH, PROBABILITIES, ("no", "mild", "severe"))


def test_the_most_confident_mistakes_come_first() -> None:
    assert find_most_confident_mistakes(PREDICTIONS) == [5, 2, 1, 4]
    assert find_most_confident_mistakes(PREDICTIONS, 2) == [5, 2]


def test_the_most_confused_pairs_are_counted() -> None:
    assert find_most_confused_pairs(PREDICTIONS)[0] == (0, 1, 2)
    assert sum(count for _, _, count in find_most_confused_pairs(PREDICTIONS, 9)) == 4


def _swap_predictions(run: Run) -> None:
    """Swap some predictions of a run, so that there are mistakes."""
    predictions = Predictions.load(run.predictions_path("test"))
    probabilities = predictions.probabilities.copy()
    probabilities[:3] = probabilities[:3, ::-1]
    replace(predictions, probabilities=probabilities, labels=None).save(run.predictions_path("test"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained / "runs" / "resnet20", tmp_path / "run")
    run = Run(tmp_path / "run")
    _swap_predictions(run)
    return run


def test_images_and_heatmaps_are_kept_so_that_data_and_weights_are_not_needed_again(run: Run) -> None:
    content = load_mistakes(run)
    assert content["mistakes"]
    for entry in content["mistakes"]:
        assert entry["image"].startswith("data:image/jpeg")
        assert entry["heatmap"].startswith("data:image/jpeg")
        assert entry["truth"] != entry["predicted"]
        assert entry["confidence"] > entry["truth_probability"]
    run.weights_path.unlink()
    run.table_path.unlink()
    assert load_mistakes(run) == content


def test_the_border_swap_test_is_part_of_the_report(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "runs" / "resnet20", tmp_path / "run")
    run = Run(tmp_path / "run")
    assert load_mistakes(run)["border_swap"] is None
    # Without predictions of test, the 24 validation images are used, which are enough for the border swap test.
    run.predictions_path("test").unlink()
    run.write_metrics({key: value for key, value in run.read_metrics().items() if key != "test"})
    border_swap = load_mistakes(run)["border_swap"]
    assert border_swap["n_images"] == 24
    border_rate = border_swap["border_change_rate"]
    center_rate = border_swap["center_change_rate"]
    assert border_swap["warning"] or border_rate <= 0.05 or border_rate < center_rate
    assert "on the border" in read_report(run)


def test_changed_predictions_have_other_mistakes(run: Run) -> None:
    ids = [entry["id"] for entry in load_mistakes(run)["mistakes"]]
    _swap_predictions(run)
    assert [entry["id"] for entry in load_mistakes(run)["mistakes"]] != ids


def test_a_missing_image_has_the_reason_instead(run: Run) -> None:
    rows = pd.read_csv(run.table_path, dtype=str, keep_default_na=False)
    rows["path"] = rows["path"].str.replace("/test/", "/gone/")
    rewrite_file(run.table_path, rows.to_csv(index=False))
    content = load_mistakes(run)
    assert {entry["reason"] for entry in content["mistakes"]} == {"the file is missing"}
    assert {entry["image"] for entry in content["mistakes"]} == {""}


def test_without_weights_there_are_images_but_no_heatmaps(run: Run) -> None:
    run.weights_path.unlink()
    assert {entry["heatmap"] for entry in load_mistakes(run)["mistakes"]} == {""}
