"""Inference: smaller batches when memory runs out, and compiled networks."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from parfocal.errors import ParfocalError
from parfocal.evaluation.inference import compile_network, predict_probabilities
from parfocal.models.classifier import build_classifier
from parfocal.recipe_schema import NetworkConfig

PIXELS = torch.randn(21, 5, generator=torch.Generator().manual_seed(0))
FABRIC = Fabric(accelerator="cpu", devices=1)


class _LimitedLinear(nn.Linear):
    """A layer that runs out of memory with more than `max_images`; it records the batch sizes."""

    def __init__(self, max_images: int, message: str = "CUDA out of memory.") -> None:
        torch.manual_seed(0)
        super().__init__(5, 3)
        self.max_images = max_images
        self.message = message
        self.batch_sizes: list[int] = []

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name
        self.batch_sizes.append(len(input))
        if len(input) > self.max_images:
            error = torch.OutOfMemoryError if self.message.startswith("CUDA") else RuntimeError
            raise error(self.message)
        return super().forward(input)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the printed lines."""
    printed: list[str] = []
    monkeypatch.setattr("parfocal.evaluation.inference.print_line", printed.append)
    return printed


@pytest.mark.parametrize("message", ["CUDA out of memory.", "DefaultCPUAllocator: can't allocate memory: 1 bytes"])
def test_smaller_batches_after_an_out_of_memory_error_give_the_same_probabilities(
    message: str, lines: list[str]
) -> None:
    network = _LimitedLinear(2, message)
    for _ in range(2):
        rows = predict_probabilities(FABRIC, network, PIXELS.split(8))
        np.testing.assert_allclose(rows, predict_probabilities(FABRIC, _LimitedLinear(8), PIXELS.split(8)), rtol=1e-6)
    assert [size for size in network.batch_sizes if size > 2] == [8, 4]
    assert lines == ["Memory ran out with a batch size of 8: it is halved for inference."]


def test_running_out_of_memory_with_one_image_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ParfocalError, match=r"one image at a time\. Choose a smaller crop_size or model"):
        predict_probabilities(FABRIC, _LimitedLinear(0), PIXELS.split(8))


def test_another_error_is_not_mistaken_for_running_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="something else"):
        predict_probabilities(FABRIC, _LimitedLinear(0, "something else"), PIXELS.split(8))


def test_a_compiled_network_gives_the_same_probabilities_for_any_number_of_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The graph is captured as on a GPU; only the generation of machine code is left out.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    network = build_classifier(NetworkConfig(model="resnet20"), ("a", "b")).eval()
    compiled = compile_network(FABRIC, network, 32)
    assert compiled is not network
    pixels = torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8)
    for batch in (pixels, pixels[:1]):
        rows = predict_probabilities(FABRIC, compiled, [batch])
        np.testing.assert_allclose(rows, predict_probabilities(FABRIC, network, [batch]), atol=1e-6)


def test_a_network_that_cannot_be_compiled_runs_uncompiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: lambda pixels: 1 / 0)
    network = build_classifier(NetworkConfig(model="resnet20"), ("a", "b"))
    assert compile_network(FABRIC, network, 32) is network
    warning = "Warning: PyTorch cannot compile the network (AttributeError). It runs uncompiled."
    assert capsys.readouterr().err.splitlines() == [warning]


def test_fabric_prints_nothing_at_the_start() -> None:
    # In a new process, because Fabric prints once, when it is imported.
    code = "from parfocal.engine.device import build_fabric; build_fabric('bf16')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_a_processor_can_be_made_to_behave_like_one_with_avx2_only() -> None:
    code = "import parfocal, torch; from parfocal.engine.device import resolve_precision; "
    code += "print(torch.backends.cpu.get_cpu_capability(), resolve_precision('auto'))"
    environment = {**os.environ, "PARFOCAL_CPU": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["AVX2", "float32"]
