"""Predictions readied to be judged again and again, each time with other weights of their groups.

A weight is how often a group, all its images together, was drawn. Weights of 1 give the figures themselves, so that a
figure and its interval come from the same lines.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from parfocal.evaluation import confusion as of
from parfocal.evaluation.calibration import BINS, bin_of, brier, calibration_error, log_loss
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.ranking import Ranking, asked

OF_ANSWERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": of.accuracy,
    "balanced_accuracy": of.balanced_accuracy,
    "macro_f1": of.macro_f1,
    "weighted_f1": of.weighted_f1,
    "kappa": of.kappa,
    "linear_kappa": lambda matrix: of.kappa(matrix, 1),
    "quadratic_kappa": lambda matrix: of.kappa(matrix, 2),
    "grade_error": of.grade_error,
}
"""Figures that follow from the confusion matrix."""

_OF_EACH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recall": of.recall,
    "precision": of.precision,
    "specificity": of.specificity,
    "f1": of.f1,
}

Key = tuple[str] | tuple[str, str]
Figures = dict[Key, np.ndarray]
"""Figures by name, those of a class by the class and the name."""


class Weighed:
    """Labelled predictions of one split, ready for any weights of their groups.

    `names` are the groups, in the order in which weights are given.
    """

    def __init__(self, predictions: Predictions) -> None:
        self.classes = predictions.classes
        self.names, self._group = np.unique(np.array(predictions.groups, dtype=str), return_inverse=True)
        several, truth = len(self.classes), predictions.truth
        self._cells = self._tally(truth * several + predictions.predicted, several**2)
        self._sums = self._tally(*_sums(truth, predictions.probabilities))
        self._rankings = [
            Ranking.of(scores, truth == label) for label, scores in enumerate(predictions.probabilities.T)
        ]
        self.widest = max(len(truth), several**2)

    def once(self) -> dict[Key, float]:
        """Return the figures of the predictions as they are."""
        weights = np.ones((1, len(self.names)), np.uint16)
        return {key: float(values[0]) for key, values in self.figures(weights).items()}

    def figures(self, weights: np.ndarray) -> Figures:
        """Return each figure for rows of weights (rows, groups); not a number where it cannot be said."""
        several = len(self.classes)
        matrices = (self._cells @ weights.T).T.reshape(-1, several, several)
        found: Figures = {(name,): figure(matrices) for name, figure in OF_ANSWERS.items()}
        sums = (self._sums @ weights.T).T
        images, right, confidence = (sums[:, start : start + BINS] for start in (2, 2 + BINS, 2 + 2 * BINS))
        found["brier",] = of.ratio(sums[:, 0], images.sum(axis=1))
        found["loss",] = of.ratio(sums[:, 1], images.sum(axis=1))
        found["ece",] = calibration_error(right, confidence, images)
        by_image = weights.take(self._group, axis=1)
        ranked = [ranking.figures(by_image) for ranking in self._rankings]
        for name in ("auc", "average_precision"):
            found[name,] = of.known_mean(np.stack([ranked[label][name] for label in asked(several)], axis=1))
        for name, figure in _OF_EACH.items():
            found |= {(label, name): values for label, values in zip(self.classes, figure(matrices).T, strict=True)}
        for label, one in zip(self.classes, ranked, strict=True):
            found |= {(label, name): values for name, values in one.items()}
        return found

    def _tally(self, columns: np.ndarray, width: int, values: np.ndarray | None = None) -> sparse.csr_array:
        """Sum images, or a value of each, by column and group: (width, groups)."""
        values = np.ones(columns.shape) if values is None else values
        groups = np.broadcast_to(self._group.reshape(-1, *[1] * (columns.ndim - 1)), columns.shape)
        places = (columns.ravel(), groups.ravel())
        return sparse.coo_array((values.ravel(), places), shape=(width, len(self.names))).tocsr()


def _sums(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Return what each image adds to which sum: Brier score, loss, and by bin the images, the right, the confidence."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bins = bin_of(confidence)
    columns = [np.zeros_like(bins), np.ones_like(bins), 2 + bins, 2 + BINS + bins, 2 + 2 * BINS + bins]
    values = [brier(truth, probabilities), log_loss(truth, probabilities), np.ones(len(bins)), right, confidence]
    return np.stack(columns, axis=1), 2 + 3 * BINS, np.stack(values, axis=1)
