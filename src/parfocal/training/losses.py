"""Losses, class weights and logit adjustment; MixUp and CutMix.

To add a loss, write a function decorated with `register_loss` and add its name to `TrainingConfig.loss`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from parfocal.data.loader import compute_samples_per_class
from parfocal.models.ordinal import CumulativeLinkHead, RegressionHead
from parfocal.recipe_schema import TrainingConfig

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Takes logits (N, classes) and labels (N,) and returns the loss of each image (N,)."""


@dataclass(frozen=True)
class LossContext:
    """What a registered loss may use besides logits and labels: the recipe, and the network's ordinal head, if any.

    `log_priors` are the logarithms of the class frequencies of an epoch.
    """

    config: TrainingConfig
    log_priors: Tensor
    head: RegressionHead | CumulativeLinkHead | None = None


ComputeLoss = Callable[[Tensor, Tensor, LossContext], Tensor]
"""Takes logits (N, classes), labels (N,) and the context, and returns the loss of each image (N,)."""


LOSSES: dict[str, ComputeLoss] = {}
"""Every loss by its name in the recipe."""


def register_loss(name: str) -> Callable[[ComputeLoss], ComputeLoss]:
    """Register the decorated function as the loss of that name."""

    def register(compute: ComputeLoss) -> ComputeLoss:
        LOSSES[name] = compute
        return compute

    return register


@register_loss("cross_entropy")
@register_loss("cumulative_link")
def smoothed_cross_entropy(logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
    """Compute cross-entropy with the recipe's label smoothing and logit adjustment."""
    smoothing = context.config.label_smoothing
    logits = _adjust_logits(logits, context)
    return nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


@register_loss("joint")
def joint_loss(logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
    """Compute cross-entropy plus `grade_weight` times the squared error of the expected grade."""
    grades = torch.arange(logits.shape[1], dtype=logits.dtype, device=logits.device)
    error = torch.softmax(logits, dim=1) @ grades - labels
    return smoothed_cross_entropy(logits, labels, context) + context.config.grade_weight * error.square()


@register_loss("focal")
def focal_loss(logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
    """Compute cross-entropy times (1 - p) ** focal_gamma, p being the probability of the true class."""
    true_probability = torch.softmax(_adjust_logits(logits, context), dim=1).gather(1, labels[:, None]).squeeze(1)
    # Never exactly 0, where a power below 1 has an infinite gradient.
    modulation = (1 - true_probability).clamp_min(1e-6) ** context.config.focal_gamma
    return smoothed_cross_entropy(logits, labels, context) * modulation


@register_loss("regression")
def regression_loss(logits: Tensor, labels: Tensor, context: LossContext) -> Tensor:
    """Compute the distance between the predicted and the true grade."""
    assert isinstance(context.head, RegressionHead)
    distance = nn.functional.mse_loss if context.config.regression_loss == "squared" else nn.functional.smooth_l1_loss
    return distance(context.head.compute_grades(logits), labels.float(), reduction="none")


def _adjust_logits(logits: Tensor, context: LossContext) -> Tensor:
    strength = context.config.logit_adjustment
    return logits + context.log_priors * strength if strength else logits


def build_loss(
    config: TrainingConfig,
    class_counts: np.ndarray,
    head: RegressionHead | CumulativeLinkHead | None = None,
    device: torch.device | str = "cpu",
) -> LossFunction:
    """Return the recipe's loss function, given how many images of each class an epoch shows."""
    # A class that is never shown counts as half an image: rare, with a finite logarithm.
    present = np.maximum(class_counts, 0.5)
    log_priors = torch.tensor(np.log(present / present.sum()), dtype=torch.float32, device=device)
    context = LossContext(config, log_priors, head)
    compute = LOSSES[config.loss]
    if config.class_weights == "none":
        return lambda logits, labels: compute(logits, labels, context)
    weights = torch.tensor(compute_class_weights(config, class_counts), dtype=torch.float32, device=device)
    return lambda logits, labels: compute(logits, labels, context) * weights[labels]


# The beta of "effective number" weights (Cui et al., 2019).
_EFFECTIVE_NUMBER_BETA = 0.999


def compute_class_weights(config: TrainingConfig, class_counts: np.ndarray) -> np.ndarray:
    """Return the weight of each class in the loss. Over the images shown their mean is 1; an absent class has 0."""
    present = np.maximum(class_counts, 1)
    weights = {
        "none": np.ones(len(class_counts)),
        "balanced": 1 / present,
        "square_root": 1 / np.sqrt(present),
        "effective_number": (1 - _EFFECTIVE_NUMBER_BETA) / (1 - _EFFECTIVE_NUMBER_BETA**present),
    }[config.class_weights] * (class_counts > 0)
    return weights * class_counts.sum() / (weights * class_counts).sum()


def epoch_class_counts(
    labels: np.ndarray, n_classes: int, config: TrainingConfig, epoch: int, kept_class: int = 0
) -> np.ndarray:
    """Return how many images of each class an epoch shows, including classes without images."""
    counts = compute_samples_per_class(np.bincount(labels), config, epoch, kept_class)
    return np.pad(counts, (0, n_classes - len(counts)))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the plain cross-entropy of each image."""
    return nn.functional.cross_entropy(logits, labels, reduction="none")


@dataclass(frozen=True)
class MixedTargets:
    """The labels of the images that each image was mixed with, and the share `lam` of the image itself."""

    partner_labels: Tensor
    lam: float


def mix_batch(
    pixels: Tensor, labels: Tensor, config: TrainingConfig, seed: tuple[int, int, int]
) -> tuple[Tensor, MixedTargets | None]:
    """Apply MixUp or CutMix, as the recipe says, to uint8 pixels (N, H, W, C); where it has both, either at random.

    `seed` is (seed, epoch, step). The pixels stay uint8.
    """
    if not config.mixup and not config.cutmix:
        return pixels, None
    rng = np.random.default_rng([*seed, 3])
    partners = torch.from_numpy(rng.permutation(len(pixels))).to(pixels.device)
    use_cutmix = bool(config.cutmix) and (not config.mixup or rng.random() < 0.5)
    alpha = config.cutmix if use_cutmix else config.mixup
    lam = float(rng.beta(alpha, alpha))
    partner_pixels = pixels[partners]
    if not use_cutmix:
        mixed = pixels.float() * lam + partner_pixels.float() * (1 - lam)
        return mixed.round().to(torch.uint8), MixedTargets(labels[partners], lam)
    height, width = pixels.shape[1:3]
    box_side = math.sqrt(1 - lam)
    box_height = round(height * box_side)
    box_width = round(width * box_side)
    top = int(rng.integers(height - box_height + 1))
    left = int(rng.integers(width - box_width + 1))
    box = (slice(None), slice(top, top + box_height), slice(left, left + box_width))
    pixels = pixels.clone()
    pixels[box] = partner_pixels[box]
    return pixels, MixedTargets(labels[partners], 1 - box_height * box_width / (height * width))


def mixed_loss(loss_fn: LossFunction, logits: Tensor, labels: Tensor, mixed_targets: MixedTargets | None) -> Tensor:
    """Return the mean loss of a batch; for a mixed batch, the losses of both labels weighted by `lam` and 1 - `lam`."""
    loss = loss_fn(logits, labels).mean()
    if mixed_targets is None:
        return loss
    lam = mixed_targets.lam
    return lam * loss + (1 - lam) * loss_fn(logits, mixed_targets.partner_labels).mean()
