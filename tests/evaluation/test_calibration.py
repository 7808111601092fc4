"""Brier score, log loss and calibration error are right, and temperature scaling finds the best temperature."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

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
def test_brier_score_and_log_loss_equal_those_of_scikit_learn(predictions: Predictions) -> None:
    truth = predictions.truth
    probabilities = predictions.probabilities
    labels = np.arange(len(predictions.classes))
    metrics = compute_metrics(predictions)
    assert metrics["loss"] == pytest.approx(sklearn_metrics.log_loss(truth, probabilities, labels=labels))
    scores = probabilities[:, 1] if len(labels) == 2 else probabilities
    assert metrics["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(truth, scores, labels=labels))


@given(predictions=random_predictions())
def test_the_expected_calibration_error_follows_its_definition(predictions: Predictions) -> None:
    confidence = predictions.probabilities.max(axis=1)
    correct = predictions.predicted == predictions.truth
    expected = 0.0
    for number in range(N_BINS):
        in_bin = (confidence > number / N_BINS) & (confidence <= (number + 1) / N_BINS)
        if in_bin.any():
            expected += in_bin.mean() * abs(correct[in_bin].mean() - confidence[in_bin].mean())
    assert compute_metrics(predictions)["ece"] == pytest.approx(expected)


@given(predictions=random_predictions())
def test_the_bins_of_the_reliability_diagram_hold_every_image_once(predictions: Predictions) -> None:
    bins = compute_reliability_diagram(predictions.truth, predictions.probabilities)
    assert sum(row["count"] for row in bins) == len(predictions)
    assert all(row["from"] - 1e-12 <= row["confidence"] <= row["to"] + 1e-12 for row in bins)
    n_correct = sum(row["count"] * row["accuracy"] for row in bins)
    assert n_correct == pytest.approx((predictions.predicted == predictions.truth).sum())


def test_a_certain_but_wrong_prediction_has_a_large_and_finite_loss() -> None:
    probabilities = np.eye(2)[[1, 1]]
    metrics = compute_metrics(make_predictions([0, 1], probabilities))
    assert metrics["loss"] == pytest.approx(sklearn_metrics.log_loss([0, 1], probabilities, labels=[0, 1]))
    assert metrics["ece"] == metrics["brier"] == 0.5


def _draw_calibrated(seed: int, n_images: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities, and true classes according to them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(n_classes), n_images)
    truth = (rng.random(n_images)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    return truth, probabilities


@given(seed=st.integers(0, 1000), temperature=st.floats(0.2, 5))
def test_temperature_scaling_keeps_the_order_of_the_classes_and_rows_sum_to_1(seed: int, temperature: float) -> None:
    _, probabilities = _draw_calibrated(seed, 20, 4)
    scaled = apply_temperature(probabilities, temperature)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_array_equal(scaled.argsort(axis=1), probabilities.argsort(axis=1))
    np.testing.assert_allclose(apply_temperature(scaled, 1 / temperature), probabilities, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.4, 1, 2.5])
def test_fitting_recovers_the_temperature_that_was_removed(temperature: float) -> None:
    truth, probabilities = _draw_calibrated(1, 4000, 3)
    scaled = apply_temperature(probabilities, 1 / temperature)
    assert fit_temperature(truth, scaled) == pytest.approx(temperature, rel=0.06)


@given(seed=st.integers(0, 1000))
def test_no_temperature_nearby_has_a_lower_log_loss(seed: int) -> None:
    truth, probabilities = _draw_calibrated(seed, 800, 3)
    temperature = fit_temperature(truth, probabilities)
    losses = [
        log_losses(truth, apply_temperature(probabilities, temperature * factor)).mean() for factor in (0.8, 1, 1.25)
    ]
    assert losses[1] == min(losses)


def test_a_few_correct_predictions_do_not_make_the_network_certain() -> None:
    truth = np.arange(8) % 2
    probabilities = np.where(np.eye(2)[truth] == 1, 0.8, 0.2)
    assert apply_temperature(probabilities, fit_temperature(truth, probabilities)).max() < 0.99


def test_a_temperature_fitted_on_few_images_stays_near_1() -> None:
    few, many = (np.arange(n_images) % 2 for n_images in (24, 2400))
    fitted = [fit_temperature(truth, np.where(np.eye(2)[truth] == 1, 0.8, 0.2)) for truth in (few, many)]
    assert 0.6 < fitted[0] < 1
    assert fitted[1] < 0.35


def test_probabilities_of_0_stay_finite() -> None:
    assert np.isfinite(apply_temperature(np.eye(3), 0.05)).all()
    assert np.isfinite(fit_temperature(np.array([1, 1]), np.eye(2)))
