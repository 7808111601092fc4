"""Conformal prediction sets contain the true class of new images as often as the target coverage says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referral import ConformalReferral
from parfocal.evaluation.validation_decision import ValidationSplit
from parfocal.recipe_schema import EvaluationConfig
from tests.evaluation.make_predictions import make_predictions


def _make(rng: np.random.Generator, count: int) -> Predictions:
    truth = rng.integers(0, 4, count)
    probabilities = rng.dirichlet(np.ones(4), count) + 0.4 * np.eye(4)[truth]
    return make_predictions(truth, probabilities / probabilities.sum(axis=1, keepdims=True))


def _fit(predictions: Predictions, coverage: float) -> ConformalReferral:
    return ConformalReferral.fit(ValidationSplit(predictions, predictions, EvaluationConfig()), coverage)


def _covered(referral: ConformalReferral, predictions: Predictions) -> np.ndarray:
    return referral.prediction_sets(predictions.probabilities)[np.arange(len(predictions)), predictions.truth]


@given(seed=st.integers(0, 1000), coverage=st.sampled_from([0.5, 0.8, 0.9]))
def test_the_coverage_is_reached_on_validation(seed: int, coverage: float) -> None:
    valid = _make(np.random.default_rng(seed), 99)
    assert _covered(_fit(valid, coverage), valid).mean() >= coverage


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_the_coverage_is_reached_on_new_images_on_average(coverage: float) -> None:
    rng = np.random.default_rng(4)
    rates: list[float] = []
    for _ in range(200):
        referral = _fit(_make(rng, 60), coverage)
        rates.append(_covered(referral, _make(rng, 400)).mean())
    assert coverage - 0.01 <= np.mean(rates) <= coverage + 1 / 61 + 0.01


def test_an_image_with_no_class_or_several_in_its_set_is_referred() -> None:
    probabilities = np.array([[0.9, 0.1, 0], [0.5, 0.45, 0.05], [0.38, 0.32, 0.3]])
    assert ConformalReferral(0.9, 0.4).is_referred(probabilities).tolist() == [False, True, True]


def test_its_metrics_are_the_coverage_the_referral_rate_and_the_selective_accuracy() -> None:
    rng = np.random.default_rng(0)
    referral = _fit(_make(rng, 200), 0.9)
    test = _make(rng, 300)
    metrics = evaluate_split(test, EvaluationConfig(), Decision((referral,)))["referral"]
    kept = ~referral.is_referred(test.probabilities)
    assert metrics["target_coverage"] == 0.9
    assert metrics["coverage"]["value"] == pytest.approx(_covered(referral, test).mean())
    assert metrics["coverage"]["interval"][0] < metrics["coverage"]["value"] < metrics["coverage"]["interval"][1]
    assert metrics["referral_rate"]["value"] == pytest.approx(1 - kept.mean())
    correct = test.predicted == test.truth
    assert metrics["selective_accuracy"]["value"] == pytest.approx(correct[kept].mean())
    assert correct[kept].mean() > correct.mean()


def test_a_coverage_that_validation_is_too_small_for_is_rejected() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ParfocalError, match=r"refer=0\.95 needs at least 19 validation images, and there are 10"):
        _fit(_make(rng, 10), 0.95)
    assert _fit(_make(rng, 19), 0.95).min_probability > 0
    with pytest.raises(UsageError, match="refer=95 is not a coverage"):
        _fit(make_predictions([0, 1, 2], np.eye(3)), 95)
