"""Patient-level predictions: combine the images of a patient, or each image with the others (fellow-eye fusion)."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from parfocal.evaluation.bootstrap import compute_metrics_with_intervals
from parfocal.evaluation.calibration import log_losses
from parfocal.evaluation.predictions import Predictions, index_groups
from parfocal.evaluation.validation_decision import DecideFunction, ValidationDecision, ValidationSplit

# Breaks ties between votes by mean probability, and is too small to change any printed digit.
_TIE_BREAK_WEIGHT = 1e-9


def aggregate_by_group(predictions: Predictions, ordered: bool) -> tuple[dict[str, Predictions], int]:
    """Return the predictions of groups by method of aggregation, and the number of groups that were excluded.

    If the classes are ordered, the grade of a group is that of its worst image: `worst` holds the probability that
    each grade is the highest among its images, taking images as independent. Otherwise, `mean` holds the mean
    probabilities of the images, and `vote` the share of images predicted as each class, with ties between the leading
    classes broken by mean probability; groups whose images have different true classes are excluded.
    """
    group_names, group_index = index_groups(predictions.groups)
    n_classes = len(predictions.classes)
    highest = np.full(len(group_names), -1)
    np.maximum.at(highest, group_index, predictions.truth)
    if ordered:
        at_most = np.clip(np.cumsum(predictions.probabilities, axis=1), np.finfo(np.float64).tiny, 1)
        all_at_most = np.exp(_sum_by_group(np.log(at_most), group_index))
        all_at_most[:, -1] = 1
        probabilities_by_method = {"worst": np.diff(all_at_most, axis=1, prepend=0)}
        is_included = np.full(len(group_names), True)
    else:
        lowest = np.full(len(group_names), n_classes)
        np.minimum.at(lowest, group_index, predictions.truth)
        is_included = highest == lowest
        n_images = np.bincount(group_index)[:, None]
        mean = _sum_by_group(predictions.probabilities, group_index) / n_images
        vote = _sum_by_group(np.eye(n_classes)[predictions.predicted], group_index) / n_images
        is_tied = (vote == vote.max(axis=1, keepdims=True)).sum(axis=1) > 1
        vote[is_tied] += _TIE_BREAK_WEIGHT * (mean[is_tied] - vote[is_tied])
        probabilities_by_method = {"mean": mean, "vote": vote}
    names = tuple(map(str, group_names[is_included]))
    truth = highest[is_included]
    aggregated = {
        method: Predictions(names, names, truth, probabilities[is_included], predictions.classes)
        for method, probabilities in probabilities_by_method.items()
    }
    return aggregated, int((~is_included).sum())


@dataclass(frozen=True)
class FellowEyes(ValidationDecision):
    """The weight of the patient's other images. Fusion is only evaluated: new images have no known patient."""

    name = "fellow_eyes"
    section = "fellow_eyes"
    option = "fellow_eyes"

    weight: Annotated[float, Field(ge=0, le=1)]

    @classmethod
    def fit(cls, valid: ValidationSplit, option: Any = True) -> Self:
        """Find the weight from 0 to 1 with the lowest loss on validation."""
        predictions = valid.predictions
        if len(set(predictions.groups)) == len(predictions):
            return cls(0.0)

        def loss(weight: float) -> float:
            return float(log_losses(predictions.truth, cls(weight).fuse(predictions).probabilities).mean())

        minimum: Any = minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded")
        return cls(float(minimum.x) if minimum.fun < loss(0.0) else 0.0)

    @property
    def option_value(self) -> bool:
        """True, which fits the weight again."""
        return True

    def fuse(self, predictions: Predictions) -> Predictions:
        """Return predictions that average the log-probabilities of each image and of the others in its group.

        An image that is alone in its group stays as it is.
        """
        _, group_index = index_groups(predictions.groups)
        logs = np.log(np.clip(predictions.probabilities, np.finfo(np.float64).tiny, None))
        sum_of_others = _sum_by_group(logs, group_index)[group_index] - logs
        n_others = np.bincount(group_index)[group_index][:, None] - 1
        mean_of_others = np.divide(sum_of_others, n_others, out=logs.copy(), where=n_others > 0)
        fused = (1 - self.weight) * logs + self.weight * mean_of_others
        return replace(predictions, probabilities=softmax(fused, axis=1), labels=None)

    def evaluate(
        self, predictions: Predictions, calibrated: Predictions, labels: np.ndarray, decide: DecideFunction
    ) -> dict[str, Any]:
        """Return the weight and every metric of the fused predictions."""
        return {"weight": self.weight, **compute_metrics_with_intervals(decide(self.fuse(predictions)))}

    def describe(self) -> str:
        """Return a sentence that says what was decided."""
        return f"The other images of the patient have a weight of {self.weight:.2f} in patient-level fusion."


def _sum_by_group(values: np.ndarray, group_index: np.ndarray) -> np.ndarray:
    sums = np.zeros((group_index.max(initial=-1) + 1, values.shape[1]))
    np.add.at(sums, group_index, values)
    return sums
