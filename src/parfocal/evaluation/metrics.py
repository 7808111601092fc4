"""Figures recomputed from predictions alone; what cannot be said (of an absent class) is None, never NaN."""

from typing import Any

import numpy as np

from parfocal.evaluation import confusion as of
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.weighed import ResampledMetrics


def compute_metrics(predictions: Predictions) -> dict[str, Any]:
    """Return every figure of one split as plain data: milliseconds, so that training can ask after each epoch.

    `majority_accuracy` is what always naming the largest class would reach: the floor under `accuracy`. `auc` and
    `average_precision` are those of the second of two classes, or the mean of one class against the rest. `brier` is
    half of itself for two classes. `grade_error` and the weighted kappas mean something where classes are in order.
    """
    if not predictions.labeled:
        return {"count": len(predictions), "labelled": False}
    return collect_metrics(predictions, ResampledMetrics(predictions))


def collect_metrics(predictions: Predictions, resampled: ResampledMetrics) -> dict[str, Any]:
    """Return what `judge` does, of labelled predictions that are readied already."""
    matrix = of.confusion_matrix(predictions.truth, predictions.predicted, len(predictions.classes))
    figures = resampled.compute()
    return {
        "count": len(predictions),
        "groups": len(resampled.group_names),
        "labelled": True,
        "classes": list(predictions.classes),
        "majority_accuracy": float(of.majority_accuracy(matrix)),
        **{key[0]: _none_if_nan(value) for key, value in figures.items() if len(key) == 1},
        "per_class": {
            name: {
                "support": int(matrix[label].sum()),
                "predicted": int(matrix[:, label].sum()),
                **{key[1]: _none_if_nan(value) for key, value in figures.items() if len(key) == 2 and key[0] == name},
            }
            for label, name in enumerate(predictions.classes)
        },
        "confusion": matrix.tolist(),
    }


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
