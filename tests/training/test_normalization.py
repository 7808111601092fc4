"""Networks scaled by their own training pixels see them with mean 0, and deviation 1 or no correlation."""

from pathlib import Path

import numpy as np
import pytest
import torch

import parfocal
from parfocal.data.loader import BatchLoader
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.schema import NetworkConfig, TrainingConfig, ViewsConfig
from parfocal.training.normalization import compute_normalization
from tests.cells import SMALL_RECIPE


def _train() -> BatchLoader:
    dice = np.random.default_rng(0)
    mix = np.array([[40, 10, 0], [0, 20, 15], [5, 0, 10]])
    pixels = np.clip(dice.normal(0, 1, (20, 16, 16, 3)) @ mix + [120, 90, 140], 0, 255).astype(np.uint8)
    return BatchLoader(pixels, np.arange(20), np.zeros(20, np.int64), ViewsConfig(crop_size=16), TrainingConfig(), 8)


@pytest.mark.parametrize("normalization", ["dataset", "whiten"])
def test_the_scale_is_that_of_the_training_pixels(normalise: str) -> None:
    part = NetworkConfig(model="resnet20", normalization=normalise)  # type: ignore[arg-type]
    classifier = build_classifier(part, ("a", "b"), compute_normalization(part, _train()))
    seen = classifier.normalize(torch.from_numpy(np.asarray(_train().pixels))).permute(0, 2, 3, 1).reshape(-1, 3)
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(3), atol=0.02, rtol=0)
    covariance = np.cov(seen.numpy().T)
    np.testing.assert_allclose(np.diag(covariance), 1, atol=0.02)
    if normalise == "whiten":
        np.testing.assert_allclose(covariance, np.eye(3), atol=0.02)


def test_fixed_scales_are_not_measured() -> None:
    assert compute_normalization(NetworkConfig(normalization="half"), _train()) is None


def test_a_whitened_network_keeps_its_scale_with_its_weights(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1, "normalization": "whiten"})
    loaded = Classifier.load(run.weights_path)
    assert loaded.whiten is not None
    assert loaded.whiten.shape == (3, 3, 1, 1)
    before = run.predictions_path("test").read_bytes()
    parfocal.evaluate(run.folder)
    assert run.predictions_path("test").read_bytes() == before
