"""The images of a patient are combined, intervals are over patients, and fusion gives a fellow eye its due weight."""

import numpy as np
import pytest

from parfocal.evaluation.calibration import log_losses
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.patients import FellowEyes, aggregate_by_group
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.validation_decision import ValidationSplit
from parfocal.recipe_schema import EvaluationConfig
from tests.evaluation.make_predictions import make_predictions

GROUPS = ["b", "a", "b", "b", "a"]
PROBABILITIES = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.4, 0.6], [0.3, 0.7]])


def test_probabilities_are_averaged_and_votes_counted() -> None:
    predictions = make_predictions([1, 0, 1, 1, 0], PROBABILITIES, GROUPS)
    by_method, n_excluded = aggregate_by_group(predictions, ordered=False)
    assert n_excluded == 0
    mean = by_method["mean"]
    vote = by_method["vote"]
    assert mean.ids == vote.ids == ("a", "b")
    assert mean.truth.tolist() == [0, 1]
    np.testing.assert_allclose(mean.probabilities, [[0.45, 0.55], [1.7 / 3, 1.3 / 3]])
    np.testing.assert_allclose(vote.probabilities, [[0.5, 0.5], [1 / 3, 2 / 3]])


def test_ties_between_votes_are_broken_by_mean_probability() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.5, 0.1, 0.4]])
    predictions = make_predictions([1, 1, 0, 2, 2], probabilities, ["a", "a", "b", "c", "c"])
    vote = aggregate_by_group(predictions, ordered=False)[0]["vote"]
    assert vote.predicted.tolist() == [1, 0, 2]
    np.testing.assert_allclose(vote.probabilities, [[0.5, 0.5, 0], [1, 0, 0], [0.5, 0, 0.5]], atol=1e-8)


def test_a_group_with_two_true_classes_is_excluded_unless_classes_are_ordered() -> None:
    predictions = make_predictions([1, 0, 1, 1, 1], PROBABILITIES, GROUPS)
    by_method, n_excluded = aggregate_by_group(predictions, ordered=False)
    assert (by_method["mean"].ids, n_excluded) == (("b",), 1)
    by_method, n_excluded = aggregate_by_group(predictions, ordered=True)
    worst = by_method["worst"]
    assert (worst.truth.tolist(), n_excluded) == ([1, 1], 0)
    # All images of `a` are of the lower grade with probability 0.6 · 0.3, all of `b` with 0.9 · 0.4 · 0.4.
    np.testing.assert_allclose(worst.probabilities[:, 0], [0.18, 0.144])


def test_the_worst_grade_of_a_single_image_is_its_own() -> None:
    rng = np.random.default_rng(0)
    images = make_predictions(rng.integers(0, 5, 30), rng.dirichlet(np.ones(5), 30))
    worst = aggregate_by_group(images, ordered=True)[0]["worst"]
    rows = [worst.ids.index(image_id) for image_id in images.ids]
    np.testing.assert_allclose(worst.probabilities[rows], images.probabilities, atol=1e-12)


def test_patients_have_metrics_if_one_has_several_images() -> None:
    truth = [1, 0, 1, 1, 1]
    patients = evaluate_split(make_predictions(truth, PROBABILITIES, GROUPS), EvaluationConfig())["by_group"]
    assert patients["excluded"] == 1
    assert patients["mean"]["count"] == 1
    assert patients["vote"]["accuracy"] == 1
    assert patients["mean"]["accuracy"] == 0
    assert "by_group" not in evaluate_split(make_predictions(truth, PROBABILITIES), EvaluationConfig())
    only_excluded = evaluate_split(make_predictions([0, 1], np.eye(2), ["a", "a"]), EvaluationConfig())
    assert only_excluded["by_group"] == {"excluded": 1}


def test_intervals_are_drawn_over_patients() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat(rng.integers(0, 2, 40), 10)
    # The ten images of a patient are all correct or all wrong: 40 independent observations, not 400.
    correct = np.repeat(rng.random(40) < 0.8, 10)
    probabilities = np.eye(2)[np.where(correct, truth, 1 - truth)]
    patients = [str(number // 10) for number in range(400)]
    over_patients = evaluate_split(make_predictions(truth, probabilities, patients), EvaluationConfig())["intervals"]
    over_images = evaluate_split(make_predictions(truth, probabilities), EvaluationConfig())["intervals"]
    expected_width = np.sqrt(10) * np.diff(over_images["accuracy"])
    assert np.diff(over_patients["accuracy"]) == pytest.approx(expected_width, rel=0.2)


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


def test_the_metrics_of_fusion_are_those_of_the_fused_predictions() -> None:
    eyes = _make_eyes(same_grade=True)
    metrics = evaluate_split(eyes, EvaluationConfig(), Decision((FellowEyes(0.5),)))["fellow_eyes"]
    assert metrics["weight"] == 0.5
    assert metrics["accuracy"] == pytest.approx((FellowEyes(0.5).fuse(eyes).predicted == eyes.truth).mean())
