"""Thresholds between grades are tuned for quadratic weighted kappa."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from parfocal.evaluation.thresholds import apply_thresholds, compute_expected_grades, tune_thresholds
from tests.evaluation.make_predictions import draw_grades


def _kappa(grades: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> float:
    labels = apply_thresholds(grades, thresholds)
    if len(np.union1d(labels, truth)) == 1:
        return 0.0
    return float(cohen_kappa_score(truth, labels, labels=np.arange(len(thresholds) + 1), weights="quadratic"))


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 80),
    classes=st.integers(2, 6),
    noise=st.sampled_from([0, 0.3, 1]),
)
def test_tuned_thresholds_are_in_order_and_never_below_rounding(
    seed: int, count: int, classes: int, noise: float
) -> None:
    grades, truth = draw_grades(seed, count, classes, noise)
    thresholds = tune_thresholds(grades, truth, classes)
    assert (np.diff(thresholds) >= 0).all()
    assert _kappa(grades, truth, thresholds) >= _kappa(grades, truth, np.arange(classes - 1) + 0.5) - 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_tuned_thresholds_are_nearly_the_best_of_all(seed: int) -> None:
    grades, truth = draw_grades(seed, 18, 3, 0.4)
    candidates = np.append(np.sort(grades) - 1e-9, grades.max() + 1)
    best = max(_kappa(grades, truth, np.array(pair)) for pair in itertools.combinations(candidates, 2))
    assert _kappa(grades, truth, tune_thresholds(grades, truth, 3)) > best - 0.02


def test_thresholds_that_make_no_difference_stay_those_of_rounding() -> None:
    grades = np.array([0.1, 0.3, 0.35, 0.4])
    truth = np.array([0, 0, 1, 1])
    assert tune_thresholds(grades, truth, 4).tolist() == pytest.approx([0.325, 1.5, 2.5])
    assert tune_thresholds(np.ones(4), truth, 4).tolist() == [0.5, 1.5, 2.5]
    assert tune_thresholds(grades, np.zeros(4, int), 4).tolist() == [0.5, 1.5, 2.5]


def test_the_expected_grade_is_the_weighted_mean_of_the_grades() -> None:
    assert compute_expected_grades(np.array([[0.5, 0, 0.5], [0, 0.25, 0.75]])).tolist() == [1, 1.75]
    assert apply_thresholds(np.array([0.2, 0.5, 0.7, 3]), np.array([0.5, 0.6])).tolist() == [0, 0, 2, 2]
