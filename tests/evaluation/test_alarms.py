"""A network that predicts one class for everything, or is at chance level, raises an alarm that says what to try."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

import parfocal
from parfocal.errors import ParfocalError
from parfocal.evaluation.alarms import alarms
from parfocal.recipe import load_recipe
from tests.cells import SMALL_RECIPE
from tests.report.read_report import read_report

GRADES = {"no DR": 735, "mild": 70, "moderate": 150, "severe": 25, "proliferative": 20}


def _make_history(shares: list[float], kappas: list[float]) -> list[dict[str, Any]]:
    """Return a history with, for each epoch, the share of `no DR` among the predictions, and kappa."""
    return [{"valid_predicted:no DR": share, "valid_kappa": kappa} for share, kappa in zip(shares, kappas, strict=True)]


def test_predicting_one_class_for_almost_everything_is_a_collapse_with_its_epochs() -> None:
    recipe = load_recipe("retinopathy")
    (alarm,) = alarms(_make_history([0.8, 1.0, 1.0, 0.7], [0.2, 0, 0, 0.3]), GRADES, recipe)
    assert (alarm.code, alarm.since, alarm.until) == ("collapse", 2, 3)
    assert len(alarms(_make_history([1.0] * 3, [0] * 3), GRADES, recipe)) == 1
    expected = "Epochs 2 to 3: 100.0% of the validation images are predicted as 'no DR', the true class of 73.5%."
    assert expected in alarm.text


def test_the_likely_cause_depends_on_the_frequency_of_the_class_and_on_the_sampling() -> None:
    def explain(name: str, **changes: Any) -> str:
        history = [{f"valid_predicted:{name}": 1.0, "valid_kappa": 0.0}]
        text = alarms(history, GRADES, load_recipe(**changes))[0].text
        return text.partition("%. ")[2].partition(" Try")[0]

    settled = "Predicting this class every time already gives that accuracy, and training has settled there."
    assert explain("no DR") == settled
    assert explain("severe") == "A likely cause is a learning rate that is too high, or too few training steps."
    assert explain("no DR", sampling="balanced") == explain("severe")
    assert explain("severe", class_weights="balanced").startswith("Likely causes are oversampling or class weights")


def test_a_collapse_is_found_even_if_nearly_all_images_are_of_the_class() -> None:
    counts = {"no DR": 990, "mild": 10}
    recipe = load_recipe(epochs=1)
    (alarm,) = alarms(_make_history([1.0], [0.0]), counts, recipe)
    assert alarm.code == "collapse"
    assert alarms(_make_history([0.993], [0.3]), counts, recipe) == []


def test_a_kappa_of_0_for_three_epochs_raises_an_alarm_and_for_two_does_not() -> None:
    recipe = load_recipe()
    found = alarms(_make_history([0.9] * 3, [0.001, -0.002, 0]), GRADES, recipe)
    assert [alarm.code for alarm in found] == ["no_kappa"]
    assert alarms(_make_history([0.9] * 3, [0.001, 0, 0.2]), GRADES, recipe) == []


def test_a_kappa_within_chance_raises_an_alarm_and_above_chance_does_not() -> None:
    recipe = load_recipe(epochs=1)
    rng = np.random.default_rng(0)
    truth = np.repeat(range(5), list(GRADES.values()))
    history: list[dict[str, Any]] = []
    for _ in range(200):
        predicted = rng.choice(5, len(truth), p=(0.3, 0.1, 0.2, 0.2, 0.2))
        shares = np.bincount(predicted, minlength=5) / len(predicted)
        columns = {f"valid_predicted:{name}": share for name, share in zip(GRADES, shares, strict=True)}
        history.append({**columns, "valid_kappa": cohen_kappa_score(truth, predicted)})
    assert 0.88 < np.mean([bool(alarms([row], GRADES, recipe)) for row in history]) < 0.99
    assert not any(alarms([{**row, "valid_kappa": 0.05}], GRADES, recipe) for row in history)
    assert alarms([{"valid_predicted:no DR": 0.5, "valid_kappa": -0.3}], {"no DR": 4, "mild": 4}, recipe)


def test_two_epochs_at_chance_raise_an_alarm_if_the_recipe_has_only_two() -> None:
    history = _make_history([0.0, 0.18], [-0.012, -0.014])
    assert alarms(history, GRADES, load_recipe(epochs=12)) == []
    (alarm,) = alarms(history, GRADES, load_recipe(epochs=2))
    assert alarm.text.startswith(
        "Epochs 1 to 2: kappa on validation is -0.014, no better than chance. The network does not learn "
    )


def test_kappa_without_a_second_class_on_validation_is_explained_and_has_its_own_remedy() -> None:
    counts = {"no DR": 40, "mild": 0}
    (alarm,) = alarms(_make_history([0.5] * 3, [0.0] * 3), counts, load_recipe())
    assert alarm.code == "one_class"
    assert alarm.text == (
        "Epochs 1 to 3: kappa on validation is 0 whatever the network predicts, because all validation images are "
        "'no DR'. Add validation images of another class, or split again (keep=false)."
    )


def test_kappa_is_not_proposed_to_select_the_epoch_where_it_is_at_chance_in_all() -> None:
    at_chance, learned = (alarms(_make_history([1.0, 0.8], [0.0, kappa]), GRADES, load_recipe()) for kappa in (0, 0.3))
    assert "select=kappa" not in at_chance[0].text
    assert "select=kappa" in learned[0].text


def test_a_class_of_almost_all_images_may_be_predicted_that_often() -> None:
    assert alarms(_make_history([0.97], [0.3]), {"no DR": 960, "mild": 40}, load_recipe()) == []


def test_the_remedies_are_those_that_the_recipe_does_not_use_yet() -> None:
    history = _make_history([1.0, 0.8], [0.0, 0.3])
    texts = {
        " ".join([name, *changes.values()]): alarms(history, GRADES, load_recipe(name, **changes))[0].text
        for name, changes in (
            ("leukemia-adam", {}),
            ("retinopathy", {"init": "imagenet"}),
            ("retinopathy", {"init": "scratch"}),
            ("fundus", {}),
        )
    }
    assert texts["leukemia-adam"].endswith(
        "Try a learning_rate below 0.001; warmup=2; select=kappa, so that such an epoch is never selected."
    )
    assert texts["retinopathy imagenet"].endswith("Try more epochs.")
    assert (
        "Try init=imagenet, or init=RUN with an earlier run on similar images; a learning_rate below 0.001."
        in texts["retinopathy scratch"]
    )
    assert "; decide=mean, which predicts the rounded mean grade instead of" in texts["fundus"]
    assert "init=" not in texts["fundus"]


def test_no_alarm_advises_what_was_measured_to_cost_accuracy() -> None:
    for changes in ({}, {"ordered": True}, {"minutes": 5}):
        text = alarms(_make_history([1.0], [0.0]), GRADES, load_recipe(None, **changes))[0].text
        assert "sampling" not in text
        assert "regression" not in text


@pytest.mark.parametrize(
    ("changes", "expected", "unexpected"),
    [
        ({"minutes": 30, "sampling": "balanced", "init": "imagenet", "select": "kappa"}, "warmup=2; more m", "epo"),
        ({"epochs": 1}, "select=kappa", "warmup"),
        ({"model": "resnet20"}, "init=RUN with", "imagenet"),
        ({"model": "plain18"}, "init=RUN with", "imagenet"),
        ({"normalization": "none"}, "init=RUN with", "imagenet"),
        ({"stride_in": "1x1"}, "init=RUN with", "imagenet"),
        ({"model": "resnet50", "groups": 2}, "init=RUN with", "imagenet"),
        ({"model": "resnet50", "groups": 1}, "init=imagenet, or init=RUN with", "more epochs"),
        ({"ordered": True}, "decide=mean", "more epochs"),
        ({"ordered": True, "select": "quadratic_kappa"}, "init=imagenet, or init=RUN with", "decide"),
        ({"init": "imagenet", "head": "probe"}, "head=warm_start", "epochs"),
    ],
)
def test_no_remedy_is_suggested_that_the_recipe_would_reject(
    changes: dict[str, Any], expected: str, unexpected: str
) -> None:
    (alarm,) = alarms(_make_history([1.0, 0.8], [0.0, 0.3]), GRADES, load_recipe(**changes))
    remedies = alarm.text.partition(" Try ")[2]
    assert expected in remedies
    assert unexpected not in remedies


def test_a_run_that_collapses_has_the_alarm_in_its_files_and_in_its_report(cells: Path, tmp_path: Path) -> None:
    header, *rows = (cells / "train.csv").read_text().splitlines()
    normal = [row for row in rows if row.endswith(",0")]
    blast = [row for row in rows if row.endswith(",1")]
    (cells / "train.csv").write_text("\n".join([header, *normal, *blast[:2]]) + "\n")
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 2, "learning_rate": 1e-6})
    assert {"valid_predicted:normal", "valid_predicted:blast"} <= set(run.read_history().columns)
    (alarm,) = run.read_metrics()["alarms"]
    assert alarm["code"] == "collapse"
    assert "of the validation images are predicted as" in read_report(run.folder)


def test_a_loss_that_diverges_stops_training_with_a_diagnosis(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(ParfocalError) as error:
        parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "learning_rate": 1e30, "warmup": 1})
    text = str(error.value)
    assert "in epoch 1, step " in text
    assert "learning rate " in text
    assert "new_dataset/train/" in text
