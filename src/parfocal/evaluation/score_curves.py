"""ROC and precision–recall curves of one class, with the band in which other draws of the groups would lie."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parfocal.evaluation.intervals import LEAST, LEVEL, drawn_weights
from parfocal.evaluation.predictions import Predictions

DRAWS = 300
"""So many draws make a band; its edges are drawn, not stated, so that fewer are enough than for an interval."""

_POINTS = 101
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Curve:
    """A curve over shares from 0 to 1, and its band, pointwise; without a band where groups are too few."""

    at: np.ndarray
    value: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def roc(predictions: Predictions, label: int, draws: int = DRAWS, seed: int = 0) -> Curve | None:
    """Return the sensitivity at each share of false alarms; None where a side of the question is absent."""
    return _curve(predictions, label, _sensitivities, draws, seed)


def precision_recall(predictions: Predictions, label: int, draws: int = DRAWS, seed: int = 0) -> Curve | None:
    """Return the precision at each recall, of the highest threshold that reaches it."""
    return _curve(predictions, label, _precisions, draws, seed)


def _curve(
    predictions: Predictions,
    label: int,
    values: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    draws: int,
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
    at = np.linspace(0, 1, _POINTS)

    def rows(weights: np.ndarray) -> np.ndarray:
        ranked = weights.take(group[order], axis=1).astype(np.int64)
        hits = np.cumsum(ranked * positive[order], axis=1).take(lots, axis=1)
        alarms = np.cumsum(ranked, axis=1).take(lots, axis=1) - hits
        return np.stack([values(*one, at) for one in zip(hits, alarms, strict=True) if one[0][-1] and one[1][-1]])

    own = rows(np.ones((1, len(names)), np.uint16))[0]
    if len(names) < LEAST:
        return Curve(at, own, None, None)
    at_once = max(1, _AT_ONCE // len(order))
    drawn = np.concatenate(
        [
            rows(drawn_weights(len(names), range(start, min(start + at_once, draws)), seed))
            for start in range(0, draws, at_once)
        ]
    )
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Curve(at, own, low, high)


def _sensitivities(hits: np.ndarray, alarms: np.ndarray, at: np.ndarray) -> np.ndarray:
    # At a corner, where several points have the same share of false alarms, the last is taken: the highest.
    return np.interp(at, np.append(0, alarms / alarms[-1]), np.append(0, hits / hits[-1]))


def _precisions(hits: np.ndarray, alarms: np.ndarray, at: np.ndarray) -> np.ndarray:
    reached = np.searchsorted(hits, np.maximum(1, np.ceil(at * hits[-1] - 1e-9)))
    return hits[reached] / (hits + alarms)[reached]
