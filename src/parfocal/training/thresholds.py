"""Thresholds between grades, tuned on the validation split for quadratic kappa, and the spread that suits them."""

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from parfocal.evaluation.grades import tuned_thresholds
from parfocal.model.links import Grades

_SPREADS = (0.05, 20.0)


def tune(link: Grades, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Set a link's thresholds and spread by what a network that ends in it said about images of known truth.

    Returns the probabilities that the tuned network gives for the same images.
    """
    logarithms = torch.from_numpy(probabilities).clamp_min(1e-300).log()
    grades = link.grades(logarithms.to(link.thresholds.device))
    found = tuned_thresholds(grades.cpu().numpy(), truth, link.thresholds.numel() + 1)
    link.thresholds.copy_(torch.from_numpy(found))
    link.spread.fill_(1)
    link.spread.fill_(_tuned_spread(link.logits(grades[:, None]).cpu(), torch.from_numpy(truth)))
    return torch.softmax(link.logits(grades[:, None]), dim=1).cpu().numpy()


def _tuned_spread(logits: Tensor, truth: Tensor) -> float:
    """Return the spread at which logits, given at a spread of 1, have the least loss."""

    def loss(logarithm: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / np.exp(logarithm), truth))

    found: Any = minimize_scalar(loss, bounds=tuple(np.log(_SPREADS)), method="bounded")
    return float(np.exp(found.x))
