"""MixUp and CutMix: a batch blended with itself in another order, drawn for (seed, epoch, step)."""
# MERGED: """Losses: what is to be made small, as one number for each image, given logits and labels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from parfocal.data.loader import compute_samples_per_class
from parfocal.models.ordinal import CumulativeLinkHead, OrdinalHeadName, RegressionHead
from parfocal.schema import TrainingConfig


@dataclass(frozen=True)
class MixedTargets:
    """The labels of those each image was blended with, and the share of the image itself that is left."""

    partner_labels: Tensor
    lam: float


def mix_batch(
    pixels: Tensor, labels: Tensor, config: TrainingConfig, seed: tuple[int, int, int]
) -> tuple[Tensor, MixedTargets | None]:
    """Blend a batch of uint8 pixels (N, H, W, C), by one of the ways the recipe asks for; pixels stay uint8."""
    if not config.mixup and not config.cutmix:
        return pixels, None
    dice = np.random.default_rng([*seed, 3])
    partners = torch.from_numpy(dice.permutation(len(pixels))).to(pixels.device)
    cut = bool(config.cutmix) and (not config.mixup or dice.random() < 0.5)
    strength = config.cutmix if cut else config.mixup
    share = float(dice.beta(strength, strength))
    others = pixels[partners]
    if not cut:
        blended = pixels.float() * share + others.float() * (1 - share)
        return blended.round().to(torch.uint8), MixedTargets(labels[partners], share)
    height, width = pixels.shape[1:3]
    side = math.sqrt(1 - share)
    down, across = round(height * side), round(width * side)
    top, left = int(dice.integers(height - down + 1)), int(dice.integers(width - across + 1))
    pixels = pixels.clone()
    pixels[:, top : top + down, left : left + across] = others[:, top : top + down, left : left + across]
    return pixels, MixedTargets(labels[partners], 1 - down * across / (height * width))


LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Takes logits (N, classes) and labels (N,), and gives the loss of each image (N,)."""

LOSS_HEADS: dict[str, OrdinalHeadName] = {"regression": "regression", "cumulative_link": "cumulative_link"}
"""The link of the network that each loss needs; other losses need none."""

# Of how many images each further one still adds something: the parameter of "effective number" weights.
_EFFECTIVE_NUMBER_BETA = 0.999


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the plain loss of each image, minus the logarithm of its class's probability."""
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def mixed_loss(loss_fn: LossFunction, logits: Tensor, labels: Tensor, mixed_targets: MixedTargets | None) -> Tensor:
    """Give the mean loss of a batch; of a blended one, that of both truths by their shares."""
    own = loss_fn(logits, labels).mean()
    if mixed_targets is None:
        return own
    return mixed_targets.lam * own + (1 - mixed_targets.lam) * loss_fn(logits, mixed_targets.partner_labels).mean()


def build_loss(
    config: TrainingConfig,
    class_counts: np.ndarray,
    head: RegressionHead | CumulativeLinkHead | None = None,
    device: torch.device | str = "cpu",
) -> LossFunction:
    """Return the recipe's loss; `counts` is how many images of each class an epoch shows."""
    weights = torch.tensor(compute_class_weights(config, class_counts), dtype=torch.float32, device=device)
    priors = (
        torch.tensor(_compute_log_priors(class_counts), dtype=torch.float32, device=device) * config.logit_adjustment
    )

    def of_classes(logits: Tensor, labels: Tensor) -> Tensor:
        adjusted = logits + priors if config.logit_adjustment else logits
        losses = nn.functional.cross_entropy(adjusted, labels, reduction="none", label_smoothing=config.label_smoothing)
        return (
            losses * _other_class_probability(adjusted, labels) ** config.focal_gamma
            if config.loss == "focal"
            else losses
        )

    def of_grades(logits: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(head, RegressionHead)
        away = nn.functional.mse_loss if config.regression_loss == "squared" else nn.functional.smooth_l1_loss
        return away(head.compute_grades(logits), labels.float(), reduction="none")

    plain = of_grades if config.loss == "regression" else of_classes
    if config.class_weights == "none":
        return plain
    return lambda logits, labels: plain(logits, labels) * weights[labels]


def epoch_class_counts(labels: np.ndarray, n_classes: int, config: TrainingConfig, epoch: int) -> np.ndarray:
    """Return how many images of each class an epoch shows, also of classes that have none."""
    counts = compute_samples_per_class(np.bincount(labels), config, epoch)
    return np.pad(counts, (0, n_classes - len(counts)))


def compute_class_weights(config: TrainingConfig, class_counts: np.ndarray) -> np.ndarray:
    """Return each class's weight in the loss; over the images shown their mean is 1, and an absent class has 0."""
    present = np.maximum(class_counts, 1)
    weights = {
        "none": np.ones(len(class_counts)),
        "balanced": 1 / present,
        "square_root": 1 / np.sqrt(present),
        "effective_number": (1 - _EFFECTIVE_NUMBER_BETA) / (1 - _EFFECTIVE_NUMBER_BETA**present),
    }[config.class_weights] * (class_counts > 0)
    return weights * class_counts.sum() / (weights * class_counts).sum()


def _compute_log_priors(class_counts: np.ndarray) -> np.ndarray:
    # A class that is never shown counts as half an image: it is rare, and its logarithm finite.
    present = np.maximum(class_counts, 0.5)
    return np.log(present / present.sum())


def _other_class_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the probability of all other classes; never quite 0, where powers below 1 have no slope."""
    right = torch.softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)
    return (1 - right).clamp_min(1e-6)
