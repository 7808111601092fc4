"""Referable disease: the grades cut in two, those from which on a patient is referred and those below."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from parfocal.errors import UsageError
from parfocal.evaluation.predictions import Predictions
from parfocal.parts import EvaluationConfig


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
