"""Optimisers by name, and the learning rate as a plain function of the step."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from parfocal.parts import TrainingConfig
from parfocal.training.stages import build_param_groups

_REFERENCE_BATCH_SIZE = 32
# The one-cycle schedule as its author and PyTorch have it: where it starts, where it ends, and how long it climbs.
_CYCLE_START, _CYCLE_END, _CYCLE_WARMUP = 1 / 25, 1e-4, 0.3


def build_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over the network's weights."""
    weights = _split_decay_groups(build_param_groups(network, config), config)
    rate, decay = peak_learning_rate(config), config.weight_decay
    if config.optimiser == "sgd":
        return torch.optim.SGD(weights, rate, momentum=config.momentum, weight_decay=decay, nesterov=config.nesterov)
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    return kind(weights, rate, betas=(config.momentum, 0.999), weight_decay=decay)


def _split_decay_groups(param_groups: list[dict[str, Any]], config: TrainingConfig) -> list[dict[str, Any]]:
    """Part the weights of each group into those that decay and those that do not."""
    if config.decay == "all":
        return param_groups
    parted: list[dict[str, Any]] = []
    for group in param_groups:
        wide = [weight for weight in group["params"] if weight.ndim > 1]
        narrow = [weight for weight in group["params"] if weight.ndim <= 1]
        parted += [{**group, "params": wide}, {**group, "params": narrow, "weight_decay": 0.0}]
    return parted


def peak_learning_rate(config: TrainingConfig) -> float:
    """Return the recipe's learning rate, scaled with how many images make a step where it asks for that."""
    share = config.batch * config.accumulate / _REFERENCE_BATCH_SIZE
    power = {"none": 0.0, "linear": 1.0, "square_root": 0.5}[config.scale_rate]
    return config.learning_rate * share**power


def compute_learning_rate(
    step: int, steps_per_epoch: int, config: TrainingConfig, n_reductions: int = 0, total_steps: float | None = None
) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run.

    `falls` is how often the plateau schedule has lowered it so far; `whole` is how many steps the run will have, where
    that is not its epochs'.
    """
    highest, total_steps = peak_learning_rate(config), total_steps or config.epochs * steps_per_epoch
    if config.schedule == "one_cycle":
        return highest * _one_cycle_factor(
            step, total_steps, config.warmup * steps_per_epoch or _CYCLE_WARMUP * total_steps
        )
    warm = round(config.warmup * steps_per_epoch)
    if config.schedule == "plateau":
        highest *= config.fall**n_reductions
    if step < warm:
        return highest * (step + 1) / (warm + 1)
    if config.schedule == "cosine":
        return highest * _cosine_factor(min(1.0, (step - warm) / max(1, total_steps - warm)))
    if config.schedule == "step":
        return highest * config.fall ** (step // (config.fall_after * steps_per_epoch))
    return highest


def _one_cycle_factor(step: int, total_steps: float, warmup_steps: float) -> float:
    """Return the share of the highest rate at a step: up along half a cosine, then down along another."""
    top, last = max(0.0, warmup_steps - 1), total_steps - 1
    if step < top:
        return 1 - (1 - _CYCLE_START) * _cosine_factor(step / top)
    end = _CYCLE_START * _CYCLE_END
    return end + (1 - end) * _cosine_factor(min(1.0, (step - top) / max(1.0, last - top)))


def _cosine_factor(fraction: float) -> float:
    return (1 + math.cos(math.pi * fraction)) / 2


@torch.no_grad()
def update_ema(ema_model: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average of weights towards the network's; `moves` is how often the network has moved so far.

    Of the average, a share `keep` is kept, less at the start of a run, so that the fresh weights are soon forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    pairs = list(zip(ema_model.state_dict().values(), network.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(decay)([mean for mean, _ in floats], [weight for _, weight in floats], step)
    for mean, weight in pairs:
        if not mean.is_floating_point():
            mean.copy_(weight)
