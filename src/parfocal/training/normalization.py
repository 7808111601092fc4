"""Compute the normalization of the training pixels: mean and standard deviation, or whitening (ZCA)."""

import numpy as np
import torch

from parfocal.data.augment import eval_views
from parfocal.data.loader import BatchLoader
from parfocal.data.warp import render_one
from parfocal.models.classifier import NORMALIZATIONS, Normalization
from parfocal.recipe_schema import NetworkConfig

_MAX_IMAGES = 2000
# The pixels of a crop have far more correlations than three colors have.
_MAX_ZCA_IMAGES = 10_000
# Least variance in the 0–1 scale: directions in which colors hardly differ would otherwise be amplified to noise.
_MIN_VARIANCE = 1e-4
# Added to the variance of every direction of ZCA whitening: few images do not vary in many directions at all.
_ZCA_EPSILON = 1e-2


def compute_normalization(config: NetworkConfig, train: BatchLoader) -> Normalization | None:
    """Compute the recipe's normalization from a sample of the training split; None where it is fixed."""
    if config.normalization in NORMALIZATIONS:
        return None
    if config.normalization == "zca":
        return _compute_zca(train)
    sample = _draw_sample(train, _MAX_IMAGES)
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


def _compute_zca(train: BatchLoader) -> Normalization:
    """Compute ZCA whitening of the center crops: their mean, and the matrix that makes their pixels uncorrelated."""
    sample = _draw_sample(train, _MAX_ZCA_IMAGES)
    views = eval_views(len(sample), train.pixels.shape[1], train.views_config)
    crops = [render_one(train.pixels[index], views, row) for row, index in enumerate(train.indices[sample])]
    values = np.stack(crops).transpose(0, 3, 1, 2).reshape(len(crops), -1).astype(np.float32) / 255
    mean = values.mean(axis=0)
    values -= mean
    variances, vectors = np.linalg.eigh((values.T @ values / len(values)).astype(np.float64))
    matrix = vectors / np.sqrt(variances.clip(0) + _ZCA_EPSILON) @ vectors.T
    return Normalization(zca_mean=torch.from_numpy(mean), zca_matrix=torch.from_numpy(matrix).float())


def _draw_sample(train: BatchLoader, n_images: int) -> np.ndarray:
    """Return the positions of up to `n_images` images, spread evenly over the training split."""
    return np.unique(np.linspace(0, len(train.indices) - 1, n_images).astype(int))
