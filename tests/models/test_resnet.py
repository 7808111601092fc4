"""Networks agree with golden values of torchvision, and options of `build_resnet` have their effect."""

import json
import math
from pathlib import Path

import pytest
import torch

from parfocal.errors import UsageError
from parfocal.models.architectures import ARCHITECTURES, Stem, resolve_architecture
from parfocal.models.resnet import BasicBlock, Bottleneck, build_resnet

REFERENCE = json.loads((Path(__file__).parent / "resnet.json").read_text())


def _fraction(x: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.frac(torch.sin(x) * scale).abs()


def _compute_weight(key: str, position: int, like: torch.Tensor) -> torch.Tensor:
    """Compute the weights of the reference, which are given by formula: see the README next to the reference."""
    index = torch.arange(like.numel(), dtype=torch.float64)
    u = _fraction((index + 1) * 12.9898 + position * 78.233, 43758.5453)
    if key.endswith("num_batches_tracked"):
        return torch.zeros_like(like)
    if key.endswith("running_var"):
        value = 0.5 + u
    elif key.endswith("running_mean"):
        value = 0.2 * (u - 0.5)
    elif like.ndim == 4:
        value = 2 * (u - 0.5) * math.sqrt(3 / like[0].numel())
    elif like.ndim == 2:
        value = 2 * (u - 0.5) / math.sqrt(like.shape[1])
    elif key.endswith("weight"):
        value = 0.5 + 0.5 * u
    else:
        value = 0.1 * (u - 0.5)
    return value.float().double().reshape(like.shape)


@pytest.mark.parametrize("name", REFERENCE)
def test_logits_equal_those_of_the_reference(name: str) -> None:
    expected = REFERENCE[name]
    network = build_resnet(name, n_classes=5).double().eval()
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == expected["state"]
    network.load_state_dict(
        {key: _compute_weight(key, position, state[key]) for position, key in enumerate(sorted(state))}
    )
    pixels = _fraction((torch.arange(2 * 3 * 64 * 64, dtype=torch.float64) + 1) * 4.1414, 1000.0)
    with torch.inference_mode():
        logits = network(pixels.float().double().reshape(2, 3, 64, 64))
    torch.testing.assert_close(logits, torch.tensor(expected["logits"], dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_number_of_parameters_equals_that_of_the_reference(name: str) -> None:
    with torch.device("meta"):
        network = build_resnet(name, n_classes=1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == REFERENCE[name]["parameters_1000_classes"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_of_the_table_runs(name: str) -> None:
    network = build_resnet(name, n_classes=3).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 40, 40)).shape == (2, 3)


def test_plain_networks_have_no_shortcut() -> None:
    plain = build_resnet("plain20", n_classes=2)
    residual = build_resnet("resnet20", n_classes=2)
    assert not any("downsample" in key for key in plain.state_dict())
    assert any("downsample" in key for key in residual.state_dict())
    for network in (plain, residual):
        for block in (module for module in network.modules() if isinstance(module, BasicBlock)):
            torch.nn.init.zeros_(block.bn2.weight)
        network.eval()
    x = torch.rand(1, 3, 32, 32)
    assert plain.forward_features(x).abs().max() == 0
    assert residual.forward_features(x).abs().max() > 0


def test_the_stride_in_the_first_convolution_keeps_names_and_shapes() -> None:
    v15 = build_resnet("resnet50", n_classes=2)
    original = build_resnet("resnet50", n_classes=2, stride_in="1x1")
    v15_shapes = {key: value.shape for key, value in v15.state_dict().items()}
    assert v15_shapes == {key: value.shape for key, value in original.state_dict().items()}
    assert original.get_submodule("layer2.0.conv1").stride == (2, 2)
    assert original.get_submodule("layer2.0.conv2").stride == (1, 1)
    assert v15.get_submodule("layer2.0.conv2").stride == (2, 2)


class _BlockWithBias(torch.nn.Module):
    """The basic block of the leukemia report with SGD: convolutions with bias, and the stride in the second."""

    def __init__(self, in_channel: int, out_channel: int, stride: int) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(in_channel, out_channel, kernel_size=3, stride=1, padding=1)
        self.bn1 = torch.nn.BatchNorm2d(out_channel)
        self.conv2 = torch.nn.Conv2d(out_channel, out_channel, kernel_size=3, stride=stride, padding=1)
        self.bn2 = torch.nn.BatchNorm2d(out_channel)
        self.downsample = torch.nn.Sequential(
            torch.nn.Conv2d(in_channel, out_channel, kernel_size=1, stride=stride), torch.nn.BatchNorm2d(out_channel)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + identity)


def test_a_basic_block_with_bias_and_the_stride_in_its_second_convolution_is_that_of_the_report() -> None:
    architecture = resolve_architecture("resnet18", stride_in="second", conv_bias=True)
    block = BasicBlock(8, 16, 2, architecture)
    expected = _BlockWithBias(8, 16, 2)
    expected.load_state_dict(block.state_dict())
    x = torch.rand(2, 8, 12, 12)
    assert torch.equal(block(x), expected(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_with_conv_bias_every_convolution_has_one(name: str) -> None:
    with torch.device("meta"):
        network = build_resnet(name, n_classes=2, conv_bias=True, stride_in="second")
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(convolution.bias is not None for convolution in convolutions)
    assert network.get_submodule("layer2.0.conv2").stride == (2, 2)
    assert network.get_submodule("layer2.0.conv1").stride == (1, 1)


def test_the_init_scheme_torch_keeps_the_weights_that_pytorch_draws() -> None:
    torch.manual_seed(3)
    network = build_resnet("resnet20", n_classes=2, init_scheme="torch", conv_bias=True)
    torch.manual_seed(3)
    first = torch.nn.Conv2d(3, 16, 3, padding=1)
    assert torch.equal(network.conv1.weight, first.weight)
    assert first.bias is not None
    assert torch.equal(network.get_parameter("conv1.bias"), first.bias)
    kaiming = build_resnet("resnet20", n_classes=2, conv_bias=True)
    assert kaiming.get_parameter("conv1.bias").abs().sum() == 0
    assert kaiming.conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.15)


def test_the_small_stem_keeps_the_resolution_and_any_number_of_channels_is_possible() -> None:
    small = build_resnet("resnet18", n_classes=2, stem="small", in_channels=1).eval()
    assert small.forward_features(torch.zeros(1, 1, 32, 32)).shape[-2:] == (4, 4)
    usual = build_resnet("resnet18", n_classes=2).eval()
    assert usual.forward_features(torch.zeros(1, 3, 32, 32)).shape[-2:] == (1, 1)


def test_zero_init_residual_makes_every_block_the_identity() -> None:
    network = build_resnet("resnet18", n_classes=2, zero_init_residual=True)
    assert all(block.bn2.weight.abs().sum() == 0 for block in network.modules() if isinstance(block, BasicBlock))
    network = build_resnet("resnet50", n_classes=2, zero_init_residual=True)
    assert all(block.bn3.weight.abs().sum() == 0 for block in network.modules() if isinstance(block, Bottleneck))


def test_dropout_acts_in_training_only() -> None:
    network = build_resnet("resnet18", n_classes=4, dropout=0.5)
    x = torch.rand(2, 3, 32, 32)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.dropout.train()
    assert not torch.equal(network(x), network(x))


def test_the_message_for_an_unknown_network_names_the_most_similar() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet50'"):
        build_resnet("resnet-50", n_classes=2)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
@pytest.mark.parametrize("stem", [None, "small"])
def test_the_output_stride_is_that_of_the_last_feature_map(name: str, stem: Stem | None) -> None:
    network = build_resnet(name, n_classes=2, stem=stem).eval()
    stride = resolve_architecture(name, stem=stem).output_stride
    sides = [network.forward_features(torch.zeros(1, 3, side, side)).shape[-1] for side in (stride, stride + 1)]
    assert sides == [1, 2]


def test_groups_need_bottleneck_blocks() -> None:
    with pytest.raises(UsageError, match="such as resnet50, not resnet18"):
        build_resnet("resnet18", n_classes=2, groups=32)
