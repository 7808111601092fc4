"""Evaluating a trained network again writes the same predictions and metrics as after training."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import parfocal
from parfocal.commands.tables import print_results
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.compare import compare_runs
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.operating_point import OperatingPoint
from parfocal.evaluation.positive_class import find_positive_class
from parfocal.evaluation.predictions import Predictions
from parfocal.report.report import format_rerun_commands
from parfocal.run import Run, open_runs
from tests.cells import SMALL_RECIPE
from tests.evaluation.trained_run import rewrite_file
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
def test_images_that_became_unreadable_are_rejected_or_listed(
    cells: Path, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = {"missing": "missing_files", "corrupt": "unreadable_images"}[fault]
    changes = {**SMALL_RECIPE, "epochs": 1}
    (strict,) = parfocal.train(cells, out=tmp_path / "strict", **changes)
    (waiving,) = parfocal.train(cells, out=tmp_path / "waiving", **changes, allow=[code])
    before = waiving.read_metrics()
    image = cells / "new_dataset" / "test" / "3.bmp"
    content = image.read_bytes()
    image.unlink() if fault == "missing" else image.write_bytes(content[:99])
    with pytest.raises(ParfocalError, match=rf"test/3\.bmp.*allow={code}"):
        parfocal.evaluate(strict.folder)
    parfocal.evaluate(waiving.folder)
    metrics = waiving.read_metrics()
    predictions = pd.read_csv(waiving.predictions_path("test"))
    assert (metrics["valid"], metrics["test"]["count"]) == (before["valid"], 11)
    assert metrics["unreadable_images"] == ["./new_dataset/test/3.bmp"]
    assert "./new_dataset/test/3.bmp" not in predictions["id"].tolist()
    print_results([waiving])
    assert "1 images are no longer readable, left out: ./new_dataset/test/3.bmp." in capsys.readouterr().out
    assert "left out, as the recipe allows: ./new_dataset/test/3.bmp." in read_report(waiving.folder)
    image.write_bytes(content)
    parfocal.evaluate(waiving.folder)
    assert waiving.read_metrics() == before


@pytest.mark.parametrize("code", ["patient_overlap", "identical_across_splits"])
def test_a_waiver_of_training_also_holds_in_evaluation(cells: Path, tmp_path: Path, code: str) -> None:
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


def test_options_are_fitted_on_validation_and_kept_with_the_run(trained: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    without_tta = run.predictions_path("valid").read_bytes()
    (evaluated,) = parfocal.evaluate(run.folder, operating_point="sensitivity=0.9", tta="d4", fellow_eyes=True)
    metrics = evaluated.read_metrics()["test"]
    assert metrics["operating_point"]["goal"] == "sensitivity=0.9"
    assert metrics["fellow_eyes"]["weight"] >= 0
    assert run.predictions_path("valid").read_bytes() != without_tta
    again = parfocal.evaluate(run.folder)[0].read_metrics()["test"]
    assert again["operating_point"]["threshold"] == metrics["operating_point"]["threshold"]
    parfocal.evaluate(run.folder, operating_point="none", tta="recipe", fellow_eyes=False)
    assert run.predictions_path("valid").read_bytes() == without_tta
    assert "operating_point" not in run.read_metrics()["test"]
    with pytest.raises(UsageError, match=r"views\.tta=nine is not a choice"):
        parfocal.evaluate(run.folder, tta="nine")


def test_the_positive_class_can_be_chosen_and_is_kept_with_the_run(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    assert find_positive_class(run) == 1
    parfocal.evaluate(run.folder, operating_point="sensitivity=0.9", positive="normal")
    for _ in range(2):
        point = run.read_metrics()["valid"]["operating_point"]
        assert point["positive"] == "normal"
        assert point["per_class"]["normal"]["recall"] >= 0.9
        parfocal.evaluate(run.folder)
    assert "--positive normal" in format_rerun_commands(run)
    assert "operating point sensitivity=0.9 for normal" in read_report(run.folder)
    result = parfocal.predict(run.folder, trained / "cells" / "new_dataset" / "test", tmp_path / "predictions.csv")
    rows = pd.read_csv(result.path)
    assert result.positive_name == "normal"
    assert (rows["predicted"] == "normal").tolist() == (rows["positive"] == 1).tolist()
    with pytest.raises(UsageError, match=r"positive=blasts is not a class\. Did you mean 'blast'"):
        parfocal.evaluate(run.folder, positive="blasts")
    parfocal.evaluate(run.folder, operating_point="none", positive="none")
    assert Decision.load(run.decision_path).positive == ""


def test_the_views_of_the_recipe_are_not_kept_as_a_decision(trained: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    for tta, kept in (("d4", "d4"), (None, "d4"), (run.recipe.views.tta, ""), (None, "")):
        parfocal.evaluate(run.folder, tta=tta)
        assert Decision.load(run.decision_path).tta == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refer": 1.5}, r"refer=1\.5 is not a coverage"),
        ({"refer": 0.999}, r"refer=0\.999 needs at least 999 validation images, and there are 24"),
        ({"operating_point": 0.95}, r"operating_point=0\.95 is not valid"),
        ({"decide": "thresholds"}, "Set ordered=true in the recipe"),
    ],
)
def test_a_rejected_option_leaves_the_runs_as_they_were(trained: Path, options: dict[str, Any], message: str) -> None:
    def read_files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (trained / "runs").rglob("*") if path.is_file()}

    before = read_files()
    with pytest.raises(ParfocalError, match=message):
        parfocal.evaluate(trained / "runs", tta="d4", **options)
    assert read_files() == before


def test_nothing_is_predicted_if_an_option_is_invalid_for_any_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parfocal.evaluation.evaluate.predict_table", None)
    with pytest.raises(UsageError, match="is not a coverage"):
        parfocal.evaluate(trained / "runs", refer=1.5)


def test_a_submission_follows_the_operating_point(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(trained / "runs" / "plain20")
    for threshold, label in ((1.000001, 0), (0.0, 1)):
        point = OperatingPoint("specificity", 0.9, threshold)
        with monkeypatch.context() as patch:
            patch.setattr(OperatingPoint, "fit", lambda *_, point=point: point)
            parfocal.evaluate(run.folder, operating_point="specificity=0.9")
        assert set(pd.read_csv(run.folder / "submission.csv")["label"]) == {label}
    parfocal.evaluate(run.folder, operating_point="none")


def test_the_test_split_has_no_influence_on_the_decision(trained: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    before = run.decision_path.read_bytes()
    table = run.table_path.read_text()
    rewrite_file(run.table_path, table.replace(",test,", ",train,"))
    try:
        parfocal.evaluate(run.folder)
        assert run.decision_path.read_bytes() == before
    finally:
        rewrite_file(run.table_path, table)
        parfocal.evaluate(run.folder)


def test_a_run_without_a_decision_file_can_be_evaluated(trained: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    before = run.decision_path.read_bytes()
    run.decision_path.unlink()
    (run.folder / "manifest.json").unlink()
    parfocal.evaluate(run.folder)
    assert run.decision_path.read_bytes() == before


def test_the_best_test_accuracy_of_all_epochs_is_kept_apart_from_the_test_result(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "test_curve": True})
    history = run.read_history()
    best = run.read_metrics()["chosen_on_test"]
    assert best["accuracy"] == history["test_accuracy"].max()
    assert history["test_accuracy"].iloc[best["epoch"] - 1] == best["accuracy"]
    assert run.read_metrics()["test"]["accuracy"] <= best["accuracy"]


def test_a_missing_image_is_an_error(trained: Path) -> None:
    image = trained / "cells" / "new_dataset" / "test" / "1.bmp"
    content = image.read_bytes()
    image.unlink()
    try:
        with pytest.raises(ParfocalError, match=r"1 of 84 images are missing: .*test/1\.bmp"):
            parfocal.evaluate(trained / "runs" / "resnet20")
    finally:
        image.write_bytes(content)


def test_every_output_follows_the_decision_rule_that_selected_the_epoch(cells: Path, tmp_path: Path) -> None:
    changes = {**SMALL_RECIPE, "epochs": 2, "decide": "cost", "costs": [1e6, 1]}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    metrics = run.read_metrics()
    assert metrics["valid"]["decisions"]["rule"] == "cost"
    best = run.read_history().iloc[metrics["best_epoch"] - 1]
    assert metrics["valid"]["accuracy"] == pytest.approx(best["valid_accuracy"])
    test = Predictions.load(run.predictions_path("test"))
    assert test.predicted.tolist() != test.probabilities.argmax(axis=1).tolist()
    assert compute_metrics(test)["confusion"] == metrics["test"]["confusion"]
    assert compare_runs([run], "test").results[0].metrics["accuracy"].value == metrics["test"]["accuracy"]
    assert pd.read_csv(run.folder / "submission.csv")["label"].tolist() == test.predicted.tolist()
    parfocal.predict(run.folder, cells / "new_dataset" / "test", tmp_path / "test.csv")
    predicted = pd.read_csv(tmp_path / "test.csv")["predicted"]
    assert sorted(predicted) == sorted(test.classes[label] for label in test.predicted)
    (evaluated,) = parfocal.evaluate(run.folder, decide="likeliest")
    test = Predictions.load(evaluated.predictions_path("test"))
    assert test.predicted.tolist() == test.probabilities.argmax(axis=1).tolist()
    assert "--decide likeliest" in format_rerun_commands(evaluated)
    parfocal.evaluate(run.folder, decide="none")
    assert Run(run.folder).read_metrics()["test"] == metrics["test"]
    assert "--decide" not in format_rerun_commands(run)
