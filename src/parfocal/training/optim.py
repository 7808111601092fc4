"""Optimizers, learning-rate schedules, layer-wise learning rates, freezing of stages, and the EMA of the weights."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from parfocal.errors import UsageError
from parfocal.models.architectures import get_architecture
from parfocal.models.resnet import ResNet
from parfocal.recipe import Recipe
from parfocal.recipe_schema import TrainingConfig

_REFERENCE_BATCH_SIZE = 32
# The one-cycle schedule of its author and of PyTorch: initial and final factor, and the fraction of warm-up.
_CYCLE_START = 1 / 25
_CYCLE_END = 1e-4
_CYCLE_WARMUP = 0.3


def build_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Build the recipe's optimizer over the parameters of the network."""
    param_groups = build_param_groups(network, config)
    if config.no_decay_norm_bias:
        groups: list[dict[str, Any]] = []
        for group in param_groups:
            weights = [parameter for parameter in group["params"] if parameter.ndim > 1]
            norms_and_biases = [parameter for parameter in group["params"] if parameter.ndim <= 1]
            groups += [{**group, "params": weights}, {**group, "params": norms_and_biases, "weight_decay": 0.0}]
        param_groups = groups
    lr = peak_learning_rate(config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            param_groups, lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
        )
    optimizer_class = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return optimizer_class(param_groups, lr, betas=(config.momentum, 0.999), weight_decay=config.weight_decay)


def build_param_groups(network: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """Return the parameters in groups, each with the factor `lr_scale` that multiplies its learning rate."""
    if config.layer_decay == 1:
        return [{"params": list(network.parameters()), "lr_scale": 1.0}]
    groups = [
        {
            "params": [parameter for module in stage for parameter in module.parameters()],
            "lr_scale": config.layer_decay**depth,
        }
        for depth, stage in enumerate(find_stages(network))
    ]
    in_stages = {id(parameter) for group in groups for parameter in group["params"]}
    # Parameters outside the stages, such as the cutpoints of an ordinal head, belong to the head.
    groups[0]["params"] += [parameter for parameter in network.parameters() if id(parameter) not in in_stages]
    return groups


def peak_learning_rate(config: TrainingConfig) -> float:
    """Return the recipe's learning rate, scaled by the images of a step if the recipe asks for that."""
    ratio = config.batch_size * config.accumulate / _REFERENCE_BATCH_SIZE
    power = {"none": 0.0, "linear": 1.0, "square_root": 0.5}[config.lr_scaling]
    return config.learning_rate * ratio**power


def compute_learning_rate(
    step: int, steps_per_epoch: int, config: TrainingConfig, n_reductions: int = 0, total_steps: float | None = None
) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run.

    `n_reductions` is how often the plateau schedule has lowered it so far. `total_steps` is the length of the run where
    the number of epochs does not decide it.
    """
    peak = peak_learning_rate(config)
    total_steps = total_steps or config.epochs * steps_per_epoch
    if config.schedule == "one_cycle":
        # Up along half a cosine, then down along another.
        peak_step = max(0.0, (config.warmup * steps_per_epoch or _CYCLE_WARMUP * total_steps) - 1)
        if step < peak_step:
            return peak * (1 - (1 - _CYCLE_START) * _cosine_factor(step / peak_step))
        end = _CYCLE_START * _CYCLE_END
        fraction = min(1.0, (step - peak_step) / max(1.0, total_steps - 1 - peak_step))
        return peak * (end + (1 - end) * _cosine_factor(fraction))
    warmup_steps = round(config.warmup * steps_per_epoch)
    if config.schedule == "plateau":
        peak *= config.lr_gamma**n_reductions
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if config.schedule == "cosine":
        return peak * _cosine_factor(min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))
    if config.schedule == "step":
        return peak * config.lr_gamma ** (step // (config.lr_step * steps_per_epoch))
    return peak


def _cosine_factor(fraction: float) -> float:
    return (1 + math.cos(math.pi * fraction)) / 2


def validate_freeze(recipe: Recipe) -> None:
    """Reject a recipe whose `freeze` names a stage that its network does not have."""
    freeze = recipe.training.freeze
    model = recipe.network.model
    n_stages = len(get_architecture(model).stages)
    if freeze.startswith("stage") and _parse_stage(freeze) > n_stages:
        raise UsageError(f"freeze={freeze}: {model} has the stages 1 to {n_stages}.")


def find_stages(network: nn.Module) -> list[list[nn.Module]]:
    """Return the network's stages from the head down to the stem, also where the network is wrapped."""
    backbone = next(module for module in network.modules() if isinstance(module, ResNet))
    stages = [[backbone.get_submodule(name)] for name in reversed(backbone.stage_names)]
    return [[backbone.fc], *stages, [backbone.conv1, backbone.bn1]]


def freeze_stages(network: nn.Module, config: TrainingConfig, epoch: int) -> None:
    """Freeze and unfreeze stages as the recipe says for an epoch, counted from 0.

    Call it while the network is in training mode. It puts frozen stages in evaluation mode, so that the running
    statistics of their batch norms do not change.
    """
    if config.freeze == "none":
        return
    stages = find_stages(network)
    n_trainable = 1 if config.freeze == "head" else len(stages) - _parse_stage(config.freeze)
    if config.unfreeze_every:
        n_trainable += epoch // config.unfreeze_every
    for depth, stage in enumerate(stages):
        for module in stage:
            module.requires_grad_(depth < n_trainable)
            module.train(depth < n_trainable)


def _parse_stage(freeze: str) -> int:
    return int(freeze.removeprefix("stage"))


@torch.no_grad()
def update_ema(ema_model: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Update the exponential moving average (EMA) of the weights after a step of the optimizer, counted from 0.

    The decay is lower at the start of a run, so that the random initial weights are soon forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    pairs = list(zip(ema_model.state_dict().values(), network.state_dict().values(), strict=True))
    averages = [average for average, _ in pairs if average.is_floating_point()]
    weights = [weight for average, weight in pairs if average.is_floating_point()]
    get_ema_multi_avg_fn(decay)(averages, weights, step)
    for average, weight in pairs:
        if not average.is_floating_point():
            average.copy_(weight)
