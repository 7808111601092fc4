"""A network that says one class for everything is noticed, and told what to try."""

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


def _history(said: list[float], kappa: list[float]) -> list[dict[str, Any]]:
    return [{"valid_says:no DR": share, "valid_kappa": value} for share, value in zip(said, kappa, strict=True)]


def test_one_class_for_almost_everything_is_a_collapse_with_its_epochs() -> None:
    found = alarms(_history([0.8, 1.0, 1.0, 0.7], [0.2, 0, 0, 0.3]), GRADES, load_recipe("retinopathy"))
    (alarm,) = found
    assert (alarm.code, alarm.since, alarm.until) == ("collapse", 2, 3)
    assert len(alarms(_history([1.0] * 3, [0] * 3), GRADES, load_recipe("retinopathy"))) == 1
    assert "Epochs 2 to 3: 100.0% of the predictions on valid are 'no DR', which is 73.5% of the images." in alarm.text


def test_why_one_class_is_said_hangs_on_its_share_and_on_what_is_shown() -> None:
    def cause(name: str, **changes: Any) -> str:
        history = [{f"valid_says:{name}": 1.0, "valid_kappa": 0.0}]
        return (
            alarms(history, GRADES, load_recipe(**changes))[0].text.partition("of the images. ")[2].partition(" Try")[0]
        )

    assert cause("no DR") == "Always saying it is right that often, and the loss has settled for that."
    assert cause("severe") == "A network comes to that by steps that are too large, or too few."
    assert cause("no DR", sampling="balanced") == cause("severe")
    assert cause("severe", class_weights="balanced").startswith("Rare classes that are shown more often or count")


def test_a_class_that_is_nearly_everything_leaves_room_for_an_alarm() -> None:
    counts = {"no DR": 990, "mild": 10}
    (alarm,) = alarms(_history([1.0], [0.0]), counts, load_recipe(epochs=1))
    assert alarm.code == "collapse"
    assert alarms(_history([0.993], [0.3]), counts, load_recipe(epochs=1)) == []


def test_kappa_at_0_for_three_epochs_is_told_and_for_two_is_not() -> None:
    plain = load_recipe()
    assert [one.code for one in alarms(_history([0.9] * 3, [0.001, -0.002, 0]), GRADES, plain)] == ["no_kappa"]
    assert alarms(_history([0.9] * 3, [0.001, 0, 0.2]), GRADES, plain) == []


def test_kappa_within_what_chance_gives_is_told_and_beyond_it_is_not() -> None:
    rng = np.random.default_rng(0)
    truth, names = np.repeat(range(5), list(GRADES.values())), [f"valid_says:{name}" for name in GRADES]
    said = [rng.choice(5, len(truth), p=(0.3, 0.1, 0.2, 0.2, 0.2)) for _ in range(200)]
    shares = [dict(zip(names, np.bincount(one, minlength=5) / len(one), strict=True)) for one in said]
    history = [{**row, "valid_kappa": cohen_kappa_score(truth, one)} for row, one in zip(shares, said, strict=True)]
    fired = [bool(alarms([row], GRADES, load_recipe(epochs=1))) for row in history]
    assert 0.88 < np.mean(fired) < 0.99
    better = [{**row, "valid_kappa": 0.05} for row in history]
    assert not any(alarms([row], GRADES, load_recipe(epochs=1)) for row in better)
    assert alarms([{"valid_says:no DR": 0.5, "valid_kappa": -0.3}], {"no DR": 4, "mild": 4}, load_recipe(epochs=1))


def test_two_epochs_of_chance_are_told_where_there_are_no_more() -> None:
    history = _history([0.0, 0.18], [-0.012, -0.014])
    assert alarms(history, GRADES, load_recipe(epochs=12)) == []
    (alarm,) = alarms(history, GRADES, load_recipe(epochs=2))
    assert alarm.text.startswith(
        "Epochs 1 to 2: kappa on valid is -0.014, no better than chance. What the images show "
    )


def test_a_class_that_is_almost_everything_may_be_said_so_often() -> None:
    assert alarms(_history([0.97], [0.3]), {"no DR": 960, "mild": 40}, load_recipe()) == []


def test_the_advice_names_what_is_not_done_yet() -> None:
    told = {
        name: alarms(_history([1.0], [0.0]), GRADES, load_recipe(name, **changes))[0].text
        for name, changes in (
            ("leukemia-adam", {}),
            ("retinopathy", {"sampling": "decay", "init": "imagenet"}),
            ("fundus", {}),
        )
    }
    assert "a lower learning_rate than 0.001; warmup=2; sampling=decay" in told["leukemia-adam"]
    assert "; init=RUN with an earlier run on such images; select=kappa" in told["leukemia-adam"]
    assert "Try more epochs." in told["retinopathy"]
    assert "loss=regression, which learns the grade as a number; init=imagenet, or init=RUN" in told["fundus"]


@pytest.mark.parametrize(
    ("changes", "told", "not_told"),
    [
        ({"minutes": 30}, "sampling=square_root, for the rare classes", "sampling=decay"),
        ({"minutes": 30, "sampling": "balanced", "init": "imagenet", "select": "kappa"}, "Try warmup=2; more m", "epo"),
        ({"epochs": 1}, "Try sampling=decay", "warmup"),
        ({"model": "resnet20"}, "; init=RUN with", "imagenet"),
        ({"model": "plain18"}, "; init=RUN with", "imagenet"),
        ({"normalization": "none"}, "; init=RUN with", "imagenet"),
        ({"stride_in": "1x1"}, "; init=RUN with", "imagenet"),
        ({"model": "resnet50", "groups": 2}, "; init=RUN with", "imagenet"),
        ({"model": "resnet50", "groups": 1}, "; init=imagenet, or init=RUN with", "regression"),
        ({"ordered": True}, "loss=regression", "more epochs"),
        ({"ordered": True, "label_smoothing": 0.1}, "; init=imagenet, or init=RUN with", "regression"),
    ],
)
def test_no_step_is_named_that_the_recipe_would_refuse(changes: dict[str, Any], told: str, not_told: str) -> None:
    (alarm,) = alarms(_history([1.0], [0.0]), GRADES, load_recipe(**changes))
    advice = alarm.text.partition(" Try ")[2]
    assert told.removeprefix("Try ") in advice
    assert not_told not in advice


def test_a_run_that_collapses_says_so_in_its_files_and_on_its_page(cells: Path, tmp_path: Path) -> None:
    rows = (cells / "train.csv").read_text().splitlines()
    kept = [rows[0], *(row for row in rows[1:] if row.endswith(",0")), *[row for row in rows if row.endswith(",1")][:2]]
    (cells / "train.csv").write_text("\n".join(kept) + "\n")
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 2, "learning_rate": 1e-6})
    assert {"valid_says:normal", "valid_says:blast"} <= set(run.read_history().columns)
    (alarm,) = run.read_metrics()["alarms"]
    assert alarm["code"] == "collapse"
    page = read_report(run.folder)
    assert "of the predictions on valid are" in page


@pytest.mark.parametrize("rate", [1e30])
def test_a_loss_that_blows_up_stops_with_a_diagnosis(cells: Path, tmp_path: Path, rate: float) -> None:
    with pytest.raises(ParfocalError) as error:
        parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "learning_rate": rate, "warmup": 1})
    text = str(error.value)
    assert "in epoch 1, step " in text
    assert "learning rate " in text
    assert "new_dataset/train/" in text
