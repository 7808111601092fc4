"""Out of the ordinary: prepared images whose colours, contrast or sharpness lie outside what validation showed.

An image is as odd as its oddest measure, in standard deviations from the mean of validation. The limit is what 99 of
100 images of validation stay below when the rest judges them, the new one counted; so of new images of the same kind
about one in a hundred is flagged, or one in so many as validation has images, where those are fewer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from parfocal.data.decode import Pixels

FEATURES = ("red", "green", "blue", "contrast", "saturation", "sharpness", "darkness")
"""What is measured: mean colours, the deviation of grey, colourfulness, edges, and the share that is nearly black."""

MIN_IMAGES, MAX_IMAGES = 20, 2000
"""From fewer images of validation nothing can be said, and more are not measured."""

_QUANTILE = 0.99
_N_FOLDS = 10
_DARK_LEVEL = 16


@dataclass(frozen=True)
class OodMonitor:
    """The middle and the spread of each measure on validation, and the limit of deviations."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_deviation: float
    n_images: int

    def find_unusual_features(self, features: np.ndarray) -> tuple[str, ...]:
        """Return the measures in which an image is out of the ordinary; none for most images."""
        away = _compute_deviations(features[None], np.array(self.mean), np.array(self.std))[0]
        return tuple(name for name, one in zip(FEATURES, away, strict=True) if one > self.max_deviation)


def compute_features(pixels: Pixels) -> np.ndarray:
    """Return the numbers named in `MEASURES` of a prepared RGB image."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    contrast = cv2.meanStdDev(grey)[1][0, 0]
    edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))[1][0, 0]
    # By channel this is eighty times as fast as along the last axis.
    red, green, blue = cv2.split(pixels)
    highest, lowest = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    saturation = cv2.mean(highest)[0] - cv2.mean(lowest)[0]
    # Edges are told apart by their ratio: twice as blurred is as odd as twice as sharp.
    return np.array([*cv2.mean(pixels)[:3], contrast, saturation, np.log(edges + 0.1), (grey < _DARK_LEVEL).mean()])


def fit_ood_monitor(features: Sequence[np.ndarray]) -> OodMonitor | None:
    """Return what is ordinary, from the measures of images of validation; None where they are too few."""
    if len(features) < MIN_IMAGES:
        return None
    rows = np.stack(features)
    # Judged by a middle that it has moved itself, an image would look more ordinary than a new one does.
    fold = np.random.default_rng(len(rows)).permutation(len(rows)) % _N_FOLDS
    odd = np.zeros(len(rows))
    for number in range(_N_FOLDS):
        odd[fold == number] = _compute_deviations(
            rows[fold == number], *_compute_mean_and_std(rows[fold != number])
        ).max(axis=1)
    within = min(len(rows), int(np.ceil((len(rows) + 1) * _QUANTILE)))
    middle, spread = _compute_mean_and_std(rows)
    return OodMonitor(tuple(map(float, middle)), tuple(map(float, spread)), float(np.sort(odd)[within - 1]), len(rows))


def _compute_mean_and_std(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each measure and its deviation, 1 where all images are alike in it."""
    spread = rows.std(axis=0)
    return rows.mean(axis=0), np.where(spread > 0, spread, 1.0)


def _compute_deviations(rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return np.abs(rows - mean) / std
