"""The plain script learns, augments and predicts as it says."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks import plain_finetune


def _draw_images(n_images: int) -> tuple[Tensor, Tensor]:
    """Return images of 32 pixels that are brighter in the channel of their class."""
    torch.manual_seed(0)
    labels = torch.arange(n_images) % 2
    images = torch.randint(0, 100, (n_images, 3, 32, 32), dtype=torch.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label] += 100
    return images, labels


def test_it_learns_two_classes_in_a_few_steps() -> None:
    images, labels = _draw_images(64)
    network = plain_finetune.finetune(images, labels, n_classes=2, epochs=3, weights=None, seed=0)
    probabilities = plain_finetune.predict(network, images[:8], n_views=1)
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
    assert (probabilities.argmax(1) == labels[:8]).all()


def test_augmented_views_keep_shape_and_range_and_differ() -> None:
    images = _draw_images(8)[0].float() / 255
    views = plain_finetune.augment(images)
    assert views.shape == images.shape
    assert views.min() >= 0
    assert views.max() <= 1
    assert (views - images).abs().mean() > 0.01


def test_predictions_of_eight_views_do_not_depend_on_quarter_turns_and_flips() -> None:
    images = _draw_images(4)[0]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)).eval()
    expected = plain_finetune.predict(network, images)
    assert torch.allclose(plain_finetune.predict(network, images.rot90(1, (2, 3)).flip(2)), expected, atol=1e-5)
    assert not torch.allclose(plain_finetune.predict(network, images, n_views=1), expected, atol=1e-3)


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is not a file of ResNet-18 weights"):
        plain_finetune.build_network(2, tmp_path / "other.safetensors", seed=0)
