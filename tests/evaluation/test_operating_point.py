"""Thresholds reach on validation what was wished for, and no wish is met by chance rounding."""
# MERGED: """Referable disease is a question of two answers, derived from the grades."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.metrics import cohen_kappa_score

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.operating_point import OperatingPoint, binarize_grades, fit_operating_point, parse_goal
from parfocal.evaluation.predictions import Predictions
from parfocal.recipe import load_recipe
from parfocal.schema import EvaluationConfig
from tests.evaluation.make_predictions import make_predictions

PLAIN, GRADES = EvaluationConfig(), EvaluationConfig(ordered=True, referable=2)


def _said(seed: int, count: int = 60, steps: int = 0) -> Predictions:
    dice = np.random.default_rng(seed)
    truth = np.append(dice.integers(0, 2, count), [0, 1])
    score = np.clip(0.3 * truth + 0.7 * dice.random(count + 2), 0, 1)
    score = np.round(score * steps) / steps if steps else score
    return make_predictions(truth, np.stack([1 - score, score], axis=1))


def _reached(predictions: Predictions, threshold: float) -> tuple[float, float]:
    positive, said = predictions.truth == 1, predictions.probabilities[:, 1] >= threshold
    return float(said[positive].mean()), float((~said)[~positive].mean())


@given(seed=st.integers(0, 1000), wanted=st.sampled_from([0.5, 0.8, 0.9, 0.95]), steps=st.sampled_from([0, 4]))
def test_sensitivity_and_specificity_are_reached_and_the_other_is_the_highest_left(
    seed: int, wanted: float, steps: int
) -> None:
    predictions = _said(seed, steps=steps)
    every = [_reached(predictions, one) for one in [*np.unique(predictions.probabilities[:, 1]), 2]]
    for aim, mine, other in (("sensitivity", 0, 1), ("specificity", 1, 0)):
        found = fit_operating_point(predictions, f"{aim}={wanted}", PLAIN)
        reached = _reached(predictions, found.thresholds[0])
        assert reached[mine] >= wanted - 1e-9
        assert reached[other] == max(one[other] for one in every if one[mine] >= wanted - 1e-9)


@given(seed=st.integers(0, 1000), cost=st.sampled_from([0.2, 1, 5, 50]), steps=st.sampled_from([0, 4]))
def test_no_threshold_costs_less(seed: int, cost: float, steps: int) -> None:
    predictions = _said(seed, steps=steps)
    positives = int((predictions.truth == 1).sum())
    negatives = len(predictions) - positives

    def paid(threshold: float) -> float:
        sensitivity, specificity = _reached(predictions, threshold)
        return cost * (1 - sensitivity) * positives + (1 - specificity) * negatives

    found = fit_operating_point(predictions, f"cost={cost}", PLAIN)
    every = [*np.unique(predictions.probabilities[:, 1]), 2.0]
    assert paid(found.thresholds[0]) == pytest.approx(min(paid(one) for one in every))


@given(seed=st.integers(0, 1000))
def test_rounding_flips_no_image_of_validation(seed: int) -> None:
    predictions = _said(seed)
    found = fit_operating_point(predictions, "sensitivity=0.9", PLAIN)
    rounded = np.round(predictions.probabilities, 9)
    before, after = (found.predict_labels(one, PLAIN).tolist() for one in (predictions.probabilities, rounded))
    assert before == after


def test_referable_grades_are_positive_and_the_answer_stays_a_grade() -> None:
    dice = np.random.default_rng(0)
    truth = dice.integers(0, 5, 300)
    probabilities = dice.dirichlet(np.ones(5), 300) + 0.5 * np.eye(5)[truth]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = fit_operating_point(make_predictions(truth, probabilities), "sensitivity=0.95", GRADES)
    positive = found.is_positive(probabilities, GRADES)
    assert positive is not None
    assert positive[truth >= 2].mean() >= 0.95
    assert found.predict_labels(probabilities, GRADES).tolist() == probabilities.argmax(axis=1).tolist()


def test_thresholds_between_grades_are_tuned_for_quadratic_kappa() -> None:
    dice = np.random.default_rng(0)
    truth = np.minimum(dice.geometric(0.5, 500) - 1, 4)
    # Grades that lean towards the middle: plain rounding is not the best.
    probabilities = 0.5 * np.eye(5)[truth] + 0.5 * dice.dirichlet(np.ones(5), 500)
    found = fit_operating_point(make_predictions(truth, probabilities), "kappa", GRADES)
    assert found.is_positive(probabilities, GRADES) is None
    assert list(found.thresholds) == sorted(found.thresholds)
    tuned, plain = found.predict_labels(probabilities, GRADES), np.round(probabilities @ np.arange(5)).astype(int)
    kappas = [cohen_kappa_score(truth, one, weights="quadratic") for one in (tuned, plain)]
    assert kappas[0] > kappas[1]


@pytest.mark.parametrize(
    "wish", ["sensitivity", "sensitivity=2", "cost=-1", "cost=many", "accuracy=0.9", "", "kappa=1"]
)
def test_wishes_that_are_none_are_told(wish: str) -> None:
    with pytest.raises(UsageError, match=r"is not a wish\. Wishes are: sensitivity=0\.95"):
        parse_goal(wish)


def test_questions_that_do_not_fit_are_told() -> None:
    many = make_predictions([0, 1, 2], np.eye(3))
    with pytest.raises(UsageError, match="needs a question of two answers, and there are 3 classes"):
        fit_operating_point(many, "sensitivity=0.9", PLAIN)
    with pytest.raises(UsageError, match="say ordered=true"):
        fit_operating_point(many, "kappa", PLAIN)
    with pytest.raises(ParfocalError, match="needs images of both answers on validation"):
        fit_operating_point(make_predictions([0, 0], np.eye(2)), "cost=5", PLAIN)


def test_a_wish_is_stated_as_it_was_asked() -> None:
    for wish in ("sensitivity=0.95", "cost=5", "kappa"):
        aim, wanted = parse_goal(wish)
        assert OperatingPoint(aim, wanted, (0.5,)).goal == wish


GRADE_NAMES = EvaluationConfig(ordered=True, referable=2)


def test_it_is_asked_of_the_sum_of_the_grades_probabilities() -> None:
    dice = np.random.default_rng(3)
    truth = dice.integers(0, 5, 200)
    probabilities = dice.dirichlet(np.ones(5) / 2 + np.eye(5)[0], 200)
    derived = binarize_grades(make_predictions(truth, probabilities), 2)
    assert derived.classes == ("below class 2", "class 2 or above")
    assert derived.truth.tolist() == (truth >= 2).astype(int).tolist()
    found = evaluate_split(make_predictions(truth, probabilities), GRADE_NAMES)["referable"]
    assert found["auc"] == pytest.approx(sk.roc_auc_score(truth >= 2, probabilities[:, 2:].sum(axis=1)))
    low, high = found["intervals"]["auc"]
    assert low < found["auc"] < high


def test_what_nobody_knows_stays_unknown() -> None:
    assert binarize_grades(make_predictions([-1, 4], np.full((2, 5), 0.2)), 2).truth.tolist() == [-1, 1]


def test_it_is_named_in_the_recipe() -> None:
    assert load_recipe("retinopathy").evaluation == GRADE_NAMES
    assert "referable" not in evaluate_split(make_predictions([0, 1], np.eye(2)), load_recipe().evaluation)
    with pytest.raises(UsageError, match="referable=2 needs ordered=true"):
        load_recipe(None, referable=2)


def test_a_grade_that_the_data_does_not_have_is_refused_before_training(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="referable=2, but the classes are normal, blast, counted from 0"):
        parfocal.train(cells, out=tmp_path / "runs", ordered=True, referable=2)
