"""Optimisers by name, and the learning rate as a plain function of the step."""

import math

import torch
from torch import nn

from parfocal.recipe import TrainingPart
from parfocal.training.stages import rate_groups


def optimiser(network: nn.Module, part: TrainingPart) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over the network's weights."""
    weights = rate_groups(network, part)
    rate, decay = part.learning_rate, part.weight_decay
    if part.optimiser == "sgd":
        return torch.optim.SGD(weights, rate, momentum=part.momentum, weight_decay=decay, nesterov=part.nesterov)
    kind = torch.optim.Adam if part.optimiser == "adam" else torch.optim.AdamW
    return kind(weights, rate, betas=(part.momentum, 0.999), weight_decay=decay)


def learning_rate(step: int, steps_per_epoch: int, part: TrainingPart) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run."""
    warm = round(part.warmup * steps_per_epoch)
    if step < warm:
        return part.learning_rate * (step + 1) / (warm + 1)
    if part.schedule == "constant":
        return part.learning_rate
    gone = (step - warm) / max(1, part.epochs * steps_per_epoch - warm)
    return part.learning_rate * (1 + math.cos(math.pi * gone)) / 2
