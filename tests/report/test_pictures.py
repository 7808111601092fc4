"""Pictures of mistakes: the right images, kept with the run, made anew only where the predictions are others."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfocal.evaluation.predictions import Predictions
from parfocal.report.pictures import kept_pictures, most_confident_mistakes, most_confused_pairs
from parfocal.run import Run
from tests.evaluation.trained import trained
from tests.report.reading import page_of

__all__ = ["trained"]

SAID = np.array([[0.9, 0.1, 0], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4], [0, 0, 1.0]])
TRUTH = np.array([0, 0, 0, 1, 2, 0])
FEW = Predictions(tuple("abcdef"), tuple("abcdef"), TRUTH, SAID, ("no", "mild", "severe"))


def test_the_most_confident_mistakes_come_first() -> None:
    assert most_confident_mistakes(FEW) == [5, 2, 1, 4]
    assert most_confident_mistakes(FEW, 2) == [5, 2]


def test_pairs_are_counted() -> None:
    assert most_confused_pairs(FEW)[0] == (0, 1, 2)
    assert sum(count for _, _, count in most_confused_pairs(FEW, 9)) == 4


def _confused(run: Run) -> None:
    """Turn some answers of a run round, so that there are mistakes."""
    said = Predictions.load(run.predictions("test"))
    probabilities = said.probabilities.copy()
    probabilities[:3] = probabilities[:3, ::-1]
    Predictions(said.ids, said.groups, said.truth, probabilities, said.classes).save(run.predictions("test"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained / "runs" / "resnet20", tmp_path / "run")
    run = Run(tmp_path / "run")
    _confused(run)
    return run


def test_each_mistake_has_a_picture_and_a_heat_map_that_need_neither_images_nor_network_again(run: Run) -> None:
    made = kept_pictures(run)
    assert made["mistakes"]
    for one in made["mistakes"]:
        assert one["picture"].startswith("data:image/jpeg")
        assert one["map"].startswith("data:image/jpeg")
        assert one["truth"] != one["answer"]
        assert one["certainty"] > one["of_truth"]
    run.weights.unlink()
    run.table.unlink()
    assert kept_pictures(run) == made


def test_it_is_told_whether_answers_hang_on_the_border(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "runs" / "resnet20", tmp_path / "run")
    run = Run(tmp_path / "run")
    assert kept_pictures(run)["margin"] is None
    # With the truth of test unknown, the 24 images of valid are looked at: enough to say something.
    run.predictions("test").unlink()
    margin = kept_pictures(run)["margin"]
    assert margin["images"] == 24
    assert margin["warning"] or margin["border_changes"] <= 0.05 or margin["border_changes"] < margin["middle_changes"]
    assert "on the border" in page_of(run)


def test_other_predictions_have_other_pictures(run: Run) -> None:
    before = [one["id"] for one in kept_pictures(run)["mistakes"]]
    _confused(run)
    assert [one["id"] for one in kept_pictures(run)["mistakes"]] != before


def test_an_image_that_is_gone_is_told_with_its_reason(run: Run) -> None:
    rows = pd.read_csv(run.table, dtype=str, keep_default_na=False)
    rows["path"] = rows["path"].str.replace("/test/", "/gone/")
    rows.to_csv(run.table, index=False)
    made = kept_pictures(run)
    assert {one["reason"] for one in made["mistakes"]} == {"the file is missing"}
    assert {one["picture"] for one in made["mistakes"]} == {""}


def test_without_weights_there_are_pictures_and_no_heat_maps(run: Run) -> None:
    run.weights.unlink()
    assert {one["map"] for one in kept_pictures(run)["mistakes"]} == {""}
