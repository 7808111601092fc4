"""Residual networks (ResNet, ResNeXt, Wide ResNet) and plain networks; `build_resnet` creates them.

Parameter names and shapes are those of torchvision (`conv1`, `bn1`, `layer1.0.conv1`, …, `fc`), so its pretrained
weights load key by key.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parfocal.models.architectures import Architecture, InitScheme, Stem, StrideIn, resolve_architecture


def build_resnet(
    name: str,
    n_classes: int,
    *,
    in_channels: int = 3,
    stem: Stem | None = None,
    stride_in: StrideIn = "3x3",
    groups: int | None = None,
    width_per_group: int | None = None,
    conv_bias: bool = False,
    init_scheme: InitScheme = "kaiming",
    zero_init_residual: bool = False,
    dropout: float = 0.0,
) -> "ResNet":
    """Build a network from the table `ARCHITECTURES`, with random weights.

    `stem` is the 7×7 convolution with stride 2 and max pooling (`imagenet`), or a 3×3 convolution (`small`, for
    images below about 64 pixels). `stride_in` is the convolution of a bottleneck that has the stride: the 3×3 (v1.5, as
    in torchvision), or the first 1×1 (as in the paper). With `second`, it is the second convolution of a basic block
    too, instead of the first. `groups` and `width_per_group` override the table. `conv_bias` gives every convolution a
    bias, which the batch norm after it makes redundant.

    `init_scheme` draws the weights of the convolutions: `kaiming` (He, normal, by the fan out), or `torch`, PyTorch's
    default. `zero_init_residual` initializes every block as the identity. `dropout` acts on the pooled features.
    """
    architecture = resolve_architecture(
        name,
        stem=stem,
        stride_in=stride_in,
        groups=groups,
        width_per_group=width_per_group,
        conv_bias=conv_bias,
    )
    network = ResNet(architecture, n_classes, in_channels=in_channels, dropout=dropout)
    _initialize(network, init_scheme, zero_init_residual)
    return network


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, architecture: Architecture) -> None:
        super().__init__()
        stride_first, stride_second = (1, stride) if architecture.stride_in == "second" else (stride, 1)
        bias = architecture.conv_bias
        self.conv1 = _convolution(in_channels, width, 3, stride_first, bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride_second, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = architecture.shortcut
        self.downsample = _downsample(in_channels, width, stride, bias) if architecture.shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of the block."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.shortcut:
            out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """A 1×1, a 3×3 and a 1×1 convolution with a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, architecture: Architecture) -> None:
        super().__init__()
        inner_width = width * architecture.width_per_group // 64 * architecture.groups
        out_channels = width * self.expansion
        stride_1x1, stride_3x3 = (stride, 1) if architecture.stride_in == "1x1" else (1, stride)
        bias = architecture.conv_bias
        self.conv1 = _convolution(in_channels, inner_width, 1, stride_1x1, bias=bias)
        self.bn1 = nn.BatchNorm2d(inner_width)
        self.conv2 = _convolution(inner_width, inner_width, 3, stride_3x3, architecture.groups, bias=bias)
        self.bn2 = nn.BatchNorm2d(inner_width)
        self.conv3 = _convolution(inner_width, out_channels, 1, bias=bias)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = architecture.shortcut
        self.downsample = _downsample(in_channels, out_channels, stride, bias) if architecture.shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of the block."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.shortcut:
            out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """A stem, stages of residual blocks, global average pooling and a linear head."""

    def __init__(self, architecture: Architecture, n_classes: int, *, in_channels: int, dropout: float) -> None:
        super().__init__()
        block = BasicBlock if architecture.block == "basic" else Bottleneck
        width = architecture.widths[0]
        kernel_size, stride = (7, 2) if architecture.stem == "imagenet" else (3, 1)
        self.conv1 = _convolution(in_channels, width, kernel_size, stride, bias=architecture.conv_bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if architecture.stem == "imagenet" else nn.Identity()
        self.stage_names = [f"layer{number}" for number in range(1, len(architecture.stages) + 1)]
        channels = width
        for name, depth, width in zip(self.stage_names, architecture.stages, architecture.widths, strict=True):
            stride = 1 if name == "layer1" else 2
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(block(channels, width, stride if index == 0 else 1, architecture))
                channels = width * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, n_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the feature map of the last stage for normalized pixels (N, channels, H, W)."""
        return self.forward_stages(self.stage_names, self.forward_stem(x))

    def forward_pooled(self, x: Tensor) -> Tensor:
        """Compute the pooled features (N, features), which the head takes, for normalized pixels."""
        return torch.flatten(self.avgpool(self.forward_features(x)), 1)

    def forward_stem(self, x: Tensor) -> Tensor:
        """Compute the input of the first stage for normalized pixels (N, channels, H, W)."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def forward_stages(self, stages: Sequence[str], x: Tensor) -> Tensor:
        """Compute the feature map after consecutive stages; `x` is the input of the first of them."""
        for name in stages:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (N, classes) for normalized pixels (N, channels, H, W)."""
        return self.fc(self.dropout(self.forward_pooled(x)))


def _convolution(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, bias: bool
) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=bias
    )


def _downsample(in_channels: int, out_channels: int, stride: int, bias: bool) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_convolution(in_channels, out_channels, 1, stride, bias=bias), nn.BatchNorm2d(out_channels))


def _initialize(network: ResNet, init_scheme: InitScheme, zero_init_residual: bool) -> None:
    """Draw the weights of the convolutions, unless PyTorch's default scheme has done so already."""
    for module in network.modules():
        # On the meta device a network has shapes and no values, and PyTorch imports for seconds to draw none.
        if isinstance(module, nn.Conv2d) and init_scheme == "kaiming" and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif zero_init_residual and isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
        elif zero_init_residual and isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
