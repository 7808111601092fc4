"""Conformal sets hold the truth of new images as often as is stated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.referral import ConformalReferral, fit_referral
from parfocal.schema import EvaluationConfig
from tests.evaluation.make_predictions import make_predictions


def _said(dice: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    truth = dice.integers(0, 4, count)
    probabilities = dice.dirichlet(np.ones(4), count) + 0.4 * np.eye(4)[truth]
    return truth, probabilities / probabilities.sum(axis=1, keepdims=True)


@given(seed=st.integers(0, 1000), coverage=st.sampled_from([0.5, 0.8, 0.9]))
def test_on_validation_itself_it_covers_as_stated(seed: int, coverage: float) -> None:
    truth, probabilities = _said(np.random.default_rng(seed), 99)
    sets = fit_referral(truth, probabilities, coverage).prediction_sets(probabilities)
    assert sets[np.arange(99), truth].mean() >= coverage


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_of_new_images_it_covers_as_stated_on_average(coverage: float) -> None:
    dice, covered = np.random.default_rng(4), []
    for _ in range(200):
        referral = fit_referral(*_said(dice, 60), coverage)
        truth, probabilities = _said(dice, 400)
        covered.append(referral.prediction_sets(probabilities)[np.arange(400), truth].mean())
    assert coverage - 0.01 <= np.mean(covered) <= coverage + 1 / 61 + 0.01


def test_what_has_no_class_or_several_in_its_set_is_referred() -> None:
    probabilities = np.array([[0.9, 0.1, 0], [0.5, 0.45, 0.05], [0.38, 0.32, 0.3]])
    assert ConformalReferral(0.9, 0.4).is_referred(probabilities).tolist() == [False, True, True]


def test_its_coverage_is_measured_and_stands_with_the_accuracy_of_the_rest() -> None:
    dice = np.random.default_rng(0)
    referral = fit_referral(*_said(dice, 200), 0.9)
    truth, probabilities = _said(dice, 300)
    found = evaluate_split(make_predictions(truth, probabilities), EvaluationConfig(), Decision(referral=referral))[
        "referral"
    ]
    sure = ~referral.is_referred(probabilities)
    assert found["stated"] == 0.9
    held = referral.prediction_sets(probabilities)[np.arange(300), truth]
    assert found["coverage"]["value"] == pytest.approx(held.mean())
    assert found["coverage"]["interval"][0] < found["coverage"]["value"] < found["coverage"]["interval"][1]
    assert found["referred"]["value"] == pytest.approx(1 - sure.mean())
    right = probabilities.argmax(axis=1) == truth
    assert found["accuracy_of_the_rest"]["value"] == pytest.approx(right[sure].mean())
    assert right[sure].mean() > right.mean()


def test_a_promise_that_validation_cannot_make_is_told() -> None:
    with pytest.raises(ParfocalError, match=r"refer=0\.95 cannot be promised from 10 images of validation; 19 are"):
        fit_referral(*_said(np.random.default_rng(0), 10), 0.95)
    assert fit_referral(*_said(np.random.default_rng(0), 19), 0.95).min_probability > 0
    with pytest.raises(UsageError, match="refer=95 is not a coverage"):
        fit_referral(np.zeros(3, int), np.eye(3), 95)
