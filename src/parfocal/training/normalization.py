"""Compute the normalization of the training pixels: mean and standard deviation, or whitening (ZCA)."""

import numpy as np

from parfocal.data.loader import BatchLoader
from parfocal.models.classifier import NORMALIZATIONS, Normalization
from parfocal.recipe_schema import NetworkConfig

_MAX_IMAGES = 2000
# Least variance in the 0–1 scale: directions in which colors hardly differ would otherwise be amplified to noise.
_MIN_VARIANCE = 1e-4


def compute_normalization(config: NetworkConfig, train: BatchLoader) -> Normalization | None:
    """Compute the recipe's normalization from up to 2,000 images of the training split; None where it is fixed."""
    if config.normalization in NORMALIZATIONS:
        return None
    sample = np.unique(np.linspace(0, len(train.indices) - 1, _MAX_IMAGES).astype(int))
    total = np.zeros(3)
    products = np.zeros((3, 3))
    n_pixels = 0
    for index in train.indices[sample]:
        pixels = train.pixels[index].reshape(-1, 3) / 255.0
        total += pixels.sum(axis=0)
        products += pixels.T @ pixels
        n_pixels += len(pixels)
    mean = total / n_pixels
    covariance = products / n_pixels - np.outer(mean, mean)
    if config.normalization == "dataset":
        std = np.sqrt(np.diag(covariance).clip(_MIN_VARIANCE))
        return Normalization(tuple(mean.tolist()), tuple(std.tolist()))
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors @ np.diag(1 / np.sqrt(values.clip(_MIN_VARIANCE))) @ vectors.T
    return Normalization(tuple(mean.tolist()), (1.0,) * len(mean), tuple(tuple(row) for row in whiten.tolist()))
