"""Thresholds between grades, tuned for quadratic weighted kappa."""

import numpy as np

_MAX_ROUNDS = 100
# With this many images, shrunk thresholds are halfway between rounding and the tuned thresholds.
_IMAGES_AT_HALFWAY = 100


def compute_expected_grades(probabilities: np.ndarray) -> np.ndarray:
    """Return the expected grade of each image: the mean of the grades, weighted by their probabilities."""
    return probabilities @ np.arange(probabilities.shape[1])


def apply_thresholds(grades: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the class of each expected grade: the number of thresholds below it."""
    return np.searchsorted(thresholds, grades, side="left")


def tune_thresholds(grades: np.ndarray, truth: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the thresholds (n_classes - 1), in increasing order, with the highest quadratic weighted kappa.

    Coordinate ascent moves a single threshold at a time, first from rounding, then from thresholds that give each class
    its true frequency, so that the result is never below that of rounding.
    """
    order = np.argsort(grades, kind="stable")
    kappa = _KappaObjective(grades[order], truth[order])
    rounding = np.arange(n_classes - 1) + 0.5
    rounded = np.searchsorted(grades[order], rounding, side="right")
    true_counts = np.cumsum(np.bincount(truth, minlength=n_classes))[:-1]
    # The first positions, from these counts on, that do not separate equal grades.
    true_frequencies = kappa.positions[np.searchsorted(kappa.positions, true_counts)]
    best = max((_coordinate_ascent(kappa, start) for start in (rounded, true_frequencies)), key=kappa)
    if kappa(best) <= kappa(rounded):
        return rounding
    return np.maximum.accumulate(np.where(best == rounded, rounding, kappa.midpoints[best]))


def shrink_thresholds(tuned: np.ndarray, n_images: int) -> np.ndarray:
    """Return thresholds that were tuned on `n_images`, moved toward rounding: the more, the fewer images there were.

    Tuned thresholds overfit a small validation split. In a simulation (`python -m benchmarks.thresholds`), tuned on 40
    images they are up to 0.024 of kappa below rounding on new images, and shrunk ones never more than 0.003; from 300
    images on they lose nothing to the tuned ones. A weight chosen by cross-fitting is too noisy for few images: it is
    below this fixed weight nearly everywhere.
    """
    rounding = np.arange(len(tuned)) + 0.5
    return rounding + (tuned - rounding) * n_images / (n_images + _IMAGES_AT_HALFWAY)


class _KappaObjective:
    """Quadratic weighted kappa as a function of cuts; a cut is the number of sorted grades below a threshold.

    Kappa depends on the means of the predictions, of their squares, and of their products with the truth. Each mean is
    a sum over thresholds of what lies above them, so that all positions of a threshold are evaluated at once.
    """

    def __init__(self, grades: np.ndarray, truth: np.ndarray) -> None:
        padded = np.concatenate([[grades[0] - 1], grades, [grades[-1] + 1]])
        self.midpoints = (padded[:-1] + padded[1:]) / 2
        self.positions = np.flatnonzero(np.diff(padded) > 0)
        self.fraction_above = np.arange(len(grades), -1, -1) / len(grades)
        self.truth_above = np.append(np.cumsum(truth[::-1])[::-1], 0) / len(grades)
        self.truth_mean = truth.mean()
        self.truth_variance = truth.var()

    def __call__(self, cuts: np.ndarray) -> np.ndarray:
        """Return the kappa of cuts (…, n_classes - 1)."""
        squares = 2 * np.arange(cuts.shape[-1]) + 1
        mean = self.fraction_above[cuts].sum(axis=-1)
        variance = (self.fraction_above[cuts] * squares).sum(axis=-1) - mean**2
        covariance = self.truth_above[cuts].sum(axis=-1) - mean * self.truth_mean
        expected = variance + self.truth_variance + (mean - self.truth_mean) ** 2
        return np.divide(2 * covariance, expected, out=np.zeros_like(expected), where=expected > 1e-12)


def _coordinate_ascent(kappa: _KappaObjective, start: np.ndarray) -> np.ndarray:
    """Move a single cut at a time to its best position between its neighbors, until no cut moves."""
    cuts = start.copy()
    for _ in range(_MAX_ROUNDS):
        previous = cuts.copy()
        for index in range(len(cuts)):
            low = cuts[index - 1] if index else 0
            high = cuts[index + 1] if index + 1 < len(cuts) else kappa.positions[-1]
            positions = kappa.positions[(kappa.positions >= low) & (kappa.positions <= high)]
            candidates = np.repeat(cuts[None], len(positions), axis=0)
            candidates[:, index] = positions
            values = kappa(candidates)
            if values.max() > kappa(cuts):
                cuts[index] = positions[values.argmax()]
        if (cuts == previous).all():
            break
    return cuts
