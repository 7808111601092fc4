"""An OpenVINO network predicts what the PyTorch network predicts, for any number of images and threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from parfocal.engine.compiled import CHUNK_SIZE, OpenVinoNetwork, convert_to_openvino
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.recipe_schema import NetworkConfig

IMAGE_SIZE = 32


def _make_network(loss: str = "cross_entropy") -> Classifier:
    torch.manual_seed(3)
    network = build_classifier(NetworkConfig(model="resnet20"), ("a", "b", "c"), loss=loss).eval()
    # A random network predicts nearly the same confident probabilities for any noise, so its head is standardized.
    with torch.inference_mode():
        scores = network.network(network.normalize(torch.from_numpy(_make_pixels(64))))
        network.network.fc.weight /= scores.std(dim=0)[:, None]
        network.network.fc.bias.copy_(-(scores.mean(dim=0) / scores.std(dim=0)))
    return network


def _with_softmax(network: Classifier) -> nn.Module:
    return nn.Sequential(network, nn.Softmax(dim=1))


def _compile(network: Classifier) -> OpenVinoNetwork:
    return OpenVinoNetwork(convert_to_openvino(_with_softmax(network), IMAGE_SIZE), "float32")


def _make_pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)


@torch.inference_mode()
def _predict(network: Classifier, pixels: np.ndarray) -> np.ndarray:
    return _with_softmax(network)(torch.from_numpy(pixels)).numpy()


@pytest.mark.parametrize("loss", ["cross_entropy", "regression", "cumulative_link"])
def test_the_probabilities_are_those_of_the_network(loss: str) -> None:
    network = _make_network(loss)
    pixels = _make_pixels(2 * CHUNK_SIZE + 3)
    compiled = _compile(network)
    expected = _predict(network, pixels)
    np.testing.assert_allclose(compiled(pixels), expected, atol=1e-4)
    np.testing.assert_allclose(compiled(pixels[:1]), expected[:1], atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_the_probabilities_in_bf16_are_nearly_the_same() -> None:
    network = _make_network()
    pixels = _make_pixels(8)
    compiled = OpenVinoNetwork(convert_to_openvino(_with_softmax(network), IMAGE_SIZE), "bf16")
    np.testing.assert_allclose(compiled(pixels), _predict(network, pixels), atol=0.03)


def test_each_thread_gets_the_probabilities_of_its_images() -> None:
    network = _make_network()
    compiled = _compile(network)
    requests = [_make_pixels(count) for count in (1, CHUNK_SIZE + 1, 2, 1, 5, 1)] * 4
    with ThreadPoolExecutor(8) as pool:
        for pixels, probabilities in zip(requests, pool.map(compiled, requests), strict=True):
            np.testing.assert_allclose(probabilities, _predict(network, pixels), atol=1e-4)


def test_a_later_call_does_not_change_an_earlier_result() -> None:
    compiled = _compile(_make_network())
    first = compiled(_make_pixels(1))
    copy = first.copy()
    compiled(_make_pixels(1)[:, ::-1])
    assert np.array_equal(first, copy)


def test_the_telemetry_of_openvino_is_not_loaded() -> None:
    code = "import sys, parfocal.engine.compiled as c; c.import_openvino(); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'openvino'" in modules
    assert "openvino_telemetry." not in modules
