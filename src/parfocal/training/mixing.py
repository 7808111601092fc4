"""MixUp and CutMix: a batch blended with itself in another order, drawn for (seed, epoch, step)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from parfocal.parts import TrainingConfig


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
