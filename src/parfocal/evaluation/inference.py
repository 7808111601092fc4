"""Inference: from pixels to class probabilities, for validation, evaluation, prediction and serving."""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from parfocal.engine.device import build_memory_error, resolve_precision, retry_out_of_memory
from parfocal.evaluation.predictions import Predictions
from parfocal.models.classifier import Classifier
from parfocal.progress import print_line, print_warning, show_progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MAX_BATCH_SIZES: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""The largest batch size of each network that has run out of memory."""


def predict_split(
    fabric: "Fabric",
    network: nn.Module,
    table: Table,
    split: str,
    batches: BatchLoader,
    views: Sequence[int] | None = None,
    crop_size: int | None = None,
) -> Predictions:
    """Return the predictions for a split, averaged over all TTA views or those of these numbers.

    Each process predicts its share of the rows.
    """
    views = tta_views(batches.views_config) if views is None else views
    rows = batches.rank_rows()
    with show_progress(f"Evaluating {split}", len(rows) * len(views)) as advance:

        def read_pixels(view: int) -> Iterator[Tensor]:
            for pixels, _ in batches.eval_batches(view, crop_size):
                yield pixels
                advance(len(pixels))

        rank_probabilities = np.mean(
            [predict_probabilities(fabric, network, read_pixels(view)) for view in views], axis=0
        )
    shape = (len(batches.indices), len(table.classes))
    probabilities = gather_rows(fabric, rank_probabilities, rows, shape)
    return Predictions.from_table(table, split, probabilities)


def predict_probabilities(fabric: "Fabric", network: nn.Module, batches: Iterable[Tensor]) -> np.ndarray:
    """Return a row of class probabilities per image, in the order of the batches of pixels.

    If memory runs out, the batch size of this network is halved from then on.
    """

    def predict(pixels: Tensor) -> Tensor:
        return torch.softmax(network(pixels).float(), dim=1)

    return compute_rows(fabric, network, predict, batches)


def gather_rows(fabric: "Fabric", values: np.ndarray, rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return an array of this shape; each process has the `values` of its `rows`, and gets those of the others."""
    gathered = np.zeros(shape)
    if len(rows):
        gathered[rows] = values
    if fabric.world_size == 1:
        return gathered
    # Each row is filled by a single process and 0 in all others, so the sum is the whole.
    total = fabric.all_reduce(torch.from_numpy(gathered).to(fabric.device), reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.cpu().numpy()


@torch.inference_mode()
def compute_rows(
    fabric: "Fabric", network: nn.Module, compute: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> np.ndarray:
    """Return the rows that `compute` returns for batches of pixels, with the network in evaluation mode.

    If memory runs out, the batch size of this network is halved from then on.
    """
    network.eval()
    with fabric.autocast():
        rows = [_compute_batch(network, compute, pixels, fabric.device) for pixels in batches]
    return torch.cat(rows).cpu().double().numpy() if rows else np.empty((0, 0))


def _compute_batch(
    network: nn.Module, compute: Callable[[Tensor], Tensor], pixels: Tensor, device: torch.device
) -> Tensor:
    def get_batch_size() -> int:
        return min(_MAX_BATCH_SIZES.get(network, len(pixels)), len(pixels))

    def compute_chunks() -> Tensor:
        chunks = (chunk.to(device, non_blocking=True) for chunk in pixels.split(get_batch_size()))
        return torch.cat([compute(chunk) for chunk in chunks])

    def halve_batch_size() -> None:
        batch_size = get_batch_size()
        if batch_size == 1:
            raise build_memory_error()
        if network not in _MAX_BATCH_SIZES:
            print_line(f"Memory ran out with a batch size of {batch_size}: it is halved for inference.")
        _MAX_BATCH_SIZES[network] = batch_size // 2

    return retry_out_of_memory(compute_chunks, halve_batch_size, device)


def build_predict_function(
    fabric: "Fabric", network: Classifier, image_size: int, precision: str, *, long_lived: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the fastest function from uint8 pixels (N, image_size, image_size, 3) to class probabilities.

    On a CPU it uses OpenVINO if that is installed, otherwise PyTorch; on a GPU PyTorch, with a compiled network if it
    is `long_lived`. N is free, and any thread may call the function.
    """
    if fabric.device.type == "cpu" and is_openvino_available():
        return OpenVinoNetwork(
            convert_to_openvino(nn.Sequential(network, nn.Softmax(dim=1)), image_size), resolve_precision(precision)
        )
    # Compilation takes a minute, which is too long for a few images.
    compiled = compile_network(fabric, network, image_size) if long_lived and fabric.device.type == "cuda" else network

    def predict(pixels: np.ndarray) -> np.ndarray:
        return predict_probabilities(fabric, compiled, torch.from_numpy(pixels).split(EVALUATION_BATCH_SIZE))

    return predict


def compile_network(fabric: "Fabric", network: nn.Module, image_size: int) -> nn.Module:
    """Compile a network with `torch.compile` for any batch size; if that fails, warn and return it uncompiled."""
    compiled = cast(nn.Module, torch.compile(network, dynamic=True))
    try:
        predict_probabilities(fabric, compiled, [torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)])
    except Exception as error:  # A compiler can fail with any exception.
        print_warning(f"PyTorch cannot compile the network ({type(error).__name__}). It runs uncompiled.")
        return network
    return compiled
