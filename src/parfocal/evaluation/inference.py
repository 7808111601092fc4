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

from parfocal.data.batches import BatchLoader
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.data.views import tta_views
from parfocal.errors import ParfocalError
from parfocal.evaluation.predictions import Predictions
from parfocal.memory import keep_freed_memory
from parfocal.model.classifier import Classifier
from parfocal.model.compiled import OpenVinoNetwork, Precision, convert_to_openvino, is_openvino_available
from parfocal.parts import MachineConfig
from parfocal.progress import print_line, show_progress
from parfocal.recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EVALUATION_BATCH_SIZE = 64

_MAX_BATCH_SIZES: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""How many images at once go through a network for which memory ran out."""


def build_fabric(precision: str, machine: MachineConfig | None = None) -> "Fabric":
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
    devices, nodes = resolve_devices(machine) if machine else (1, 1)
    # Preparing data may take the first process hours, for which the others wait.
    ddp = machine is not None and (devices * nodes > 1 or machine.strategy == "ddp")
    strategy = DDPStrategy(timeout=timedelta(days=7)) if ddp else "auto"
    plain = "bf16-mixed" if resolve_precision(precision) == "bf16" else "32-true"
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=plain)


def resolve_precision(precision: str) -> Precision:
    """Return what networks compute in here, where a recipe says `auto`, `bf16` or `float32`."""
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    return "bf16" if precision == "bf16" or (precision == "auto" and _has_bf16(accelerator)) else "float32"


def resolve_devices(machine: MachineConfig) -> tuple[int, int]:
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


def to_channels_last(classifier: Classifier) -> Classifier:
    """Lay the weights out as the fastest convolutions want them."""
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_batches(
    split: str, table: Table, store: Store, recipe: Recipe, fabric: "Fabric | None" = None
) -> BatchLoader:
    """Return the batches of a split, as the recipe has them looked at; each process of an engine has its share."""
    size = recipe.training.batch if split == "train" else EVALUATION_BATCH_SIZE
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


def predict_split(fabric: "Fabric", network: nn.Module, table: Table, split: str, batches: BatchLoader) -> Predictions:
    """Return what a network says about every image of a split; of several processes each answers for its share."""
    several, own = tta_views(batches.views_config), batches.rank_rows()
    with show_progress(f"Judging {split}", len(own) * len(several)) as done:

        def seen(look: int) -> Iterator[Tensor]:
            for pixels, _ in batches.eval_batches(look):
                yield pixels
                done(len(pixels))

        answers = np.mean([predict_probabilities(fabric, network, seen(look)) for look in several], axis=0)
    whole = np.zeros((len(batches.indices), len(table.classes)))
    whole[own] = answers
    if fabric.world_size > 1:
        # Each row comes from one process, and all others add 0 to it.
        summed = fabric.all_reduce(torch.from_numpy(whole).to(fabric.device), reduce_op="sum")
        assert isinstance(summed, Tensor)
        whole = summed.cpu().numpy()
    return Predictions.from_table(table, split, whole)


@torch.inference_mode()
def predict_probabilities(fabric: "Fabric", network: nn.Module, batches: Iterable[Tensor]) -> np.ndarray:
    """Return one row of class probabilities for each image, in the order of the batches of pixels.

    Where memory runs out, the network is given half as many images at once, from then on.
    """
    network.eval()
    with fabric.autocast():
        rows = [_predict_batch(network, pixels, fabric.device) for pixels in batches]
    return torch.cat(rows).cpu().double().numpy() if rows else np.empty((0, 0))


def _predict_batch(network: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    while True:
        few = min(_MAX_BATCH_SIZES.get(network, len(pixels)), len(pixels))
        try:
            parts = (part.to(device, non_blocking=True) for part in pixels.split(few))
            return torch.cat([torch.softmax(network(part).float(), dim=1) for part in parts])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside the `except`, so that the failed pass and all it holds is gone.
        _halve_batch_size(network, few, device)


def _halve_batch_size(network: nn.Module, batch_size: int, device: torch.device) -> None:
    if batch_size == 1:
        raise build_memory_error()
    if network not in _MAX_BATCH_SIZES:
        print_line(f"Memory ran out with {batch_size} images: they are judged fewer at a time.")
    _MAX_BATCH_SIZES[network] = batch_size // 2
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether it is memory that a network ran out of."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def build_memory_error() -> ParfocalError:
    """Return the error of a network that cannot take a single image."""
    return ParfocalError("Memory ran out with one image at a time. Choose a smaller crop or model.")


def build_predict_function(
    fabric: "Fabric", network: Classifier, image_size: int, precision: str, *, long_lived: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns uint8 pixels (N, side, side, 3) into probabilities, as fast as it can be done here.

    On a CPU this is OpenVINO, where it is installed; elsewhere PyTorch, which on a graphics card compiles a network
    whose use is `lasting`. Any number of images, from any thread.
    """
    if fabric.device.type == "cpu" and is_openvino_available():
        return OpenVinoNetwork(
            convert_to_openvino(nn.Sequential(network, nn.Softmax(dim=1)), image_size), resolve_precision(precision)
        )
    # It takes a minute: too long for a handful of images.
    best = compile_network(fabric, network, image_size) if long_lived and fabric.device.type == "cuda" else network

    def rows(pixels: np.ndarray) -> np.ndarray:
        return predict_probabilities(fabric, best, torch.from_numpy(pixels).split(EVALUATION_BATCH_SIZE))

    return rows


def compile_network(fabric: "Fabric", network: nn.Module, image_size: int) -> nn.Module:
    """Return a network as PyTorch compiles it for any number of images; where it cannot, say so, and as it is."""
    best = cast(nn.Module, torch.compile(network, dynamic=True))
    try:
        predict_probabilities(fabric, best, [torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)])
    except Exception as error:  # whatever a compiler lacks
        print_line(f"Warning: PyTorch cannot compile the network here ({type(error).__name__}); it answers uncompiled.")
        return network
    return best


def _find_resident_device(n_images: int, recipe: Recipe) -> torch.device | None:
    """Return the graphics card if there is one and the pixels fit in the recipe's share of its free memory."""
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    return torch.device("cuda") if compute_resident_bytes(n_images, recipe, free) else None


def compute_resident_bytes(n_images: int, recipe: Recipe, free_bytes: float) -> int:
    """Return what the pixels of a split take of a card's free memory: 0 where they do not fit in the recipe's share."""
    taken = n_images * recipe.images.size**2 * 3
    return taken if taken < recipe.machine.resident * free_bytes else 0


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
