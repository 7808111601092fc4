"""From pixels to probabilities: the same few lines serve validation, evaluation and prediction.

Fabric takes as long to import as PyTorch, so that it waits until a network is to be run.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from parfocal.data.augment import tta_views
from parfocal.data.loader import BatchLoader
from parfocal.data.table import Table
from parfocal.engine.batches import EVALUATION_BATCH_SIZE
from parfocal.engine.compiled import OpenVinoNetwork, convert_to_openvino, is_openvino_available
from parfocal.engine.device import build_memory_error, is_out_of_memory, resolve_precision
from parfocal.evaluation.predictions import Predictions
from parfocal.models.classifier import Classifier
from parfocal.progress import print_line, show_progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MAX_BATCH_SIZES: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""How many images at once go through a network for which memory ran out."""


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
