"""Temperature: one number, fitted on validation, by which a network's certainty is divided."""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

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
