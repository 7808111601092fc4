"""The classifier: a network with its normalization and class names, and the function that builds it.

It takes uint8 pixels, so training, evaluation, export and serving normalize images in the same way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from parfocal.errors import ParfocalError
from parfocal.manifest import file_exists
from parfocal.models.checkpoints import read_tensors, require_finite, write_tensors
from parfocal.models.ordinal import ORDINAL_HEADS, build_ordinal_head
from parfocal.models.resnet import build_resnet
from parfocal.models.whitening import PixelWhitening
from parfocal.recipe_schema import NetworkConfig
from parfocal.run_files import DamagedFileError
from parfocal.version import __version__

ORDINAL_HEAD_PREFIX = "ordinal_head."
"""The prefix of the weights of an ordinal head in a file."""

_WHITENING_PREFIX = "pixel_whitening."
"""The prefix of the mean and the matrix of ZCA whitening in a file."""

_GRAY_LEVEL = 1 / 255
"""The smallest standard deviation of an image that sample-wise normalization divides by."""


@dataclass(frozen=True)
class Normalization:
    """Input normalization on the 0–1 scale: subtract `mean`, divide by `std`, then multiply by the matrix `whiten`.

    With `per_sample`, the mean and the standard deviation of each image are used instead. `zca_mean` and `zca_matrix`
    whiten all pixels of a crop.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    whiten: tuple[tuple[float, ...], ...] | None = None
    per_sample: bool = False
    zca_mean: Tensor | None = None
    zca_matrix: Tensor | None = None


NORMALIZATIONS: dict[str, Normalization] = {
    "none": Normalization(),
    "half": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "sample": Normalization(per_sample=True),
}
"""The normalizations that do not depend on the training split, by name."""


def build_classifier(
    config: NetworkConfig,
    classes: Sequence[str],
    dataset_normalization: Normalization | None = None,
    loss: str = "cross_entropy",
) -> "Classifier":
    """Build the classifier of a recipe with random weights, and the ordinal head that its loss needs.

    `dataset_normalization` is measured on the training split, for recipes whose normalization depends on it.
    """
    normalization = dataset_normalization or NORMALIZATIONS[config.normalization]
    zca_mean, zca_matrix = normalization.zca_mean, normalization.zca_matrix
    classifier = Classifier(
        config.model,
        classes,
        mean=normalization.mean,
        std=normalization.std,
        whiten=normalization.whiten,
        per_sample=normalization.per_sample,
        zca_size=0 if zca_mean is None else math.isqrt(len(zca_mean) // 3),
        ordinal_head=loss if loss in ORDINAL_HEADS else "none",
        **get_network_options(config),
    )
    if classifier.pixel_whitening is not None:
        classifier.pixel_whitening.load_state_dict({"mean": zca_mean, "matrix": zca_matrix})
    return classifier


def get_network_options(config: NetworkConfig) -> dict[str, Any]:
    """Return the options of `build_resnet` that a recipe sets."""
    return config.model_dump(exclude={"model", "normalization", "init"})


class Classifier(nn.Module):
    """A residual network that takes uint8 pixels and returns a logit for each class.

    Pixels are (N, H, W, C) or (N, C, H, W); the last axis is checked first. `mean` and `std` have a value for each
    channel on the 0–1 scale, and `whiten` mixes the channels afterwards. `per_sample` normalizes each image by its own
    mean and standard deviation, over all channels. A `zca_size` above 0 is the side of crops whose pixels are whitened.
    With an ordinal head, `network` returns a score and the head turns it into logits. `metadata` is plain data that is
    saved with the weights.
    """

    mean: Tensor
    std: Tensor
    whiten: Tensor | None

    def __init__(
        self,
        model: str,
        classes: Sequence[str],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        whiten: Sequence[Sequence[float]] | None = None,
        per_sample: bool = False,
        zca_size: int = 0,
        ordinal_head: str = "none",
        **options: Any,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.metadata: dict[str, Any] = {
            "model": model,
            "classes": list(classes),
            "mean": list(mean),
            "std": list(std),
            "whiten": [list(row) for row in whiten] if whiten else None,
            "per_sample": per_sample,
            "zca_size": zca_size,
            "ordinal_head": ordinal_head,
            "options": options,
        }
        self.in_channels = len(mean)
        self.ordinal_head = build_ordinal_head(ordinal_head, len(self.classes))
        n_outputs = len(self.classes) if self.ordinal_head is None else 1
        self.network = build_resnet(model, n_outputs, in_channels=self.in_channels, **options)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255, persistent=False)
        kernel = torch.tensor([list(row) for row in whiten])[:, :, None, None] if whiten else None
        self.register_buffer("whiten", kernel, persistent=False)
        self.per_sample = per_sample
        self.pixel_whitening = PixelWhitening(zca_size) if zca_size else None

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels of either memory layout into the network's input (N, C, H, W) with mean 0 and std 1."""
        if pixels.shape[-1] == self.in_channels:
            pixels = pixels.permute(0, 3, 1, 2)
        elif pixels.shape[1] != self.in_channels:
            raise ValueError(f"Pixels must be (N, H, W, {self.in_channels}) or (N, {self.in_channels}, H, W).")
        scaled = (pixels.to(self.mean.dtype) - self.mean) / self.std
        if self.per_sample:
            return _standardize(scaled)
        if self.pixel_whitening is not None:
            return self.pixel_whitening(scaled)
        return scaled if self.whiten is None else nn.functional.conv2d(scaled, self.whiten)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute logits (N, classes) for uint8 pixels (N, H, W, C) or (N, C, H, W)."""
        outputs = self.network(self.normalize(pixels))
        return outputs if self.ordinal_head is None else self.ordinal_head(outputs)

    def named_weights(self) -> dict[str, Tensor]:
        """Return the weights (not copies) under torchvision's names; those of an ordinal head have a prefix."""
        head_weights = {} if self.ordinal_head is None else self.ordinal_head.state_dict(prefix=ORDINAL_HEAD_PREFIX)
        return {**self.network.state_dict(), **head_weights}

    def named_tensors(self) -> dict[str, Tensor]:
        """Return the weights and the whitening, if any: all tensors of a file of this classifier."""
        if self.pixel_whitening is None:
            return self.named_weights()
        return {**self.named_weights(), **self.pixel_whitening.state_dict(prefix=_WHITENING_PREFIX)}

    def save(self, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Write the weights under torchvision's names, with the classifier's metadata and the given metadata."""
        content = {**self.metadata, "version": __version__, **(metadata or {})}
        write_tensors(path, self.named_tensors(), content)

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read a classifier from a file written by `save`; nothing in the file can run code."""
        if not file_exists(Path(path)):
            raise ParfocalError(f"There are no weights at {path}. Has the run finished its first epoch?")
        weights, metadata = read_tensors(path)
        try:
            classifier = cls._from_tensors(weights, metadata)
        # Every value is from the file, and what a wrong value raises depends on where it is used first.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DamagedFileError(path, f"its tensors and metadata are no network ({reason})") from None
        require_finite(path, {**dict(classifier.named_parameters()), **dict(classifier.named_buffers())})
        return classifier

    @classmethod
    def _from_tensors(cls, weights: Mapping[str, Tensor], metadata: dict[str, Any]) -> "Classifier":
        _check_shapes(weights, metadata)
        classifier = cls(
            metadata["model"],
            metadata["classes"],
            mean=metadata["mean"],
            std=metadata["std"],
            whiten=metadata["whiten"],
            per_sample=metadata.get("per_sample", False),
            zca_size=metadata.get("zca_size", 0),
            ordinal_head=metadata.get("ordinal_head", "none"),
            **metadata["options"],
        )
        classifier.load_state_dict(
            {
                name if name.startswith((ORDINAL_HEAD_PREFIX, _WHITENING_PREFIX)) else f"network.{name}": weight
                for name, weight in weights.items()
            }
        )
        classifier.metadata = metadata
        return classifier


def _standardize(images: Tensor) -> Tensor:
    """Give each image (C, H, W) of a batch on the 0–1 scale mean 0 and standard deviation 1 over all its values."""
    centered = images - images.mean(dim=(1, 2, 3), keepdim=True)
    std = centered.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return centered / std.clamp(min=_GRAY_LEVEL)


def _check_shapes(weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Reject metadata that describe another network than the tensors of the file, which could be of any size.

    The network is built on the meta device, which takes no memory.
    """
    n_outputs = len(metadata["classes"]) if metadata.get("ordinal_head", "none") == "none" else 1
    with torch.device("meta"):
        network = build_resnet(metadata["model"], n_outputs, in_channels=len(metadata["mean"]), **metadata["options"])
        expected = network.state_dict()
        if zca_size := metadata.get("zca_size", 0):
            expected |= PixelWhitening(zca_size).state_dict(prefix=_WHITENING_PREFIX)
    for name, described in expected.items():
        if name not in weights or weights[name].shape != described.shape:
            shape = tuple(weights[name].shape) if name in weights else "missing"
            raise ValueError(f"{name} is {shape}, but {tuple(described.shape)} in the network that is described")
