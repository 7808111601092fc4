"""The decisions of validation are kept in one file, and a new kind of decision is one class."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation import decision as decision_module
from parfocal.evaluation.decision import DECISIONS, Decision, DecisionOptions, fit_decision
from parfocal.evaluation.decision_rule import DecisionRule
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.operating_point import OperatingPoint
from parfocal.evaluation.out_of_distribution import OodMonitor
from parfocal.evaluation.patients import FellowEyes
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.validation_decision import (
    DecideFunction,
    PredictedBatch,
    ValidationDecision,
    ValidationSplit,
)
from parfocal.recipe import load_recipe
from parfocal.run import Run
from tests.evaluation.make_predictions import make_predictions
from tests.evaluation.trained_run import trained as trained

RECIPE = load_recipe(None, positive="class 1")
PLAIN = RECIPE.evaluation
MONITOR = OodMonitor((1.0,) * 7, (2.0,) * 7, 4.0, 60)
ALL_OPTIONS = DecisionOptions(operating_point="sensitivity=0.9", refer=0.8, tta="d4", fellow_eyes=True)


@dataclass(frozen=True)
class TopProbability(ValidationDecision):
    """A toy decision: flag images whose highest probability is below a quantile of validation."""

    name = "top_probability"
    section = "top_probability"
    option = "min_quantile"

    quantile: float
    limit: float

    @classmethod
    def fit(cls, valid: ValidationSplit, option: Any) -> Self:
        return cls(option, float(np.quantile(valid.calibrated.probabilities.max(axis=1), option)))

    @property
    def option_value(self) -> float:
        return self.quantile

    @property
    def flag(self) -> str:
        return "doubtful"

    def apply(self, batch: PredictedBatch) -> PredictedBatch:
        doubtful = batch.probabilities.max(axis=1) < self.limit
        return replace(batch, flags={**batch.flags, self.flag: doubtful})

    def evaluate(
        self, predictions: Predictions, calibrated: Predictions, labels: np.ndarray, decide: DecideFunction
    ) -> dict[str, Any]:
        return {"share": float((calibrated.probabilities.max(axis=1) < self.limit).mean())}

    def describe(self) -> str:
        return f"Images with a probability below {self.limit:.2f} are doubtful."


def _overconfident(seed: int = 0, count: int = 400) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count)
    logits = np.clip(rng.normal(2.0 * truth - 1, 1.5), -3, 3) * 4
    positive = 1 / (1 + np.exp(-logits))
    groups = [str(number // 2) for number in range(count)]
    return make_predictions(truth, np.stack([1 - positive, positive], axis=1), groups)


def test_a_loaded_decision_equals_the_saved_one(tmp_path: Path) -> None:
    decision = fit_decision(_overconfident(), ALL_OPTIONS, Decision((MONITOR,)), RECIPE)
    assert [type(fitted) for fitted in decision.fitted] == list(DECISIONS)
    decision.save(tmp_path / "decision.json")
    assert Decision.load(tmp_path / "decision.json") == decision
    assert Decision.load(tmp_path / "missing.json") == Decision()
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(
        ParfocalError,
        match=r"not a decision file of this version\. Delete it and manifest\.json, then run `parfocal eval",
    ):
        Decision.load(tmp_path / "other.json")


NAN = float("nan")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature.value", -1),
        ("temperature.value", 0),
        ("temperature.value", NAN),
        ("temperature.value", float("inf")),
        ("operating_point.criterion", "luck"),
        ("operating_point.target", 1.5),
        ("decision_rule.rule", "luck"),
        ("decision_rule.costs", "many"),
        ("operating_point.threshold", -0.1),
        ("operating_point.threshold", 1.1),
        ("operating_point.referable", -1),
        ("referral.coverage", 1),
        ("referral.min_probability", 1.1),
        ("referral.min_probability", NAN),
        ("ood.mean", [0.0]),
        ("ood.max_deviation", -1),
        ("fellow_eyes.weight", 1.1),
        ("tta", "d5"),
        ("n_images", -1),
    ],
)
def test_a_value_out_of_bounds_is_an_error_that_names_file_key_and_value(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "decision.json"
    decision = fit_decision(_overconfident(), ALL_OPTIONS, Decision((MONITOR,)), RECIPE)
    content: Any = decision.as_dict()
    section, _, name = key.rpartition(".")
    (content[section] if section else content)[name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ParfocalError, match=re.escape(f"{path}: {key} is {value!r}: ")):
        Decision.load(path)


@pytest.mark.parametrize(
    ("thresholds", "fault"),
    [([1.5, 0.5], "thresholds between grades must not decrease"), ([0.5, NAN], "thresholds.1 is nan")],
)
def test_thresholds_between_grades_are_finite_and_in_order(tmp_path: Path, thresholds: list[float], fault: str) -> None:
    path = tmp_path / "decision.json"
    content = Decision((DecisionRule("thresholds", True, (0.5, 0.5, 1.5)),)).as_dict()
    path.write_text(json.dumps(content))
    assert Decision.load(path).as_dict() == content
    content["decision_rule"]["thresholds"] = thresholds
    path.write_text(json.dumps(content))
    with pytest.raises(ParfocalError, match=fault):
        Decision.load(path)


@pytest.mark.parametrize(
    ("fitted", "fault"),
    [
        (DecisionRule("thresholds", True, (0.5, 1.5)), "decision_rule.thresholds has 2 values"),
        (DecisionRule("thresholds", True), "decision_rule.thresholds has 0 values"),
        (DecisionRule("cost", costs=(1.0, 2.0)), "decision_rule.costs has 2 values"),
        (OperatingPoint("cost", 5.0, 0.5, 4), "operating_point.referable is 4"),
        (OperatingPoint("cost", 5.0, 0.5), "operating_point.referable is 0"),
    ],
)
def test_a_decision_must_fit_the_classes(fitted: ValidationDecision, fault: str) -> None:
    with pytest.raises(ParfocalError, match=rf"decision\.json: {re.escape(fault)}, which does not fit 4 classes"):
        Decision((fitted,)).check_classes(4, Path("decision.json"))
    fitting = (DecisionRule("mean", True, (0.5, 1.5, 2.5), (1.0,) * 4), OperatingPoint("cost", 5.0, 0.5, 3))
    Decision(fitting).check_classes(4, Path("decision.json"))


def test_an_option_stays_until_it_is_turned_off() -> None:
    first = fit_decision(_overconfident(), ALL_OPTIONS, Decision((MONITOR,)), RECIPE)
    assert fit_decision(_overconfident(), DecisionOptions(), first, RECIPE) == first
    off = fit_decision(_overconfident(), DecisionOptions("none", 0, "recipe", fellow_eyes=False), first, RECIPE)
    assert (off.operating_point, off.referral, off.tta, off.get(FellowEyes)) == (None, None, "", None)
    assert off.temperature == first.temperature


def test_calibration_metrics_improve_and_accuracy_stays() -> None:
    decision = fit_decision(_overconfident(), DecisionOptions(), Decision(), RECIPE)
    assert decision.temperature > 2
    metrics = evaluate_split(_overconfident(1), PLAIN, decision)
    assert metrics["calibration"]["ece"] < metrics["ece"] / 2
    assert metrics["calibration"]["loss"] < metrics["loss"]
    assert metrics["calibration"]["reliability"] != metrics["reliability"]
    assert compute_metrics(decision.calibrate(_overconfident(1)))["accuracy"] == metrics["accuracy"]


def test_an_operating_point_is_also_evaluated_on_a_split_that_did_not_choose_it() -> None:
    decision = fit_decision(_overconfident(), DecisionOptions("sensitivity=0.95"), Decision(), RECIPE)
    valid = evaluate_split(_overconfident(), PLAIN, decision)["operating_point"]
    test = evaluate_split(_overconfident(1), PLAIN, decision)["operating_point"]
    assert valid["goal"] == test["goal"] == "sensitivity=0.95"
    assert valid["per_class"]["class 1"]["recall"] >= 0.95
    low, high = test["intervals"]["per_class"]["class 1"]["recall"]
    assert low < test["per_class"]["class 1"]["recall"] < high
    assert "auc" not in test
    assert decision.operating_point is not None
    calibrated = decision.calibrate(_overconfident(1)).probabilities
    positive = calibrated[:, 1] >= decision.operating_point.threshold
    assert test["confusion"][1][1] == (positive & (_overconfident(1).truth == 1)).sum()


def test_the_label_of_two_classes_follows_the_threshold() -> None:
    decision = fit_decision(_overconfident(), DecisionOptions("specificity=0.99"), Decision(), RECIPE)
    calibrated = decision.calibrate(_overconfident()).probabilities
    assert decision.predict_labels(calibrated).sum() < calibrated.argmax(axis=1).sum()
    assert Decision().predict_labels(calibrated).tolist() == calibrated.argmax(axis=1).tolist()


def test_applying_a_decision_calibrates_decides_and_flags() -> None:
    decision = fit_decision(_overconfident(), ALL_OPTIONS, Decision((MONITOR,)), RECIPE)
    batch = decision.apply(_overconfident(1).probabilities)
    calibrated = decision.calibrate(_overconfident(1)).probabilities
    assert batch.probabilities.tolist() == calibrated.tolist()
    assert batch.labels.tolist() == decision.predict_labels(calibrated).tolist()
    assert list(batch.flags) == ["positive", "referred"]
    assert batch.is_positive is not None
    assert batch.is_positive.tolist() == (batch.labels == 1).tolist()
    assert Decision().apply(calibrated).is_referred is None


def test_each_decision_is_described_in_one_sentence() -> None:
    sentences = fit_decision(_overconfident(), ALL_OPTIONS, Decision((MONITOR,)), RECIPE).describe()
    assert len(sentences) == len(DECISIONS)
    expected = [
        "temperature of",
        "most probable",
        "sensitivity=0.9 for class 1 has the threshold",
        "target coverage: 80%",
        "unusual",
        "weight of",
    ]
    for sentence, words in zip(sentences, expected, strict=True):
        assert words in sentence
        assert sentence.endswith(".")


def test_a_new_kind_of_decision_is_one_class(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_module, "DECISIONS", (*DECISIONS, TopProbability))
    run = Run(trained / "runs" / "resnet20")
    with pytest.raises(UsageError, match=r"quantile is not an option of evaluate\. Did you mean 'min_quantile'\?"):
        parfocal.evaluate(run.folder, quantile=0.5)
    calls: list[dict[str, Any]] = [{"min_quantile": 0.5}, {}]
    for options in calls:
        parfocal.evaluate(run.folder, **options)
        fitted = Decision.load(run.decision_path).get(TopProbability)
        assert fitted is not None
        assert fitted.quantile == 0.5
        assert fitted.describe() in Decision.load(run.decision_path).describe()
        assert 0 <= run.read_metrics()["test"]["top_probability"]["share"] <= 1
    result = parfocal.predict(run.folder, trained / "cells" / "resnet_18_test.csv", tmp_path / "out.csv")
    assert list(result.flag_counts) == ["unusual", "doubtful"]
    assert (tmp_path / "out.csv").read_text().startswith("id,predicted,probability:normal,probability:blast,unusual,d")
    parfocal.evaluate(run.folder, min_quantile=0)
    assert "top_probability" not in run.read_metrics()["test"]
