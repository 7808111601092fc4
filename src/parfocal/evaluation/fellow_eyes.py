"""Both eyes together: an image judged with what the network says of the other images of its patient."""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from parfocal.evaluation.calibration import log_losses
from parfocal.evaluation.predictions import Predictions


def fuse_fellow_eyes(predictions: Predictions, weight: float) -> Predictions:
    """Return predictions in which the others of an image's group have so much weight, and the image itself the rest.

    The logarithms of the probabilities are averaged. An image that is alone in its group stays as it is.
    """
    group = np.unique(np.array(predictions.groups, dtype=str), return_inverse=True)[1]
    logarithms = np.log(np.clip(predictions.probabilities, np.finfo(np.float64).tiny, None))
    sums = np.zeros((group.max() + 1, logarithms.shape[1]))
    np.add.at(sums, group, logarithms)
    others = np.bincount(group)[group][:, None] - 1
    mean = np.divide(sums[group] - logarithms, others, out=logarithms.copy(), where=others > 0)
    joined = (1 - weight) * logarithms + weight * mean
    powers = np.exp(joined - joined.max(axis=1, keepdims=True))
    return replace(predictions, probabilities=powers / powers.sum(axis=1, keepdims=True))


def fit_fellow_eye_weight(valid: Predictions) -> float:
    """Return the weight of the others, from 0 to 1, at which the truth of validation is likeliest."""
    if len(set(valid.groups)) == len(valid):
        return 0.0

    def loss(weight: float) -> float:
        return float(log_losses(valid.truth, fuse_fellow_eyes(valid, weight).probabilities).mean())

    found: Any = minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded")
    return float(found.x) if found.fun < loss(0.0) else 0.0
