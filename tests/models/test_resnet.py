"""The networks against golden values of the public implementation, and the options of `build`."""

import json
import math
from pathlib import Path

import pytest
import torch

from parfocal.errors import UsageError
from parfocal.models import resnet

REFERENCE = json.loads((Path(__file__).parent / "resnet.json").read_text())


def _fraction(x: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.frac(torch.sin(x) * scale).abs()


def _formula_weight(key: str, position: int, like: torch.Tensor) -> torch.Tensor:
    """The reference's weights by formula: see the README beside the reference."""
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
def test_network_equals_the_reference(name: str) -> None:
    expected = REFERENCE[name]
    network = resnet.build_resnet(name, n_classes=5).double().eval()
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == expected["state"]
    network.load_state_dict(
        {key: _formula_weight(key, position, state[key]) for position, key in enumerate(sorted(state))}
    )
    pixels = _fraction((torch.arange(2 * 3 * 64 * 64, dtype=torch.float64) + 1) * 4.1414, 1000.0)
    with torch.inference_mode():
        logits = network(pixels.float().double().reshape(2, 3, 64, 64))
    torch.testing.assert_close(logits, torch.tensor(expected["logits"], dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", REFERENCE)
def test_parameter_count_at_a_thousand_classes(name: str) -> None:
    with torch.device("meta"):
        network = resnet.build_resnet(name, n_classes=1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == REFERENCE[name]["parameters_1000_classes"]


@pytest.mark.parametrize("name", resnet.ARCHITECTURES)
def test_every_network_in_the_table_runs(name: str) -> None:
    network = resnet.build_resnet(name, n_classes=3).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 40, 40)).shape == (2, 3)


def test_plain_networks_have_no_shortcut() -> None:
    plain, residual = resnet.build_resnet("plain20", n_classes=2), resnet.build_resnet("resnet20", n_classes=2)
    assert not any("downsample" in key for key in plain.state_dict())
    assert any("downsample" in key for key in residual.state_dict())
    for network in (plain, residual):
        for block in (module for module in network.modules() if isinstance(module, resnet.BasicBlock)):
            torch.nn.init.zeros_(block.bn2.weight)
        network.eval()
    x = torch.rand(1, 3, 32, 32)
    assert plain.forward_features(x).abs().max() == 0
    assert residual.forward_features(x).abs().max() > 0


def test_stride_in_the_first_convolution_keeps_keys_and_shapes() -> None:
    modern, original = (
        resnet.build_resnet("resnet50", n_classes=2),
        resnet.build_resnet("resnet50", n_classes=2, stride_in="1x1"),
    )
    assert {k: v.shape for k, v in modern.state_dict().items()} == {
        k: v.shape for k, v in original.state_dict().items()
    }
    assert original.get_submodule("layer2.0.conv1").stride == (2, 2)
    assert original.get_submodule("layer2.0.conv2").stride == (1, 1)
    assert modern.get_submodule("layer2.0.conv2").stride == (2, 2)


def test_small_stem_keeps_the_resolution_and_channels_are_free() -> None:
    network = resnet.build_resnet("resnet18", n_classes=2, stem="small", in_channels=1).eval()
    assert network.forward_features(torch.zeros(1, 1, 32, 32)).shape[-2:] == (4, 4)
    assert resnet.build_resnet("resnet18", n_classes=2).eval().forward_features(torch.zeros(1, 3, 32, 32)).shape[
        -2:
    ] == (1, 1)


def test_zeroed_last_norm_makes_every_block_the_identity() -> None:
    network = resnet.build_resnet("resnet18", n_classes=2, zero_init_residual=True)
    assert all(b.bn2.weight.abs().sum() == 0 for b in network.modules() if isinstance(b, resnet.BasicBlock))
    network = resnet.build_resnet("resnet50", n_classes=2, zero_init_residual=True)
    assert all(b.bn3.weight.abs().sum() == 0 for b in network.modules() if isinstance(b, resnet.Bottleneck))


def test_dropout_acts_in_training_only() -> None:
    network = resnet.build_resnet("resnet18", n_classes=4, dropout=0.5)
    x = torch.rand(2, 3, 32, 32)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.dropout.train()
    assert not torch.equal(network(x), network(x))


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet50'"):
        resnet.build_resnet("resnet-50", n_classes=2)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
@pytest.mark.parametrize("stem", [None, "small"])
def test_the_last_map_is_as_much_smaller_as_the_table_says(name: str, stem: resnet.Stem | None) -> None:
    network, reduction = (
        resnet.build_resnet(name, n_classes=2, stem=stem).eval(),
        resnet.resolve_architecture(name, stem=stem).output_stride,
    )
    sides = [network.forward_features(torch.zeros(1, 3, side, side)).shape[-1] for side in (reduction, reduction + 1)]
    assert sides == [1, 2]


def test_groups_need_bottlenecks() -> None:
    with pytest.raises(UsageError, match="such as resnet50, not resnet18"):
        resnet.build_resnet("resnet18", n_classes=2, groups=32)
