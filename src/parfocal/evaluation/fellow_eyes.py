"""Fellow-eye fusion (patient-level fusion): combine the prediction of an image with those of the patient's others."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize_scalar

from parfocal.evaluation.calibration import log_losses
from parfocal.evaluation.predictions import Predictions, index_groups
from parfocal.evaluation.validation_decision import ValidationDecision, ValidationSplit, compute_metrics_with_intervals


@dataclass(frozen=True)
class FellowEyes(ValidationDecision):
    """The weight of the patient's other images. Fusion is only evaluated: new images have no known patient."""

    name = "fellow_eyes"
    section = "fellow_eyes"
    option = "fellow_eyes"

    weight: float

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
        _, group = index_groups(predictions.groups)
        logs = np.log(np.clip(predictions.probabilities, np.finfo(np.float64).tiny, None))
        sums = np.zeros((group.max() + 1, logs.shape[1]))
        np.add.at(sums, group, logs)
        n_others = np.bincount(group)[group][:, None] - 1
        mean_of_others = np.divide(sums[group] - logs, n_others, out=logs.copy(), where=n_others > 0)
        fused = (1 - self.weight) * logs + self.weight * mean_of_others
        powers = np.exp(fused - fused.max(axis=1, keepdims=True))
        return replace(predictions, probabilities=powers / powers.sum(axis=1, keepdims=True))

    def evaluate(self, predictions: Predictions, calibrated: Predictions, labels: np.ndarray) -> dict[str, Any]:
        """Return the weight and every metric of the fused predictions."""
        return {"weight": self.weight, **compute_metrics_with_intervals(self.fuse(predictions))}

    def describe(self) -> str:
        """Return one sentence that says what was decided."""
        return f"The other images of the patient have a weight of {self.weight:.2f} in patient-level fusion."
