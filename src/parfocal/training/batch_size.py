"""How many images make a step where a recipe leaves it to the device: `batch=auto`."""

import torch
from lightning_fabric import Fabric

from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.evaluation.inference import fabric_for, resident_bytes
from parfocal.model.classifier import SCALES, Scale, new_classifier
from parfocal.progress import say
from parfocal.recipe import Recipe
from parfocal.recipe import recipe as changed
from parfocal.training.epoch import Batch, train_step
from parfocal.training.learner import new_learner
from parfocal.training.losses import LINKS, loss_of, shown_counts

_ON_CPU = 32
_MOST, _MULTIPLE = 256, 8
# What is kept free: of other processes, of fragments, and of batches that are on their way.
_RESERVE = 0.15


def with_batch(recipe: Recipe, fabric: Fabric, table: Table) -> Recipe:
    """Return a recipe with a number of images a step: its own, or what the memory of the fabric's devices takes.

    What the card will keep of the `table`'s pixels has its room beside the steps.
    """
    if recipe.training.batch:
        return recipe
    if fabric.device.type == "cpu":
        return changed(recipe, batch=_ON_CPU)
    free, _ = torch.cuda.mem_get_info()
    pixels = pixels_kept(recipe, table, free)
    # On one device, for those of several cannot work before all their processes have started.
    alone = fabric_for(recipe.training.precision)
    few, more = (_peak(alone, changed(recipe, batch=count), count) for count in (_MULTIPLE, 2 * _MULTIPLE))
    batch = fitting(free * (1 - _RESERVE) - pixels, few, more)
    if not batch:
        beside = f" beside {pixels / 1e9:.1f} GB of pixels" if pixels else ""
        advice = "Choose a smaller crop or model" + (", or resident=0." if pixels else ".")
        raise ParfocalError(f"Not even {_MULTIPLE} images fit on the device{beside}. {advice}")
    say(f"batch={batch} is what the device takes, with {_RESERVE:.0%} of its memory in reserve.")
    return changed(recipe, batch=batch * fabric.world_size)


def pixels_kept(recipe: Recipe, table: Table, free: float) -> int:
    """Return how many bytes of pixels training keeps on a card with so much free memory."""
    # A last step of one's own is taken by the processor, and so are the pixels of train.
    splits = ["valid"] if recipe.views.also else ["train", "valid"]
    if recipe.training.test_curve and table.labelled("test"):
        splits.append("test")
    return sum(resident_bytes(len(table.positions(split)), recipe, free) for split in splits)


def fitting(memory: float, few: float, more: float) -> int:
    """Return how many images fit in so much memory, given what 8 and 16 of them need; 0 if 8 do not."""
    each = max(1.0, (more - few) / _MULTIPLE)
    count = int((memory - few) / each) + _MULTIPLE if memory >= few else 0
    return min(_MOST, count // _MULTIPLE * _MULTIPLE)


def _peak(fabric: Fabric, recipe: Recipe, count: int) -> float:
    """Return how much memory two steps with so many images take at most."""
    part, side = recipe.training, recipe.views.crop
    scale = None if recipe.network.normalise in SCALES else Scale((0.5,) * 3, (0.5,) * 3)
    classes = [str(number) for number in range(5)]
    classifier = new_classifier(recipe.network, classes, scale, LINKS.get(part.loss, "none"))
    learner = new_learner(fabric, classifier, recipe)
    labels = torch.arange(count, device=fabric.device) % len(classes)
    batch = Batch(torch.zeros(count, side, side, 3, dtype=torch.uint8, device=fabric.device), labels)
    loss = loss_of(part, shown_counts(labels.cpu().numpy(), len(classes), part, 0), classifier.link, fabric.device)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        train_step(learner, [batch], 1e-6, loss)
    if learner.pieces > 1:
        return float("inf")
    peak = torch.cuda.max_memory_allocated()
    del learner, classifier, batch
    torch.cuda.empty_cache()
    return float(peak)
