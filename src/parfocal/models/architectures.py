"""The table of network architectures; a new network is a row. It is importable without PyTorch."""

from dataclasses import dataclass, replace
from typing import Literal

from parfocal.errors import UsageError, did_you_mean

Stem = Literal["imagenet", "small"]
StrideIn = Literal["3x3", "1x1", "second"]
InitScheme = Literal["kaiming", "torch"]


@dataclass(frozen=True)
class Architecture:
    """The type of block, the number of blocks per stage, and the channels of a residual network."""

    block: Literal["basic", "bottleneck"]
    stages: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Stem = "imagenet"
    stride_in: StrideIn = "3x3"
    groups: int = 1
    width_per_group: int = 64
    shortcut: bool = True
    conv_bias: bool = False

    @property
    def output_stride(self) -> int:
        """The side of the input divided by the side of the last feature map."""
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


def get_architecture(name: str) -> Architecture:
    """Return the architecture of a network; an unknown name is an error with the most similar name."""
    if name not in ARCHITECTURES:
        raise UsageError(f"There is no network {name!r}. {did_you_mean(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


def resolve_architecture(
    name: str,
    *,
    stem: Stem | None = None,
    stride_in: StrideIn = "3x3",
    groups: int | None = None,
    width_per_group: int | None = None,
    conv_bias: bool = False,
) -> Architecture:
    """Return the architecture of a network with the options of `build_resnet`; reject options that it cannot have."""
    options = {"stem": stem, "groups": groups, "width_per_group": width_per_group}
    changes = {key: value for key, value in options.items() if value is not None}
    architecture = replace(get_architecture(name), stride_in=stride_in, conv_bias=conv_bias, **changes)
    if architecture.block == "basic" and (architecture.groups != 1 or architecture.width_per_group != 64):
        raise UsageError(
            f"groups and width_per_group need a network of bottleneck blocks, such as resnet50, not {name}."
        )
    return architecture
