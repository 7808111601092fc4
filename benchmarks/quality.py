"""Metrics of class probabilities, computed with scikit-learn, so that every trainer is judged by the same code."""

import numpy as np
from sklearn.metrics import cohen_kappa_score, roc_auc_score


def compute_quality(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return accuracy, quadratic kappa of the most probable class and of the rounded mean grade, and AUC."""
    predicted = probabilities.argmax(axis=1)
    mean_grade = np.rint(probabilities @ np.arange(probabilities.shape[1])).astype(int)
    one_against_rest = [roc_auc_score(labels == label, probabilities[:, label]) for label in np.unique(labels)]
    return {
        "accuracy": float((predicted == labels).mean()),
        "kappa": float(cohen_kappa_score(labels, predicted, weights="quadratic")),
        "kappa_of_mean": float(cohen_kappa_score(labels, mean_grade, weights="quadratic")),
        "auc": float(np.mean(one_against_rest)),
    }
