"""Second opinions on where a network looks: gradients at any stage (Grad-CAM), and blurring part after part."""

import cv2
import numpy as np
import torch
from torch import Tensor

from parfocal.errors import UsageError, did_you_mean
from parfocal.models.classifier import Classifier

_GRID_SIZE = 8
_PATCH_SCALE = 1.5


def compute_gradcam_maps(network: Classifier, pixels: Tensor, stage: str = "") -> tuple[Tensor, Tensor]:
    """Return what the head says, and for each answer the features of a stage times the mean gradient of each.

    Maps are scaled by the number of places, so that at the last stage they are the class activation maps. Nothing is
    cut off below 0.
    """
    proper = network.network
    names = {name.replace("layer", "stage"): name for name in proper.stage_names}
    stage = stage or list(names)[-1]
    if stage not in names:
        raise UsageError(f"There is no {stage!r} in this network. {did_you_mean(stage, names)}")
    at = proper.stage_names.index(names[stage]) + 1
    with torch.no_grad():
        features = proper.forward_stages(proper.stage_names[:at], proper.forward_stem(network.normalize(pixels)))
        with torch.enable_grad():
            last = proper.forward_stages(proper.stage_names[at:], features.requires_grad_())
            outputs = proper.fc(proper.avgpool(last).flatten(1))
            totals = outputs.sum(dim=0)
            steps = [torch.autograd.grad(total, features, retain_graph=True)[0] for total in totals]
    weights = torch.stack([step.sum(dim=(2, 3)) for step in steps], dim=1)
    return outputs.detach(), torch.einsum("nfhw,naf->nahw", features.detach(), weights)


@torch.inference_mode()
def compute_occlusion_maps(network: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the head says, and how much less it says where a square about each place is blurred away.

    Blurred, not painted over: a grey square on a black surround would itself be something to see.
    """
    proper = network.network
    outputs = proper(network.normalize(pixels))
    side = pixels.shape[1]
    blurred = torch.stack([_blur(one, side / _GRID_SIZE) for one in pixels.cpu()]).to(pixels.device)
    edges = np.linspace(0, side, _GRID_SIZE + 1)
    reach = side / _GRID_SIZE * (_PATCH_SCALE - 1) / 2
    falls = torch.empty(*outputs.shape, _GRID_SIZE, _GRID_SIZE, device=outputs.device)
    for row in range(_GRID_SIZE):
        for column in range(_GRID_SIZE):
            down, across = (
                slice(max(0, round(edges[place] - reach)), round(edges[place + 1] + reach)) for place in (row, column)
            )
            covered = pixels.clone()
            covered[:, down, across] = blurred[:, down, across]
            falls[:, :, row, column] = outputs - proper(network.normalize(covered))
    return outputs, falls


def _blur(image: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(cv2.GaussianBlur(image.numpy(), (0, 0), sigma, borderType=cv2.BORDER_REFLECT))
