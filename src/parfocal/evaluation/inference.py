"""From pixels to probabilities: the same few lines serve validation, evaluation and prediction."""

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from parfocal.data.batches import Batches
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.data.views import looks
from parfocal.evaluation.predictions import Predictions
from parfocal.memory import keep_freed_memory
from parfocal.model.classifier import Classifier
from parfocal.progress import progress
from parfocal.recipe import Recipe

EVALUATION_BATCH = 64

# Fabric announces precision and devices on every start; the run folder holds both.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def fabric_for(precision: str) -> Fabric:
    """Return the engine that runs networks here: the best device there is, in `auto`, `bf16` or `float32`."""
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cpu":
        keep_freed_memory()
    bf16 = precision == "bf16" or (precision == "auto" and _has_bf16(accelerator))
    return Fabric(accelerator=accelerator, devices=1, precision="bf16-mixed" if bf16 else "32-true")


def ready(classifier: Classifier) -> Classifier:
    """Lay the weights out as the fastest convolutions want them."""
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def batches_of(split: str, table: Table, store: Store, recipe: Recipe) -> Batches:
    """Return the batches of a split, as the recipe has them looked at."""
    size = recipe.training.batch if split == "train" else EVALUATION_BATCH
    places = store.places(table)[table.positions(split)]
    resident = _resident(len(places), recipe)
    return Batches(
        store.pixels,
        places,
        table.labels(split),
        recipe.views,
        recipe.training,
        size,
        seed=recipe.seed,
        resident=resident,
        names=tuple(table.rows["id"].iloc[table.positions(split)]),
    )


def predict_split(
    fabric: Fabric, network: nn.Module, table: Table, store: Store, recipe: Recipe, split: str
) -> Predictions:
    """Return what a network set up by the engine says about every image of a split."""
    batches, several = batches_of(split, table, store, recipe), looks(recipe.views)
    with progress(f"Judging {split}", len(batches.places) * len(several)) as done:

        def seen(look: int) -> Iterator[Tensor]:
            for pixels, _ in batches.evaluation(look):
                yield pixels
                done(len(pixels))

        answers = [probabilities(network, seen(look), fabric.device) for look in several]
        return Predictions.of(table, split, np.mean(answers, axis=0))


@torch.inference_mode()
def probabilities(network: nn.Module, batches: Iterable[Tensor], device: torch.device) -> np.ndarray:
    """Return one row of class probabilities for each image, in the order of the batches of pixels."""
    network.eval()
    rows = [torch.softmax(network(pixels.to(device, non_blocking=True)).float(), dim=1) for pixels in batches]
    return torch.cat(rows).cpu().double().numpy()


def _resident(images: int, recipe: Recipe) -> torch.device | None:
    """Return the graphics card if there is one and the pixels fit in the recipe's share of its free memory."""
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    return torch.device("cuda") if images * recipe.images.size**2 * 3 < recipe.training.resident * free else None


def ahead(batches: Iterator[tuple[Tensor, Tensor]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
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


def _has_bf16(accelerator: str) -> bool:
    """Whether bf16 runs in hardware: where it is emulated it is slower than float32."""
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(supported() for supported in known if supported is not None)
