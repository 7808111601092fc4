"""From pixels to probabilities: the same few lines serve validation, evaluation and prediction.

Fabric takes as long to import as PyTorch, so that it waits until a network is to be run.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from parfocal.data.loader import BatchLoader
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EVALUATION_BATCH_SIZE = 64


def build_batches(
    split: str, table: Table, store: Store, recipe: Recipe, fabric: "Fabric | None" = None
) -> BatchLoader:
    """Return the batches of a split, as the recipe has them looked at; each process of an engine has its share."""
    size = recipe.training.batch_size if split == "train" else EVALUATION_BATCH_SIZE
    places = store.get_positions(table)[table.get_positions(split)]
    resident = _find_resident_device(len(places), recipe)
    return BatchLoader(
        store.pixels,
        places,
        table.get_labels(split),
        recipe.views,
        recipe.training,
        size,
        seed=recipe.seed,
        rank=fabric.global_rank if fabric else 0,
        world_size=fabric.world_size if fabric else 1,
        device=resident,
        ids=tuple(table.rows["id"].iloc[table.get_positions(split)]),
    )


def _find_resident_device(n_images: int, recipe: Recipe) -> torch.device | None:
    """Return the graphics card if there is one and the pixels fit in the recipe's share of its free memory."""
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    return torch.device("cuda") if compute_resident_bytes(n_images, recipe, free) else None


def compute_resident_bytes(n_images: int, recipe: Recipe, free_bytes: float) -> int:
    """Return what the pixels of a split take of a card's free memory: 0 where they do not fit in the recipe's share."""
    taken = n_images * recipe.images.size**2 * 3
    return taken if taken < recipe.machine.gpu_cache * free_bytes else 0


def prefetch(batches: Iterator[tuple[Tensor, Tensor]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches on the device, each copied from pinned memory while the one before is worked on."""
    if device.type == "cpu":
        yield from batches
        return
    waiting: tuple[Tensor, Tensor] | None = None
    for pixels, labels in batches:
        pinned = [one if one.device.type != "cpu" else one.pin_memory() for one in (pixels, labels)]
        following = (pinned[0].to(device, non_blocking=True), pinned[1].to(device, non_blocking=True))
        if waiting is not None:
            yield waiting
        waiting = following
    if waiting is not None:
        yield waiting
