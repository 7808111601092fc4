"""Residual networks of every depth the documents use: one class, one table of architectures, one door (`build`).

Parameter names and shapes are the public ones (`conv1`, `bn1`, `layer1.0.conv1`, …, `fc`), so published weights load
key by key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from parfocal.errors import UsageError, did_you_mean

Stem = Literal["imagenet", "small"]
StrideIn = Literal["3x3", "1x1"]


@dataclass(frozen=True)
class Architecture:
    """The shape of one network: which block, how many in each stage, how wide."""

    block: Literal["basic", "bottleneck"]
    stages: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Stem = "imagenet"
    stride_in: StrideIn = "3x3"
    groups: int = 1
    width_per_group: int = 64
    shortcut: bool = True

    @property
    def output_stride(self) -> int:
        """How many pixels of the input the last map has one of, along a side."""
        return (4 if self.stem == "imagenet" else 1) * 2 ** (len(self.stages) - 1)


_SMALL = {"widths": (16, 32, 64), "stem": "small"}

ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture("basic", (2, 2, 2, 2)),
    "resnet34": Architecture("basic", (3, 4, 6, 3)),
    "resnet50": Architecture("bottleneck", (3, 4, 6, 3)),
    "resnet101": Architecture("bottleneck", (3, 4, 23, 3)),
    "resnet152": Architecture("bottleneck", (3, 8, 36, 3)),
    "resnext50_32x4d": Architecture("bottleneck", (3, 4, 6, 3), groups=32, width_per_group=4),
    "wide_resnet50_2": Architecture("bottleneck", (3, 4, 6, 3), width_per_group=128),
    "plain18": Architecture("basic", (2, 2, 2, 2), shortcut=False),
    "plain34": Architecture("basic", (3, 4, 6, 3), shortcut=False),
    "resnet20": Architecture("basic", (3, 3, 3), **_SMALL),
    "resnet56": Architecture("basic", (9, 9, 9), **_SMALL),
    "plain20": Architecture("basic", (3, 3, 3), shortcut=False, **_SMALL),
    "plain56": Architecture("basic", (9, 9, 9), shortcut=False, **_SMALL),
}


def build_resnet(
    name: str,
    n_classes: int,
    *,
    in_channels: int = 3,
    stem: Stem | None = None,
    stride_in: StrideIn = "3x3",
    groups: int | None = None,
    width_per_group: int | None = None,
    zero_init_residual: bool = False,
    dropout: float = 0.0,
) -> "ResNet":
    """Build the network called `name`, with fresh weights, for `classes` classes.

    `stem` is the 7×7/2 convolution with pooling (`imagenet`) or one 3×3/1 convolution (`small`, for images below about
    64 pixels). `stride_in` says which convolution of a bottleneck halves the resolution: the 3×3 (v1.5, as in published
    weights) or the first 1×1 (as in the original paper). `groups` and `width_per_group` override the table's.
    `zero_init_residual` starts every block as the identity. `dropout` acts on the pooled features before the head.
    """
    architecture = resolve_architecture(
        name, stem=stem, stride_in=stride_in, groups=groups, width_per_group=width_per_group
    )
    return ResNet(
        architecture, n_classes, in_channels=in_channels, zero_init_residual=zero_init_residual, dropout=dropout
    )


def resolve_architecture(
    name: str,
    *,
    stem: Stem | None = None,
    stride_in: StrideIn = "3x3",
    groups: int | None = None,
    width_per_group: int | None = None,
) -> Architecture:
    """Return the architecture called `name` with changes, as `build` takes them; refuse what cannot be built."""
    changes = {"stem": stem, "groups": groups, "width_per_group": width_per_group}
    given = {key: value for key, value in changes.items() if value is not None}
    shape = replace(get_architecture(name), stride_in=stride_in, **given)
    if shape.block == "basic" and (shape.groups != 1 or shape.width_per_group != 64):
        raise UsageError(
            f"groups and width_per_group need a network of bottleneck blocks, such as resnet50, not {name}."
        )
    return shape


def get_architecture(name: str) -> Architecture:
    """Return the architecture called `name`; an unknown name is an error that says the nearest."""
    if name not in ARCHITECTURES:
        raise UsageError(f"There is no network {name!r}. {did_you_mean(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, and the input added to their result."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, architecture: Architecture) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = architecture.shortcut
        self.downsample = _downsample(in_channels, width, stride) if architecture.shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """Give the block's features for the features `x`."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.shortcut:
            out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1×1 to fewer channels, 3×3, 1×1 to four times as many, and the input added to the result."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, architecture: Architecture) -> None:
        super().__init__()
        inner = width * architecture.width_per_group // 64 * architecture.groups
        outputs = width * self.expansion
        first, second = (stride, 1) if architecture.stride_in == "1x1" else (1, stride)
        self.conv1 = _convolution(in_channels, inner, 1, first)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _convolution(inner, inner, 3, second, architecture.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _convolution(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = architecture.shortcut
        self.downsample = _downsample(in_channels, outputs, stride) if architecture.shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """Give the block's features for the features `x`."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.shortcut:
            out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """A stem, stages of blocks, global average pooling and a linear head; made by `build`."""

    def __init__(
        self, architecture: Architecture, n_classes: int, *, in_channels: int, zero_init_residual: bool, dropout: float
    ) -> None:
        super().__init__()
        block = BasicBlock if architecture.block == "basic" else Bottleneck
        width = architecture.widths[0]
        self.conv1 = (
            nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
            if architecture.stem == "imagenet"
            else _convolution(in_channels, width, 3)
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if architecture.stem == "imagenet" else nn.Identity()
        self.stage_names = [f"layer{number}" for number in range(1, len(architecture.stages) + 1)]
        inputs = width
        for name, depth, width in zip(self.stage_names, architecture.stages, architecture.widths, strict=True):
            stride = 1 if name == "layer1" else 2
            blocks: list[nn.Module] = []
            for position in range(depth):
                blocks.append(block(inputs, width, stride if position == 0 else 1, architecture))
                inputs = width * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, n_classes)
        self.apply(_initialize)
        if zero_init_residual:
            self._zero_last_norms()

    def forward_features(self, x: Tensor) -> Tensor:
        """Give the last stage's feature map for normalised pixels (N, channels, H, W)."""
        return self.forward_stages(self.stage_names, self.forward_stem(x))

    def forward_stem(self, x: Tensor) -> Tensor:
        """Give what the first stage takes for normalised pixels (N, channels, H, W)."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def forward_stages(self, stages: Sequence[str], x: Tensor) -> Tensor:
        """Give the feature map behind some consecutive stages, for what the first of them takes."""
        for name in stages:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Give logits (N, classes) for normalised pixels (N, channels, H, W)."""
        pooled = torch.flatten(self.avgpool(self.forward_features(x)), 1)
        return self.fc(self.dropout(pooled))

    def _zero_last_norms(self) -> None:
        for module in self.modules():
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)


def _convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=False
    )


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
