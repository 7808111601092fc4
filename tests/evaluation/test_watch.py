"""A network that says one class for everything is noticed, and told what to try."""

from pathlib import Path
from typing import Any

import pytest

import parfocal
from parfocal.errors import ParfocalError
from parfocal.evaluation.watch import alarms
from parfocal.recipe import recipe
from tests.cells import SMALL
from tests.report.reading import page_of

GRADES = {"no DR": 0.735, "mild": 0.07, "moderate": 0.15, "severe": 0.025, "proliferative": 0.02}


def _history(said: list[float], kappa: list[float]) -> list[dict[str, Any]]:
    return [{"valid_says:no DR": share, "valid_kappa": value} for share, value in zip(said, kappa, strict=True)]


def test_one_class_for_almost_everything_is_a_collapse_with_its_epochs() -> None:
    found = alarms(_history([0.8, 1.0, 1.0, 0.7], [0.2, 0, 0, 0.3]), GRADES, recipe("retinopathy"))
    (alarm,) = found
    assert (alarm.code, alarm.since, alarm.until) == ("collapse", 2, 3)
    assert "Epochs 2 to 3: 100.0% of the predictions on valid are 'no DR', which is 73.5% of the images." in alarm.text


def test_kappa_at_0_for_three_epochs_is_told_and_for_two_is_not() -> None:
    plain = recipe()
    assert [one.code for one in alarms(_history([0.9] * 3, [0.001, -0.002, 0]), GRADES, plain)] == ["no_kappa"]
    assert alarms(_history([0.9] * 3, [0.001, 0, 0.2]), GRADES, plain) == []


def test_a_class_that_is_almost_everything_may_be_said_so_often() -> None:
    assert alarms(_history([0.97], [0.3]), {"no DR": 0.96, "mild": 0.04}, recipe()) == []


def test_the_advice_names_what_is_not_done_yet() -> None:
    told = {
        name: alarms(_history([1.0], [0.0]), GRADES, recipe(name, **changes))[0].text
        for name, changes in (
            ("leukemia-adam", {}),
            ("retinopathy", {"sampling": "decay"}),
        )
    }
    assert "a lower learning_rate than 0.001; warmup=2; sampling=decay" in told["leukemia-adam"]
    assert "Try more epochs." in told["retinopathy"]


def test_a_run_that_collapses_says_so_in_its_files_and_on_its_page(cells: Path, tmp_path: Path) -> None:
    rows = (cells / "train.csv").read_text().splitlines()
    kept = [rows[0], *(row for row in rows[1:] if row.endswith(",0")), *[row for row in rows if row.endswith(",1")][:2]]
    (cells / "train.csv").write_text("\n".join(kept) + "\n")
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL, "epochs": 2, "learning_rate": 1e-6})
    assert {"valid_says:normal", "valid_says:blast"} <= set(run.history().columns)
    (alarm,) = run.metrics()["alarms"]
    assert alarm["code"] == "collapse"
    page = page_of(run.folder)
    assert "of the predictions on valid are" in page


@pytest.mark.parametrize("rate", [1e30])
def test_a_loss_that_blows_up_stops_with_a_diagnosis(cells: Path, tmp_path: Path, rate: float) -> None:
    with pytest.raises(ParfocalError) as error:
        parfocal.train(cells, out=tmp_path / "runs", **{**SMALL, "learning_rate": rate, "warmup": 1})
    text = str(error.value)
    assert "in epoch 1, step " in text
    assert "learning rate " in text
    assert "new_dataset/train/" in text
