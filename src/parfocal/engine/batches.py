"""Batches of a split for training or evaluation, pixels cached in GPU memory, and prefetch to the device."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from parfocal.data.custom_transform import CustomTransform
from parfocal.data.loader import BatchLoader, find_kept_class
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EVALUATION_BATCH_SIZE = 64


def build_batches(
    split: str,
    table: Table,
    store: Store,
    recipe: Recipe,
    fabric: "Fabric | None" = None,
    custom_transform: CustomTransform | None = None,
) -> BatchLoader:
    """Return the batches of a split with the crops and augmentations of a recipe; each process has its share."""
    rows = table.get_positions(split)
    positions = table.find_positions_in(store.index)[rows]
    cache_device = None
    if torch.cuda.is_available():
        free_bytes, _ = torch.cuda.mem_get_info()
        if compute_resident_bytes(len(positions), recipe, free_bytes):
            cache_device = torch.device("cuda")
    return BatchLoader(
        store.pixels,
        positions,
        table.get_labels(split),
        recipe.views,
        recipe.training,
        recipe.training.batch_size if split == "train" else EVALUATION_BATCH_SIZE,
        seed=recipe.seed,
        rank=fabric.global_rank if fabric else 0,
        world_size=fabric.world_size if fabric else 1,
        device=cache_device,
        ids=tuple(table.rows["id"].iloc[rows]),
        custom_transform=custom_transform,
        kept_class=find_kept_class(recipe.training, table.codes, table.classes),
    )


def compute_resident_bytes(n_images: int, recipe: Recipe, free_bytes: float) -> int:
    """Return the bytes of a split's pixels in GPU memory; 0 if they exceed the recipe's share of the free memory."""
    n_bytes = n_images * recipe.images.size**2 * 3
    return n_bytes if n_bytes < recipe.machine.gpu_cache * free_bytes else 0


def prefetch(batches: Iterator[tuple[Tensor, Tensor]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches on the device; each is copied from pinned memory while the batch before it is used."""
    if device.type == "cpu":
        yield from batches
        return
    previous: tuple[Tensor, Tensor] | None = None
    for pixels, labels in batches:
        batch = (_copy_from_pinned(pixels, device), _copy_from_pinned(labels, device))
        if previous is not None:
            yield previous
        previous = batch
    if previous is not None:
        yield previous


def _copy_from_pinned(tensor: Tensor, device: torch.device) -> Tensor:
    pinned = tensor.pin_memory() if tensor.device.type == "cpu" else tensor
    return pinned.to(device, non_blocking=True)
