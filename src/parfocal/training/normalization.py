"""Mean, deviation and whitening of a run's own training pixels, for networks that are to be scaled by them."""

import numpy as np

from parfocal.data.loader import BatchLoader
from parfocal.models.classifier import NORMALIZATIONS, Normalization
from parfocal.schema import NetworkConfig

_MAX_IMAGES = 2000
# Directions in which colours hardly differ would be blown up to noise; this is their least variance, in the 0–1 scale.
_MIN_VARIANCE = 1e-4


def compute_normalization(config: NetworkConfig, train: BatchLoader) -> Normalization | None:
    """Measure the scale that a recipe asks for on up to 2,000 images, spread over the split; None where it is fixed."""
    if config.normalization in NORMALIZATIONS:
        return None
    mean, covariance = _compute_moments(train)
    values, vectors = np.linalg.eigh(covariance)
    if config.normalization == "dataset":
        return Normalization(tuple(mean.tolist()), tuple(np.sqrt(np.diag(covariance).clip(_MIN_VARIANCE)).tolist()))
    whiten = vectors @ np.diag(1 / np.sqrt(values.clip(_MIN_VARIANCE))) @ vectors.T
    return Normalization(tuple(mean.tolist()), (1.0,) * len(mean), tuple(tuple(row) for row in whiten.tolist()))


def _compute_moments(train: BatchLoader) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the colours of pixels, in the 0–1 scale."""
    some = train.indices[np.unique(np.linspace(0, len(train.indices) - 1, _MAX_IMAGES).astype(int))]
    total, products, count = np.zeros(3), np.zeros((3, 3)), 0
    for place in some:
        pixels = train.pixels[place].reshape(-1, 3) / 255.0
        total += pixels.sum(axis=0)
        products += pixels.T @ pixels
        count += len(pixels)
    mean = total / count
    return mean, products / count - np.outer(mean, mean)
