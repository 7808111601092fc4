"""What learns: the network as the engine runs it, its optimiser, and the moving average of its weights."""

import copy
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import nn

from parfocal.evaluation.inference import ready
from parfocal.model.classifier import Classifier
from parfocal.recipe import Recipe
from parfocal.training.optimise import optimiser
from parfocal.training.processes import share_norms
from parfocal.training.stages import hold


@dataclass
class Learner:
    """A classifier in training: bare, and as the engine has it; `pieces` is in how many a batch goes through it."""

    fabric: Fabric
    classifier: Classifier
    network: nn.Module
    optimise: torch.optim.Optimizer
    average: Classifier | None = None
    pieces: int = 1

    @property
    def kept(self) -> Classifier:
        """The network that is judged and kept: the average where there is one."""
        return self.average or self.classifier


def new_learner(fabric: Fabric, classifier: Classifier, recipe: Recipe) -> Learner:
    """Set a classifier up for training as the recipe has it."""
    part = recipe.training
    average = ready(copy.deepcopy(classifier)).to(fabric.device) if part.ema else None
    if part.sync_norm and fabric.world_size > 1:
        share_norms(classifier)
    ready(classifier).to(fabric.device)
    if recipe.machine.compile:
        classifier.compile()
    classifier.train()
    hold(classifier, part, 0)
    network, optimise = fabric.setup(classifier, optimiser(classifier, part))
    return Learner(fabric, classifier, network, optimise, average)  # pyright: ignore[reportArgumentType]


def begin_epoch(learner: Learner, recipe: Recipe, epoch: int) -> None:
    """Put the network in training mode, with those stages held that the recipe holds in this epoch."""
    before = _free(learner.classifier)
    learner.network.train()
    hold(learner.classifier, recipe.training, epoch)
    if learner.fabric.world_size > 1 and _free(learner.classifier) != before:
        # The wrapper that averages gradients knows only the weights that were free when it was made.
        learner.network = learner.fabric.setup_module(learner.classifier)


def _free(network: nn.Module) -> list[bool]:
    return [weight.requires_grad for weight in network.parameters()]
