"""Metrics of rankings equal scikit-learn's, with ties and weights."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from parfocal.evaluation.metrics import CLASS_METRICS
from parfocal.evaluation.ranked_scores import RankedScores


@st.composite
def _draw_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores, often tied, and which of them are positive."""
    scores = draw(st.lists(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1)), min_size=1, max_size=50))
    is_positive = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    return np.array(scores), np.array(is_positive)


def _compute(scores: np.ndarray, is_positive: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    counts = RankedScores(scores, is_positive).count(weights)
    return {metric.name: metric.compute(counts) for metric in CLASS_METRICS if metric.source == "ranks"}


def _assert_equal_to_sklearn(values: Mapping[str, float], is_positive: np.ndarray, scores: np.ndarray) -> None:
    if not is_positive.any() or is_positive.all():
        assert np.isnan(values["auc"])
        return
    assert values["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(is_positive, scores))
    expected = sklearn_metrics.average_precision_score(is_positive, scores)
    assert values["average_precision"] == pytest.approx(expected)
    false_positive_rate, sensitivity, _ = sklearn_metrics.roc_curve(is_positive, scores, drop_intermediate=False)
    specificity = 1 - false_positive_rate
    for rate in (0.9, 0.95):
        percent = f"{rate * 100:g}"
        best_sensitivity = sensitivity[specificity >= rate - 1e-12].max()
        best_specificity = specificity[sensitivity >= rate - 1e-12].max()
        assert values[f"sensitivity_at_specificity_{percent}"] == pytest.approx(best_sensitivity)
        assert values[f"specificity_at_sensitivity_{percent}"] == pytest.approx(best_specificity)


@given(scored=_draw_scores())
def test_metrics_equal_those_of_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    scores, is_positive = scored
    values = _compute(scores, is_positive, np.ones((1, len(scores)), np.uint16))
    _assert_equal_to_sklearn({name: float(value[0]) for name, value in values.items()}, is_positive, scores)


@given(scored=_draw_scores(), seed=st.integers(0, 1000))
def test_a_weight_counts_an_image_that_many_times(scored: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    scores, is_positive = scored
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(scores))).astype(np.uint16)
    values = _compute(scores, is_positive, weights)
    for row, counts in enumerate(weights):
        if counts.sum():
            row_values = {name: float(value[row]) for name, value in values.items()}
            _assert_equal_to_sklearn(row_values, np.repeat(is_positive, counts), np.repeat(scores, counts))


def test_without_positive_or_without_negative_images_metrics_are_undefined() -> None:
    for is_positive in ([True, True], [False, False]):
        values = _compute(np.array([0.2, 0.7]), np.array(is_positive), np.ones((1, 2), np.uint16))
        assert np.isnan(values["auc"]).all()
        assert np.isnan(values["sensitivity_at_specificity_90"]).all()
        assert np.isnan(values["specificity_at_sensitivity_95"]).all()
