"""Class activation maps (CAM): how much each cell of an image contributes to the logit of each class.

The head is linear and sees the mean of the features over all cells. A logit is therefore the mean of its map plus the
bias: the map is an exact decomposition of the output, not an estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from parfocal.data.decode import Pixels
from parfocal.engine.device import to_channels_last
from parfocal.errors import UsageError, did_you_mean
from parfocal.explainability.gradcam import compute_gradcam_maps, compute_occlusion_maps
from parfocal.explainability.images import load_eval_images
from parfocal.models.classifier import Classifier
from parfocal.progress import show_progress
from parfocal.run import Run

Method = Literal["cam", "gradcam", "occlusion"]
METHODS: tuple[Method, ...] = ("cam", "gradcam", "occlusion")

SCORE = "score"
"""Name of the only map of an ordinal network, which outputs one score for all grades."""

_BATCH_SIZE = 32


@dataclass(frozen=True)
class ClassMaps:
    """The maps of several images by one network.

    `names` are the classes, or only `score` if the network outputs one score, where a higher score means a higher
    grade. `values` is (images, names, rows, columns), `outputs` of the linear head is (images, names), and its `bias`
    is (names). If the maps are `exact`, the mean of `values` over rows and columns plus `bias` equals `outputs`.
    `pixels` is what the network saw, (images, side, side, 3). `unreadable` maps ids to the reason.
    """

    names: tuple[str, ...]
    values: np.ndarray
    outputs: np.ndarray
    bias: np.ndarray
    pixels: Pixels
    exact: bool = True
    ids: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def subset(self, rows: Sequence[int]) -> "ClassMaps":
        """Return the maps of some of the images."""
        index = np.asarray(rows, dtype=int)
        return replace(
            self,
            values=self.values[index],
            outputs=self.outputs[index],
            pixels=self.pixels[index],
            ids=tuple(self.ids[row] for row in rows) if self.ids else (),
        )

    @property
    def evidence(self) -> np.ndarray:
        """The evidence for each class against the others, (images, names, rows, columns): show these maps.

        A value that all classes share does not change any probability, so the mean over the classes is subtracted. A
        score has no other class and stays as it is: positive for higher grades, negative for lower grades.
        """
        return self.values if self.names == (SCORE,) else self.values - self.values.mean(axis=1, keepdims=True)

    def for_labels(self, labels: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the evidence for one class per image, (images, rows, columns); for a score, its only map."""
        columns = np.zeros(len(self), dtype=int) if self.names == (SCORE,) else np.asarray(labels, dtype=int)
        return self.evidence[np.arange(len(self)), columns]


@torch.inference_mode(False)
def compute_class_maps(classifier: Classifier, pixels: Pixels, method: str = "cam", stage: str = "") -> ClassMaps:
    """Compute the maps of images as the network sees them: uint8, (images, side, side, 3).

    `cam` is exact and costs one forward pass. `gradcam` works at any stage (the maps of `stage3` are finer than those
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
            batch_outputs, batch_maps = _compute_batch_maps(classifier, batch, method, stage)
            outputs.append(batch_outputs.float().cpu().numpy())
            values.append(batch_maps.float().cpu().numpy())
            advance(len(batch))
    return ClassMaps(
        names,
        np.concatenate(values) if values else np.empty((0, len(names), 1, 1), np.float32),
        np.concatenate(outputs),
        classifier.network.fc.bias.detach().float().cpu().numpy(),
        pixels,
        exact=method == "cam",
    )


def _compute_batch_maps(classifier: Classifier, pixels: Tensor, method: str, stage: str) -> tuple[Tensor, Tensor]:
    """Return the outputs of the linear head and the maps of a batch."""
    if method == "gradcam":
        return compute_gradcam_maps(classifier, pixels, stage)
    if method == "occlusion":
        return compute_occlusion_maps(classifier, pixels)
    with torch.inference_mode():
        features = classifier.network.forward_features(classifier.normalize(pixels))
        head = classifier.network.fc
        maps = torch.einsum("nfhw,cf->nchw", features, head.weight)
        return maps.mean(dim=(2, 3)) + head.bias, maps


def compute_split_maps(
    run: Run, ids: Sequence[str], split: str = "test", method: str = "cam", stage: str = ""
) -> ClassMaps:
    """Compute the maps of some images of a run's split.

    An unknown split or id is an error. Unreadable images are left out and listed in `unreadable`.
    """
    classifier = Classifier.load(run.weights_path)
    images = load_eval_images(run, split, ids)
    maps = compute_class_maps(classifier, images.pixels, method, stage)
    return replace(maps, ids=images.ids, unreadable=images.unreadable)
