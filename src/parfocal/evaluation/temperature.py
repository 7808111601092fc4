"""Temperature scaling as a validation decision: a single fitted number calibrates the probabilities of new images."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from parfocal.evaluation.calibration import apply_temperature, compute_reliability_diagram, fit_temperature
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.validation_decision import (
    DecideFunction,
    PredictedBatch,
    ValidationDecision,
    ValidationSplit,
)


@dataclass(frozen=True)
class Temperature(ValidationDecision):
    """The temperature that divides the logits; 1 changes nothing."""

    name = "temperature"
    section = "calibration"

    # Fitted temperatures are from 0.05 to 20.
    value: Annotated[float, Field(ge=0.01, le=100)] = 1.0

    @classmethod
    def fit(cls, valid: ValidationSplit, option: Any = None) -> Self:
        """Find the temperature with the lowest loss on validation."""
        return cls(fit_temperature(valid.predictions.truth, valid.predictions.probabilities))

    def apply(self, batch: PredictedBatch) -> PredictedBatch:
        """Calibrate the probabilities. The order of the classes stays as it is."""
        calibrated = apply_temperature(batch.probabilities, self.value)
        return replace(batch, probabilities=calibrated, labels=calibrated.argmax(axis=1))

    def evaluate(
        self, predictions: Predictions, calibrated: Predictions, labels: np.ndarray, decide: DecideFunction
    ) -> dict[str, Any]:
        """Return the calibration metrics and the reliability diagram after scaling."""
        metrics = compute_metrics(calibrated)
        return {
            "temperature": self.value,
            **{name: metrics[name] for name in ("loss", "brier", "ece")},
            "reliability": compute_reliability_diagram(calibrated.truth, calibrated.probabilities),
        }

    def describe(self) -> str:
        """Return a sentence that says what was decided."""
        return f"Probabilities are calibrated with a temperature of {self.value:.3g}."
