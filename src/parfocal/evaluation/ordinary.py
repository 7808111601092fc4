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

MEASURES = ("red", "green", "blue", "contrast", "saturation", "sharpness", "darkness")
"""What is measured: mean colours, the deviation of grey, colourfulness, edges, and the share that is nearly black."""

LEAST, MOST = 20, 2000
"""From fewer images of validation nothing can be said, and more are not measured."""

_ORDINARY = 0.99
_FOLDS = 10
_NEARLY_BLACK = 16


@dataclass(frozen=True)
class Ordinary:
    """The middle and the spread of each measure on validation, and the limit of deviations."""

    middle: tuple[float, ...]
    spread: tuple[float, ...]
    limit: float
    images: int

    def unusual(self, measured: np.ndarray) -> tuple[str, ...]:
        """Return the measures in which an image is out of the ordinary; none for most images."""
        away = _deviations(measured[None], np.array(self.middle), np.array(self.spread))[0]
        return tuple(name for name, one in zip(MEASURES, away, strict=True) if one > self.limit)


def measures(pixels: Pixels) -> np.ndarray:
    """Return the numbers named in `MEASURES` of a prepared RGB image."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    contrast = cv2.meanStdDev(grey)[1][0, 0]
    edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))[1][0, 0]
    # By channel this is eighty times as fast as along the last axis.
    red, green, blue = cv2.split(pixels)
    highest, lowest = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    saturation = cv2.mean(highest)[0] - cv2.mean(lowest)[0]
    # Edges are told apart by their ratio: twice as blurred is as odd as twice as sharp.
    return np.array([*cv2.mean(pixels)[:3], contrast, saturation, np.log(edges + 0.1), (grey < _NEARLY_BLACK).mean()])


def fitted_ordinary(measured: Sequence[np.ndarray]) -> Ordinary | None:
    """Return what is ordinary, from the measures of images of validation; None where they are too few."""
    if len(measured) < LEAST:
        return None
    rows = np.stack(measured)
    # Judged by a middle that it has moved itself, an image would look more ordinary than a new one does.
    fold = np.random.default_rng(len(rows)).permutation(len(rows)) % _FOLDS
    odd = np.zeros(len(rows))
    for number in range(_FOLDS):
        odd[fold == number] = _deviations(rows[fold == number], *_middle(rows[fold != number])).max(axis=1)
    within = min(len(rows), int(np.ceil((len(rows) + 1) * _ORDINARY)))
    middle, spread = _middle(rows)
    return Ordinary(tuple(map(float, middle)), tuple(map(float, spread)), float(np.sort(odd)[within - 1]), len(rows))


def _middle(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each measure and its deviation, 1 where all images are alike in it."""
    spread = rows.std(axis=0)
    return rows.mean(axis=0), np.where(spread > 0, spread, 1.0)


def _deviations(rows: np.ndarray, middle: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return np.abs(rows - middle) / spread
