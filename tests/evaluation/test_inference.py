"""From pixels to probabilities: fewer images at once where memory runs out, compiled where that can be done."""

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
from parfocal.schema import NetworkConfig

PIXELS = torch.randn(21, 5, generator=torch.Generator().manual_seed(0))
FABRIC = Fabric(accelerator="cpu", devices=1)


class _Cramped(nn.Linear):
    """A layer on a device whose memory holds so many images; it notes how many it is given."""

    def __init__(self, holds: int, fault: str = "CUDA out of memory.") -> None:
        torch.manual_seed(0)
        super().__init__(5, 3)
        self.holds, self.fault, self.given = holds, fault, []

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch calls it
        self.given.append(len(input))
        if len(input) > self.holds:
            raise torch.OutOfMemoryError(self.fault) if self.fault.startswith("CUDA") else RuntimeError(self.fault)
        return super().forward(input)


@pytest.mark.parametrize("fault", ["CUDA out of memory.", "DefaultCPUAllocator: can't allocate memory: 1 bytes"])
def test_where_memory_runs_out_fewer_images_at_once_get_the_same_answers(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("parfocal.evaluation.inference.print_line", told.append)
    network = _Cramped(2, fault)
    for _ in range(2):
        rows = predict_probabilities(FABRIC, network, PIXELS.split(8))
        np.testing.assert_allclose(rows, predict_probabilities(FABRIC, _Cramped(8), PIXELS.split(8)), rtol=1e-6)
    assert [count for count in network.given if count > 2] == [8, 4]
    assert told == ["Memory ran out with 8 images: they are judged fewer at a time."]


def test_a_network_that_takes_no_image_is_an_error_that_says_so() -> None:
    with pytest.raises(ParfocalError, match=r"one image at a time\. Choose a smaller crop or model"):
        predict_probabilities(FABRIC, _Cramped(0), PIXELS.split(8))


def test_another_fault_is_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="something else"):
        predict_probabilities(FABRIC, _Cramped(0, "something else"), PIXELS.split(8))


def test_a_compiled_network_says_the_same_of_any_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # The graph is taken as on a card; only the machine code for it is left out.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    network = build_classifier(NetworkConfig(model="resnet20"), ("a", "b")).eval()
    fast = compile_network(FABRIC, network, 32)
    assert fast is not network
    pixels = torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8)
    for some in (pixels, pixels[:1]):
        rows = predict_probabilities(FABRIC, fast, [some])
        np.testing.assert_allclose(rows, predict_probabilities(FABRIC, network, [some]), atol=1e-6)


def test_a_network_that_cannot_be_compiled_answers_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("parfocal.evaluation.inference.print_line", told.append)
    monkeypatch.setattr(torch, "compile", lambda network, **_: lambda pixels: 1 / 0)
    network = build_classifier(NetworkConfig(model="resnet20"), ("a", "b"))
    assert compile_network(FABRIC, network, 32) is network
    assert told == ["Warning: PyTorch cannot compile the network here (AttributeError); it answers uncompiled."]


def test_nothing_is_announced_when_networks_are_about_to_run() -> None:
    # In a process of its own, for it is told once, when Fabric is imported.
    code = "from parfocal.evaluation.inference import fabric_for; fabric_for('bf16')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_a_processor_can_be_made_to_behave_like_one_with_avx2_only() -> None:
    code = "import torch, parfocal; from parfocal.evaluation.inference import numbers_for; "
    code = f"import parfocal; {code} print(torch.backends.cpu.get_cpu_capability(), numbers_for('auto'))"
    environment = {**os.environ, "PARFOCAL_CPU": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["AVX2", "float32"]
