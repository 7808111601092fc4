"""Figures of probabilities equal scikit-learn's, and the calibration error its formula."""

import numpy as np
import pytest
from hypothesis import given
from sklearn import metrics as sk

from parfocal.evaluation.calibration import N_BINS, compute_reliability_diagram
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.predictions import Predictions
from tests.evaluation.said import make_predictions, random_predictions


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
