"""Figures that hang on the order of scores alone: areas under the ROC and precision–recall curves, points on them.

Images are put in order once; then any number of draws are weighed together. scikit-learn, whose figures these are,
sorts anew for each: 2,000 draws of 35,000 images take it minutes.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from parfocal.evaluation.confusion import divide

FIXED_RATES = (0.9, 0.95)
"""The sensitivities and specificities at which the other one is stated."""


def find_averaged_labels(n_classes: int) -> range:
    """Return the classes whose areas are averaged: of two, which are one question, the second, that is looked for."""
    return range(1, 2) if n_classes == 2 else range(n_classes)


@dataclass(frozen=True)
class RankedScores:
    """Images from the highest score of a class to the lowest, and where the positives, those of the class, stand.

    `starts` and `ends` bound, for each positive, the images with its very score; `starts_among` and `ends_among` the
    positives of them, counted among positives.
    """

    order: np.ndarray
    positive_positions: np.ndarray
    tie_starts: np.ndarray
    tie_ends: np.ndarray
    positive_tie_starts: np.ndarray
    positive_tie_ends: np.ndarray

    @classmethod
    def from_scores(cls, scores: np.ndarray, is_positive: np.ndarray) -> Self:
        """Rank images by score."""
        order = np.argsort(-scores, kind="stable")
        falling = -scores[order]
        positives = np.flatnonzero(is_positive[order])
        at, among = falling[positives], falling[positives]
        return cls(
            order,
            positives,
            np.searchsorted(falling, at, side="left"),
            np.searchsorted(falling, at, side="right"),
            np.searchsorted(among, at, side="left"),
            np.searchsorted(among, at, side="right"),
        )

    def compute_auc(self, weights: np.ndarray) -> np.ndarray:
        """Return the area under the ROC curve for rows of weights (draws, images)."""
        of_positive, _, alarms, earlier, positive, negative = self._compute_counts(weights)
        return _compute_auc(of_positive, alarms, earlier, positive, negative)

    def compute_metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return each figure for rows of weights (draws, images); not a number where either side is absent.

        `auc` is the area under the ROC curve; `average_precision` the sum of precision over the steps of recall;
        `sensitivity_at_specificity_90` the highest sensitivity of a threshold that keeps a specificity of 90 %, and
        `specificity_at_sensitivity_90` the reverse. Equal scores are told apart by no threshold.
        """
        of_positive, hits, alarms, earlier, positive, negative = self._compute_counts(weights)
        precision = np.divide(hits, hits + alarms, out=np.zeros(hits.shape), where=hits > 0)
        found = {
            "auc": _compute_auc(of_positive, alarms, earlier, positive, negative),
            "average_precision": divide(np.einsum("ij,ij->i", of_positive, precision), positive),
        }
        for share in FIXED_RATES:
            name = f"{share * 100:g}"
            found[f"sensitivity_at_specificity_{name}"] = _sensitivity_at_specificity(
                hits, alarms, positive, negative, share
            )
            found[f"specificity_at_sensitivity_{name}"] = _specificity_at_sensitivity(
                hits, alarms, positive, negative, share
            )
        return found

    def _compute_counts(self, weights: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the positives' weights, what stands no lower than each and strictly above it, and what there is.

        These are the positives and the negatives no lower, the negatives above, and the sums of all of each.
        """
        ranked = weights.take(self.order, axis=1)
        of_positive = ranked.take(self.positive_positions, axis=1)
        above, positives_above = _compute_cumulative_sums(ranked), _compute_cumulative_sums(of_positive)
        hits = positives_above.take(self.positive_tie_ends, axis=1)
        alarms = above.take(self.tie_ends, axis=1) - hits
        earlier = above.take(self.tie_starts, axis=1) - positives_above.take(self.positive_tie_starts, axis=1)
        positive = positives_above[:, -1]
        return of_positive, hits, alarms, earlier, positive, above[:, -1] - positive


def _compute_auc(
    positive_weights: np.ndarray,
    false_positives: np.ndarray,
    false_positives_above: np.ndarray,
    n_positive: np.ndarray,
    n_negative: np.ndarray,
) -> np.ndarray:
    # Half of a tie counts: the mean of the negatives strictly above and of those at least as high.
    beaten = np.einsum("ij,ij->i", positive_weights, (false_positives + false_positives_above) / 2)
    return 1 - divide(beaten, n_positive * n_negative.astype(float))


def _compute_cumulative_sums(weights: np.ndarray) -> np.ndarray:
    """Return the sums of weights before each place, and at last of all of them."""
    sums = np.zeros((len(weights), weights.shape[1] + 1), np.int32)
    np.cumsum(weights, axis=1, dtype=np.int32, out=sums[:, 1:])
    return sums


def _sensitivity_at_specificity(
    true_positives: np.ndarray,
    false_positives: np.ndarray,
    n_positive: np.ndarray,
    n_negative: np.ndarray,
    specificity: float,
) -> np.ndarray:
    allowed = np.floor((1 - specificity) * n_negative + 1e-9)
    reached = np.where(false_positives <= allowed[:, None], true_positives, 0).max(axis=1, initial=0)
    return np.where(n_negative > 0, divide(reached, n_positive), np.nan)


def _specificity_at_sensitivity(
    true_positives: np.ndarray,
    false_positives: np.ndarray,
    n_positive: np.ndarray,
    n_negative: np.ndarray,
    sensitivity: float,
) -> np.ndarray:
    needed = np.ceil(sensitivity * n_positive - 1e-9)
    fewest = np.where(true_positives >= needed[:, None], false_positives, n_negative[:, None]).min(
        axis=1, initial=np.iinfo(np.int32).max
    )
    return np.where(n_positive > 0, divide(n_negative - fewest, n_negative), np.nan)
