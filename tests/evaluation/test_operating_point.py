"""Thresholds reach their goal on validation, and rounding changes no label; grades become binary predictions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.decision import DecisionOptions
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.operating_point import OperatingPoint, binarize_grades, parse_goal
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.validation_decision import PredictedBatch, ValidationSplit
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import EvaluationConfig
from tests.evaluation.make_predictions import make_predictions

PLAIN = EvaluationConfig()
GRADES = EvaluationConfig(ordered=True, referable=2)


def _fit(
    predictions: Predictions, goal: str, config: EvaluationConfig = PLAIN, positive: int | None = 1
) -> OperatingPoint:
    return OperatingPoint.fit(ValidationSplit(predictions, predictions, config, positive), goal)


def _make_scores(seed: int, count: int = 60, steps: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = np.append(rng.integers(0, 2, count), [0, 1])
    score = np.clip(0.3 * truth + 0.7 * rng.random(count + 2), 0, 1)
    score = np.round(score * steps) / steps if steps else score
    return make_predictions(truth, np.stack([1 - score, score], axis=1))


def _sensitivity_and_specificity(predictions: Predictions, threshold: float) -> tuple[float, float]:
    truth = predictions.truth == 1
    positive = predictions.probabilities[:, 1] >= threshold
    return float(positive[truth].mean()), float((~positive)[~truth].mean())


@given(seed=st.integers(0, 1000), target=st.sampled_from([0.5, 0.8, 0.9, 0.95]), steps=st.sampled_from([0, 4]))
def test_sensitivity_and_specificity_are_reached_and_the_other_is_as_high_as_possible(
    seed: int, target: float, steps: int
) -> None:
    predictions = _make_scores(seed, steps=steps)
    thresholds = [*np.unique(predictions.probabilities[:, 1]), 2]
    possible = [_sensitivity_and_specificity(predictions, threshold) for threshold in thresholds]
    for criterion, index, other in (("sensitivity", 0, 1), ("specificity", 1, 0)):
        point = _fit(predictions, f"{criterion}={target}")
        reached = _sensitivity_and_specificity(predictions, point.threshold)
        assert reached[index] >= target - 1e-9
        assert reached[other] == max(rates[other] for rates in possible if rates[index] >= target - 1e-9)


@given(seed=st.integers(0, 1000), cost=st.sampled_from([0.2, 1, 5, 50]), steps=st.sampled_from([0, 4]))
def test_no_threshold_has_a_lower_cost(seed: int, cost: float, steps: int) -> None:
    predictions = _make_scores(seed, steps=steps)
    n_positive = int((predictions.truth == 1).sum())
    n_negative = len(predictions) - n_positive

    def total_cost(threshold: float) -> float:
        sensitivity, specificity = _sensitivity_and_specificity(predictions, threshold)
        return cost * (1 - sensitivity) * n_positive + (1 - specificity) * n_negative

    point = _fit(predictions, f"cost={cost}")
    thresholds = [*np.unique(predictions.probabilities[:, 1]), 2.0]
    assert total_cost(point.threshold) == pytest.approx(min(map(total_cost, thresholds)))


@given(seed=st.integers(0, 1000))
def test_rounding_changes_no_label_of_validation(seed: int) -> None:
    predictions = _make_scores(seed)
    point = _fit(predictions, "sensitivity=0.9")
    rounded = np.round(predictions.probabilities, 9)
    assert point.is_positive(predictions.probabilities).tolist() == point.is_positive(rounded).tolist()


def test_referable_grades_are_positive_and_the_label_stays_a_grade() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 300)
    probabilities = rng.dirichlet(np.ones(5), 300) + 0.5 * np.eye(5)[truth]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    point = _fit(make_predictions(truth, probabilities), "sensitivity=0.95", GRADES)
    positive = point.is_positive(probabilities)
    assert positive[truth >= 2].mean() >= 0.95
    batch = point.apply(PredictedBatch(truth, probabilities))
    assert batch.labels.tolist() == truth.tolist()
    assert batch.flags["positive"].tolist() == positive.tolist()


@pytest.mark.parametrize("goal", ["sensitivity", "sensitivity=2", "cost=-1", "cost=many", "accuracy=0.9", "", "kappa"])
def test_an_invalid_goal_is_rejected(goal: str) -> None:
    with pytest.raises(UsageError, match=rf"operating_point={goal} is not valid\. Choose sensitivity=0\.95"):
        parse_goal(goal)


def test_a_goal_that_does_not_fit_the_classes_is_rejected() -> None:
    three_classes = make_predictions([0, 1, 2], np.eye(3))
    with pytest.raises(UsageError, match="needs a positive and a negative side, and there are 3 classes"):
        _fit(three_classes, "sensitivity=0.9")
    with pytest.raises(ParfocalError, match="needs positive and negative validation images, and all are negative"):
        _fit(make_predictions([0, 0], np.eye(2)), "cost=5")


@given(seed=st.integers(0, 1000))
def test_the_positive_class_can_be_the_first_of_two(seed: int) -> None:
    predictions = _make_scores(seed)
    mirrored = replace(predictions, truth=1 - predictions.truth, probabilities=predictions.probabilities[:, ::-1])
    point = _fit(predictions, "sensitivity=0.9")
    mirrored_point = _fit(mirrored, "sensitivity=0.9", positive=0)
    assert mirrored_point.threshold == point.threshold
    assert mirrored_point.positive_name == "class 0"
    batch = PredictedBatch(mirrored.predicted, mirrored.probabilities)
    labels = mirrored_point.apply(batch).labels
    assert labels[mirrored.truth == 0].tolist().count(0) >= 0.9 * (mirrored.truth == 0).sum()
    assert (labels == 0).tolist() == point.is_positive(predictions.probabilities).tolist()


def test_without_a_positive_class_one_sentence_names_the_option() -> None:
    message = "operating_point=cost=5 needs to know which class is positive: set positive=class 0 or positive=class 1."
    with pytest.raises(UsageError) as error:
        _fit(make_predictions([0, 1], np.eye(2)), "cost=5", positive=None)
    assert str(error.value) == message
    with pytest.raises(UsageError, match="needs to know which class is positive"):
        DecisionOptions("cost=5").check(PLAIN, ("class 0", "class 1"), None)


def test_the_goal_is_written_as_the_user_wrote_it() -> None:
    for goal in ("sensitivity=0.95", "cost=5"):
        criterion, target = parse_goal(goal)
        assert OperatingPoint(criterion, target, 0.5).goal == goal


def test_the_referable_probability_is_the_sum_over_the_referable_grades() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 5, 200)
    probabilities = rng.dirichlet(np.ones(5) / 2 + np.eye(5)[0], 200)
    binary = binarize_grades(make_predictions(truth, probabilities), 2)
    assert binary.classes == ("below class 2", "class 2 or above")
    assert binary.truth.tolist() == (truth >= 2).astype(int).tolist()
    metrics = evaluate_split(make_predictions(truth, probabilities), GRADES)["referable"]
    assert metrics["auc"] == pytest.approx(roc_auc_score(truth >= 2, probabilities[:, 2:].sum(axis=1)))
    low, high = metrics["intervals"]["auc"]
    assert low < metrics["auc"] < high


def test_an_unknown_grade_stays_unknown() -> None:
    assert binarize_grades(make_predictions([-1, 4], np.full((2, 5), 0.2)), 2).truth.tolist() == [-1, 1]


def test_the_recipe_names_the_lowest_referable_grade() -> None:
    assert load_recipe("retinopathy").evaluation == GRADES
    assert "referable" not in evaluate_split(make_predictions([0, 1], np.eye(2)), load_recipe().evaluation)
    with pytest.raises(UsageError, match="referable=2 needs ordered=true"):
        load_recipe(None, referable=2)


def test_a_referable_grade_that_is_not_a_class_is_rejected_before_training(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="referable=2, but the classes are normal, blast, counted from 0"):
        parfocal.train(cells, out=tmp_path / "runs", ordered=True, referable=2)
