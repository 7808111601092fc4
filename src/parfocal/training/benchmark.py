"""Benchmark training on a data set and a machine: loading alone, the step alone, and both together."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from parfocal.data.custom_transform import load_custom_transform, separate_functions
from parfocal.data.loader import BatchLoader, count_cpu_cores
from parfocal.engine.batches import build_batches, prefetch
from parfocal.engine.device import build_fabric, get_machine_memory
from parfocal.errors import UsageError
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.progress import print_line
from parfocal.recipe import Recipe, load_recipe
from parfocal.training.batch_size import resolve_batch_size
from parfocal.training.diagnosis import Diagnosis, Measurements, diagnose
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
from parfocal.training.train import prepare_data, validate_feasible

# How the seconds are shared out.
_LOADING_SHARE = 0.15
_GEOMETRY_SHARE = 0.1
_STEP_SHARE = 0.3
_EPOCH_SHARE = 0.35
_MATMUL_SHARE = 0.1
# Limits of the batches in a measured epoch.
_MIN_BATCHES = 2
_MAX_BATCHES = 128
# A learning rate at which no network diverges.
_LEARNING_RATE = 1e-6
# Steps, or matrix products, between two readings of the clock: a GPU gets its work ahead, as in training.
_STEPS_PER_SYNC = {"cpu": 1, "cuda": 16}
# Matrix products per second below which larger matrices are not tried.
_SLOWEST_MATMUL_RATE = 20
_GEOMETRY_ONLY = {
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "hue": 0,
    "color_temperature": 0,
    "grayscale": 0,
    "erase": 0,
    "custom_transform": "",
}


def bench(
    data: Path | str,
    recipe: str | Path | Recipe | None = None,
    *,
    seconds: float = 30,
    allow_code: Sequence[str] = (),
    **changes: Any,
) -> Diagnosis:
    """Measure training for about this many seconds after preparing the data, and diagnose its bottleneck.

    Nothing is written except the Store. A slow step is measured at least twice, however long that takes.
    `allow_code` lists the modules whose code the recipe may name.
    """
    if not seconds > 0:
        raise UsageError(f"seconds={seconds:g} leaves no time to measure. Choose a number above 0.")
    changes, allowed = separate_functions(changes, allow_code, recipe)
    recipe = load_recipe(recipe, **changes)
    custom_transform = load_custom_transform(recipe.views.custom_transform, allowed)
    validate_freeze(recipe)
    prepared = prepare_data(data, recipe)
    recipe = recipe.model_copy(update={"images": prepared.store.config})
    recipe = resolve_batch_size(recipe, build_fabric(recipe.training.precision), prepared.table)
    validate_feasible(recipe, prepared.table)
    loader = build_batches("train", prepared.table, prepared.store, recipe, custom_transform=custom_transform)
    normalization = compute_normalization(recipe.network, loader)
    classifier = build_classifier(recipe.network, prepared.table.classes, normalization, recipe.training.loss)
    return diagnose(_measure(loader, classifier, recipe, seconds), recipe)


def _measure(loader: BatchLoader, classifier: Classifier, recipe: Recipe, seconds: float) -> Measurements:
    fabric = build_fabric(recipe.training.precision)
    has_gpu = fabric.device.type == "cuda"
    gflop_per_image = compute_gflop_per_image(classifier, recipe)
    loop = _TrainingLoop(build_learner(fabric, classifier, recipe), recipe)
    print_line("Measuring the step alone …")
    first_step_rate = loop.measure_step(loader, _STEP_SHARE * seconds / 2)
    pixels_gb = len(loader.indices) * recipe.images.size**2 * 3 / 1e9
    gpu_used_gb = torch.cuda.max_memory_reserved() / 1e9 if has_gpu else 0.0
    if loader.device is not None:
        gpu_used_gb += pixels_gb
    print_line("Measuring loading and steps together …")
    subset = _take_subset(loader, first_step_rate * _EPOCH_SHARE * seconds)
    epoch_rate, waiting = loop.measure_epoch(subset, _EPOCH_SHARE * seconds)
    # Half before and half after the epoch, so that a change of the machine's speed affects both alike.
    last_step_rate = loop.measure_step(loader, _STEP_SHARE * seconds / 2)
    print_line("Measuring loading alone …")
    loading_rate = loop.measure_loading(subset, _LOADING_SHARE * seconds)
    geometry_loading_rate = loading_rate
    geometry_views = subset.views_config.model_copy(update=_GEOMETRY_ONLY)
    if geometry_views != subset.views_config:
        geometry_subset = replace(subset, views_config=geometry_views)
        geometry_loading_rate = loop.measure_loading(geometry_subset, _GEOMETRY_SHARE * seconds)
    print_line("Measuring matrix multiplication …")
    return Measurements(
        device=fabric.device.type,
        n_cores=count_cpu_cores(),
        precision="bf16" if "bf16" in fabric._precision.precision else "float32",
        resident=loader.device is not None,
        loading_rate=loading_rate,
        geometry_loading_rate=geometry_loading_rate,
        step_rate=(first_step_rate + last_step_rate) / 2,
        epoch_rate=epoch_rate,
        waiting=waiting,
        gflop_per_image=gflop_per_image,
        matmul_gflops={
            precision: measure_matmul(fabric.device, precision, _MATMUL_SHARE * seconds / 2)
            for precision in ("float32", "bf16")
        },
        pixels_gb=pixels_gb,
        memory_gb=get_machine_memory() / 1e9,
        gpu_memory_gb=torch.cuda.mem_get_info()[1] / 1e9 if has_gpu else 0.0,
        gpu_used_gb=gpu_used_gb,
        n_micro_batches=loop.learner.n_micro_batches,
    )


@dataclass
class _TrainingLoop:
    """The training loop as the trainer runs it, and its parts, each measured in images per second."""

    learner: Learner
    recipe: Recipe

    def measure_step(self, loader: BatchLoader, seconds: float) -> float:
        """Measure training steps on a batch that is already on the device."""
        device = self.learner.fabric.device
        pixels, labels = next(iter(replace(loader, device=None).train_batches(0)))
        batch = Batch(pixels.to(device), labels.to(device))
        n_steps = _STEPS_PER_SYNC[device.type]
        start_epoch(self.learner, self.recipe, 0)

        def run() -> int:
            for _ in range(n_steps):
                train_step(self.learner, [batch], _LEARNING_RATE)
            return len(batch) * n_steps

        # Warm up: the first steps select algorithms and allocate memory.
        _measure_rate(run, device, 0)
        return _measure_rate(run, device, seconds)

    def measure_epoch(self, loader: BatchLoader, seconds: float) -> tuple[float, float]:
        """Measure whole epochs; return their speed, and the share of the time in which the step waits for a batch."""
        device = self.learner.fabric.device
        waiting: list[float] = []
        epochs = cycle(range(self.recipe.training.epochs))

        def run() -> int:
            state = EpochState.create(device, loader.steps_per_epoch)
            for _ in run_epoch(self.learner, loader, self.recipe, next(epochs), lambda _: _LEARNING_RATE, state):
                pass
            waiting.append(epoch_row(self.learner, state)["waiting"])
            return state.n_images

        return _measure_rate(run, device, seconds, min_repeats=1), statistics.median(waiting)

    def measure_loading(self, loader: BatchLoader, seconds: float) -> float:
        """Measure batches that are rendered, copied to the device and dropped."""
        device = self.learner.fabric.device
        epochs = cycle(range(self.recipe.training.epochs))

        def run() -> int:
            end_time = time.perf_counter() + seconds
            n_images = 0
            for pixels, _ in prefetch(loader.train_batches(next(epochs)), device):
                n_images += len(pixels)
                if time.perf_counter() > end_time:
                    break
            return n_images

        return _measure_rate(run, device, seconds, min_repeats=1)


def _take_subset(loader: BatchLoader, n_images: float) -> BatchLoader:
    """Return a loader whose epoch shows about this many images, within limits and with all classes among them."""
    n_images = min(max(n_images, _MIN_BATCHES * loader.batch_size), _MAX_BATCHES * loader.batch_size)
    n_rows = round(n_images * len(loader.indices) / loader.epoch_size)
    rows = np.random.default_rng(0).permutation(len(loader.indices))
    first_of_class = np.unique(loader.labels[rows], return_index=True)[1]
    rows = np.concatenate([rows[first_of_class], np.delete(rows, first_of_class)])[: max(n_rows, len(first_of_class))]
    ids = tuple(loader.ids[row] for row in rows) if loader.ids else ()
    return replace(loader, indices=loader.indices[rows], labels=loader.labels[rows], ids=ids)


def compute_gflop_per_image(classifier: Classifier, recipe: Recipe) -> float:
    """Return the GFLOP of a training step for each image, forward and backward."""
    network = copy.deepcopy(classifier).to("meta").train()
    freeze_stages(network, recipe.training, 0)
    n_images = 2
    crop_size = recipe.views.crop_size
    pixels = torch.empty(n_images, crop_size, crop_size, 3, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(pixels).sum().backward()
    return counter.get_total_flops() / n_images / 1e9


def measure_matmul(device: torch.device, precision: str, seconds: float) -> float:
    """Measure the multiplication of square matrices, in GFLOP/s."""
    side = 8192 if device.type == "cuda" else 256
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    n_products = _STEPS_PER_SYNC[device.type]

    def run() -> int:
        for _ in range(n_products):
            torch.mm(matrix, matrix)
        return n_products

    rate = _measure_rate(run, device, 0)
    # Large matrices reach the full rate, but without bf16 instructions a product of them takes minutes on a CPU.
    while device.type == "cpu" and side < 2048 and rate > _SLOWEST_MATMUL_RATE:
        side *= 2
        matrix = torch.randn(side, side, dtype=dtype)
        rate = _measure_rate(run, device, 0)
    return 2 * side**3 / 1e9 * _measure_rate(run, device, seconds)


def _measure_rate(run: Callable[[], int], device: torch.device, seconds: float, min_repeats: int = 2) -> float:
    """Return how many items per second `run` processes: the median over all repeats within the seconds."""
    rates: list[float] = []
    end_time = time.perf_counter() + seconds
    while len(rates) < min_repeats or time.perf_counter() < end_time:
        start_time = time.perf_counter()
        n_items = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(n_items / (time.perf_counter() - start_time))
    return statistics.median(rates)
