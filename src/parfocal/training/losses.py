"""Losses: what is to be made small, as one number for each image, given logits and labels."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from parfocal.data.sampling import shown
from parfocal.model.links import Cutpoints, Grades, LinkName
from parfocal.parts import TrainingPart
from parfocal.training.mixing import Blend

Loss = Callable[[Tensor, Tensor], Tensor]
"""Takes logits (N, classes) and labels (N,), and gives the loss of each image (N,)."""

LINKS: dict[str, LinkName] = {"regression": "grades", "cumulative_link": "cutpoints"}
"""The link of the network that each loss needs; other losses need none."""

# Of how many images each further one still adds something: the parameter of "effective number" weights.
_EFFECTIVE = 0.999


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the plain loss of each image, minus the logarithm of its class's probability."""
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def blended(loss: Loss, logits: Tensor, labels: Tensor, blend: Blend | None) -> Tensor:
    """Give the mean loss of a batch; of a blended one, that of both truths by their shares."""
    own = loss(logits, labels).mean()
    if blend is None:
        return own
    return blend.share * own + (1 - blend.share) * loss(logits, blend.labels).mean()


def loss_of(
    part: TrainingPart,
    counts: np.ndarray,
    link: Grades | Cutpoints | None = None,
    device: torch.device | str = "cpu",
) -> Loss:
    """Return the recipe's loss; `counts` is how many images of each class an epoch shows."""
    weights = torch.tensor(class_weights(part, counts), dtype=torch.float32, device=device)
    priors = torch.tensor(_log_priors(counts), dtype=torch.float32, device=device) * part.logit_adjustment

    def of_classes(logits: Tensor, labels: Tensor) -> Tensor:
        adjusted = logits + priors if part.logit_adjustment else logits
        losses = nn.functional.cross_entropy(adjusted, labels, reduction="none", label_smoothing=part.smoothing)
        return losses * _missed(adjusted, labels) ** part.focus if part.loss == "focal" else losses

    def of_grades(logits: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(link, Grades)
        away = nn.functional.mse_loss if part.distance == "squared" else nn.functional.smooth_l1_loss
        return away(link.grades(logits), labels.float(), reduction="none")

    plain = of_grades if part.loss == "regression" else of_classes
    if part.class_weights == "none":
        return plain
    return lambda logits, labels: plain(logits, labels) * weights[labels]


def shown_counts(labels: np.ndarray, classes: int, part: TrainingPart, epoch: int) -> np.ndarray:
    """Return how many images of each class an epoch shows, also of classes that have none."""
    counts = shown(np.bincount(labels), part, epoch)
    return np.pad(counts, (0, classes - len(counts)))


def class_weights(part: TrainingPart, counts: np.ndarray) -> np.ndarray:
    """Return each class's weight in the loss; over the images shown their mean is 1, and an absent class has 0."""
    present = np.maximum(counts, 1)
    weights = {
        "none": np.ones(len(counts)),
        "balanced": 1 / present,
        "square_root": 1 / np.sqrt(present),
        "effective_number": (1 - _EFFECTIVE) / (1 - _EFFECTIVE**present),
    }[part.class_weights] * (counts > 0)
    return weights * counts.sum() / (weights * counts).sum()


def _log_priors(counts: np.ndarray) -> np.ndarray:
    # A class that is never shown counts as half an image: it is rare, and its logarithm finite.
    present = np.maximum(counts, 0.5)
    return np.log(present / present.sum())


def _missed(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the probability of all other classes; never quite 0, where powers below 1 have no slope."""
    right = torch.softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)
    return (1 - right).clamp_min(1e-6)
