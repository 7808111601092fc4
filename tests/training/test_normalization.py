"""Normalization by the training pixels: the network sees mean 0, and standard deviation 1 or uncorrelated channels."""

from pathlib import Path

import numpy as np
import pytest
import torch

import parfocal
from parfocal.data.loader import BatchLoader
from parfocal.errors import UsageError
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import NetworkConfig, TrainingConfig, ViewsConfig
from parfocal.training.normalization import compute_normalization
from tests.cells import SMALL_RECIPE


def _train_loader() -> BatchLoader:
    rng = np.random.default_rng(0)
    mixing = np.array([[40, 10, 0], [0, 20, 15], [5, 0, 10]])
    pixels = np.clip(rng.normal(0, 1, (20, 16, 16, 3)) @ mixing + [120, 90, 140], 0, 255).astype(np.uint8)
    return BatchLoader(pixels, np.arange(20), np.zeros(20, np.int64), ViewsConfig(crop_size=16), TrainingConfig(), 8)


@pytest.mark.parametrize("normalization", ["dataset", "whiten"])
def test_the_normalization_is_that_of_the_training_pixels(normalization: str) -> None:
    config = NetworkConfig(model="resnet20", normalization=normalization)  # type: ignore[arg-type]
    loader = _train_loader()
    classifier = build_classifier(config, ("a", "b"), compute_normalization(config, loader))
    normalized = classifier.normalize(torch.from_numpy(np.asarray(loader.pixels)))
    pixels = normalized.permute(0, 2, 3, 1).reshape(-1, 3)
    torch.testing.assert_close(pixels.mean(dim=0), torch.zeros(3), atol=0.02, rtol=0)
    covariance = np.cov(pixels.numpy().T)
    np.testing.assert_allclose(np.diag(covariance), 1, atol=0.02)
    if normalization == "whiten":
        np.testing.assert_allclose(covariance, np.eye(3), atol=0.02)


def test_zca_whitens_the_pixels_of_the_crops() -> None:
    config = NetworkConfig(model="resnet20", normalization="zca")
    rng = np.random.default_rng(1)
    # Squares of one color with some noise: neighbors are alike.
    squares = rng.integers(30, 226, (400, 5, 5, 3)).repeat(2, axis=1).repeat(2, axis=2)
    pixels = np.clip(squares + rng.normal(0, 20, squares.shape), 0, 255).astype(np.uint8)
    views = ViewsConfig(crop_size=8)
    loader = BatchLoader(pixels, np.arange(400), np.zeros(400, np.int64), views, TrainingConfig(), 8)
    classifier = build_classifier(config, ("a", "b"), compute_normalization(config, loader))
    crops = torch.from_numpy(pixels[:, 1:9, 1:9])
    before = np.corrcoef((crops / 255).reshape(400, -1).numpy().T)
    after = np.corrcoef(classifier.normalize(crops).flatten(1).numpy().T)
    assert np.abs(before - np.eye(192)).max() > 0.85
    assert np.abs(after - np.eye(192)).max() < 0.6
    torch.testing.assert_close(classifier.normalize(crops).mean(dim=0), torch.zeros(3, 8, 8), atol=1e-4, rtol=0)


def test_zca_needs_small_crops_of_one_size() -> None:
    with pytest.raises(UsageError, match=r"crops of at most 32 pixels, not crop_size=224\. Set normalization=whiten"):
        load_recipe(None, normalization="zca")
    with pytest.raises(UsageError, match="Set start_size=0"):
        load_recipe(None, normalization="zca", crop_size=32, start_size=16)
    with pytest.raises(UsageError, match="normalization=imagenet, not zca"):
        load_recipe(None, normalization="zca", crop_size=32, init="imagenet")


def test_a_fixed_normalization_is_not_computed() -> None:
    assert compute_normalization(NetworkConfig(normalization="half"), _train_loader()) is None


@pytest.mark.parametrize("normalization", ["sample", "zca"])
def test_a_network_evaluates_and_exports_with_its_normalization(
    cells: Path, tmp_path: Path, normalization: str
) -> None:
    changes = {**SMALL_RECIPE, "epochs": 1, "crop_size": 16, "normalization": normalization}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    before = run.predictions_path("test").read_bytes()
    parfocal.evaluate(run.folder)
    assert run.predictions_path("test").read_bytes() == before
    exported = parfocal.export(run.folder, "safetensors")
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    expected = Classifier.load(run.weights_path).eval()
    assert Classifier.load(exported.path).eval()(pixels).equal(expected(pixels))


def test_a_whitened_network_saves_its_normalization_with_its_weights(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1, "normalization": "whiten"})
    loaded = Classifier.load(run.weights_path)
    assert loaded.whiten is not None
    assert loaded.whiten.shape == (3, 3, 1, 1)
    before = run.predictions_path("test").read_bytes()
    parfocal.evaluate(run.folder)
    assert run.predictions_path("test").read_bytes() == before
