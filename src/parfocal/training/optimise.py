"""Optimisers by name, and the learning rate as a plain function of the step."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from parfocal.parts import TrainingPart
from parfocal.training.stages import rate_groups

_USUAL_BATCH = 32
# The one-cycle schedule as its author and PyTorch have it: where it starts, where it ends, and how long it climbs.
_CYCLE_START, _CYCLE_END, _CYCLE_CLIMB = 1 / 25, 1e-4, 0.3


def optimiser(network: nn.Module, part: TrainingPart) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over the network's weights."""
    weights = _groups(rate_groups(network, part), part)
    rate, decay = highest_rate(part), part.weight_decay
    if part.optimiser == "sgd":
        return torch.optim.SGD(weights, rate, momentum=part.momentum, weight_decay=decay, nesterov=part.nesterov)
    kind = torch.optim.Adam if part.optimiser == "adam" else torch.optim.AdamW
    return kind(weights, rate, betas=(part.momentum, 0.999), weight_decay=decay)


def _groups(groups: list[dict[str, Any]], part: TrainingPart) -> list[dict[str, Any]]:
    """Part the weights of each group into those that decay and those that do not."""
    if part.decay == "all":
        return groups
    parted: list[dict[str, Any]] = []
    for group in groups:
        wide = [weight for weight in group["params"] if weight.ndim > 1]
        narrow = [weight for weight in group["params"] if weight.ndim <= 1]
        parted += [{**group, "params": wide}, {**group, "params": narrow, "weight_decay": 0.0}]
    return parted


def highest_rate(part: TrainingPart) -> float:
    """Return the recipe's learning rate, scaled with how many images make a step where it asks for that."""
    share = part.batch * part.accumulate / _USUAL_BATCH
    power = {"none": 0.0, "linear": 1.0, "square_root": 0.5}[part.scale_rate]
    return part.learning_rate * share**power


def learning_rate(
    step: int, steps_per_epoch: int, part: TrainingPart, falls: int = 0, whole: float | None = None
) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run.

    `falls` is how often the plateau schedule has lowered it so far; `whole` is how many steps the run will have, where
    that is not its epochs'.
    """
    highest, whole = highest_rate(part), whole or part.epochs * steps_per_epoch
    if part.schedule == "one_cycle":
        return highest * _one_cycle(step, whole, part.warmup * steps_per_epoch or _CYCLE_CLIMB * whole)
    warm = round(part.warmup * steps_per_epoch)
    if part.schedule == "plateau":
        highest *= part.fall**falls
    if step < warm:
        return highest * (step + 1) / (warm + 1)
    if part.schedule == "cosine":
        return highest * _half_cosine(min(1.0, (step - warm) / max(1, whole - warm)))
    if part.schedule == "step":
        return highest * part.fall ** (step // (part.fall_after * steps_per_epoch))
    return highest


def _one_cycle(step: int, whole: float, climb: float) -> float:
    """Return the share of the highest rate at a step: up along half a cosine, then down along another."""
    top, last = max(0.0, climb - 1), whole - 1
    if step < top:
        return 1 - (1 - _CYCLE_START) * _half_cosine(step / top)
    end = _CYCLE_START * _CYCLE_END
    return end + (1 - end) * _half_cosine(min(1.0, (step - top) / max(1.0, last - top)))


def _half_cosine(gone: float) -> float:
    return (1 + math.cos(math.pi * gone)) / 2


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, keep: float, moves: int) -> None:
    """Move the average of weights towards the network's; `moves` is how often the network has moved so far.

    Of the average, a share `keep` is kept, less at the start of a run, so that the fresh weights are soon forgotten.
    """
    keep = min(keep, (1 + moves) / (10 + moves))
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(keep)([mean for mean, _ in floats], [weight for _, weight in floats], moves)
    for mean, weight in pairs:
        if not mean.is_floating_point():
            mean.copy_(weight)
