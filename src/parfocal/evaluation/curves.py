"""ROC and precision–recall curves of a class, with pointwise bootstrap confidence bands over groups."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parfocal.evaluation.bootstrap import CONFIDENCE_LEVEL, MIN_GROUPS, draw_group_weights, split_range
from parfocal.evaluation.predictions import Predictions, index_groups

N_BAND_SAMPLES = 300
"""Number of bootstrap samples of a band. Its edges are only plotted, so fewer are enough than for an interval."""

_N_POINTS = 101
# Size of the largest array of a chunk of samples.
_MAX_ELEMENTS = 2_000_000


@dataclass(frozen=True)
class Curve:
    """A curve over x from 0 to 1, and the edges of its band; they are None if there are too few groups."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def compute_roc_curve(predictions: Predictions, label: int, n_samples: int = N_BAND_SAMPLES) -> Curve | None:
    """Return the sensitivity at each false positive rate; None without positive or without negative images."""
    return _compute_curve(predictions, label, _interpolate_sensitivity, n_samples)


def compute_precision_recall_curve(
    predictions: Predictions, label: int, n_samples: int = N_BAND_SAMPLES
) -> Curve | None:
    """Return the precision at each recall, for the highest threshold that reaches it."""
    return _compute_curve(predictions, label, _interpolate_precision, n_samples)


def _compute_curve(
    predictions: Predictions,
    label: int,
    interpolate: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    n_samples: int,
) -> Curve | None:
    is_positive = predictions.truth == label
    if not is_positive.any() or is_positive.all():
        return None
    scores = predictions.probabilities[:, label]
    order = np.argsort(-scores, kind="stable")
    # No threshold separates tied scores: only the last image of a tie is a point of the curve.
    points = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    group_names, group_index = index_groups(predictions.groups)
    n_groups = len(group_names)
    x = np.linspace(0, 1, _N_POINTS)

    def compute_rows(weights: np.ndarray) -> np.ndarray:
        sorted_weights = weights.take(group_index[order], axis=1).astype(np.int64)
        true_positives = np.cumsum(sorted_weights * is_positive[order], axis=1).take(points, axis=1)
        false_positives = np.cumsum(sorted_weights, axis=1).take(points, axis=1) - true_positives
        return np.stack(
            [
                interpolate(hits, false_alarms, x)
                for hits, false_alarms in zip(true_positives, false_positives, strict=True)
                if hits[-1] and false_alarms[-1]
            ]
        )

    y = compute_rows(np.ones((1, n_groups), np.uint16))[0]
    if n_groups < MIN_GROUPS:
        return Curve(x, y, None, None)
    chunks = split_range(n_samples, max(1, _MAX_ELEMENTS // len(order)))
    samples = np.concatenate([compute_rows(draw_group_weights(n_groups, chunk, seed=0)) for chunk in chunks])
    low, high = np.quantile(samples, [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2], axis=0)
    return Curve(x, y, low, high)


def _interpolate_sensitivity(true_positives: np.ndarray, false_positives: np.ndarray, x: np.ndarray) -> np.ndarray:
    # Where points have the same false positive rate, the last counts: it has the highest sensitivity.
    false_positive_rate = np.append(0, false_positives / false_positives[-1])
    sensitivity = np.append(0, true_positives / true_positives[-1])
    return np.interp(x, false_positive_rate, sensitivity)


def _interpolate_precision(true_positives: np.ndarray, false_positives: np.ndarray, x: np.ndarray) -> np.ndarray:
    n_needed = np.maximum(1, np.ceil(x * true_positives[-1] - 1e-9))
    points = np.searchsorted(true_positives, n_needed)
    return true_positives[points] / (true_positives + false_positives)[points]
