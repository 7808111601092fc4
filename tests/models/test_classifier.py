"""The classifier takes uint8 pixels and contains everything that it needs to read an image."""

from pathlib import Path

import pytest
import torch

from parfocal.errors import ParfocalError
from parfocal.models.checkpoints import read_tensors
from parfocal.models.classifier import NORMALIZATIONS, Classifier, build_classifier
from parfocal.recipe_schema import NetworkConfig


def _make_pixels(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("normalization", ["none", "half", "imagenet"])
def test_pixels_are_normalized_by_mean_and_std(normalization: str) -> None:
    config = NetworkConfig(model="resnet20", normalization=normalization)  # type: ignore[arg-type]
    classifier = build_classifier(config, ("a", "b"))
    known = NORMALIZATIONS[normalization]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (known.mean, known.std))
    expected = (_make_pixels().permute(0, 3, 1, 2) / 255 - mean) / std
    torch.testing.assert_close(classifier.normalize(_make_pixels()), expected)


def test_sample_wise_normalization_gives_each_image_mean_0_and_standard_deviation_1() -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20", normalization="sample"), ("a", "b"))
    pixels = _make_pixels(3)
    pixels[1] = pixels[1] // 4 + 100
    pixels[2] = 7
    normalized = classifier.normalize(pixels)
    torch.testing.assert_close(normalized.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalized[:2].std(dim=(1, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)
    assert normalized[2].abs().max() == 0


def test_both_memory_layouts_give_the_same_logits() -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20"), ("a", "b", "c")).eval()
    logits = classifier(_make_pixels())
    assert logits.shape == (2, 3)
    torch.testing.assert_close(classifier(_make_pixels().permute(0, 3, 1, 2)), logits)
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\)"):
        classifier(torch.zeros(2, 32, 32, dtype=torch.uint8)[None])


def test_a_saved_and_loaded_classifier_gives_the_same_logits(tmp_path: Path) -> None:
    config = NetworkConfig(model="resnet50", stride_in="1x1", dropout=0.2, normalization="half")
    classifier = build_classifier(config, ("normal", "blast")).eval()
    classifier.save(tmp_path / "model.safetensors", {"epoch": 3})
    loaded = Classifier.load(tmp_path / "model.safetensors").eval()
    assert loaded.classes == ("normal", "blast")
    assert loaded.metadata["epoch"] == 3
    assert loaded(_make_pixels()).equal(classifier(_make_pixels()))


def test_weights_are_saved_under_the_names_of_torchvision(tmp_path: Path) -> None:
    build_classifier(NetworkConfig(model="resnet18"), ("a", "b")).save(tmp_path / "model.safetensors")
    tensors, _ = read_tensors(tmp_path / "model.safetensors")
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer4.1.bn2.bias", "fc.bias"} <= set(tensors)


def test_metadata_of_another_network_than_the_tensors_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    classifier = build_classifier(NetworkConfig(model="resnet50"), ("a", "b"))
    # A network of 2 TB.
    classifier.metadata["options"]["width_per_group"] = 2**16
    classifier.save(path)
    monkeypatch.setattr("torch.nn.init.kaiming_normal_", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(ParfocalError, match=r"layer1\.0\.conv1\.weight is \(64, 64, 1, 1\), but \(65536, 64"):
        Classifier.load(path)


def test_missing_and_damaged_weights_are_one_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ParfocalError, match="no weights at"):
        Classifier.load(path)
    build_classifier(NetworkConfig(model="resnet20"), ("a", "b")).save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ParfocalError, match="not a complete safetensors file"):
        Classifier.load(path)
