"""Grad-CAM at any stage, and occlusion maps: a check of the class activation maps by another method."""

from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor

from parfocal.errors import UsageError, did_you_mean
from parfocal.models.classifier import Classifier

_GRID_SIZE = 8
# Side of the blurred patch, in cells of the grid: neighboring patches overlap.
_PATCH_SCALE = 1.5


def compute_gradcam_maps(classifier: Classifier, pixels: Tensor, stage: str = "") -> tuple[Tensor, Tensor]:
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
def compute_occlusion_maps(classifier: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs of the head, and how much each drops when a patch around each cell is blurred.

    Patches are blurred, not painted over: a gray patch on a black background would itself be a visible object.
    """
    network = classifier.network
    outputs = network(classifier.normalize(pixels))
    side = pixels.shape[1]
    blurred = torch.stack([_blur(image, side / _GRID_SIZE) for image in pixels.cpu()]).to(pixels.device)
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


def _blur(image: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(cv2.GaussianBlur(image.numpy(), (0, 0), sigma, borderType=cv2.BORDER_REFLECT))
