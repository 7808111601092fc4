"""How many images make a step where a recipe leaves it to the device: `batch=auto`."""

import torch
from lightning_fabric import Fabric

from parfocal.data.table import Table
from parfocal.engine.batches import compute_resident_bytes
from parfocal.engine.device import build_fabric
from parfocal.errors import ParfocalError
from parfocal.models.classifier import NORMALIZATIONS, Normalization, build_classifier
from parfocal.progress import print_line
from parfocal.recipe import Recipe
from parfocal.recipe import load_recipe as changed
from parfocal.training.losses import LOSS_HEADS, build_loss, epoch_class_counts
from parfocal.training.step import Batch, build_learner, train_step

_CPU_BATCH_SIZE = 32
_MAX_BATCH_SIZE, _MULTIPLE = 256, 8
# What is kept free: of other processes, of fragments, and of batches that are on their way.
_MEMORY_RESERVE = 0.15


def resolve_batch_size(recipe: Recipe, fabric: Fabric, table: Table) -> Recipe:
    """Return a recipe with a number of images a step: its own, or what the memory of the fabric's devices takes.

    What the card will keep of the `table`'s pixels has its room beside the steps.
    """
    if recipe.training.batch_size:
        return recipe
    if fabric.device.type == "cpu":
        return changed(recipe, batch_size=_CPU_BATCH_SIZE)
    free, _ = torch.cuda.mem_get_info()
    pixels = resident_pixel_bytes(recipe, table, free)
    # On one device, for those of several cannot work before all their processes have started.
    alone = build_fabric(recipe.training.precision)
    few, more = (
        _measure_peak_memory(alone, changed(recipe, batch_size=count), count) for count in (_MULTIPLE, 2 * _MULTIPLE)
    )
    batch = largest_batch_size(free * (1 - _MEMORY_RESERVE) - pixels, few, more)
    if not batch:
        beside = f" beside {pixels / 1e9:.1f} GB of pixels" if pixels else ""
        advice = "Choose a smaller crop or model" + (", or gpu_cache=0." if pixels else ".")
        raise ParfocalError(f"Not even {_MULTIPLE} images fit on the device{beside}. {advice}")
    print_line(f"batch_size={batch} is what the device takes, with {_MEMORY_RESERVE:.0%} of its memory in reserve.")
    return changed(recipe, batch_size=batch * fabric.world_size)


def resident_pixel_bytes(recipe: Recipe, table: Table, free_memory: float) -> int:
    """Return how many bytes of pixels training keeps on a card with so much free memory."""
    # A last step of one's own is taken by the processor, and so are the pixels of train.
    splits = ["valid"] if recipe.views.custom_transform else ["train", "valid"]
    if recipe.training.test_curve and table.is_labeled("test"):
        splits.append("test")
    return sum(compute_resident_bytes(len(table.get_positions(split)), recipe, free_memory) for split in splits)


def largest_batch_size(memory: float, small_peak: float, large_peak: float) -> int:
    """Return how many images fit in so much memory, given what 8 and 16 of them need; 0 if 8 do not."""
    each = max(1.0, (large_peak - small_peak) / _MULTIPLE)
    count = int((memory - small_peak) / each) + _MULTIPLE if memory >= small_peak else 0
    return min(_MAX_BATCH_SIZE, count // _MULTIPLE * _MULTIPLE)


def _measure_peak_memory(fabric: Fabric, recipe: Recipe, batch_size: int) -> float:
    """Return how much memory two steps with so many images take at most."""
    part, side = recipe.training, recipe.views.crop_size
    scale = None if recipe.network.normalization in NORMALIZATIONS else Normalization((0.5,) * 3, (0.5,) * 3)
    classes = [str(number) for number in range(5)]
    classifier = build_classifier(recipe.network, classes, scale, LOSS_HEADS.get(part.loss, "none"))
    learner = build_learner(fabric, classifier, recipe)
    labels = torch.arange(batch_size, device=fabric.device) % len(classes)
    batch = Batch(torch.zeros(batch_size, side, side, 3, dtype=torch.uint8, device=fabric.device), labels)
    loss = build_loss(
        part, epoch_class_counts(labels.cpu().numpy(), len(classes), part, 0), classifier.ordinal_head, fabric.device
    )
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        train_step(learner, [batch], 1e-6, loss)
    if learner.n_micro_batches > 1:
        return float("inf")
    peak = torch.cuda.max_memory_allocated()
    del learner, classifier, batch
    torch.cuda.empty_cache()
    return float(peak)
