"""Second opinions on where a network looks: gradients at any stage (Grad-CAM), and blurring part after part."""

import cv2
import numpy as np
import torch
from torch import Tensor

from parfocal.errors import UsageError, nearest
from parfocal.model.classifier import Classifier

_CELLS = 8
_COVER = 1.5


def gradient_maps(network: Classifier, pixels: Tensor, stage: str = "") -> tuple[Tensor, Tensor]:
    """Return what the head says, and for each answer the features of a stage times the mean gradient of each.

    Maps are scaled by the number of places, so that at the last stage they are the class activation maps. Nothing is
    cut off below 0.
    """
    proper = network.network
    names = {name.replace("layer", "stage"): name for name in proper.stage_names}
    stage = stage or list(names)[-1]
    if stage not in names:
        raise UsageError(f"There is no {stage!r} in this network. {nearest(stage, names)}")
    at = proper.stage_names.index(names[stage]) + 1
    with torch.no_grad():
        features = proper.through(proper.stage_names[:at], proper.stem(network.normalise(pixels)))
        with torch.enable_grad():
            last = proper.through(proper.stage_names[at:], features.requires_grad_())
            outputs = proper.fc(proper.avgpool(last).flatten(1))
            totals = outputs.sum(dim=0)
            steps = [torch.autograd.grad(total, features, retain_graph=True)[0] for total in totals]
    weights = torch.stack([step.sum(dim=(2, 3)) for step in steps], dim=1)
    return outputs.detach(), torch.einsum("nfhw,naf->nahw", features.detach(), weights)


@torch.inference_mode()
def occlusion_maps(network: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the head says, and how much less it says where a square about each place is blurred away.

    Blurred, not painted over: a grey square on a black surround would itself be something to see.
    """
    proper = network.network
    outputs = proper(network.normalise(pixels))
    side = pixels.shape[1]
    blurred = torch.stack([_blurred(one, side / _CELLS) for one in pixels.cpu()]).to(pixels.device)
    edges = np.linspace(0, side, _CELLS + 1)
    reach = side / _CELLS * (_COVER - 1) / 2
    falls = torch.empty(*outputs.shape, _CELLS, _CELLS, device=outputs.device)
    for row in range(_CELLS):
        for column in range(_CELLS):
            down, across = (
                slice(max(0, round(edges[place] - reach)), round(edges[place + 1] + reach)) for place in (row, column)
            )
            covered = pixels.clone()
            covered[:, down, across] = blurred[:, down, across]
            falls[:, :, row, column] = outputs - proper(network.normalise(covered))
    return outputs, falls


def _blurred(picture: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(cv2.GaussianBlur(picture.numpy(), (0, 0), sigma, borderType=cv2.BORDER_REFLECT))
