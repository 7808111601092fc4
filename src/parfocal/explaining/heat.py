"""Heat: what speaks for an answer in warm colours and what speaks against it in cold ones, clear where nothing does.

Strength is told by opacity on a scale that the caller names, so that an empty map looks empty.
"""

import cv2
import numpy as np

from parfocal.data.decode import Pixels

_FOR = ((0.0, (255, 64, 0)), (0.5, (255, 140, 0)), (1.0, (255, 245, 60)))
_AGAINST = ((0.0, (0, 70, 200)), (0.5, (0, 130, 255)), (1.0, (120, 235, 255)))
_MOST_OPAQUE = 0.85
_LEAST_SIDE = 224
_LEVELS = ((1 / 3, 1), (2 / 3, 2))


def shared_scale(*evidence: np.ndarray) -> float:
    """Return the largest value, for or against, of maps that are to be seen side by side; 1 where there is none."""
    return max((float(np.abs(one).max()) for one in evidence if one.size), default=0.0) or 1.0


def heat(evidence: np.ndarray, scale: float, side: int) -> Pixels:
    """Return one map (rows, columns) as RGBA pixels (side, side, 4), to be laid over the image."""
    strength = np.clip(enlarged(evidence, side) / scale, -1, 1)
    colours = np.where((strength < 0)[..., None], _ramp(-strength, _AGAINST), _ramp(strength, _FOR))
    opacity = 255 * _MOST_OPAQUE * np.abs(strength)
    return np.concatenate([colours, opacity[..., None]], axis=2).round().astype(np.uint8)


def overlay(picture: Pixels, evidence: np.ndarray, scale: float) -> Pixels:
    """Return RGB pixels: the image in grey, its map over it, and lines at a third and two thirds of the scale.

    Small images are enlarged, so that the lines stay fine.
    """
    side = max(len(picture), _LEAST_SIDE)
    below = cv2.cvtColor(cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2GRAY)
    layer = heat(evidence, scale, side).astype(np.float32)
    share = layer[..., 3:] / 255
    mixed = (below[..., None] * (1 - share) + layer[..., :3] * share).round().astype(np.uint8)
    for level, width in _LEVELS:
        cv2.drawContours(mixed, contours(evidence, level * scale, side), -1, (255, 255, 255), width, cv2.LINE_AA)
    return mixed


def contours(evidence: np.ndarray, level: float, side: int) -> list[np.ndarray]:
    """Return the lines, in pixels of an image of this side, within which a map speaks for its answer so strongly."""
    inside = (enlarged(evidence, side) >= level).astype(np.uint8)
    return list(cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0])


def grey(evidence: np.ndarray, scale: float, side: int) -> Pixels:
    """Return the map alone as grey pixels (side, side): 128 is nothing, 255 fully for, 1 fully against."""
    return (128 + 127 * np.clip(enlarged(evidence, side) / scale, -1, 1)).round().astype(np.uint8)


def enlarged(evidence: np.ndarray, side: int) -> np.ndarray:
    """Return a map smoothly at the image's size; nothing is higher than the map's own peak."""
    return cv2.resize(evidence.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)


def _ramp(strength: np.ndarray, stops: tuple[tuple[float, tuple[int, int, int]], ...]) -> np.ndarray:
    at = [place for place, _ in stops]
    return np.stack([np.interp(strength, at, [colour[part] for _, colour in stops]) for part in range(3)], axis=-1)
