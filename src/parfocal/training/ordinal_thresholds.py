"""Fit the thresholds between grades and the scale of a regression head on the validation split."""

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from parfocal.evaluation.thresholds import tune_thresholds
from parfocal.models.ordinal import RegressionHead

_SCALE_BOUNDS = (0.05, 20.0)


def fit_thresholds(head: RegressionHead, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Set a head's thresholds to maximize quadratic kappa and its scale to minimize cross-entropy.

    `probabilities` are the predictions of the network with this head for images of known truth. Return the
    probabilities that the fitted network predicts for the same images.
    """
    log_probabilities = torch.from_numpy(probabilities).clamp_min(1e-300).log()
    grades = head.compute_grades(log_probabilities.to(head.thresholds.device))
    thresholds = tune_thresholds(grades.cpu().numpy(), truth, head.thresholds.numel() + 1)
    head.thresholds.copy_(torch.from_numpy(thresholds))
    head.scale.fill_(1)
    head.scale.fill_(_fit_scale(head.compute_logits(grades[:, None]).cpu(), torch.from_numpy(truth)))
    return torch.softmax(head.compute_logits(grades[:, None]), dim=1).cpu().numpy()


def _fit_scale(logits: Tensor, truth: Tensor) -> float:
    """Return the scale that minimizes cross-entropy, given logits at a scale of 1."""

    def compute_loss(log_scale: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / np.exp(log_scale), truth))

    result: Any = minimize_scalar(compute_loss, bounds=tuple(np.log(_SCALE_BOUNDS)), method="bounded")
    return float(np.exp(result.x))
