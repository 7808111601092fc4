"""What a recipe, its rows and its processes show to be impossible only together: refused before a run is begun."""

import math

import numpy as np

from parfocal.data.batches import require_images, require_shares, smallest_of
from parfocal.data.sampling import shown
from parfocal.data.table import Table
from parfocal.errors import UsageError
from parfocal.evaluation.inference import started
from parfocal.model import resnet
from parfocal.recipe import Recipe


def require_possible(recipe: Recipe, table: Table) -> None:
    """Refuse a recipe that cannot train on a table's rows: its factors, or a batch too small for processes or norms."""
    part = recipe.training
    images = int(shown(np.bincount(table.labels("train")), part, epoch=0).sum())
    if not images:
        raise UsageError(f"factors={', '.join(map(str, part.factors))} show no image of train. Choose larger ones.")
    processes = math.prod(started(recipe.machine))
    require_shares(images, part.batch, processes)
    norms_learn = part.freeze != "head" or part.unfreeze
    shared = part.sync_norm and processes > 1
    if smallest_of(images, part.batch) < 2 * processes and norms_learn and not shared and _last_map_is_a_pixel(recipe):
        why = f"with crop={recipe.views.crop} the last map is 1×1, of which batch norm needs two images on each device"
        require_images(images, part.batch, 2 * processes, why, "choose a larger crop")


def _last_map_is_a_pixel(recipe: Recipe) -> bool:
    return recipe.views.crop <= resnet.shape_of(recipe.network.model, stem=recipe.network.stem).reduction
