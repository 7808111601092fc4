"""ROC and precision–recall curves of one class, with the band in which other draws of the groups would lie."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parfocal.evaluation.bootstrap import CONFIDENCE_LEVEL, MIN_GROUPS, draw_group_weights
from parfocal.evaluation.predictions import Predictions

N_BAND_SAMPLES = 300
"""So many draws make a band; its edges are drawn, not stated, so that fewer are enough than for an interval."""

_N_POINTS = 101
_MAX_ELEMENTS = 2_000_000


@dataclass(frozen=True)
class Curve:
    """A curve over shares from 0 to 1, and its band, pointwise; without a band where groups are too few."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def compute_roc_curve(
    predictions: Predictions, label: int, n_samples: int = N_BAND_SAMPLES, seed: int = 0
) -> Curve | None:
    """Return the sensitivity at each share of false alarms; None where a side of the question is absent."""
    return _compute_curve(predictions, label, _interpolate_sensitivity, n_samples, seed)


def compute_precision_recall_curve(
    predictions: Predictions, label: int, n_samples: int = N_BAND_SAMPLES, seed: int = 0
) -> Curve | None:
    """Return the precision at each recall, of the highest threshold that reaches it."""
    return _compute_curve(predictions, label, _interpolate_precision, n_samples, seed)


def _compute_curve(
    predictions: Predictions,
    label: int,
    interpolate: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    n_samples: int,
    seed: int,
) -> Curve | None:
    positive = predictions.truth == label
    if not positive.any() or positive.all():
        return None
    scores = predictions.probabilities[:, label]
    order = np.argsort(-scores, kind="stable")
    # Equal scores are told apart by no threshold: only the last of each lot is a point of the curve.
    lots = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    names, group = np.unique(np.array(predictions.groups, dtype=str), return_inverse=True)
    at = np.linspace(0, 1, _N_POINTS)

    def rows(weights: np.ndarray) -> np.ndarray:
        ranked = weights.take(group[order], axis=1).astype(np.int64)
        hits = np.cumsum(ranked * positive[order], axis=1).take(lots, axis=1)
        alarms = np.cumsum(ranked, axis=1).take(lots, axis=1) - hits
        return np.stack([interpolate(*one, at) for one in zip(hits, alarms, strict=True) if one[0][-1] and one[1][-1]])

    own = rows(np.ones((1, len(names)), np.uint16))[0]
    if len(names) < MIN_GROUPS:
        return Curve(at, own, None, None)
    at_once = max(1, _MAX_ELEMENTS // len(order))
    drawn = np.concatenate(
        [
            rows(draw_group_weights(len(names), range(start, min(start + at_once, n_samples)), seed))
            for start in range(0, n_samples, at_once)
        ]
    )
    low, high = np.quantile(drawn, [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2], axis=0)
    return Curve(at, own, low, high)


def _interpolate_sensitivity(true_positives: np.ndarray, false_positives: np.ndarray, x: np.ndarray) -> np.ndarray:
    # At a corner, where several points have the same share of false alarms, the last is taken: the highest.
    return np.interp(
        x, np.append(0, false_positives / false_positives[-1]), np.append(0, true_positives / true_positives[-1])
    )


def _interpolate_precision(true_positives: np.ndarray, false_positives: np.ndarray, x: np.ndarray) -> np.ndarray:
    reached = np.searchsorted(true_positives, np.maximum(1, np.ceil(x * true_positives[-1] - 1e-9)))
    return true_positives[reached] / (true_positives + false_positives)[reached]
