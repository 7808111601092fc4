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

from parfocal.data.batches import Batches, cores
from parfocal.errors import UsageError
from parfocal.evaluation.inference import ahead, batches_of, fabric_for
from parfocal.model.classifier import Classifier, new_classifier
from parfocal.progress import say
from parfocal.recipe import Recipe
from parfocal.recipe import recipe as find_recipe
from parfocal.training.batch_size import with_batch
from parfocal.training.doctor import Figures, Verdict, verdict
from parfocal.training.epoch import Batch, Tally, row_of, run_epoch, train_step
from parfocal.training.learner import Learner, begin_epoch, new_learner
from parfocal.training.losses import LINKS
from parfocal.training.possible import require_possible
from parfocal.training.runs import prepare_data
from parfocal.training.scale import measured_scale
from parfocal.training.stages import hold, require_stage

# How the seconds are spent: rendering, with all steps and with geometry alone; the step; both; matrices.
_LOADING, _BARE, _STEP, _TOGETHER, _MATRICES = 0.15, 0.1, 0.3, 0.35, 0.1
# Batches of the epochs that are measured.
_FEWEST, _MOST = 2, 128
# A learning rate at which nothing blows up.
_RATE = 1e-6
# Steps, or products of matrices, between two looks at the clock: a card is given work ahead, as training does.
_QUEUED = {"cpu": 1, "cuda": 16}
# Views drawn with geometry alone.
_BARE_VIEWS = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "grey": 0, "erase": 0, "also": ""}


def bench(
    data: Path | str, recipe: str | Path | Recipe | None = None, *, seconds: float = 30, **changes: Any
) -> Verdict:
    """Measure training on a data set, for about so many seconds beside preparing it, and say what holds it up.

    Nothing is written but the Store. A step that is slow is taken all the same: twice, at least, on each occasion.
    """
    if not seconds > 0:
        raise UsageError(f"seconds={seconds:g} leaves no time to measure in.")
    chosen = find_recipe(recipe, **changes)
    require_stage(chosen)
    prepared = prepare_data(data, chosen)
    chosen = with_batch(chosen, fabric_for(chosen.training.precision), prepared.table)
    require_possible(chosen, prepared.table)
    batches = batches_of("train", prepared.table, prepared.store, chosen)
    scale, link = measured_scale(chosen.network, batches), LINKS.get(chosen.training.loss, "none")
    classifier = new_classifier(chosen.network, prepared.table.classes, scale, link)
    return verdict(_measured(batches, classifier, chosen, seconds), chosen)


def _measured(batches: Batches, classifier: Classifier, recipe: Recipe, seconds: float) -> Figures:
    fabric = fabric_for(recipe.training.precision)
    precision = "bf16" if "bf16" in fabric._precision.precision else "float32"
    work = work_of(classifier, recipe)
    loop = _Loop(new_learner(fabric, classifier, recipe), recipe)
    say("Measuring the step alone …")
    before = loop.step(batches, _STEP * seconds / 2)
    card = fabric.device.type == "cuda"
    used = torch.cuda.max_memory_reserved() / 1e9 if card else 0.0
    pixels = len(batches.places) * recipe.images.size**2 * 3 / 1e9
    say("Measuring both together …")
    some = _some(batches, before * _TOGETHER * seconds)
    together, waiting = loop.together(some, _TOGETHER * seconds)
    # Half before and half after, so that a machine that has slowed down or speeded up is fair to both.
    step = (before + loop.step(batches, _STEP * seconds / 2)) / 2
    say("Measuring loading alone …")
    loading = loop.loading(some, _LOADING * seconds)
    bare = some.views.model_copy(update=_BARE_VIEWS)
    plain = loading if bare == some.views else loop.loading(replace(some, views=bare), _BARE * seconds)
    say("Measuring matrices …")
    rates = {name: matrix_rate(fabric.device, name, _MATRICES * seconds / 2) for name in ("float32", "bf16")}
    return Figures(
        device=fabric.device.type,
        cores=cores(),
        precision=precision,
        resident=batches.resident is not None,
        loading=loading,
        bare_loading=plain,
        step=step,
        together=together,
        waiting=waiting,
        work=work,
        matrix=rates,
        pixels=pixels,
        memory=_memory(),
        card_memory=torch.cuda.mem_get_info()[1] / 1e9 if card else 0.0,
        card_used=used + pixels if batches.resident else used,
        pieces=loop.learner.pieces,
    )


@dataclass
class _Loop:
    """What the trainer trains with, measured in its parts."""

    learner: Learner
    recipe: Recipe

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.learner.fabric.device

    def step(self, batches: Batches, seconds: float) -> float:
        """Return images a second of the training step on a batch that lies ready."""
        device = self.device
        pixels, labels = next(iter(replace(batches, resident=None).epoch(0)))
        batch = Batch(pixels.to(device), labels.to(device))
        begin_epoch(self.learner, self.recipe, 0)

        def run() -> int:
            for _ in range(_QUEUED[device.type]):
                train_step(self.learner, [batch], _RATE)
            return len(batch) * _QUEUED[device.type]

        # The first steps choose algorithms and find memory.
        _rate(run, device, 0)
        return _rate(run, device, seconds)

    def together(self, batches: Batches, seconds: float) -> tuple[float, float]:
        """Return images a second of the trainer's own epoch, and the share of it that is waiting."""
        waits: list[float] = []
        epochs = self._epochs()

        def run() -> int:
            tally = Tally.fresh(self.device, batches.steps)
            for _ in run_epoch(self.learner, batches, self.recipe, next(epochs), lambda _: _RATE, tally):
                pass
            waits.append(row_of(self.learner, tally)["waiting"])
            return tally.images

        return _rate(run, self.device, seconds, least=1), statistics.median(waits)

    def loading(self, batches: Batches, seconds: float) -> float:
        """Return images a second of batches that are rendered, brought to the device and dropped."""
        epochs = self._epochs()

        def run() -> int:
            ends, images = time.perf_counter() + seconds, 0
            for pixels, _ in ahead(batches.epoch(next(epochs)), self.device):
                images += len(pixels)
                if time.perf_counter() > ends:
                    break
            return images

        return _rate(run, self.device, seconds, least=1)

    def _epochs(self) -> Iterator[int]:
        return cycle(range(self.recipe.training.epochs))


def _some(batches: Batches, images: float) -> Batches:
    """Return batches of about so many of the images to be shown, bounded both ways, with all classes among them."""
    bounded = min(max(images, _FEWEST * batches.batch), _MOST * batches.batch)
    wanted = round(bounded * len(batches.places) / batches.shown)
    rows = np.random.default_rng(0).permutation(len(batches.places))
    first = np.unique(batches.labels[rows], return_index=True)[1]
    rows = np.concatenate([rows[first], np.delete(rows, first)])[: max(wanted, len(first))]
    names = tuple(batches.names[row] for row in rows) if batches.names else ()
    return replace(batches, places=batches.places[rows], labels=batches.labels[rows], names=names)


def work_of(classifier: Classifier, recipe: Recipe) -> float:
    """Return what the network computes for an image in a training step, there and back, in GFLOP."""
    network = copy.deepcopy(classifier).to("meta").train()
    hold(network, recipe.training, 0)
    side, images = recipe.views.crop, 2
    pixels = torch.empty(images, side, side, 3, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counted:
        network(pixels).sum().backward()
    return counted.get_total_flops() / images / 1e9


def matrix_rate(device: torch.device, precision: str, seconds: float) -> float:
    """Return how fast square matrices multiply, in GFLOP/s."""
    side = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)

    def run() -> int:
        for _ in range(_QUEUED[device.type]):
            torch.mm(matrix, matrix)
        return _QUEUED[device.type]

    _rate(run, device, 0)
    return 2 * side**3 / 1e9 * _rate(run, device, seconds)


def _memory() -> float:
    """Return how much memory the machine has, in GB; 0 where it does not say."""
    if not hasattr(os, "sysconf"):
        return 0.0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def _rate(run: Callable[[], int], device: torch.device, seconds: float, least: int = 2) -> float:
    """Return how many a second `run` gets through, the device's queue emptied: the median over the times that fit."""
    rates: list[float] = []
    ends = time.perf_counter() + seconds
    while len(rates) < least or time.perf_counter() < ends:
        started = time.perf_counter()
        done = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(done / (time.perf_counter() - started))
    return statistics.median(rates)
