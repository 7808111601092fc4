"""Fellow-eye fusion gives the other eye as much weight as validation supports, and no more."""

import numpy as np
import pytest

from parfocal.evaluation.calibration import log_losses
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.fellow_eyes import FellowEyes
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.validation_decision import ValidationSplit
from parfocal.schema import EvaluationConfig
from tests.evaluation.make_predictions import make_predictions


def _fit(predictions: Predictions) -> FellowEyes:
    return FellowEyes.fit(ValidationSplit(predictions, predictions, EvaluationConfig()))


def _make_eyes(same_grade: bool, n_patients: int = 400, seed: int = 0) -> Predictions:
    """Make predictions of a weak network for two eyes of each patient, with the same grade or independent grades."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 3, n_patients), 2) if same_grade else rng.integers(0, 3, 2 * n_patients)
    logits = 1.2 * np.eye(3)[truth] + rng.normal(size=(2 * n_patients, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return make_predictions(truth, probabilities, [str(number // 2) for number in range(2 * n_patients)])


def test_eyes_with_the_same_grade_help_each_other() -> None:
    fusion = _fit(_make_eyes(same_grade=True))
    assert 0.3 < fusion.weight < 0.7
    new = _make_eyes(same_grade=True, seed=1)
    fused = fusion.fuse(new)
    assert (fused.predicted == new.truth).mean() > (new.predicted == new.truth).mean() + 0.03
    assert log_losses(new.truth, fused.probabilities).mean() < log_losses(new.truth, new.probabilities).mean()


def test_eyes_with_independent_grades_get_almost_no_weight() -> None:
    assert _fit(_make_eyes(same_grade=False)).weight < 0.1
    assert _fit(make_predictions([0, 1], np.eye(2))).weight == 0


def test_an_eye_without_a_fellow_stays_as_it_is() -> None:
    probabilities = np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
    predictions = make_predictions([0, 0, 1], probabilities, ["a", "b", "a"])
    fused = FellowEyes(0.5).fuse(predictions)
    np.testing.assert_allclose(fused.probabilities[1], probabilities[1])
    # Both eyes of patient "a" get the geometric mean of the two.
    mean = np.sqrt(probabilities[0] * probabilities[2]) / np.sqrt(probabilities[0] * probabilities[2]).sum()
    np.testing.assert_allclose(fused.probabilities[[0, 2]], [mean, mean])
    np.testing.assert_allclose(FellowEyes(0).fuse(predictions).probabilities, probabilities)


def test_its_metrics_are_those_of_the_fused_predictions() -> None:
    eyes = _make_eyes(same_grade=True)
    metrics = evaluate_split(eyes, EvaluationConfig(), Decision((FellowEyes(0.5),)))["fellow_eyes"]
    assert metrics["weight"] == 0.5
    assert metrics["accuracy"] == pytest.approx((FellowEyes(0.5).fuse(eyes).predicted == eyes.truth).mean())
