"""Pictures of mistakes: the right images, kept with the run, made anew only where the predictions are others."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfocal.evaluation.predictions import Predictions
from parfocal.report.mistakes import find_most_confident_mistakes, find_most_confused_pairs, load_mistakes
from parfocal.run import Run
from tests.evaluation.trained_run import trained
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


def test_pairs_are_counted() -> None:
    assert find_most_confused_pairs(PREDICTIONS)[0] == (0, 1, 2)
    assert sum(count for _, _, count in find_most_confused_pairs(PREDICTIONS, 9)) == 4


def _swap_predictions(run: Run) -> None:
    """Turn some answers of a run round, so that there are mistakes."""
    said = Predictions.load(run.predictions_path("test"))
    probabilities = said.probabilities.copy()
    probabilities[:3] = probabilities[:3, ::-1]
    Predictions(said.ids, said.groups, said.truth, probabilities, said.classes).save(run.predictions_path("test"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained / "runs" / "resnet20", tmp_path / "run")
    run = Run(tmp_path / "run")
    _swap_predictions(run)
    return run


def test_each_mistake_has_a_picture_and_a_heat_map_that_need_neither_images_nor_network_again(run: Run) -> None:
    made = load_mistakes(run)
    assert made["mistakes"]
    for one in made["mistakes"]:
        assert one["picture"].startswith("data:image/jpeg")
        assert one["map"].startswith("data:image/jpeg")
        assert one["truth"] != one["answer"]
        assert one["certainty"] > one["of_truth"]
    run.weights_path.unlink()
    run.table_path.unlink()
    assert load_mistakes(run) == made


def test_it_is_told_whether_answers_hang_on_the_border(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "runs" / "resnet20", tmp_path / "run")
    run = Run(tmp_path / "run")
    assert load_mistakes(run)["margin"] is None
    # With the truth of test unknown, the 24 images of valid are looked at: enough to say something.
    run.predictions_path("test").unlink()
    margin = load_mistakes(run)["margin"]
    assert margin["images"] == 24
    assert margin["warning"] or margin["border_changes"] <= 0.05 or margin["border_changes"] < margin["middle_changes"]
    assert "on the border" in read_report(run)


def test_other_predictions_have_other_pictures(run: Run) -> None:
    before = [one["id"] for one in load_mistakes(run)["mistakes"]]
    _swap_predictions(run)
    assert [one["id"] for one in load_mistakes(run)["mistakes"]] != before


def test_an_image_that_is_gone_is_told_with_its_reason(run: Run) -> None:
    rows = pd.read_csv(run.table_path, dtype=str, keep_default_na=False)
    rows["path"] = rows["path"].str.replace("/test/", "/gone/")
    rows.to_csv(run.table_path, index=False)
    made = load_mistakes(run)
    assert {one["reason"] for one in made["mistakes"]} == {"the file is missing"}
    assert {one["picture"] for one in made["mistakes"]} == {""}


def test_without_weights_there_are_pictures_and_no_heat_maps(run: Run) -> None:
    run.weights_path.unlink()
    assert {one["map"] for one in load_mistakes(run)["mistakes"]} == {""}
