"""Thresholds between grades, tuned on the validation split for quadratic kappa, and the spread that suits them."""

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from parfocal.evaluation.thresholds import tune_thresholds
from parfocal.models.ordinal import RegressionHead

_SCALE_BOUNDS = (0.05, 20.0)


def fit_thresholds(head: RegressionHead, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Set a link's thresholds and spread by what a network that ends in it said about images of known truth.

    Returns the probabilities that the tuned network gives for the same images.
    """
    logarithms = torch.from_numpy(probabilities).clamp_min(1e-300).log()
    grades = head.compute_grades(logarithms.to(head.thresholds.device))
    found = tune_thresholds(grades.cpu().numpy(), truth, head.thresholds.numel() + 1)
    head.thresholds.copy_(torch.from_numpy(found))
    head.scale.fill_(1)
    head.scale.fill_(_fit_scale(head.compute_logits(grades[:, None]).cpu(), torch.from_numpy(truth)))
    return torch.softmax(head.compute_logits(grades[:, None]), dim=1).cpu().numpy()


def _fit_scale(logits: Tensor, truth: Tensor) -> float:
    """Return the spread at which logits, given at a spread of 1, have the least loss."""

    def loss(logarithm: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / np.exp(logarithm), truth))

    found: Any = minimize_scalar(loss, bounds=tuple(np.log(_SCALE_BOUNDS)), method="bounded")
    return float(np.exp(found.x))
