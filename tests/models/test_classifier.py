"""A classifier takes uint8 pixels and carries everything it needs to read an image."""

from pathlib import Path

import pytest
import torch

from parfocal.errors import ParfocalError
from parfocal.models.checkpoints import read_tensors, write_tensors
from parfocal.models.classifier import NORMALIZATIONS, Classifier, build_classifier
from parfocal.schema import NetworkConfig


def _pixels(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", NORMALIZATIONS)
def test_pixels_are_scaled_by_the_networks_own_mean_and_deviation(scale: str) -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20", normalization=scale), ("a", "b"))  # type: ignore[arg-type]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALIZATIONS[scale])
    expected = (_pixels().permute(0, 3, 1, 2) / 255 - mean) / std
    torch.testing.assert_close(classifier.normalize(_pixels()), expected)


def test_both_layouts_give_the_same_logits() -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20"), ("a", "b", "c")).eval()
    logits = classifier(_pixels())
    assert logits.shape == (2, 3)
    torch.testing.assert_close(classifier(_pixels().permute(0, 3, 1, 2)), logits)
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\)"):
        classifier(torch.zeros(2, 32, 32, dtype=torch.uint8)[None])


def test_saved_and_loaded_it_says_the_same(tmp_path: Path) -> None:
    part = NetworkConfig(model="resnet50", stride_in="1x1", dropout=0.2, normalization="half")
    classifier = build_classifier(part, ("normal", "blast")).eval()
    classifier.save(tmp_path / "model.safetensors", {"epoch": 3})
    again = Classifier.load(tmp_path / "model.safetensors").eval()
    assert again.classes == ("normal", "blast")
    assert again.metadata["epoch"] == 3
    assert again(_pixels()).equal(classifier(_pixels()))


def test_weights_lie_under_their_public_names(tmp_path: Path) -> None:
    build_classifier(NetworkConfig(model="resnet18"), ("a", "b")).save(tmp_path / "model.safetensors")
    tensors, _ = read_tensors(tmp_path / "model.safetensors")
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer4.1.bn2.bias", "fc.bias"} <= set(tensors)


def test_missing_and_damaged_files_are_one_message(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ParfocalError, match="no weights at"):
        Classifier.load(path)
    build_classifier(NetworkConfig(model="resnet20"), ("a", "b")).save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ParfocalError, match="not a whole safetensors file"):
        Classifier.load(path)


def test_tensors_that_are_not_ours_are_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ParfocalError, match="Parfocal did not write it"):
        read_tensors(tmp_path / "a.safetensors")


def test_tensors_come_back_as_they_went(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4, 2, 2).to(memory_format=torch.channels_last), "b": torch.tensor(5)}
    write_tensors(tmp_path / "t.safetensors", tensors, {"é": [1, None]})
    again, about = read_tensors(tmp_path / "t.safetensors")
    assert all(again[key].equal(value) for key, value in tensors.items())
    assert about == {"é": [1, None]}
