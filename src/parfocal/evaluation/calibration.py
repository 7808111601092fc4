"""How far probabilities can be believed: Brier score, log loss, and confidence against how often it is right."""
# MERGED: """Temperature: one number, fitted on validation, by which a network's certainty is divided."""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from parfocal.evaluation.confusion import divide

N_BINS = 15
"""Confidence from 0 to 1 is cut into so many bins of equal width, each without its lower end."""


def brier_scores(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Give each image's squared distance between its probabilities and the truth; of two classes, half of it."""
    distance = (probabilities - np.eye(probabilities.shape[1])[truth]) ** 2
    return distance.sum(axis=1) / (2 if probabilities.shape[1] == 2 else 1)


def log_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Give each image's loss, minus the logarithm of the probability of the truth; never infinite."""
    of_truth = probabilities[np.arange(len(truth)), truth] / probabilities.sum(axis=1)
    least = np.finfo(np.float64).eps
    return -np.log(np.clip(of_truth, least, 1 - least))


def assign_bins(confidence: np.ndarray) -> np.ndarray:
    """Give the bin of each confidence, the highest probability of an image."""
    return np.clip(np.ceil(confidence * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)


def expected_calibration_error(n_correct: np.ndarray, confidence: np.ndarray, n_images: np.ndarray) -> np.ndarray:
    """Give the expected calibration error from sums over each bin (…, bins): right answers, confidence, images."""
    return divide(np.abs(n_correct - confidence).sum(axis=-1), n_images.sum(axis=-1))


def compute_reliability_diagram(truth: np.ndarray, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """Return for each bin that holds images their number, their mean confidence and the share that is right."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bins = assign_bins(confidence)
    return [
        {
            "from": number / N_BINS,
            "to": (number + 1) / N_BINS,
            "count": int((bins == number).sum()),
            "confidence": float(confidence[bins == number].mean()),
            "accuracy": float(right[bins == number].mean()),
        }
        for number in np.unique(bins)
    ]


_BOUNDS = (0.05, 20.0)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities made less certain by a temperature above 1, more by one below; their order stays."""
    logarithms = np.log(np.clip(probabilities, np.finfo(np.float64).tiny, None)) / temperature
    powers = np.exp(logarithms - logarithms.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature at which the truth is likeliest.

    A weak pull towards 1, as of one more image, keeps a network that is right on all of a few images from becoming
    certain of everything; among hundreds of images it is not felt.
    """
    logarithms = np.log(np.clip(probabilities, np.finfo(np.float64).tiny, None))
    of_truth = logarithms[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        scaled = logarithms / np.exp(log_temperature)
        highest = scaled.max(axis=1)
        total = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        return float((total - of_truth / np.exp(log_temperature)).sum() + log_temperature**2 / 2)

    low, high = np.log(_BOUNDS)
    found: Any = minimize_scalar(loss, bounds=(low, high), method="bounded")
    return float(np.exp(found.x))
