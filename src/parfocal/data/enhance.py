"""Making small lesions stand out from uneven light, once and for all images alike."""

import cv2
import numpy as np

from parfocal.parts import ImagesPart

_GAIN = 4
_MID_GREY = 128
# Deviation of the local mean: a thirtieth of the radius, as in the fundus competition's winning entry.
_RADIUS_SHARE = 1 / 30
_DARK = 10


def enhanced(picture: np.ndarray, images: ImagesPart) -> np.ndarray:
    """Return the picture with `clahe` (contrast evened by tiles), with its `local_average` taken away, or as it is."""
    if images.enhance == "clahe":
        return _evened(picture)
    if images.enhance == "local_average":
        return _without_average(picture)
    return picture


def _evened(picture: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _without_average(picture: np.ndarray) -> np.ndarray:
    """Spread what differs from the local mean colour about mid-grey; the black surround becomes mid-grey too."""
    average = cv2.GaussianBlur(picture, (0, 0), max(1.0, len(picture) / 2 * _RADIUS_SHARE))
    spread = cv2.addWeighted(picture, _GAIN, average, -_GAIN, _MID_GREY)
    spread[picture.max(axis=2) <= _DARK] = _MID_GREY
    return spread
