"""Referring to a human what a network is unsure of: conformal sets that hold the truth with a stated coverage.

A set holds every class that is probable enough. How probable is enough is learnt on validation, so that the truth is in
the set of a new image of the same kind as often as stated. What has not exactly one class in its set is referred.
"""

from dataclasses import dataclass

import numpy as np

from parfocal.errors import ParfocalError, UsageError

# Probabilities that are read from a file differ in the ninth digit from those that went into it.
_ROUNDING = 1e-7


@dataclass(frozen=True)
class ConformalReferral:
    """The coverage that was stated, and the least probability of a class that belongs to an image's set."""

    coverage: float
    min_probability: float

    def prediction_sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which classes are in each image's set (N, classes)."""
        return probabilities >= self.min_probability

    def is_referred(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which images are for a human: those whose set has no class, or more than one."""
        return self.prediction_sets(probabilities).sum(axis=1) != 1


def check_coverage(coverage: float) -> None:
    """Refuse what is not a coverage."""
    if not isinstance(coverage, int | float) or not 0 < coverage < 1:
        raise UsageError(f"refer={coverage} is not a coverage. Say one between 0 and 1, such as 0.95.")


def fit_referral(truth: np.ndarray, probabilities: np.ndarray, coverage: float) -> ConformalReferral:
    """Return the referral that covers as stated, from probabilities of validation."""
    check_coverage(coverage)
    of_truth = np.sort(probabilities[np.arange(len(truth)), truth])
    # One more image, the new one, is counted: that is what makes the coverage hold for it.
    left_out = int(np.floor((len(truth) + 1) * (1 - coverage) + 1e-9))
    if left_out < 1:
        raise ParfocalError(
            f"refer={coverage:g} cannot be promised from {len(truth)} images of validation; "
            f"{int(np.ceil(1 / (1 - coverage) - 1 - 1e-9))} are the least."
        )
    return ConformalReferral(coverage, float(of_truth[left_out - 1] - _ROUNDING))
