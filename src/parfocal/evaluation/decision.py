"""How what a network says becomes an answer: everything that validation decided after training, in one small file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from parfocal.errors import ParfocalError
from parfocal.evaluation.calibration import apply_temperature, fit_temperature
from parfocal.evaluation.fellow_eyes import fit_fellow_eye_weight
from parfocal.evaluation.operating_point import OperatingPoint, check_goal, fit_operating_point
from parfocal.evaluation.out_of_distribution import OodMonitor
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referral import ConformalReferral, check_coverage, fit_referral
from parfocal.io import write_json
from parfocal.schema import EvaluationConfig


@dataclass(frozen=True)
class DecisionOptions:
    """What is asked of the answers; None leaves what was asked before, and `none` or 0 takes it back."""

    operating_point: str | None = None
    refer: float | None = None
    tta: str | None = None
    fuse_eyes: bool | None = None

    def check(self, config: EvaluationConfig, n_classes: int) -> None:
        """Refuse what could not be decided of so many classes, before a network is asked; looks are the recipe's."""
        if self.operating_point and self.operating_point != "none":
            check_goal(self.operating_point, config, n_classes)
        if self.refer:
            check_coverage(self.refer)


@dataclass(frozen=True)
class Decision:
    """The temperature, and where they were asked for the operating point, the referral, the looks and the weight of
    what the other images of a group say.

    `looks` names how often and where evaluation looks at an image, where that is not what the recipe says. `images` is
    how many images of validation decided; 0 where nothing was decided yet, as in runs of an older Parfocal.
    """

    temperature: float = 1.0
    operating_point: OperatingPoint | None = None
    referral: ConformalReferral | None = None
    ood: OodMonitor | None = None
    tta: str = ""
    fellow_eye_weight: float | None = None
    n_images: int = 0

    def calibrate(self, predictions: Predictions) -> Predictions:
        """Return predictions with the temperature applied."""
        return replace(predictions, probabilities=apply_temperature(predictions.probabilities, self.temperature))

    def predict_labels(self, calibrated: np.ndarray, config: EvaluationConfig) -> np.ndarray:
        """Return the class that each image is answered with."""
        return (
            calibrated.argmax(axis=1)
            if self.operating_point is None
            else self.operating_point.predict_labels(calibrated, config)
        )

    def predict_labels_by_id(self, predictions: Predictions, config: EvaluationConfig) -> dict[str, int]:
        """Return the class that each image of predictions is answered with, by its id."""
        labels = self.predict_labels(self.calibrate(predictions).probabilities, config)
        return dict(zip(predictions.ids, labels.tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write the decision as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a decision; where there is none, nothing was decided."""
        if not path.is_file():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                content["temperature"],
                _build(OperatingPoint, content["operating_point"]),
                _build(ConformalReferral, content["referral"]),
                _build(OodMonitor, content["ood"]),
                content["tta"],
                content["fellow_eye_weight"],
                content["n_images"],
            )
        except (ValueError, KeyError, TypeError):
            raise ParfocalError(
                f"{path} is not what Parfocal wrote. Make it anew with `parfocal evaluate {path.parent}`."
            ) from None


def fit_decision(
    valid: Predictions, options: DecisionOptions, previous: Decision, config: EvaluationConfig, ood: OodMonitor | None
) -> Decision:
    """Decide from predictions of validation; what is not wished for anew is decided as it was `before`."""
    temperature = fit_temperature(valid.truth, valid.probabilities)
    calibrated = replace(valid, probabilities=apply_temperature(valid.probabilities, temperature))
    stated = (
        previous.operating_point.goal
        if previous.operating_point and options.operating_point is None
        else options.operating_point
    )
    covered = previous.referral.coverage if previous.referral and options.refer is None else options.refer
    joined = previous.fellow_eye_weight is not None if options.fuse_eyes is None else options.fuse_eyes
    return Decision(
        temperature,
        fit_operating_point(calibrated, stated, config) if stated and stated != "none" else None,
        fit_referral(calibrated.truth, calibrated.probabilities, covered) if covered else None,
        ood,
        resolve_tta(options, previous),
        fit_fellow_eye_weight(valid) if joined else None,
        len(valid),
    )


def resolve_tta(options: DecisionOptions, previous: Decision) -> str:
    """Return how images are to be looked at: as is wished, or else as before; nothing for the recipe's way."""
    if options.tta is None:
        return previous.tta
    return "" if options.tta == "none" else options.tta


def _build(kind: Any, content: Mapping[str, Any] | None) -> Any:
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in (content or {}).items()}
    return None if content is None else kind(**lists)
