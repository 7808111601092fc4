"""The shortcut figure: a network that reads the border is caught, one that reads the middle is not."""

import numpy as np
import pytest
import torch

from parfocal.explaining.cam import compute_class_maps
from parfocal.explaining.margin import MIN_IMAGES, WARNING_THRESHOLD, BorderSwapResult, border_swap_test
from parfocal.model.classifier import Classifier


class _BoxNetwork(torch.nn.Module):
    """A stand-in for a network's head's input: how bright a box of the image is, more than half or less."""

    def __init__(self, box: tuple[slice, slice]) -> None:
        super().__init__()
        self.box = box
        self.fc = torch.nn.Linear(1, 2)
        self.fc.weight.data = torch.tensor([[-1.0], [1.0]])
        self.fc.bias.data.zero_()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.zeros_like(x[:, :1])
        seen[:, :, *self.box] = x[:, :1, *self.box]
        return torch.nn.functional.avg_pool2d(seen, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean(dim=(2, 3)))


def _run_test(box: tuple[slice, slice], n_images: int = 40) -> BorderSwapResult | None:
    classifier = Classifier("resnet20", ["dark", "bright"], mean=(0.5, 0.5, 0.5), std=(1, 1, 1))
    classifier.network = _BoxNetwork(box)  # type: ignore[assignment]
    pixels = np.random.default_rng(1).integers(0, 2, (n_images, 1, 1, 1), dtype=np.uint8) * np.uint8(200) + np.uint8(20)
    pixels = np.tile(pixels, (1, 48, 48, 3))
    return border_swap_test(classifier, compute_class_maps(classifier, pixels))


def test_a_network_that_reads_the_border_is_caught() -> None:
    found = _run_test((slice(0, 4), slice(0, 4)))
    assert found is not None
    assert found.border_share == pytest.approx(1)
    assert found.border_area == pytest.approx(1 - (40 / 48) ** 2)
    assert found.border_change_rate > 0.3
    assert found.center_change_rate == 0
    assert "of the answers change when the border is that of another image" in found.warning


def test_a_network_that_reads_the_middle_is_not() -> None:
    found = _run_test((slice(16, 32), slice(16, 32)))
    assert found is not None
    assert found.border_share == pytest.approx(0)
    assert found.border_change_rate == 0
    assert found.center_change_rate > 0.3
    assert found.warning == ""


def test_of_few_images_nothing_is_said() -> None:
    assert _run_test((slice(0, 4), slice(0, 4)), MIN_IMAGES - 1) is None
    assert _run_test((slice(0, 4), slice(0, 4)), MIN_IMAGES) is not None


@pytest.mark.parametrize(
    ("border", "middle", "warned"),
    [(0.3, 0.2, True), (0.3, 0.3, True), (0.3, 0.4, False), (WARNING_THRESHOLD, 0.0, False), (0.0, 0.0, False)],
)
def test_the_border_is_held_against_as_much_of_the_middle(border: float, middle: float, warned: bool) -> None:
    assert bool(BorderSwapResult(40, 0.3, 0.3, 0.1, 0.1, border, middle).warning) == warned
