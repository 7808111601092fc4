"""Operating point: a decision threshold chosen on validation, for example for a sensitivity of 0.95.

Also here: binary (referable) predictions from grades.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, FiniteFloat, ValidationInfo

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.bootstrap import compute_metrics_with_intervals
from parfocal.evaluation.metrics import METRICS
from parfocal.evaluation.positive_class import require_positive_class
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.validation_decision import (
    DecideFunction,
    PredictedBatch,
    ValidationDecision,
    ValidationSplit,
)
from parfocal.recipe_schema import EvaluationConfig

Criterion = Literal["sensitivity", "specificity", "cost"]
CRITERIA = "sensitivity=0.95, specificity=0.9, or cost=5 (a false negative costs as much as 5 false positives)"

_PROBABILITY_METRICS = {metric.name for metric in METRICS if metric.source != "confusion"}
# Above the highest probability no image is positive; the sum of probabilities can exceed 1 by rounding.
_MAX_THRESHOLD = 1 + 1e-5


def _check_target(target: float, info: ValidationInfo) -> float:
    if info.data.get("criterion") in ("sensitivity", "specificity") and not 0 < target < 1:
        raise ValueError("a sensitivity or specificity must be between 0 and 1")
    return target


@dataclass(frozen=True)
class OperatingPoint(ValidationDecision):
    """The goal, and the threshold that reaches it on validation: the lowest positive probability of a positive image.

    The positive side is the class `positive` of two, or all grades from `referable` on; `positive_name` names it.
    """

    name = "operating_point"
    section = "operating_point"
    option = "operating_point"

    criterion: Criterion
    target: Annotated[FiniteFloat, Field(ge=0), AfterValidator(_check_target)]
    threshold: Annotated[FiniteFloat, Field(ge=0, le=_MAX_THRESHOLD)]
    referable: Annotated[int, Field(ge=0)] = 0
    positive: Annotated[int, Field(ge=0, le=1)] = 1
    positive_name: str = ""

    @classmethod
    def check(cls, option: Any, config: EvaluationConfig, n_classes: int) -> None:
        """Reject a goal that is invalid or does not fit the classes."""
        parse_goal(option)
        if not config.referable and n_classes != 2:
            raise UsageError(
                f"operating_point={option} needs a positive and a negative side, and there are {n_classes} classes. "
                "Set the lowest referable grade in the recipe (ordered=true referable=2)."
            )

    @classmethod
    def fit(cls, valid: ValidationSplit, option: Any) -> Self:
        """Choose the threshold that reaches a goal, such as `sensitivity=0.95`."""
        calibrated = valid.calibrated
        referable = valid.config.referable
        cls.check(option, valid.config, len(calibrated.classes))
        criterion, target = parse_goal(option)
        if referable:
            label, name = 1, name_referable_grades(calibrated.classes, referable)
            positive = calibrated.truth >= referable
        else:
            label = require_positive_class(valid.positive, calibrated.classes, f"operating_point={option}")
            name = calibrated.classes[label]
            positive = calibrated.truth == label
        if not positive.any() or positive.all():
            raise ParfocalError(
                f"operating_point={option} needs positive and negative validation images, and all are "
                f"{'positive' if positive.any() else 'negative'}."
            )
        scores = compute_positive_probability(calibrated.probabilities, referable, label)
        threshold = _choose_threshold(scores, positive, criterion, target)
        return cls(criterion, target, threshold, referable, label, name)

    @property
    def goal(self) -> str:
        """The goal as the user writes it: `sensitivity=0.95`."""
        return f"{self.criterion}={self.target:g}"

    @property
    def option_value(self) -> str:
        """The goal, which fits the operating point again."""
        return self.goal

    @property
    def flag(self) -> str:
        """The column of the images that are positive."""
        return "positive"

    def is_positive(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which images are positive."""
        return compute_positive_probability(probabilities, self.referable, self.positive) >= self.threshold

    def apply(self, batch: PredictedBatch) -> PredictedBatch:
        """Flag the positive images. They decide the label of two classes; grades stay those of the decision rule."""
        positive = self.is_positive(batch.probabilities)
        labels = self._find_labels(positive) if batch.probabilities.shape[1] == 2 else batch.labels
        return replace(batch, labels=labels, flags={**batch.flags, self.flag: positive})

    def evaluate(
        self, predictions: Predictions, calibrated: Predictions, labels: np.ndarray, decide: DecideFunction
    ) -> dict[str, Any]:
        """Return the goal, the threshold and every metric of the labels; the sensitivity is the positive recall."""
        positive = self.is_positive(calibrated.probabilities)
        binary = binarize_grades(calibrated, self.referable) if self.referable else calibrated
        metrics = compute_metrics_with_intervals(replace(binary, labels=self._find_labels(positive)))
        # Metrics of probabilities are the same at every threshold.
        for of_split in (metrics, metrics["intervals"]):
            for values in (of_split, *of_split["per_class"].values()):
                for name in _PROBABILITY_METRICS:
                    values.pop(name, None)
        return {"goal": self.goal, "positive": self.positive_name, "threshold": self.threshold, **metrics}

    def find_misfit(self, n_classes: int) -> str:
        """Return the referable grade if it does not fit the number of classes."""
        has_sides = self.referable or n_classes == 2
        return "" if has_sides and self.referable < n_classes else f"referable is {self.referable}"

    def describe(self) -> str:
        """Return a sentence that says what was decided."""
        return f"The operating point {self.goal} for {self.positive_name} has the threshold {self.threshold:.3g}."

    def _find_labels(self, positive: np.ndarray) -> np.ndarray:
        """Return the label, of two, of positive and negative images."""
        return np.where(positive, self.positive, 1 - self.positive)


def parse_goal(goal: str) -> tuple[Criterion, float]:
    """Return the criterion and the target of a goal such as `sensitivity=0.95`."""
    # A caller in Python can pass anything, such as a number without a criterion.
    criterion, _, text = str(goal).partition("=")
    try:
        target = float(text)
    except ValueError:
        target = np.nan
    if criterion in ("sensitivity", "specificity") and 0 < target < 1:
        return criterion, target
    if criterion == "cost" and 0 < target < np.inf:
        return "cost", target
    raise UsageError(f"operating_point={goal} is not valid. Choose {CRITERIA}; or none.")


def compute_positive_probability(probabilities: np.ndarray, referable: int, positive: int = 1) -> np.ndarray:
    """Return the probability of all grades from `referable` on; if it is 0, that of the class `positive` of two."""
    return probabilities[:, referable:].sum(axis=1) if referable else probabilities[:, positive]


def name_referable_grades(classes: Sequence[str], lowest_referable_grade: int) -> str:
    """Return the name of all grades from the lowest referable one on."""
    return f"{classes[lowest_referable_grade]} or above"


def _choose_threshold(scores: np.ndarray, positive: np.ndarray, criterion: Criterion, target: float) -> float:
    """Return the threshold that reaches the target, halfway between two scores, so that rounding flips no image."""
    distinct = np.unique(scores)
    midpoints = (distinct[:-1] + distinct[1:]) / 2
    # Below the lowest score every image is positive, above the highest none is.
    thresholds = np.concatenate([[min(0.0, distinct[0])], midpoints, [max(1.0, distinct[-1]) + 1e-6]])
    n_positive = positive.sum()
    n_negative = (~positive).sum()
    false_negatives = np.searchsorted(np.sort(scores[positive]), thresholds)
    false_positives = n_negative - np.searchsorted(np.sort(scores[~positive]), thresholds)
    if criterion == "sensitivity":
        return float(thresholds[n_positive - false_negatives >= target * n_positive - 1e-9][-1])
    if criterion == "specificity":
        return float(thresholds[n_negative - false_positives >= target * n_negative - 1e-9][0])
    return float(thresholds[np.argmin(target * false_negatives + false_positives)])


def validate_referable_grade(config: EvaluationConfig, classes: Sequence[str]) -> None:
    """Reject a recipe whose lowest referable grade is not among the classes."""
    if config.referable >= len(classes):
        raise UsageError(
            f"referable={config.referable}, but the classes are {', '.join(classes)}, counted from 0. "
            f"Set referable to a number below {len(classes)}, or to 0 for none."
        )


def binarize_grades(predictions: Predictions, lowest_referable_grade: int) -> Predictions:
    """Return predictions of two classes: grades below the lowest referable grade, and those from it on."""
    positive = compute_positive_probability(predictions.probabilities, lowest_referable_grade)
    truth = np.where(predictions.truth < 0, predictions.truth, predictions.truth >= lowest_referable_grade)
    name = predictions.classes[lowest_referable_grade]
    return replace(
        predictions,
        truth=truth.astype(np.int64),
        probabilities=np.stack([1 - positive, positive], axis=1),
        labels=None,
        classes=(f"below {name}", name_referable_grades(predictions.classes, lowest_referable_grade)),
    )
