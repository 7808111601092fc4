"""Curves of a class: scikit-learn's points, bands that hold the curve, and nothing where there is no question."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from parfocal.evaluation.curves import compute_precision_recall_curve, compute_roc_curve
from parfocal.evaluation.predictions import Predictions


def _some(seed: int, images: int, groups: int, distinct: int = 50) -> Predictions:
    dice = np.random.default_rng(seed)
    truth = dice.integers(0, 2, images)
    truth[:2] = 0, 1
    score = np.round((0.5 * truth + dice.random(images)) / 1.5 * distinct) / distinct
    ids = tuple(map(str, range(images)))
    named = tuple(str(one) for one in dice.integers(0, groups, images))
    return Predictions(ids, named, truth, np.stack([1 - score, score], axis=1), ("no", "yes"))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), images=st.integers(2, 60), distinct=st.integers(1, 50))
def test_they_pass_through_the_points_of_scikit_learn(seed: int, images: int, distinct: int) -> None:
    one = _some(seed, images, images, distinct)
    alarms, hits, _ = roc_curve(one.truth, one.probabilities[:, 1], drop_intermediate=False)
    found = compute_roc_curve(one, 1, n_samples=2)
    assert found is not None
    assert found.y == pytest.approx(np.interp(found.x, alarms, hits))
    precision, recall, _ = precision_recall_curve(one.truth, one.probabilities[:, 1])
    traded = compute_precision_recall_curve(one, 1, n_samples=2)
    assert traded is not None
    for share, value in zip(traded.x[1:], traded.y[1:], strict=True):
        next_reached = recall[recall >= share - 1e-9].min()
        assert value == pytest.approx(precision[recall == next_reached].max())


def test_the_band_holds_the_curve_and_narrows_with_patients() -> None:
    few, many = (compute_roc_curve(_some(0, 20 * groups, groups), 1) for groups in (40, 400))
    assert few is not None
    assert many is not None
    widths = []
    for one in (few, many):
        assert one.low is not None
        assert one.high is not None
        inside = (one.low <= one.y + 1e-9) & (one.y <= one.high + 1e-9)
        assert inside.mean() > 0.95
        widths.append(float((one.high - one.low).mean()))
    assert widths[1] < widths[0] / 2


def test_of_few_patients_there_is_a_curve_without_a_band() -> None:
    one = compute_roc_curve(_some(1, 40, 5), 1)
    assert one is not None
    assert one.low is None


def test_without_a_second_side_there_is_no_curve() -> None:
    one = _some(2, 10, 10)
    alone = Predictions(one.ids, one.groups, np.zeros(10, dtype=np.int64), one.probabilities, one.classes)
    assert compute_roc_curve(alone, 1) is None
    assert compute_precision_recall_curve(alone, 0) is None
