"""Which stages of a network train when: some held at first, more let go as epochs pass, and rates by depth."""

from typing import Any

from torch import nn

from parfocal.errors import UsageError
from parfocal.model import resnet
from parfocal.parts import TrainingConfig
from parfocal.recipe import Recipe


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
    free += epoch // config.unfreeze if config.unfreeze else 0
    for depth, stage in enumerate(stages):
        for module in stage:
            module.requires_grad_(depth < free)
            module.train(depth < free)


def build_param_groups(network: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """Return the weights in groups with a `factor` each, by which the learning rate is multiplied."""
    if config.rate_factor == 1:
        return [{"params": list(network.parameters()), "factor": 1.0}]
    groups = [
        {"params": [weight for module in stage for weight in module.parameters()], "factor": config.rate_factor**depth}
        for depth, stage in enumerate(find_stages(network))
    ]
    staged = {id(weight) for group in groups for weight in group["params"]}
    # What lies outside the stages, such as cutpoints between grades, comes after the head and goes with it.
    groups[0]["params"] += [weight for weight in network.parameters() if id(weight) not in staged]
    return groups


def _stage_number(freeze: str) -> int:
    return int(freeze.removeprefix("stage"))
