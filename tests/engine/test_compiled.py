"""A compiled network says what the network says, of any number of images and from any number of threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from parfocal.engine.compiled import CHUNK_SIZE, OpenVinoNetwork, convert_to_openvino
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.models.ordinal import OrdinalHeadName
from parfocal.schema import NetworkConfig

SIDE = 32


def _network(link: OrdinalHeadName = "none") -> Classifier:
    torch.manual_seed(3)
    network = build_classifier(NetworkConfig(model="resnet20"), ("a", "b", "c"), ordinal_head=link).eval()
    # A fresh network says much the same of any noise, and that too surely to tell one answer from another.
    with torch.inference_mode():
        scores = network.network(network.normalize(torch.from_numpy(_pixels(64))))
        network.network.fc.weight /= scores.std(dim=0)[:, None]
        network.network.fc.bias.copy_(-(scores.mean(dim=0) / scores.std(dim=0)))
    return network


def _probabilities(network: Classifier) -> nn.Module:
    return nn.Sequential(network, nn.Softmax(dim=1))


def _pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@torch.inference_mode()
def _expected(network: Classifier, pixels: np.ndarray) -> np.ndarray:
    return _probabilities(network)(torch.from_numpy(pixels)).numpy()


@pytest.mark.parametrize("link", ["none", "grades", "cutpoints"])
def test_it_says_what_the_network_says(link: OrdinalHeadName) -> None:
    network, pixels = _network(link), _pixels(2 * CHUNK_SIZE + 3)
    compiled = OpenVinoNetwork(convert_to_openvino(_probabilities(network), SIDE), "float32")
    expected = _expected(network, pixels)
    np.testing.assert_allclose(compiled(pixels), expected, atol=1e-4)
    np.testing.assert_allclose(compiled(pixels[:1]), expected[:1], atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_in_bf16_it_says_nearly_that() -> None:
    network, pixels = _network(), _pixels(8)
    compiled = OpenVinoNetwork(convert_to_openvino(_probabilities(network), SIDE), "bf16")
    np.testing.assert_allclose(compiled(pixels), _expected(network, pixels), atol=0.03)


def test_threads_get_their_own_answers() -> None:
    network = _network()
    compiled = OpenVinoNetwork(convert_to_openvino(_probabilities(network), SIDE), "float32")
    asked = [_pixels(count) for count in (1, CHUNK_SIZE + 1, 2, 1, 5, 1)] * 4
    with ThreadPoolExecutor(8) as pool:
        for pixels, said in zip(asked, pool.map(compiled, asked), strict=True):
            np.testing.assert_allclose(said, _expected(network, pixels), atol=1e-4)


def test_what_is_said_first_stays_when_more_is_asked() -> None:
    compiled = OpenVinoNetwork(convert_to_openvino(_probabilities(_network()), SIDE), "float32")
    first = compiled(_pixels(1))
    kept = first.copy()
    compiled(_pixels(1)[:, ::-1])
    assert np.array_equal(first, kept)


def test_nobody_is_told_of_its_use() -> None:
    code = "import sys, parfocal.model.compiled as one; one.quiet_openvino(); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'openvino'" in loaded
    assert "openvino_telemetry." not in loaded
