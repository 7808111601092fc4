"""Class activation maps (CAM): how much each cell of an image contributes to the logit of each class.

The head is linear and sees the mean of the features over all cells. A logit is therefore the mean of its map plus the
bias: the map is an exact decomposition of the output, not an estimate. Grad-CAM and occlusion maps check it by other
methods.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor

from parfocal.data.decode import Pixels
from parfocal.engine.device import to_channels_last
from parfocal.errors import UsageError, did_you_mean
from parfocal.models.classifier import Classifier
from parfocal.progress import show_progress

METHODS = ("cam", "gradcam", "occlusion")

SCORE = "score"
"""Name of the only map of an ordinal network, which outputs a single score for all grades."""

_BATCH_SIZE = 32
_GRID_SIZE = 8
# Side of the blurred patch, in cells of the grid: neighboring patches overlap.
_PATCH_SCALE = 1.5


@dataclass(frozen=True)
class ClassMaps:
    """The maps of images by a network.

    `names` are the classes, or only `score` if the network outputs a score, where a higher score means a higher grade.
    `values` is (images, names, rows, columns), `outputs` of the linear head is (images, names), and its `bias` is
    (names). With `cam`, the mean of `values` over rows and columns plus `bias` equals `outputs`. `pixels` is what the
    network saw, (images, side, side, 3).
    """

    names: tuple[str, ...]
    values: np.ndarray
    outputs: np.ndarray
    bias: np.ndarray
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.values)

    @property
    def evidence(self) -> np.ndarray:
        """The evidence for each class against the others, (images, names, rows, columns): show these maps.

        A value that all classes share does not change any probability, so the mean over the classes is subtracted. A
        score has no other class and stays as it is: positive for higher grades, negative for lower grades.
        """
        return self.values if self.names == (SCORE,) else self.values - self.values.mean(axis=1, keepdims=True)

    def for_labels(self, labels: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the evidence for a label per image, (images, rows, columns); for a score, its only map."""
        columns = np.zeros(len(self), dtype=int) if self.names == (SCORE,) else np.asarray(labels, dtype=int)
        return self.evidence[np.arange(len(self)), columns]


@torch.inference_mode(False)
def compute_class_maps(classifier: Classifier, pixels: Pixels, method: str = "cam", stage: str = "") -> ClassMaps:
    """Compute the maps of images as the network sees them: uint8, (images, side, side, 3).

    `cam` is exact and takes one forward pass. `gradcam` works at any stage (the maps of `stage3` are finer than those
    of the last stage). `occlusion` measures how much each output drops when a patch of the image is blurred.
    """
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}. {did_you_mean(method, METHODS)}")
    if stage and method != "gradcam":
        raise UsageError(f"stage={stage} is for gradcam; {method} has no choice of stage.")
    classifier = to_channels_last(classifier).eval()
    device = classifier.mean.device
    names = classifier.classes if classifier.ordinal_head is None else (SCORE,)
    outputs = [np.empty((0, len(names)), np.float32)]
    values: list[np.ndarray] = []
    with show_progress("Explaining", len(pixels)) as advance:
        for start in range(0, len(pixels), _BATCH_SIZE):
            batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + _BATCH_SIZE])).to(device)
            if method == "cam":
                batch_outputs, batch_maps = _compute_cam(classifier, batch)
            elif method == "gradcam":
                batch_outputs, batch_maps = _compute_gradcam_maps(classifier, batch, stage)
            else:
                batch_outputs, batch_maps = _compute_occlusion_maps(classifier, batch)
            outputs.append(batch_outputs.float().cpu().numpy())
            values.append(batch_maps.float().cpu().numpy())
            advance(len(batch))
    return ClassMaps(
        names,
        np.concatenate(values) if values else np.empty((0, len(names), 1, 1), np.float32),
        np.concatenate(outputs),
        classifier.network.fc.bias.detach().float().cpu().numpy(),
        pixels,
    )


@torch.inference_mode()
def _compute_cam(classifier: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs of the linear head and the exact maps."""
    features = classifier.network.forward_features(classifier.normalize(pixels))
    head = classifier.network.fc
    maps = torch.einsum("nfhw,cf->nchw", features, head.weight)
    return maps.mean(dim=(2, 3)) + head.bias, maps


def _compute_gradcam_maps(classifier: Classifier, pixels: Tensor, stage: str = "") -> tuple[Tensor, Tensor]:
    """Return the outputs of the head, and for each output the features of a stage weighted by their mean gradients.

    Maps are multiplied by the number of cells, so that those of the last stage equal the class activation maps.
    Negative values are kept (there is no ReLU).
    """
    network = classifier.network
    names = {name.replace("layer", "stage"): name for name in network.stage_names}
    stage = stage or list(names)[-1]
    if stage not in names:
        raise UsageError(f"There is no {stage!r} in this network. {did_you_mean(stage, names)}")
    n_stages = network.stage_names.index(names[stage]) + 1
    with torch.no_grad():
        stem = network.forward_stem(classifier.normalize(pixels))
        features = network.forward_stages(network.stage_names[:n_stages], stem)
        with torch.enable_grad():
            last = network.forward_stages(network.stage_names[n_stages:], features.requires_grad_())
            outputs = network.fc(network.avgpool(last).flatten(1))
            totals = outputs.sum(dim=0)
            gradients = [torch.autograd.grad(total, features, retain_graph=True)[0] for total in totals]
    weights = torch.stack([gradient.sum(dim=(2, 3)) for gradient in gradients], dim=1)
    return outputs.detach(), torch.einsum("nfhw,ncf->nchw", features.detach(), weights)


@torch.inference_mode()
def _compute_occlusion_maps(classifier: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs of the head, and how much each drops when a patch around each cell is blurred.

    Patches are blurred, not painted over: a gray patch on a black background would itself be a visible object.
    """
    network = classifier.network
    outputs = network(classifier.normalize(pixels))
    side = pixels.shape[1]
    sigma = side / _GRID_SIZE
    images = [cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for image in pixels.cpu().numpy()]
    blurred = torch.from_numpy(np.stack(images)).to(pixels.device)
    edges = np.linspace(0, side, _GRID_SIZE + 1)
    overlap = side / _GRID_SIZE * (_PATCH_SCALE - 1) / 2
    spans = [slice(max(0, round(start - overlap)), round(end + overlap)) for start, end in pairwise(edges)]
    drops = torch.empty(*outputs.shape, _GRID_SIZE, _GRID_SIZE, device=outputs.device)
    for row, height in enumerate(spans):
        for column, width in enumerate(spans):
            occluded = pixels.clone()
            occluded[:, height, width] = blurred[:, height, width]
            drops[:, :, row, column] = outputs - network(classifier.normalize(occluded))
    return outputs, drops
