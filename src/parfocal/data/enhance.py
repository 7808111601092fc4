"""Making small lesions stand out from uneven light, once and for all images alike."""

import cv2
import numpy as np

from parfocal.parts import ImagesConfig

_GAIN = 4
_MID_GRAY = 128
# Deviation of the local mean: a thirtieth of the radius, as in the fundus competition's winning entry.
_SIGMA_PER_RADIUS = 1 / 30
_MAX_BLACK = 10


def enhance(image: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Return the picture with `clahe` (contrast evened by tiles), with its `local_average` taken away, or as it is."""
    if config.enhance == "clahe":
        return _apply_clahe(image)
    if config.enhance == "local_average":
        return _subtract_local_average(image)
    return image


def _apply_clahe(image: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _subtract_local_average(image: np.ndarray) -> np.ndarray:
    """Spread what differs from the local mean colour about mid-grey; the black surround becomes mid-grey too."""
    average = cv2.GaussianBlur(image, (0, 0), max(1.0, len(image) / 2 * _SIGMA_PER_RADIUS))
    spread = cv2.addWeighted(image, _GAIN, average, -_GAIN, _MID_GRAY)
    spread[image.max(axis=2) <= _MAX_BLACK] = _MID_GRAY
    return spread
