"""Which stages of a network train when: some held at first, more let go as epochs pass, and rates by depth."""
# MERGED: """Optimisers by name, and the learning rate as a plain function of the step."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from parfocal.errors import UsageError
from parfocal.models import resnet
from parfocal.recipe import Recipe
from parfocal.schema import TrainingConfig


def validate_freeze(recipe: Recipe) -> None:
    """Refuse a recipe whose `freeze` names a stage that its network does not have."""
    freeze, model = recipe.training.freeze, recipe.network.model
    count = len(resnet.get_architecture(model).stages)
    if freeze.startswith("stage") and _stage_number(freeze) > count:
        raise UsageError(f"freeze={freeze}: {model} has the stages 1 to {count}.")


def find_stages(network: nn.Module) -> list[list[nn.Module]]:
    """Return the network's stages from the head down to the stem, also where the network is wrapped."""
    inside = next(module for module in network.modules() if isinstance(module, resnet.ResNet))
    layers = [[inside.get_submodule(name)] for name in reversed(inside.stage_names)]
    return [[inside.fc], *layers, [inside.conv1, inside.bn1]]


def freeze_stages(network: nn.Module, config: TrainingConfig, epoch: int) -> None:
    """Let those stages train that the recipe wants in an epoch (from 0), and hold the others.

    To be called when the network is in training mode. The norms of held stages stay as in evaluation, for their running
    statistics would move else.
    """
    if config.freeze == "none":
        return
    stages = find_stages(network)
    free = 1 if config.freeze == "head" else len(stages) - _stage_number(config.freeze)
    free += epoch // config.unfreeze_every if config.unfreeze_every else 0
    for depth, stage in enumerate(stages):
        for module in stage:
            module.requires_grad_(depth < free)
            module.train(depth < free)


def build_param_groups(network: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """Return the weights in groups with a `factor` each, by which the learning rate is multiplied."""
    if config.layer_decay == 1:
        return [{"params": list(network.parameters()), "factor": 1.0}]
    groups = [
        {"params": [weight for module in stage for weight in module.parameters()], "factor": config.layer_decay**depth}
        for depth, stage in enumerate(find_stages(network))
    ]
    staged = {id(weight) for group in groups for weight in group["params"]}
    # What lies outside the stages, such as cutpoints between grades, comes after the head and goes with it.
    groups[0]["params"] += [weight for weight in network.parameters() if id(weight) not in staged]
    return groups


def _stage_number(freeze: str) -> int:
    return int(freeze.removeprefix("stage"))


_REFERENCE_BATCH_SIZE = 32
# The one-cycle schedule as its author and PyTorch have it: where it starts, where it ends, and how long it climbs.
_CYCLE_START, _CYCLE_END, _CYCLE_WARMUP = 1 / 25, 1e-4, 0.3


def build_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over the network's weights."""
    weights = _split_decay_groups(build_param_groups(network, config), config)
    rate, decay = peak_learning_rate(config), config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, rate, momentum=config.momentum, weight_decay=decay, nesterov=config.nesterov)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(weights, rate, betas=(config.momentum, 0.999), weight_decay=decay)


def _split_decay_groups(param_groups: list[dict[str, Any]], config: TrainingConfig) -> list[dict[str, Any]]:
    """Part the weights of each group into those that decay and those that do not."""
    if not config.no_decay_norm_bias:
        return param_groups
    parted: list[dict[str, Any]] = []
    for group in param_groups:
        wide = [weight for weight in group["params"] if weight.ndim > 1]
        narrow = [weight for weight in group["params"] if weight.ndim <= 1]
        parted += [{**group, "params": wide}, {**group, "params": narrow, "weight_decay": 0.0}]
    return parted


def peak_learning_rate(config: TrainingConfig) -> float:
    """Return the recipe's learning rate, scaled with how many images make a step where it asks for that."""
    share = config.batch_size * config.accumulate / _REFERENCE_BATCH_SIZE
    power = {"none": 0.0, "linear": 1.0, "square_root": 0.5}[config.lr_scaling]
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
        highest *= config.lr_gamma**n_reductions
    if step < warm:
        return highest * (step + 1) / (warm + 1)
    if config.schedule == "cosine":
        return highest * _cosine_factor(min(1.0, (step - warm) / max(1, total_steps - warm)))
    if config.schedule == "step":
        return highest * config.lr_gamma ** (step // (config.lr_step * steps_per_epoch))
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
