"""ROC and precision–recall curves pass through scikit-learn's points, with a band if there are enough patients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from parfocal.evaluation.bootstrap import draw_group_weights
from parfocal.evaluation.curves import compute_precision_recall_curve, compute_roc_curve
from parfocal.evaluation.predictions import Predictions, index_groups


def _draw_predictions(seed: int, n_images: int, n_groups: int, n_scores: int = 50) -> Predictions:
    """Draw predictions of two classes with at most this many distinct scores."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n_images)
    truth[:2] = 0, 1
    scores = np.round((0.5 * truth + rng.random(n_images)) / 1.5 * n_scores) / n_scores
    ids = tuple(map(str, range(n_images)))
    groups = tuple(map(str, rng.integers(0, n_groups, n_images)))
    return Predictions(ids, groups, truth, np.stack([1 - scores, scores], axis=1), ("no", "yes"))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), n_images=st.integers(2, 60), n_scores=st.integers(1, 50))
def test_curves_pass_through_the_points_of_scikit_learn(seed: int, n_images: int, n_scores: int) -> None:
    predictions = _draw_predictions(seed, n_images, n_images, n_scores)
    scores = predictions.probabilities[:, 1]
    false_positive_rate, sensitivity, _ = roc_curve(predictions.truth, scores, drop_intermediate=False)
    curve = compute_roc_curve(predictions, 1, n_samples=2)
    assert curve is not None
    assert curve.y == pytest.approx(np.interp(curve.x, false_positive_rate, sensitivity))
    precision, recall, _ = precision_recall_curve(predictions.truth, scores)
    curve = compute_precision_recall_curve(predictions, 1, n_samples=2)
    assert curve is not None
    for x, y in zip(curve.x[1:], curve.y[1:], strict=True):
        next_recall = recall[recall >= x - 1e-9].min()
        assert y == pytest.approx(precision[recall == next_recall].max())


def test_the_band_contains_the_curve_and_narrows_with_more_patients() -> None:
    widths: list[float] = []
    for n_groups in (40, 400):
        curve = compute_roc_curve(_draw_predictions(0, 20 * n_groups, n_groups), 1)
        assert curve is not None
        assert curve.low is not None
        assert curve.high is not None
        is_inside = (curve.low <= curve.y + 1e-9) & (curve.y <= curve.high + 1e-9)
        assert is_inside.mean() > 0.95
        widths.append(float((curve.high - curve.low).mean()))
    assert widths[1] < widths[0] / 2


def test_with_few_patients_there_is_a_curve_without_a_band() -> None:
    curve = compute_roc_curve(_draw_predictions(1, 40, 5), 1)
    assert curve is not None
    assert curve.low is None


def test_with_only_one_true_class_there_is_no_curve() -> None:
    drawn = _draw_predictions(2, 10, 10)
    predictions = Predictions(drawn.ids, drawn.groups, np.zeros(10, dtype=np.int64), drawn.probabilities, drawn.classes)
    assert compute_roc_curve(predictions, 1) is None
    assert compute_precision_recall_curve(predictions, 0) is None


def test_at_each_point_the_band_contains_95_percent_of_the_bootstrap_samples() -> None:
    predictions = _draw_predictions(2, 2000, 60, 10_000)
    curve = compute_roc_curve(predictions, 1, n_samples=300)
    assert curve is not None
    assert curve.low is not None
    assert curve.high is not None
    group_index = index_groups(predictions.groups)[1]
    scores = predictions.probabilities[:, 1]
    is_inside: list[np.ndarray] = []
    for weights in draw_group_weights(len(set(predictions.groups)), range(300), seed=0):
        rates, sensitivity, _ = roc_curve(
            predictions.truth, scores, sample_weight=weights[group_index].astype(float), drop_intermediate=False
        )
        sample = np.interp(curve.x, rates, sensitivity)
        is_inside.append((curve.low <= sample + 1e-9) & (sample <= curve.high + 1e-9))
    shares = np.mean(is_inside, axis=0)
    assert shares.min() > 0.945
    # Where all positive images are found, all samples are equal.
    assert np.median(shares[curve.high < 1]) < 0.965
