"""Find the batch size that the GPU memory allows, for `batch_size=auto`."""

import torch
from lightning_fabric import Fabric

from parfocal.data.table import Table
from parfocal.engine.batches import compute_resident_bytes
from parfocal.engine.device import build_fabric
from parfocal.errors import ParfocalError
from parfocal.models.classifier import NORMALIZATIONS, build_classifier
from parfocal.progress import print_line
from parfocal.recipe import Recipe, load_recipe
from parfocal.training.losses import build_loss, epoch_class_counts
from parfocal.training.step import Batch, build_learner, train_step

_CPU_BATCH_SIZE = 32
_MAX_BATCH_SIZE = 256
_MULTIPLE = 8
# Share of the memory that stays free for other processes, for fragmentation and for prefetched batches.
_MEMORY_RESERVE = 0.15


def resolve_batch_size(recipe: Recipe, fabric: Fabric, table: Table) -> Recipe:
    """Return the recipe with its batch size; replace `auto` by the largest that fits on each device of the fabric.

    The pixels of the `table` that stay in GPU memory are taken into account.
    """
    if recipe.training.batch_size:
        return recipe
    if fabric.device.type == "cpu":
        return load_recipe(recipe, batch_size=_CPU_BATCH_SIZE)
    free_memory, _ = torch.cuda.mem_get_info()
    pixel_bytes = resident_pixel_bytes(recipe, table, free_memory)
    # Measure on a single device: a distributed fabric works only after all its processes have started.
    single_fabric = build_fabric(recipe.training.precision)
    small_peak = _measure_peak_memory(single_fabric, load_recipe(recipe, batch_size=_MULTIPLE))
    large_peak = _measure_peak_memory(single_fabric, load_recipe(recipe, batch_size=2 * _MULTIPLE))
    batch_size = largest_batch_size(free_memory * (1 - _MEMORY_RESERVE) - pixel_bytes, small_peak, large_peak)
    if not batch_size:
        cached = f" in addition to {pixel_bytes / 1e9:.1f} GB of cached pixels" if pixel_bytes else ""
        remedy = "Choose a smaller crop_size or model" + (", or gpu_cache=0." if pixel_bytes else ".")
        raise ParfocalError(f"Not even {_MULTIPLE} images fit on the device{cached}. {remedy}")
    print_line(f"batch_size={batch_size} fits on the device with {_MEMORY_RESERVE:.0%} of its memory in reserve.")
    return load_recipe(recipe, batch_size=batch_size * fabric.world_size)


def resident_pixel_bytes(recipe: Recipe, table: Table, free_memory: float) -> int:
    """Return how many bytes of pixels training keeps in GPU memory, given the free memory."""
    # With a custom_transform the CPU renders the training batches, so their pixels are not cached on the GPU.
    splits = ["valid"] if recipe.views.custom_transform else ["train", "valid"]
    if recipe.training.test_curve and table.is_labeled("test"):
        splits.append("test")
    return sum(compute_resident_bytes(len(table.get_positions(split)), recipe, free_memory) for split in splits)


def largest_batch_size(memory: float, small_peak: float, large_peak: float) -> int:
    """Return the largest batch size that fits, given the peak memory of 8 and 16 images; 0 if 8 do not fit."""
    if memory < small_peak:
        return 0
    bytes_per_image = max(1.0, (large_peak - small_peak) / _MULTIPLE)
    n_images = int((memory - small_peak) / bytes_per_image) + _MULTIPLE
    return min(_MAX_BATCH_SIZE, n_images // _MULTIPLE * _MULTIPLE)


def _measure_peak_memory(fabric: Fabric, recipe: Recipe) -> float:
    """Return the peak memory of two training steps; infinity if the batch does not fit at once."""
    config = recipe.training
    crop_size = recipe.views.crop_size
    classes = [str(label) for label in range(5)]
    # A normalization that is measured on the images takes hardly more memory than this one.
    normalization = NORMALIZATIONS.get(recipe.network.normalization, NORMALIZATIONS["half"])
    classifier = build_classifier(recipe.network, classes, normalization, config.loss)
    learner = build_learner(fabric, classifier, recipe)
    labels = torch.arange(config.batch_size, device=fabric.device) % len(classes)
    pixels = torch.zeros(config.batch_size, crop_size, crop_size, 3, dtype=torch.uint8, device=fabric.device)
    batch = Batch(pixels, labels)
    class_counts = epoch_class_counts(labels.cpu().numpy(), len(classes), config, 0)
    loss_fn = build_loss(config, class_counts, classifier.ordinal_head, fabric.device)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        train_step(learner, [batch], 1e-6, loss_fn)
    if learner.n_micro_batches > 1:
        return float("inf")
    peak = torch.cuda.max_memory_allocated()
    del learner, classifier, batch, pixels
    torch.cuda.empty_cache()
    return float(peak)
