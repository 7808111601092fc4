"""Thresholds between grades that are tuned for quadratic kappa."""

import numpy as np

_MAX_ROUNDS = 100


def compute_expected_grades(probabilities: np.ndarray) -> np.ndarray:
    """Return the mean grade of each image, each grade weighed by its probability."""
    return probabilities @ np.arange(probabilities.shape[1])


def apply_thresholds(grades: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return between which thresholds each grade lies: 0 below the first."""
    return np.searchsorted(thresholds, grades, side="left")


def tune_thresholds(grades: np.ndarray, truth: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the thresholds (classes - 1), in order, at which graded images agree best with the truth.

    Agreement is quadratic kappa; it is climbed one threshold at a time, from plain rounding and from thresholds that
    give each class its true share, so that it is never below that of plain rounding.
    """
    order = np.argsort(grades, kind="stable")
    kappa, rounding = _KappaObjective(grades[order], truth[order]), np.arange(n_classes - 1) + 0.5
    rounded = np.searchsorted(grades[order], rounding, side="right")
    shares = np.cumsum(np.bincount(truth, minlength=n_classes))[:-1]
    best = max((_coordinate_ascent(kappa, start) for start in (rounded, kappa.find_position(shares))), key=kappa)
    if kappa(best) <= kappa(rounded):
        return rounding
    return np.maximum.accumulate(np.where(best == rounded, rounding, kappa.midpoints[best]))


class _KappaObjective:
    """Quadratic kappa of grades cut at places: how many of the sorted grades lie below each threshold.

    It hangs on the mean of the answers, of their squares and of their products with the truth. Each of these is a sum
    over thresholds of what lies above them, so that one threshold is tried everywhere at once.
    """

    def __init__(self, grades: np.ndarray, truth: np.ndarray) -> None:
        ends = np.concatenate([[grades[0] - 1], grades, [grades[-1] + 1]])
        self.midpoints = (ends[:-1] + ends[1:]) / 2
        self.positions = np.flatnonzero(np.diff(ends) > 0)
        self.fraction_above = np.arange(len(grades), -1, -1) / len(grades)
        self.truth_above = np.append(np.cumsum(truth[::-1])[::-1], 0) / len(grades)
        self.truth_mean, self.truth_variance = truth.mean(), truth.var()

    def find_position(self, counts: np.ndarray) -> np.ndarray:
        """Return the nearest places, at or after these counts of grades, that part no equal grades."""
        return self.positions[np.searchsorted(self.positions, counts)]

    def __call__(self, cuts: np.ndarray) -> np.ndarray:
        """Return kappa of cuts (…, classes - 1)."""
        ranks = 2 * np.arange(cuts.shape[-1]) + 1
        said = self.fraction_above[cuts].sum(axis=-1)
        variance = (self.fraction_above[cuts] * ranks).sum(axis=-1) - said**2
        together = self.truth_above[cuts].sum(axis=-1) - said * self.truth_mean
        most = variance + self.truth_variance + (said - self.truth_mean) ** 2
        return np.divide(2 * together, most, out=np.zeros_like(most), where=most > 1e-12)


def _coordinate_ascent(kappa: _KappaObjective, start: np.ndarray) -> np.ndarray:
    """Move one cut at a time to its best place between its neighbours, until none moves."""
    cuts = start.copy()
    for _ in range(_MAX_ROUNDS):
        before = cuts.copy()
        for number in range(len(cuts)):
            low = cuts[number - 1] if number else 0
            high = cuts[number + 1] if number + 1 < len(cuts) else kappa.positions[-1]
            places = kappa.positions[(kappa.positions >= low) & (kappa.positions <= high)]
            tried = np.repeat(cuts[None], len(places), axis=0)
            tried[:, number] = places
            values = kappa(tried)
            if values.max() > kappa(cuts):
                cuts[number] = places[values.argmax()]
        if (cuts == before).all():
            break
    return cuts
