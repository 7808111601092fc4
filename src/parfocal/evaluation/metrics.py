"""Predictions readied to be judged again and again, each time with other weights of their groups.

A weight is how often a group, all its images together, was drawn. Weights of 1 give the figures themselves, so that a
figure and its interval come from the same lines.
"""
# MERGED: """Figures recomputed from predictions alone; what cannot be said (of an absent class) is None, never NaN."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from parfocal.evaluation import confusion as of
from parfocal.evaluation.calibration import N_BINS, assign_bins, brier_scores, expected_calibration_error, log_losses
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.ranked_scores import RankedScores, find_averaged_labels

CONFUSION_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": of.accuracy,
    "balanced_accuracy": of.balanced_accuracy,
    "macro_f1": of.macro_f1,
    "weighted_f1": of.weighted_f1,
    "kappa": of.kappa,
    "linear_kappa": lambda matrix: of.kappa(matrix, 1),
    "quadratic_kappa": lambda matrix: of.kappa(matrix, 2),
    "grade_error": of.mean_absolute_error,
}
"""Figures that follow from the confusion matrix."""

_CLASS_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recall": of.recall,
    "precision": of.precision,
    "specificity": of.specificity,
    "f1": of.f1,
}

MetricKey = tuple[str] | tuple[str, str]
MetricArrays = dict[MetricKey, np.ndarray]
"""Figures by name, those of a class by the class and the name."""


class ResampledMetrics:
    """Labelled predictions of one split, ready for any weights of their groups.

    `names` are the groups, in the order in which weights are given.
    """

    def __init__(self, predictions: Predictions) -> None:
        self.classes = predictions.classes
        self.group_names, self._group_index = np.unique(np.array(predictions.groups, dtype=str), return_inverse=True)
        several, truth = len(self.classes), predictions.truth
        self._confusion_counts = self._sum_by_group(truth * several + predictions.predicted, several**2)
        self._score_sums = self._sum_by_group(*_compute_score_contributions(truth, predictions.probabilities))
        self._ranked_scores = [
            RankedScores.from_scores(scores, truth == label) for label, scores in enumerate(predictions.probabilities.T)
        ]
        self.max_elements = max(len(truth), several**2)

    def compute(self) -> dict[MetricKey, float]:
        """Return the figures of the predictions as they are."""
        weights = np.ones((1, len(self.group_names)), np.uint16)
        return {key: float(values[0]) for key, values in self.compute_weighted(weights).items()}

    def compute_weighted(self, weights: np.ndarray) -> MetricArrays:
        """Return each figure for rows of weights (rows, groups); not a number where it cannot be said."""
        several = len(self.classes)
        matrices = (self._confusion_counts @ weights.T).T.reshape(-1, several, several)
        found: MetricArrays = {(name,): figure(matrices) for name, figure in CONFUSION_METRICS.items()}
        sums = (self._score_sums @ weights.T).T
        images, right, confidence = (sums[:, start : start + N_BINS] for start in (2, 2 + N_BINS, 2 + 2 * N_BINS))
        found["brier",] = of.divide(sums[:, 0], images.sum(axis=1))
        found["loss",] = of.divide(sums[:, 1], images.sum(axis=1))
        found["ece",] = expected_calibration_error(right, confidence, images)
        by_image = weights.take(self._group_index, axis=1)
        ranked = [ranking.compute_metrics(by_image) for ranking in self._ranked_scores]
        for name in ("auc", "average_precision"):
            found[name,] = of.mean_of_defined(
                np.stack([ranked[label][name] for label in find_averaged_labels(several)], axis=1)
            )
        for name, figure in _CLASS_METRICS.items():
            found |= {(label, name): values for label, values in zip(self.classes, figure(matrices).T, strict=True)}
        for label, one in zip(self.classes, ranked, strict=True):
            found |= {(label, name): values for name, values in one.items()}
        return found

    def _sum_by_group(self, columns: np.ndarray, width: int, values: np.ndarray | None = None) -> sparse.csr_array:
        """Sum images, or a value of each, by column and group: (width, groups)."""
        values = np.ones(columns.shape) if values is None else values
        groups = np.broadcast_to(self._group_index.reshape(-1, *[1] * (columns.ndim - 1)), columns.shape)
        places = (columns.ravel(), groups.ravel())
        return sparse.coo_array((values.ravel(), places), shape=(width, len(self.group_names))).tocsr()


def _compute_score_contributions(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Return what each image adds to which sum: Brier score, loss, and by bin the images, the right, the confidence."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bins = assign_bins(confidence)
    columns = [np.zeros_like(bins), np.ones_like(bins), 2 + bins, 2 + N_BINS + bins, 2 + 2 * N_BINS + bins]
    values = [
        brier_scores(truth, probabilities),
        log_losses(truth, probabilities),
        np.ones(len(bins)),
        right,
        confidence,
    ]
    return np.stack(columns, axis=1), 2 + 3 * N_BINS, np.stack(values, axis=1)


def compute_metrics(predictions: Predictions) -> dict[str, Any]:
    """Return every figure of one split as plain data: milliseconds, so that training can ask after each epoch.

    `majority_accuracy` is what always naming the largest class would reach: the floor under `accuracy`. `auc` and
    `average_precision` are those of the second of two classes, or the mean of one class against the rest. `brier` is
    half of itself for two classes. `grade_error` and the weighted kappas mean something where classes are in order.
    """
    if not predictions.labeled:
        return {"count": len(predictions), "labelled": False}
    return collect_metrics(predictions, ResampledMetrics(predictions))


def collect_metrics(predictions: Predictions, resampled: ResampledMetrics) -> dict[str, Any]:
    """Return what `judge` does, of labelled predictions that are readied already."""
    matrix = of.confusion_matrix(predictions.truth, predictions.predicted, len(predictions.classes))
    figures = resampled.compute()
    return {
        "count": len(predictions),
        "groups": len(resampled.group_names),
        "labelled": True,
        "classes": list(predictions.classes),
        "majority_accuracy": float(of.majority_accuracy(matrix)),
        **{key[0]: _none_if_nan(value) for key, value in figures.items() if len(key) == 1},
        "per_class": {
            name: {
                "support": int(matrix[label].sum()),
                "predicted": int(matrix[:, label].sum()),
                **{key[1]: _none_if_nan(value) for key, value in figures.items() if len(key) == 2 and key[0] == name},
            }
            for label, name in enumerate(predictions.classes)
        },
        "confusion": matrix.tolist(),
    }


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
