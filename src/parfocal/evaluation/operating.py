"""Operating points: thresholds chosen on validation for what is wanted of the answers."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.grades import cut, expected_grades, tuned_thresholds
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referable import referable
from parfocal.parts import JudgementPart

Aim = Literal["sensitivity", "specificity", "cost", "kappa"]
AIMS = "sensitivity=0.95, specificity=0.9, cost=5 (one missed for so many false alarms), or kappa (between grades)"


@dataclass(frozen=True)
class Operating:
    """What was wanted, and the thresholds that give it on validation.

    For `kappa` they lie between grades, and the mean grade is cut by them. Else there is one, and what is at least as
    probable is positive: the second of two classes, or grades from the recipe's `referable` on.
    """

    aim: Aim
    wanted: float
    thresholds: tuple[float, ...]

    @property
    def wish(self) -> str:
        """The aim as it is stated: `sensitivity=0.95`."""
        return self.aim if self.aim == "kappa" else f"{self.aim}={self.wanted:g}"

    def positive(self, probabilities: np.ndarray, part: JudgementPart) -> np.ndarray | None:
        """Return which images are positive; None where grades are what is told apart."""
        return None if self.aim == "kappa" else score(probabilities, part) >= self.thresholds[0]

    def labels(self, probabilities: np.ndarray, part: JudgementPart) -> np.ndarray:
        """Return the class that each image is answered with."""
        if self.aim == "kappa":
            return cut(expected_grades(probabilities), np.array(self.thresholds))
        if probabilities.shape[1] == 2:
            return (score(probabilities, part) >= self.thresholds[0]).astype(np.int64)
        return probabilities.argmax(axis=1)


def parsed(wish: str) -> tuple[Aim, float]:
    """Return the aim and the number of a wish such as `sensitivity=0.95`."""
    # From Python anything can be handed over, such as a number without its aim.
    aim, _, text = str(wish).partition("=")
    if wish == "kappa":
        return "kappa", 0.0
    try:
        wanted = float(text)
    except ValueError:
        wanted = np.nan
    if aim in ("sensitivity", "specificity") and 0 < wanted < 1:
        return aim, wanted
    if aim == "cost" and 0 < wanted < np.inf:
        return "cost", wanted
    raise UsageError(f"operating={wish} is not a wish. Wishes are: {AIMS}; or none.")


def checked(wish: str, part: JudgementPart, classes: int) -> tuple[Aim, float]:
    """Return the aim and the number of a wish, or refuse one that the recipe and so many classes cannot meet."""
    aim, wanted = parsed(wish)
    if aim == "kappa" and not part.ordered:
        raise UsageError("operating=kappa tunes thresholds between grades; say ordered=true in the recipe.")
    if aim != "kappa" and not part.referable and classes != 2:
        raise UsageError(
            f"An operating point needs a question of two answers, and there are {classes} classes. Name "
            "the first referable grade in the recipe (ordered=true referable=2), or say operating=kappa."
        )
    return aim, wanted


def score(probabilities: np.ndarray, part: JudgementPart) -> np.ndarray:
    """Return how probable the positive answer is: the second of two classes, or the referable grades together."""
    return probabilities[:, (part.referable or 1) :].sum(axis=1)


def asked(predictions: Predictions, part: JudgementPart) -> Predictions:
    """Return predictions of the question that has a positive answer, which `checked` has made sure there is."""
    return referable(predictions, part.referable) if part.referable else predictions


def operating_point(predictions: Predictions, wish: str, part: JudgementPart) -> Operating:
    """Choose the thresholds that a wish asks for, from predictions of validation."""
    aim, wanted = checked(wish, part, len(predictions.classes))
    if aim == "kappa":
        grades = expected_grades(predictions.probabilities)
        found = tuned_thresholds(grades, predictions.truth, len(predictions.classes))
        return Operating(aim, wanted, tuple(map(float, found)))
    positive = asked(predictions, part).truth == 1
    if not positive.any() or positive.all():
        raise ParfocalError(f"operating={wish} needs images of both answers on validation; there are of one only.")
    scores = score(predictions.probabilities, part)
    return Operating(aim, wanted, (_threshold(scores, positive, aim, wanted),))


def _threshold(scores: np.ndarray, positive: np.ndarray, aim: Aim, wanted: float) -> float:
    """Return the threshold that meets the aim, halfway between two scores, so that rounding flips no image."""
    distinct = np.unique(scores)
    between = (distinct[:-1] + distinct[1:]) / 2
    # Over the highest and under the lowest score stand answers that are always the same.
    thresholds = np.concatenate([[min(0.0, distinct[0])], between, [max(1.0, distinct[-1]) + 1e-6]])
    missed = np.searchsorted(np.sort(scores[positive]), thresholds)
    alarms = (~positive).sum() - np.searchsorted(np.sort(scores[~positive]), thresholds)
    if aim == "sensitivity":
        met = np.flatnonzero(positive.sum() - missed >= wanted * positive.sum() - 1e-9)
        return float(thresholds[met[-1]])
    if aim == "specificity":
        met = np.flatnonzero((~positive).sum() - alarms >= wanted * (~positive).sum() - 1e-9)
        return float(thresholds[met[0]])
    return float(thresholds[np.argmin(wanted * missed + alarms)])
