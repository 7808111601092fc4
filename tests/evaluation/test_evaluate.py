"""Trained networks loaded again say what they said when they were trained."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import parfocal
from parfocal.commands.tables import print_results
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.operating_point import OperatingPoint
from parfocal.run import Run, open_runs
from tests.cells import SMALL_RECIPE
from tests.evaluation.trained_run import trained as trained
from tests.report.read_report import read_report


def test_evaluating_writes_the_same_predictions_and_metrics(trained: Path) -> None:
    runs = open_runs([trained / "runs"])
    before = {run.name: (run.predictions_path("test").read_bytes(), run.read_metrics()) for run in runs}
    for run in runs:
        run.predictions_path("test").unlink()
        (run.folder / "metrics.json").unlink()
    again = parfocal.evaluate(trained / "runs")
    assert {run.name: (run.predictions_path("test").read_bytes(), run.read_metrics()) for run in again} == before


@pytest.mark.parametrize("fault", ["missing", "corrupt"])
def test_images_that_went_bad_are_refused_or_left_out_and_said(
    cells: Path, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = {"missing": "missing_files", "corrupt": "unreadable_images"}[fault]
    changes = {**SMALL_RECIPE, "epochs": 1}
    (strict,) = parfocal.train(cells, out=tmp_path / "strict", **changes)
    (waiving,) = parfocal.train(cells, out=tmp_path / "waiving", **changes, allow=[code])
    before = waiving.read_metrics()
    image = cells / "new_dataset" / "test" / "3.bmp"
    kept = image.read_bytes()
    image.unlink() if fault == "missing" else image.write_bytes(kept[:99])
    with pytest.raises(ParfocalError, match=rf"test/3\.bmp.*allow={code}"):
        parfocal.evaluate(strict.folder)
    parfocal.evaluate(waiving.folder)
    metrics, predictions = waiving.read_metrics(), pd.read_csv(waiving.predictions_path("test"))
    assert (metrics["valid"], metrics["test"]["count"]) == (before["valid"], 11)
    assert metrics["left_out"] == ["./new_dataset/test/3.bmp"]
    assert "./new_dataset/test/3.bmp" not in predictions["id"].tolist()
    print_results([waiving])
    assert "1 images that cannot be read any more are left out: ./new_dataset/test/3.bmp." in capsys.readouterr().out
    assert "left out, as the recipe allows: ./new_dataset/test/3.bmp." in read_report(waiving.folder)
    image.write_bytes(kept)
    parfocal.evaluate(waiving.folder)
    assert waiving.read_metrics() == before


@pytest.mark.parametrize("code", ["patient_overlap", "identical_across_splits"])
def test_what_was_waived_in_training_is_waived_in_evaluation(cells: Path, tmp_path: Path, code: str) -> None:
    if code == "patient_overlap":
        rows = pd.read_csv(cells / "patients.csv")
        rows.loc[rows["Path"] == "./new_dataset/valid/0.bmp", "patient"] = "train-0-0"
        rows.to_csv(cells / "patients.csv", index=False)
    else:
        shutil.copy(cells / "new_dataset" / "train" / "0.bmp", cells / "new_dataset" / "valid" / "0.bmp")
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1, "allow": [code]})
    before = run.read_metrics()
    parfocal.evaluate(run.folder)
    assert run.read_metrics() == before


def test_what_is_wished_for_is_decided_on_validation_and_kept(trained: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    straight = run.predictions_path("valid").read_bytes()
    (judged,) = parfocal.evaluate(run.folder, operating_point="sensitivity=0.9", tta="d4", fuse_eyes=True)
    assert judged.read_metrics()["test"]["operating"]["wish"] == "sensitivity=0.9"
    assert judged.read_metrics()["test"]["together"]["weight"] >= 0
    assert run.predictions_path("valid").read_bytes() != straight
    again = parfocal.evaluate(run.folder)[0].read_metrics()
    assert again["test"]["operating"]["thresholds"] == judged.read_metrics()["test"]["operating"]["thresholds"]
    parfocal.evaluate(run.folder, operating_point="none", tta="none", fuse_eyes=False)
    assert run.predictions_path("valid").read_bytes() == straight
    assert "operating" not in run.read_metrics()["test"]
    with pytest.raises(UsageError, match=r"views\.evaluation=nine is not a choice"):
        parfocal.evaluate(run.folder, tta="nine")


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"refer": 1.5}, r"refer=1\.5 is not a coverage"),
        ({"refer": 0.999}, r"refer=0\.999 cannot be promised from 24 images"),
        ({"operating_point": 0.95}, r"operating=0\.95 is not a wish"),
        ({"operating": "kappa"}, "say ordered=true in the recipe"),
    ],
)
def test_what_is_refused_leaves_the_runs_as_they_were(trained: Path, wishes: dict[str, Any], said: str) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (trained / "runs").rglob("*") if path.is_file()}

    before = content()
    with pytest.raises(ParfocalError, match=said):
        parfocal.evaluate(trained / "runs", tta="d4", **wishes)
    assert content() == before


def test_nothing_is_judged_for_a_wish_that_one_of_the_runs_cannot_meet(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parfocal.evaluation.evaluate.predict_table", None)
    with pytest.raises(UsageError, match="is not a coverage"):
        parfocal.evaluate(trained / "runs", refer=1.5)


def test_a_submission_answers_by_the_operating_point(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(trained / "runs" / "plain20")
    for threshold, answer in ((1.5, 0), (-0.5, 1)):
        point = OperatingPoint("specificity", 0.9, (threshold,))
        with monkeypatch.context() as patch:
            patch.setattr("parfocal.evaluation.decision.operating_point", lambda *_, point=point: point)
            parfocal.evaluate(run.folder, operating_point="specificity=0.9")
        assert set(pd.read_csv(run.folder / "submission.csv")["label"]) == {answer}
    parfocal.evaluate(run.folder, operating_point="none")


def test_the_test_split_decides_nothing(trained: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    before = run.decision_path.read_bytes()
    table = run.table_path.read_text()
    run.table_path.write_text(table.replace(",test,", ",train,"))
    try:
        parfocal.evaluate(run.folder)
        assert run.decision_path.read_bytes() == before
    finally:
        run.table_path.write_text(table)
        parfocal.evaluate(run.folder)


def test_a_run_of_an_older_parfocal_is_judged_anew(trained: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    recipe = run.folder / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text[: text.index("judgement:")])
    run.decision_path.unlink()
    try:
        parfocal.evaluate(run.folder)
        assert run.decision_path.is_file()
    finally:
        recipe.write_text(text)


def test_the_highest_test_accuracy_stands_apart_from_the_honest_one(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "test_curve": True})
    history, highest = run.read_history(), run.read_metrics()["chosen_on_test"]
    assert highest["accuracy"] == history["test_accuracy"].max()
    assert history["test_accuracy"].iloc[highest["epoch"] - 1] == highest["accuracy"]
    assert run.read_metrics()["test"]["accuracy"] <= highest["accuracy"]


def test_data_that_has_gone_is_told(trained: Path) -> None:
    one = trained / "cells" / "new_dataset" / "test" / "1.bmp"
    content = one.read_bytes()
    one.unlink()
    try:
        with pytest.raises(ParfocalError, match=r"1 of 84 images are missing: .*test/1\.bmp"):
            parfocal.evaluate(trained / "runs" / "resnet20")
    finally:
        one.write_bytes(content)
