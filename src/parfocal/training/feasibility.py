"""What a recipe, its rows and its processes show to be impossible only together: refused before a run is begun."""

import math

import numpy as np

from parfocal.data.loader import (
    check_batch_covers_processes,
    check_batch_size,
    compute_samples_per_class,
    smallest_batch_size,
)
from parfocal.data.table import Table
from parfocal.engine.device import resolve_devices
from parfocal.errors import UsageError
from parfocal.models import resnet
from parfocal.recipe import Recipe


def validate_feasible(recipe: Recipe, table: Table) -> None:
    """Refuse a recipe that cannot train on a table's rows: its factors, or a batch too small for processes or norms."""
    part = recipe.training
    images = int(compute_samples_per_class(np.bincount(table.get_labels("train")), part, epoch=0).sum())
    if not images:
        raise UsageError(f"factors={', '.join(map(str, part.factors))} show no image of train. Choose larger ones.")
    processes = math.prod(resolve_devices(recipe.machine))
    check_batch_covers_processes(images, part.batch_size, processes)
    norms_learn = part.freeze != "head" or part.unfreeze_every
    shared = part.sync_batchnorm and processes > 1
    if (
        smallest_batch_size(images, part.batch_size) < 2 * processes
        and norms_learn
        and not shared
        and _final_map_is_1x1(recipe)
    ):
        why = f"with crop_size={recipe.views.crop_size} the last map is 1×1, of which batch norm needs two images on each device"
        check_batch_size(images, part.batch_size, 2 * processes, why, "choose a larger crop")


def _final_map_is_1x1(recipe: Recipe) -> bool:
    return (
        recipe.views.crop_size
        <= resnet.resolve_architecture(recipe.network.model, stem=recipe.network.stem).output_stride
    )
