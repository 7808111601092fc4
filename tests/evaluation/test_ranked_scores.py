"""Figures of rankings equal scikit-learn's, ties and weights included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from parfocal.evaluation.ranked_scores import FIXED_RATES, RankedScores


@st.composite
def _scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores, often equal, and which of them are positive."""
    scores = draw(st.lists(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1)), min_size=1, max_size=50))
    positive = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    return np.array(scores), np.array(positive)


def _agree(found: dict[str, float], positive: np.ndarray, scores: np.ndarray) -> None:
    if not positive.any() or positive.all():
        assert np.isnan(found["auc"])
        return
    assert found["auc"] == pytest.approx(sk.roc_auc_score(positive, scores))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(positive, scores))
    alarms, hits, _ = sk.roc_curve(positive, scores, drop_intermediate=False)
    for share in FIXED_RATES:
        sensitivity = hits[1 - alarms >= share - 1e-12].max()
        specificity = (1 - alarms)[hits >= share - 1e-12].max()
        assert found[f"sensitivity_at_specificity_{share * 100:g}"] == pytest.approx(sensitivity)
        assert found[f"specificity_at_sensitivity_{share * 100:g}"] == pytest.approx(specificity)


@given(scored=_scored())
def test_they_equal_scikit_learns(scored: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = scored
    found = RankedScores.from_scores(scores, positive).compute_metrics(np.ones((1, len(scores)), np.uint16))
    _agree({name: float(values[0]) for name, values in found.items()}, positive, scores)


@given(scored=_scored(), seed=st.integers(0, 1000))
def test_a_weight_counts_an_image_so_many_times(scored: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    scores, positive = scored
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(scores))).astype(np.uint16)
    found = RankedScores.from_scores(scores, positive).compute_metrics(weights)
    for row, times in enumerate(weights):
        if times.sum():
            one = {name: float(values[row]) for name, values in found.items()}
            _agree(one, np.repeat(positive, times), np.repeat(scores, times))


def test_without_a_side_nothing_is_known() -> None:
    for positive in ([True, True], [False, False]):
        found = RankedScores.from_scores(np.array([0.2, 0.7]), np.array(positive)).compute_metrics(
            np.ones((1, 2), np.uint16)
        )
        assert np.isnan(found["auc"]).all()
        assert np.isnan(found["sensitivity_at_specificity_90"]).all()
        assert np.isnan(found["specificity_at_sensitivity_95"]).all()
