"""Reject recipes that cannot train on their data and devices, before a run folder is created."""

import math

import numpy as np

from parfocal.data.loader import check_batch_covers_processes, check_batch_size, compute_samples_per_class
from parfocal.data.table import Table
from parfocal.engine.device import resolve_devices
from parfocal.errors import UsageError
from parfocal.models import resnet
from parfocal.recipe import Recipe


def validate_feasible(recipe: Recipe, table: Table) -> None:
    """Reject sampling factors that select no image, and a batch size too small for the processes or for batch norm."""
    config = recipe.training
    n_images = int(compute_samples_per_class(np.bincount(table.get_labels("train")), config, epoch=0).sum())
    if not n_images:
        factors = ", ".join(map(str, config.factors))
        raise UsageError(f"factors={factors} select no image of the training split. Choose larger factors.")
    n_processes = math.prod(resolve_devices(recipe.machine))
    check_batch_covers_processes(n_images, config.batch_size, n_processes)
    # Batch norm cannot train on a single value for each channel: one image whose last feature map is 1×1.
    architecture = resnet.resolve_architecture(recipe.network.model, stem=recipe.network.stem)
    final_map_is_1x1 = recipe.views.crop_size <= architecture.output_stride
    batch_norm_trains = config.freeze != "head" or config.unfreeze_every
    statistics_are_shared = config.sync_batchnorm and n_processes > 1
    if final_map_is_1x1 and batch_norm_trains and not statistics_are_shared:
        reason = (
            f"with crop_size={recipe.views.crop_size} the last feature map is 1×1, "
            "and batch norm then needs two images on each device"
        )
        check_batch_size(n_images, config.batch_size, 2 * n_processes, reason, "choose a larger crop_size")
