"""Both eyes together: the fellow eye helps as much as validation says, and no more."""

import numpy as np
import pytest

from parfocal.evaluation.calibration import log_losses
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.fellow_eyes import fit_fellow_eye_weight, fuse_fellow_eyes
from parfocal.evaluation.predictions import Predictions
from parfocal.schema import EvaluationConfig
from tests.evaluation.make_predictions import make_predictions


def _eyes(alike: bool, patients: int = 400, seed: int = 0) -> Predictions:
    """Draw two eyes of each patient, alike in grade or not, and a network that sees each dimly."""
    dice = np.random.default_rng(seed)
    truth = np.repeat(dice.integers(0, 3, patients), 2) if alike else dice.integers(0, 3, 2 * patients)
    logits = 1.2 * np.eye(3)[truth] + dice.normal(size=(2 * patients, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return make_predictions(truth, probabilities, [str(number // 2) for number in range(2 * patients)])


def test_eyes_that_are_alike_help_each_other() -> None:
    weight = fit_fellow_eye_weight(_eyes(alike=True))
    assert 0.3 < weight < 0.7
    new = _eyes(alike=True, seed=1)
    joined = fuse_fellow_eyes(new, weight)
    assert (joined.predicted == new.truth).mean() > (new.predicted == new.truth).mean() + 0.03
    assert log_losses(new.truth, joined.probabilities).mean() < log_losses(new.truth, new.probabilities).mean()


def test_eyes_that_have_nothing_in_common_stay_alone() -> None:
    assert fit_fellow_eye_weight(_eyes(alike=False)) < 0.1
    apart = make_predictions([0, 1], np.eye(2))
    assert fit_fellow_eye_weight(apart) == 0


def test_an_eye_whose_fellow_is_missing_stays_as_it_is() -> None:
    said = np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
    joined = fuse_fellow_eyes(make_predictions([0, 0, 1], said, ["a", "b", "a"]), 0.5)
    np.testing.assert_allclose(joined.probabilities[1], said[1])
    # The geometric mean of two eyes, for both.
    mean = np.sqrt(said[0] * said[2]) / np.sqrt(said[0] * said[2]).sum()
    np.testing.assert_allclose(joined.probabilities[[0, 2]], [mean, mean])
    np.testing.assert_allclose(
        fuse_fellow_eyes(make_predictions([0, 0, 1], said, ["a", "b", "a"]), 0).probabilities, said
    )


def test_what_it_reaches_stands_in_the_judgement() -> None:
    eyes = _eyes(alike=True)
    found = evaluate_split(eyes, EvaluationConfig(), Decision(fellow_eye_weight=0.5))["together"]
    assert found["weight"] == 0.5
    assert found["accuracy"] == pytest.approx((fuse_fellow_eyes(eyes, 0.5).predicted == eyes.truth).mean())
