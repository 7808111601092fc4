"""A network together with all it needs to read an image: mean, standard deviation and class names.

It takes uint8 pixels, so training, evaluation, export and serving cannot disagree about preprocessing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import parfocal
from parfocal.errors import ParfocalError
from parfocal.models import resnet
from parfocal.models.checkpoints import read_tensors, write_tensors
from parfocal.models.ordinal import OrdinalHeadName, build_ordinal_head
from parfocal.schema import NetworkConfig

NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of the pixels, by the recipe's word for them."""

ORDINAL_HEAD_PREFIX = "link."
"""Before the names of a link's weights."""


@dataclass(frozen=True)
class Normalization:
    """How pixels, in the 0–1 scale, become what a network takes: less `mean`, over `std`, then mixed by `whiten`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    whiten: tuple[tuple[float, ...], ...] | None = None


def build_classifier(
    config: NetworkConfig,
    classes: Sequence[str],
    dataset_normalization: Normalization | None = None,
    ordinal_head: OrdinalHeadName = "none",
) -> "Classifier":
    """Build the network a recipe describes, with fresh weights; `measured` is the scale of its own training pixels."""
    scale = dataset_normalization or Normalization(*NORMALIZATIONS[config.normalization])
    options = config.model_dump(exclude={"model", "normalization", "init"})
    return Classifier(
        config.model, classes, mean=scale.mean, std=scale.std, whiten=scale.whiten, ordinal_head=ordinal_head, **options
    )


class Classifier(nn.Module):
    """A residual network that takes uint8 pixels and gives one logit for each class.

    `pixels` are (N, H, W, C), as images lie in memory, or (N, C, H, W); the last axis is looked at first. `mean` and
    `std` are in the 0–1 scale of the pixels, one for each channel; `whiten`, if any, mixes the channels after. With a
    `link` the network proper gives one score, which the link turns into the logits. `about` is plain data that travels
    with the weights.
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
        ordinal_head: OrdinalHeadName = "none",
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
            "ordinal_head": ordinal_head,
            "options": options,
        }
        self.in_channels = len(mean)
        self.ordinal_head = build_ordinal_head(ordinal_head, len(self.classes))
        outputs = len(self.classes) if self.ordinal_head is None else 1
        self.network = resnet.build_resnet(model, outputs, in_channels=self.in_channels, **options)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255, persistent=False)
        mix = torch.tensor([list(row) for row in whiten])[:, :, None, None] if whiten else None
        self.register_buffer("whiten", mix, persistent=False)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels in either layout into what the network proper takes: (N, C, H, W), mean 0, deviation 1."""
        if pixels.shape[-1] == self.in_channels:
            pixels = pixels.permute(0, 3, 1, 2)
        elif pixels.shape[1] != self.in_channels:
            raise ValueError(f"Pixels must be (N, H, W, {self.in_channels}) or (N, {self.in_channels}, H, W).")
        scaled = (pixels.to(self.mean.dtype) - self.mean) / self.std
        return scaled if self.whiten is None else nn.functional.conv2d(scaled, self.whiten)

    def forward(self, pixels: Tensor) -> Tensor:
        """Give logits (N, classes) for uint8 pixels (N, H, W, C) or (N, C, H, W)."""
        outputs = self.network(self.normalize(pixels))
        return outputs if self.ordinal_head is None else self.ordinal_head(outputs)

    def named_weights(self) -> dict[str, Tensor]:
        """Return the weights themselves, not copies, under their public names; those of the link begin with `link.`."""
        linked = {} if self.ordinal_head is None else self.ordinal_head.state_dict(prefix=ORDINAL_HEAD_PREFIX)
        return {**self.network.state_dict(), **linked}

    def save(self, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Write the weights under their public names; `about` and the class names go into the file's metadata."""
        content = {**self.metadata, "version": parfocal.__version__, **(metadata or {})}
        write_tensors(path, self.named_weights(), content)

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read a classifier from a file written by `save`; nothing in it can run code."""
        if not Path(path).is_file():
            raise ParfocalError(f"There are no weights at {path}. Has the run finished its first epoch?")
        state, content = read_tensors(path)
        classifier = cls(
            content["model"],
            content["classes"],
            mean=content["mean"],
            std=content["std"],
            whiten=content["whiten"],
            ordinal_head=content.get("ordinal_head", "none"),
            **content["options"],
        )
        linked = {
            key.removeprefix(ORDINAL_HEAD_PREFIX): state.pop(key)
            for key in list(state)
            if key.startswith(ORDINAL_HEAD_PREFIX)
        }
        classifier.network.load_state_dict(state)
        if classifier.ordinal_head is not None:
            classifier.ordinal_head.load_state_dict(linked)
        classifier.metadata = content
        return classifier
