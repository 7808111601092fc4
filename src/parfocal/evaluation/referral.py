"""Conformal referral: defer images with an uncertain prediction to a human, with a target coverage.

A prediction set holds every class that is probable enough. The lowest probability is fitted on validation, so that the
sets of new images of the same kind contain the true class as often as the target coverage says. An image is referred
unless its set holds exactly 1 class.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.bootstrap import compute_proportion
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.validation_decision import (
    DecideFunction,
    PredictedBatch,
    ValidationDecision,
    ValidationSplit,
)
from parfocal.recipe_schema import EvaluationConfig

# Probabilities read from a file differ in the ninth digit from those that were written.
_ROUNDING = 1e-7


@dataclass(frozen=True)
class ConformalReferral(ValidationDecision):
    """The target coverage, and the lowest probability of a class in a prediction set."""

    name = "referral"
    section = "referral"
    option = "refer"

    coverage: Annotated[float, Field(gt=0, lt=1)]
    min_probability: Annotated[float, Field(ge=-_ROUNDING, le=1)]

    @classmethod
    def check(cls, option: Any, config: EvaluationConfig, n_classes: int) -> None:
        """Reject an option that is not a coverage."""
        if not isinstance(option, int | float) or not 0 < option < 1:
            raise UsageError(f"refer={option} is not a coverage. Choose a number between 0 and 1, such as refer=0.95.")

    @classmethod
    def fit(cls, valid: ValidationSplit, option: Any) -> Self:
        """Find the lowest probability that lets the prediction sets reach the coverage."""
        truth = valid.calibrated.truth
        cls.check(option, valid.config, len(valid.calibrated.classes))
        true_probabilities = np.sort(valid.calibrated.probabilities[np.arange(len(truth)), truth])
        # The new image counts too: this is what makes the coverage hold for it.
        n_missed = int(np.floor((len(truth) + 1) * (1 - option) + 1e-9))
        if n_missed < 1:
            n_needed = int(np.ceil(1 / (1 - option) - 1 - 1e-9))
            raise ParfocalError(
                f"refer={option:g} needs at least {n_needed} validation images, and there are {len(truth)}. "
                "Choose a lower coverage or a larger validation split."
            )
        return cls(option, float(true_probabilities[n_missed - 1] - _ROUNDING))

    @property
    def option_value(self) -> float:
        """The coverage, which fits the referral again."""
        return self.coverage

    @property
    def flag(self) -> str:
        """The column of the images that are referred."""
        return "referred"

    def prediction_sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which classes are in the prediction set of each image (N, classes)."""
        return probabilities >= self.min_probability

    def is_referred(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which images are referred: those whose set holds no class, or more than 1."""
        return self.prediction_sets(probabilities).sum(axis=1) != 1

    def apply(self, batch: PredictedBatch) -> PredictedBatch:
        """Flag the images that a human should see."""
        return replace(batch, flags={**batch.flags, self.flag: self.is_referred(batch.probabilities)})

    def evaluate(
        self, predictions: Predictions, calibrated: Predictions, labels: np.ndarray, decide: DecideFunction
    ) -> dict[str, Any]:
        """Return the coverage, the share of referred images, and the accuracy on the images that are not referred."""
        sets = self.prediction_sets(calibrated.probabilities)
        covered = sets[np.arange(len(calibrated)), calibrated.truth]
        kept = ~self.is_referred(calibrated.probabilities)
        correct = labels == calibrated.truth
        kept_groups = np.array(calibrated.groups)[kept].tolist()
        return {
            "target_coverage": self.coverage,
            "coverage": compute_proportion(calibrated.groups, covered),
            "referral_rate": compute_proportion(calibrated.groups, ~kept),
            "selective_accuracy": compute_proportion(kept_groups, correct[kept]) if kept.any() else None,
        }

    def describe(self) -> str:
        """Return a sentence that says what was decided."""
        return (
            f"Images are referred to a human unless exactly one class has a probability of at least "
            f"{self.min_probability:.3g} (target coverage: {self.coverage:.0%})."
        )
