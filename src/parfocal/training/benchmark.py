"""The bottleneck doctor: loading alone, the step alone and both together, measured on one's own data and recipe."""

import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from parfocal.data.loader import BatchLoader, count_cpu_cores
from parfocal.engine.batches import build_batches, prefetch
from parfocal.engine.device import build_fabric
from parfocal.errors import UsageError
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.progress import print_line
from parfocal.recipe import Recipe
from parfocal.recipe import load_recipe as find_recipe
from parfocal.training.batch_size import resolve_batch_size
from parfocal.training.diagnosis import Diagnosis, Measurements, diagnose
from parfocal.training.feasibility import validate_feasible
from parfocal.training.losses import LOSS_HEADS
from parfocal.training.normalization import compute_normalization
from parfocal.training.optim import freeze_stages, validate_freeze
from parfocal.training.step import (
    Batch,
    EpochState,
    Learner,
    build_learner,
    epoch_row,
    run_epoch,
    start_epoch,
    train_step,
)
from parfocal.training.train import prepare_data

# How the seconds are spent: rendering, with all steps and with geometry alone; the step; both; matrices.
_LOADING_SHARE, _GEOMETRY_SHARE, _STEP_SHARE, _EPOCH_SHARE, _MATMUL_SHARE = 0.15, 0.1, 0.3, 0.35, 0.1
# Batches of the epochs that are measured.
_MIN_BATCHES, _MAX_BATCHES = 2, 128
# A learning rate at which nothing blows up.
_LEARNING_RATE = 1e-6
# Steps, or products of matrices, between two looks at the clock: a card is given work ahead, as training does.
_STEPS_PER_SYNC = {"cpu": 1, "cuda": 16}
# Views drawn with geometry alone.
_GEOMETRY_ONLY = {
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "hue": 0,
    "grayscale": 0,
    "erase": 0,
    "custom_transform": "",
}


def bench(
    data: Path | str, recipe: str | Path | Recipe | None = None, *, seconds: float = 30, **changes: Any
) -> Diagnosis:
    """Measure training on a data set, for about so many seconds beside preparing it, and say what holds it up.

    Nothing is written but the Store. A step that is slow is taken all the same: twice, at least, on each occasion.
    """
    if not seconds > 0:
        raise UsageError(f"seconds={seconds:g} leaves no time to measure in.")
    chosen = find_recipe(recipe, **changes)
    validate_freeze(chosen)
    prepared = prepare_data(data, chosen)
    chosen = resolve_batch_size(chosen, build_fabric(chosen.training.precision), prepared.table)
    validate_feasible(chosen, prepared.table)
    batches = build_batches("train", prepared.table, prepared.store, chosen)
    scale, link = compute_normalization(chosen.network, batches), LOSS_HEADS.get(chosen.training.loss, "none")
    classifier = build_classifier(chosen.network, prepared.table.classes, scale, link)
    return diagnose(_measure(batches, classifier, chosen, seconds), chosen)


def _measure(batches: BatchLoader, classifier: Classifier, recipe: Recipe, seconds: float) -> Measurements:
    fabric = build_fabric(recipe.training.precision)
    precision = "bf16" if "bf16" in fabric._precision.precision else "float32"
    work = compute_gflop_per_image(classifier, recipe)
    loop = _TrainingLoop(build_learner(fabric, classifier, recipe), recipe)
    print_line("Measuring the step alone …")
    before = loop.measure_step(batches, _STEP_SHARE * seconds / 2)
    card = fabric.device.type == "cuda"
    used = torch.cuda.max_memory_reserved() / 1e9 if card else 0.0
    pixels = len(batches.indices) * recipe.images.size**2 * 3 / 1e9
    print_line("Measuring both together …")
    some = _take_subset(batches, before * _EPOCH_SHARE * seconds)
    together, waiting = loop.measure_epoch(some, _EPOCH_SHARE * seconds)
    # Half before and half after, so that a machine that has slowed down or speeded up is fair to both.
    step = (before + loop.measure_step(batches, _STEP_SHARE * seconds / 2)) / 2
    print_line("Measuring loading alone …")
    loading = loop.measure_loading(some, _LOADING_SHARE * seconds)
    bare = some.views_config.model_copy(update=_GEOMETRY_ONLY)
    plain = (
        loading
        if bare == some.views_config
        else loop.measure_loading(replace(some, views_config=bare), _GEOMETRY_SHARE * seconds)
    )
    print_line("Measuring matrices …")
    rates = {name: measure_matmul(fabric.device, name, _MATMUL_SHARE * seconds / 2) for name in ("float32", "bf16")}
    return Measurements(
        device=fabric.device.type,
        n_cores=count_cpu_cores(),
        precision=precision,
        resident=batches.device is not None,
        loading_rate=loading,
        geometry_loading_rate=plain,
        step_rate=step,
        epoch_rate=together,
        waiting=waiting,
        gflop_per_image=work,
        matmul_gflops=rates,
        pixels_gb=pixels,
        memory_gb=_machine_memory_gb(),
        gpu_memory_gb=torch.cuda.mem_get_info()[1] / 1e9 if card else 0.0,
        gpu_used_gb=used + pixels if batches.device else used,
        n_micro_batches=loop.learner.n_micro_batches,
    )


@dataclass
class _TrainingLoop:
    """What the trainer trains with, measured in its parts."""

    learner: Learner
    recipe: Recipe

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.learner.fabric.device

    def measure_step(self, batches: BatchLoader, seconds: float) -> float:
        """Return images a second of the training step on a batch that lies ready."""
        device = self.device
        pixels, labels = next(iter(replace(batches, device=None).train_batches(0)))
        batch = Batch(pixels.to(device), labels.to(device))
        start_epoch(self.learner, self.recipe, 0)

        def run() -> int:
            for _ in range(_STEPS_PER_SYNC[device.type]):
                train_step(self.learner, [batch], _LEARNING_RATE)
            return len(batch) * _STEPS_PER_SYNC[device.type]

        # The first steps choose algorithms and find memory.
        _measure_rate(run, device, 0)
        return _measure_rate(run, device, seconds)

    def measure_epoch(self, batches: BatchLoader, seconds: float) -> tuple[float, float]:
        """Return images a second of the trainer's own epoch, and the share of it that is waiting."""
        waits: list[float] = []
        epochs = self._epochs()

        def run() -> int:
            tally = EpochState.create(self.device, batches.steps_per_epoch)
            for _ in run_epoch(self.learner, batches, self.recipe, next(epochs), lambda _: _LEARNING_RATE, tally):
                pass
            waits.append(epoch_row(self.learner, tally)["waiting"])
            return tally.n_images

        return _measure_rate(run, self.device, seconds, min_repeats=1), statistics.median(waits)

    def measure_loading(self, batches: BatchLoader, seconds: float) -> float:
        """Return images a second of batches that are rendered, brought to the device and dropped."""
        epochs = self._epochs()

        def run() -> int:
            ends, images = time.perf_counter() + seconds, 0
            for pixels, _ in prefetch(batches.train_batches(next(epochs)), self.device):
                images += len(pixels)
                if time.perf_counter() > ends:
                    break
            return images

        return _measure_rate(run, self.device, seconds, min_repeats=1)

    def _epochs(self) -> Iterator[int]:
        return cycle(range(self.recipe.training.epochs))


def _take_subset(batches: BatchLoader, n_images: float) -> BatchLoader:
    """Return batches of about so many of the images to be shown, bounded both ways, with all classes among them."""
    bounded = min(max(n_images, _MIN_BATCHES * batches.batch_size), _MAX_BATCHES * batches.batch_size)
    wanted = round(bounded * len(batches.indices) / batches.epoch_size)
    rows = np.random.default_rng(0).permutation(len(batches.indices))
    first = np.unique(batches.labels[rows], return_index=True)[1]
    rows = np.concatenate([rows[first], np.delete(rows, first)])[: max(wanted, len(first))]
    names = tuple(batches.ids[row] for row in rows) if batches.ids else ()
    return replace(batches, indices=batches.indices[rows], labels=batches.labels[rows], ids=names)


def compute_gflop_per_image(classifier: Classifier, recipe: Recipe) -> float:
    """Return what the network computes for an image in a training step, there and back, in GFLOP."""
    network = copy.deepcopy(classifier).to("meta").train()
    freeze_stages(network, recipe.training, 0)
    side, images = recipe.views.crop_size, 2
    pixels = torch.empty(images, side, side, 3, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counted:
        network(pixels).sum().backward()
    return counted.get_total_flops() / images / 1e9


def measure_matmul(device: torch.device, precision: str, seconds: float) -> float:
    """Return how fast square matrices multiply, in GFLOP/s."""
    side = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)

    def run() -> int:
        for _ in range(_STEPS_PER_SYNC[device.type]):
            torch.mm(matrix, matrix)
        return _STEPS_PER_SYNC[device.type]

    _measure_rate(run, device, 0)
    return 2 * side**3 / 1e9 * _measure_rate(run, device, seconds)


def _machine_memory_gb() -> float:
    """Return how much memory the machine has, in GB; 0 where it does not say."""
    if not hasattr(os, "sysconf"):
        return 0.0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def _measure_rate(run: Callable[[], int], device: torch.device, seconds: float, min_repeats: int = 2) -> float:
    """Return how many a second `run` gets through, the device's queue emptied: the median over the times that fit."""
    rates: list[float] = []
    ends = time.perf_counter() + seconds
    while len(rates) < min_repeats or time.perf_counter() < ends:
        started = time.perf_counter()
        done = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(done / (time.perf_counter() - started))
    return statistics.median(rates)
