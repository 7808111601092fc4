"""Figures of probabilities equal scikit-learn's, and the calibration error its formula."""
# MERGED: """One temperature for all images, fitted where the truth is likeliest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from parfocal.evaluation.calibration import (
    N_BINS,
    apply_temperature,
    compute_reliability_diagram,
    fit_temperature,
    log_losses,
)
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.predictions import Predictions
from tests.evaluation.make_predictions import make_predictions, random_predictions


@given(predictions=random_predictions())
def test_brier_score_and_loss_equal_scikit_learns(predictions: Predictions) -> None:
    truth, probabilities = predictions.truth, predictions.probabilities
    labels, found = np.arange(len(predictions.classes)), compute_metrics(predictions)
    assert found["loss"] == pytest.approx(sk.log_loss(truth, probabilities, labels=labels))
    given = probabilities[:, 1] if len(labels) == 2 else probabilities
    assert found["brier"] == pytest.approx(sk.brier_score_loss(truth, given, labels=labels))


@given(predictions=random_predictions())
def test_the_calibration_error_is_its_formula(predictions: Predictions) -> None:
    confidence = predictions.probabilities.max(axis=1)
    right = predictions.predicted == predictions.truth
    expected = 0.0
    for number in range(N_BINS):
        inside = (confidence > number / N_BINS) & (confidence <= (number + 1) / N_BINS)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert compute_metrics(predictions)["ece"] == pytest.approx(expected)


@given(predictions=random_predictions())
def test_the_bins_hold_every_image_once(predictions: Predictions) -> None:
    bins = compute_reliability_diagram(predictions.truth, predictions.probabilities)
    assert sum(one["count"] for one in bins) == len(predictions)
    assert all(one["from"] - 1e-12 <= one["confidence"] <= one["to"] + 1e-12 for one in bins)
    right = sum(one["count"] * one["accuracy"] for one in bins)
    assert right == pytest.approx((predictions.predicted == predictions.truth).sum())


def test_certainty_that_is_wrong_is_a_large_loss_and_not_an_infinite_one() -> None:
    found = compute_metrics(make_predictions([0, 1], np.eye(2)[[1, 1]]))
    assert found["loss"] == pytest.approx(sk.log_loss([0, 1], np.eye(2)[[1, 1]], labels=[0, 1]))
    assert found["ece"] == found["brier"] == 0.5


def _honest(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities and a truth that follows them."""
    dice = np.random.default_rng(seed)
    probabilities = dice.dirichlet(np.ones(classes), count)
    return (dice.random(count)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1), probabilities


@given(seed=st.integers(0, 1000), temperature=st.floats(0.2, 5))
def test_the_order_of_the_classes_stays_and_rows_sum_to_1(seed: int, temperature: float) -> None:
    _, probabilities = _honest(seed, 20, 4)
    found = apply_temperature(probabilities, temperature)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(found.argsort(axis=1), probabilities.argsort(axis=1))
    np.testing.assert_allclose(apply_temperature(found, 1 / temperature), probabilities, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.4, 1, 2.5])
def test_what_was_made_too_certain_is_made_honest_again(temperature: float) -> None:
    truth, probabilities = _honest(1, 4000, 3)
    assert fit_temperature(truth, apply_temperature(probabilities, 1 / temperature)) == pytest.approx(
        temperature, rel=0.06
    )


@given(seed=st.integers(0, 1000))
def test_no_temperature_near_it_makes_the_truth_likelier(seed: int) -> None:
    truth, probabilities = _honest(seed, 800, 3)
    found = fit_temperature(truth, probabilities)
    losses = [log_losses(truth, apply_temperature(probabilities, found * by)).mean() for by in (0.8, 1, 1.25)]
    assert losses[1] == min(losses)


def test_a_few_right_answers_are_no_reason_for_certainty() -> None:
    truth = np.arange(8) % 2
    said = np.where(np.eye(2)[truth] == 1, 0.8, 0.2)
    assert apply_temperature(said, fit_temperature(truth, said)).max() < 0.99


def test_probabilities_of_0_stay_numbers() -> None:
    assert np.isfinite(apply_temperature(np.eye(3), 0.05)).all()
    assert np.isfinite(fit_temperature(np.array([1, 1]), np.eye(2)))
