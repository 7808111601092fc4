"""What learns: the network as the engine runs it, its optimiser, and the moving average of its weights."""

import copy
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import nn

from parfocal.evaluation.inference import to_channels_last
from parfocal.model.classifier import Classifier
from parfocal.recipe import Recipe
from parfocal.training.optimise import build_optimizer
from parfocal.training.processes import convert_sync_batchnorm
from parfocal.training.stages import freeze_stages


@dataclass
class Learner:
    """A classifier in training: bare, and as the engine has it; `pieces` is in how many a batch goes through it."""

    fabric: Fabric
    classifier: Classifier
    network: nn.Module
    optimizer: torch.optim.Optimizer
    ema_model: Classifier | None = None
    n_micro_batches: int = 1

    @property
    def eval_model(self) -> Classifier:
        """The network that is judged and kept: the average where there is one."""
        return self.ema_model or self.classifier


def build_learner(fabric: Fabric, classifier: Classifier, recipe: Recipe) -> Learner:
    """Set a classifier up for training as the recipe has it."""
    part = recipe.training
    average = to_channels_last(copy.deepcopy(classifier)).to(fabric.device) if part.ema else None
    if part.sync_norm and fabric.world_size > 1:
        convert_sync_batchnorm(classifier)
    to_channels_last(classifier).to(fabric.device)
    if recipe.machine.compile:
        classifier.compile()
    classifier.train()
    freeze_stages(classifier, part, 0)
    network, optimise = fabric.setup(classifier, build_optimizer(classifier, part))
    return Learner(fabric, classifier, network, optimise, average)  # pyright: ignore[reportArgumentType]


def start_epoch(learner: Learner, recipe: Recipe, epoch: int) -> None:
    """Put the network in training mode, with those stages held that the recipe holds in this epoch."""
    before = _trainable_flags(learner.classifier)
    learner.network.train()
    freeze_stages(learner.classifier, recipe.training, epoch)
    if learner.fabric.world_size > 1 and _trainable_flags(learner.classifier) != before:
        # The wrapper that averages gradients knows only the weights that were free when it was made.
        learner.network = learner.fabric.setup_module(learner.classifier)


def _trainable_flags(network: nn.Module) -> list[bool]:
    return [weight.requires_grad for weight in network.parameters()]
