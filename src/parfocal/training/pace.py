"""The pace of training: how many pixels a second this machine trains on, measured in seconds before planning."""

import time
from functools import lru_cache

import torch

from parfocal.engine.device import build_fabric
from parfocal.models.architectures import Stem
from parfocal.models.classifier import build_classifier
from parfocal.recipe import load_recipe
from parfocal.training.step import Batch, build_learner, train_step

FORWARD_SHARE = 0.3
"""The time of a forward pass, with loading, as a share of a training step."""

# Large enough for the device to be busy, and small enough for a slow processor.
_SIDE = 96
_BATCH_SIZE = 16
# After a first step, in which memory is allocated and algorithms are chosen.
_MIN_SECONDS = 0.5


@lru_cache
def measure_pace(model: str, stem: Stem | None = None) -> float:
    """Return how many pixels a second the network trains on: forward, backward and a step of the optimizer."""
    recipe = load_recipe(None, model=model, stem=stem, optimizer="adamw", learning_rate=1e-6)
    fabric = build_fabric(recipe.training.precision)
    learner = build_learner(fabric, build_classifier(recipe.network, ("0", "1")), recipe)
    pixels = torch.zeros(_BATCH_SIZE, _SIDE, _SIDE, 3, dtype=torch.uint8, device=fabric.device)
    batch = Batch(pixels, torch.zeros(_BATCH_SIZE, dtype=torch.int64, device=fabric.device))

    def take_step() -> None:
        losses = train_step(learner, [batch], 1e-6)
        # Reading a value waits for the device.
        losses[0][0].item()

    take_step()
    start = time.perf_counter()
    n_steps = 0
    while not n_steps or time.perf_counter() - start < _MIN_SECONDS:
        take_step()
        n_steps += 1
    return n_steps * _BATCH_SIZE * _SIDE**2 / (time.perf_counter() - start)
