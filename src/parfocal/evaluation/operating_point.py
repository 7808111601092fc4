"""Operating points: thresholds chosen on validation for what is wanted of the answers."""
# MERGED: """Referable disease: the grades cut in two, those from which on a patient is referred and those below."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.thresholds import apply_thresholds, compute_expected_grades, tune_thresholds
from parfocal.schema import EvaluationConfig

Criterion = Literal["sensitivity", "specificity", "cost", "kappa"]
CRITERIA = "sensitivity=0.95, specificity=0.9, cost=5 (one missed for so many false alarms), or kappa (between grades)"


@dataclass(frozen=True)
class OperatingPoint:
    """What was wanted, and the thresholds that give it on validation.

    For `kappa` they lie between grades, and the mean grade is cut by them. Else there is one, and what is at least as
    probable is positive: the second of two classes, or grades from the recipe's `referable` on.
    """

    criterion: Criterion
    target: float
    thresholds: tuple[float, ...]

    @property
    def goal(self) -> str:
        """The aim as it is stated: `sensitivity=0.95`."""
        return self.criterion if self.criterion == "kappa" else f"{self.criterion}={self.target:g}"

    def is_positive(self, probabilities: np.ndarray, config: EvaluationConfig) -> np.ndarray | None:
        """Return which images are positive; None where grades are what is told apart."""
        return (
            None
            if self.criterion == "kappa"
            else compute_positive_probability(probabilities, config) >= self.thresholds[0]
        )

    def predict_labels(self, probabilities: np.ndarray, config: EvaluationConfig) -> np.ndarray:
        """Return the class that each image is answered with."""
        if self.criterion == "kappa":
            return apply_thresholds(compute_expected_grades(probabilities), np.array(self.thresholds))
        if probabilities.shape[1] == 2:
            return (compute_positive_probability(probabilities, config) >= self.thresholds[0]).astype(np.int64)
        return probabilities.argmax(axis=1)


def parse_goal(goal: str) -> tuple[Criterion, float]:
    """Return the aim and the number of a wish such as `sensitivity=0.95`."""
    # From Python anything can be handed over, such as a number without its aim.
    aim, _, text = str(goal).partition("=")
    if goal == "kappa":
        return "kappa", 0.0
    try:
        wanted = float(text)
    except ValueError:
        wanted = np.nan
    if aim in ("sensitivity", "specificity") and 0 < wanted < 1:
        return aim, wanted
    if aim == "cost" and 0 < wanted < np.inf:
        return "cost", wanted
    raise UsageError(f"operating={goal} is not a wish. Wishes are: {CRITERIA}; or none.")


def check_goal(goal: str, config: EvaluationConfig, n_classes: int) -> tuple[Criterion, float]:
    """Return the aim and the number of a wish, or refuse one that the recipe and so many classes cannot meet."""
    aim, wanted = parse_goal(goal)
    if aim == "kappa" and not config.ordered:
        raise UsageError("operating=kappa tunes thresholds between grades; say ordered=true in the recipe.")
    if aim != "kappa" and not config.referable and n_classes != 2:
        raise UsageError(
            f"An operating point needs a question of two answers, and there are {n_classes} classes. Name "
            "the first referable grade in the recipe (ordered=true referable=2), or say operating=kappa."
        )
    return aim, wanted


def compute_positive_probability(probabilities: np.ndarray, config: EvaluationConfig) -> np.ndarray:
    """Return how probable the positive answer is: the second of two classes, or the referable grades together."""
    return probabilities[:, (config.referable or 1) :].sum(axis=1)


def binarize(predictions: Predictions, config: EvaluationConfig) -> Predictions:
    """Return predictions of the question that has a positive answer, which `checked` has made sure there is."""
    return binarize_grades(predictions, config.referable) if config.referable else predictions


def fit_operating_point(predictions: Predictions, goal: str, config: EvaluationConfig) -> OperatingPoint:
    """Choose the thresholds that a wish asks for, from predictions of validation."""
    aim, wanted = check_goal(goal, config, len(predictions.classes))
    if aim == "kappa":
        grades = compute_expected_grades(predictions.probabilities)
        found = tune_thresholds(grades, predictions.truth, len(predictions.classes))
        return OperatingPoint(aim, wanted, tuple(map(float, found)))
    positive = binarize(predictions, config).truth == 1
    if not positive.any() or positive.all():
        raise ParfocalError(f"operating={goal} needs images of both answers on validation; there are of one only.")
    scores = compute_positive_probability(predictions.probabilities, config)
    return OperatingPoint(aim, wanted, (_choose_threshold(scores, positive, aim, wanted),))


def _choose_threshold(scores: np.ndarray, positive: np.ndarray, criterion: Criterion, target: float) -> float:
    """Return the threshold that meets the aim, halfway between two scores, so that rounding flips no image."""
    distinct = np.unique(scores)
    between = (distinct[:-1] + distinct[1:]) / 2
    # Over the highest and under the lowest score stand answers that are always the same.
    thresholds = np.concatenate([[min(0.0, distinct[0])], between, [max(1.0, distinct[-1]) + 1e-6]])
    missed = np.searchsorted(np.sort(scores[positive]), thresholds)
    alarms = (~positive).sum() - np.searchsorted(np.sort(scores[~positive]), thresholds)
    if criterion == "sensitivity":
        met = np.flatnonzero(positive.sum() - missed >= target * positive.sum() - 1e-9)
        return float(thresholds[met[-1]])
    if criterion == "specificity":
        met = np.flatnonzero((~positive).sum() - alarms >= target * (~positive).sum() - 1e-9)
        return float(thresholds[met[0]])
    return float(thresholds[np.argmin(target * missed + alarms)])


def validate_referable_grade(config: EvaluationConfig, classes: Sequence[str]) -> None:
    """Refuse a recipe that refers from a grade on that the data does not have."""
    if config.referable >= len(classes):
        raise UsageError(
            f"referable={config.referable}, but the classes are {', '.join(classes)}, counted from 0. Say referable=0."
        )


def binarize_grades(predictions: Predictions, lowest_referable_grade: int) -> Predictions:
    """Return predictions of two classes, of which the second is class number `least` and all after it."""
    chance = predictions.probabilities[:, lowest_referable_grade:].sum(axis=1)
    truth = np.where(predictions.truth < 0, predictions.truth, predictions.truth >= lowest_referable_grade).astype(
        np.int64
    )
    name = predictions.classes[lowest_referable_grade]
    return replace(
        predictions,
        truth=truth,
        probabilities=np.stack([1 - chance, chance], axis=1),
        classes=(f"below {name}", f"{name} or above"),
    )
