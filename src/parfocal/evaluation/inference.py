"""From pixels to probabilities: the same few lines serve validation, evaluation and prediction.

Fabric takes as long to import as PyTorch, so that it waits until a network is to be run.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from parfocal.data.batches import Batches
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.data.views import looks
from parfocal.errors import ParfocalError
from parfocal.evaluation.predictions import Predictions
from parfocal.memory import keep_freed_memory
from parfocal.model.classifier import Classifier
from parfocal.model.compiled import Compiled, Numbers, can_compile, converted
from parfocal.parts import MachinePart
from parfocal.progress import progress, say
from parfocal.recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EVALUATION_BATCH = 64

_TAKES: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""How many images at once go through a network for which memory ran out."""


def fabric_for(precision: str, machine: MachinePart | None = None) -> "Fabric":
    """Return the engine that runs networks here: the best device there is, in `auto`, `bf16` or `float32`.

    With a recipe's `machine` it is the engine for training, which may have several devices.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    # Fabric announces precision and devices on every start; the run folder holds both.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cpu":
        keep_freed_memory()
    devices, nodes = started(machine) if machine else (1, 1)
    # Preparing data may take the first process hours, for which the others wait.
    ddp = machine is not None and (devices * nodes > 1 or machine.strategy == "ddp")
    strategy = DDPStrategy(timeout=timedelta(days=7)) if ddp else "auto"
    plain = "bf16-mixed" if numbers_for(precision) == "bf16" else "32-true"
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=plain)


def numbers_for(precision: str) -> Numbers:
    """Return what networks compute in here, where a recipe says `auto`, `bf16` or `float32`."""
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    return "bf16" if precision == "bf16" or (precision == "auto" and _has_bf16(accelerator)) else "float32"


def started(machine: MachinePart) -> tuple[int, int]:
    """Return how many devices on how many machines a recipe asks for, or else torchrun or SLURM have started."""
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    several, nodes = 1, 1
    if TorchElasticEnvironment.detect():
        several = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // several
    elif SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        several = int(os.environ["SLURM_NTASKS"]) // nodes
    return machine.devices or several, machine.nodes or nodes


def ready(classifier: Classifier) -> Classifier:
    """Lay the weights out as the fastest convolutions want them."""
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def batches_of(split: str, table: Table, store: Store, recipe: Recipe, fabric: "Fabric | None" = None) -> Batches:
    """Return the batches of a split, as the recipe has them looked at; each process of an engine has its share."""
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
        rank=fabric.global_rank if fabric else 0,
        ranks=fabric.world_size if fabric else 1,
        resident=resident,
        names=tuple(table.rows["id"].iloc[table.positions(split)]),
    )


def predict_split(fabric: "Fabric", network: nn.Module, table: Table, split: str, batches: Batches) -> Predictions:
    """Return what a network says about every image of a split; of several processes each answers for its share."""
    several, own = looks(batches.views), batches.own_rows()
    with progress(f"Judging {split}", len(own) * len(several)) as done:

        def seen(look: int) -> Iterator[Tensor]:
            for pixels, _ in batches.evaluation(look):
                yield pixels
                done(len(pixels))

        answers = np.mean([probabilities(fabric, network, seen(look)) for look in several], axis=0)
    whole = np.zeros((len(batches.places), len(table.classes)))
    whole[own] = answers
    if fabric.world_size > 1:
        # Each row comes from one process, and all others add 0 to it.
        summed = fabric.all_reduce(torch.from_numpy(whole).to(fabric.device), reduce_op="sum")
        assert isinstance(summed, Tensor)
        whole = summed.cpu().numpy()
    return Predictions.of(table, split, whole)


@torch.inference_mode()
def probabilities(fabric: "Fabric", network: nn.Module, batches: Iterable[Tensor]) -> np.ndarray:
    """Return one row of class probabilities for each image, in the order of the batches of pixels.

    Where memory runs out, the network is given half as many images at once, from then on.
    """
    network.eval()
    with fabric.autocast():
        rows = [_judged(network, pixels, fabric.device) for pixels in batches]
    return torch.cat(rows).cpu().double().numpy() if rows else np.empty((0, 0))


def _judged(network: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    while True:
        few = min(_TAKES.get(network, len(pixels)), len(pixels))
        try:
            parts = (part.to(device, non_blocking=True) for part in pixels.split(few))
            return torch.cat([torch.softmax(network(part).float(), dim=1) for part in parts])
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        # Outside the `except`, so that the failed pass and all it holds is gone.
        _take_half(network, few, device)


def _take_half(network: nn.Module, few: int, device: torch.device) -> None:
    if few == 1:
        raise not_even_one()
    if network not in _TAKES:
        say(f"Memory ran out with {few} images: they are judged fewer at a time.")
    _TAKES[network] = few // 2
    if device.type == "cuda":
        torch.cuda.empty_cache()


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether it is memory that a network ran out of."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def not_even_one() -> ParfocalError:
    """Return the error of a network that cannot take a single image."""
    return ParfocalError("Memory ran out with one image at a time. Choose a smaller crop or model.")


def answerer(
    fabric: "Fabric", network: Classifier, side: int, precision: str, *, lasting: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns uint8 pixels (N, side, side, 3) into probabilities, as fast as it can be done here.

    On a CPU this is OpenVINO, where it is installed; elsewhere PyTorch, which on a graphics card compiles a network
    whose use is `lasting`. Any number of images, from any thread.
    """
    if fabric.device.type == "cpu" and can_compile():
        return Compiled(converted(nn.Sequential(network, nn.Softmax(dim=1)), side), numbers_for(precision))
    # It takes a minute: too long for a handful of images.
    best = compiled(fabric, network, side) if lasting and fabric.device.type == "cuda" else network

    def rows(pixels: np.ndarray) -> np.ndarray:
        return probabilities(fabric, best, torch.from_numpy(pixels).split(EVALUATION_BATCH))

    return rows


def compiled(fabric: "Fabric", network: nn.Module, side: int) -> nn.Module:
    """Return a network as PyTorch compiles it for any number of images; where it cannot, say so, and as it is."""
    best = cast(nn.Module, torch.compile(network, dynamic=True))
    try:
        probabilities(fabric, best, [torch.zeros(2, side, side, 3, dtype=torch.uint8)])
    except Exception as error:  # whatever a compiler lacks
        say(f"Warning: PyTorch cannot compile the network here ({type(error).__name__}); it answers uncompiled.")
        return network
    return best


def _resident(images: int, recipe: Recipe) -> torch.device | None:
    """Return the graphics card if there is one and the pixels fit in the recipe's share of its free memory."""
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    return torch.device("cuda") if resident_bytes(images, recipe, free) else None


def resident_bytes(images: int, recipe: Recipe, free: float) -> int:
    """Return what the pixels of a split take of a card's free memory: 0 where they do not fit in the recipe's share."""
    taken = images * recipe.images.size**2 * 3
    return taken if taken < recipe.machine.resident * free else 0


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
    """Return whether bf16 runs in hardware. Emulated bf16 is slower than float32.

    PARFOCAL_CPU=avx2 makes a newer processor behave like one without bf16 instructions.
    """
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if os.environ.get("PARFOCAL_CPU") == "avx2":
        return False
    known = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(supported() for supported in known if supported is not None)
