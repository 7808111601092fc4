"""Figures recomputed from predictions, with scikit-learn; what cannot be said (an absent class) is None, never NaN."""

from typing import Any

import numpy as np
from sklearn import metrics as sk

from parfocal.evaluation.predictions import Predictions


def judge(predictions: Predictions) -> dict[str, Any]:
    """Return every figure of one split as plain data.

    `majority_accuracy` is what always naming the largest class would reach: the floor under `accuracy`.
    """
    if not predictions.labelled:
        return {"count": len(predictions), "labelled": False}
    truth, said, labels = predictions.truth, predictions.predicted, np.arange(len(predictions.classes))
    confusion = sk.confusion_matrix(truth, said, labels=labels)
    support = confusion.sum(axis=1)
    recall = [_share(confusion[label, label], support[label]) for label in labels]
    known = [value for value in recall if value is not None]
    return {
        "count": len(predictions),
        "labelled": True,
        "classes": list(predictions.classes),
        "accuracy": float(sk.accuracy_score(truth, said)),
        "majority_accuracy": float(support.max() / support.sum()),
        "balanced_accuracy": float(np.mean(known)),
        "kappa": _kappa(truth, said, labels, None),
        "quadratic_kappa": _kappa(truth, said, labels, "quadratic"),
        "auc": _auc(predictions),
        "loss": float(sk.log_loss(truth, _proper(predictions.probabilities), labels=labels)),
        "per_class": {
            name: {
                "support": int(support[label]),
                "predicted": int(confusion[:, label].sum()),
                "recall": recall[label],
                "precision": _share(confusion[label, label], confusion[:, label].sum()),
            }
            for label, name in enumerate(predictions.classes)
        },
        "confusion": confusion.tolist(),
    }


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _kappa(truth: np.ndarray, said: np.ndarray, labels: np.ndarray, weights: str | None) -> float:
    """Cohen's kappa; 0 where truth and answer are one and the same class throughout, for nothing was told apart."""
    if len(np.union1d(truth, said)) == 1:
        return 0.0
    return float(sk.cohen_kappa_score(truth, said, labels=labels, weights=weights))


def _auc(predictions: Predictions) -> float | None:
    """Area under the ROC curve of the second of two classes, or the mean of one class against the rest."""
    areas: list[float] = []
    classes = [1] if len(predictions.classes) == 2 else range(len(predictions.classes))
    for label in classes:
        of_class = predictions.truth == label
        if of_class.any() and not of_class.all():
            areas.append(float(sk.roc_auc_score(of_class, predictions.probabilities[:, label])))
    return float(np.mean(areas)) if areas else None


def _proper(probabilities: np.ndarray) -> np.ndarray:
    return probabilities / probabilities.sum(axis=1, keepdims=True)
