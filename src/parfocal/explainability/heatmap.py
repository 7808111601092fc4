"""Heat: what speaks for an answer in warm colours and what speaks against it in cold ones, clear where nothing does.

Strength is told by opacity on a scale that the caller names, so that an empty map looks empty.
"""

import cv2
import numpy as np

from parfocal.data.decode import Pixels

_WARM_STOPS = ((0.0, (255, 64, 0)), (0.5, (255, 140, 0)), (1.0, (255, 245, 60)))
_COLD_STOPS = ((0.0, (0, 70, 200)), (0.5, (0, 130, 255)), (1.0, (120, 235, 255)))
_MAX_OPACITY = 0.85
_MIN_SIDE = 224
_CONTOUR_LEVELS = ((1 / 3, 1), (2 / 3, 2))


def compute_shared_scale(*evidence: np.ndarray) -> float:
    """Return the largest value, for or against, of maps that are to be seen side by side; 1 where there is none."""
    return max((float(np.abs(one).max()) for one in evidence if one.size), default=0.0) or 1.0


def render_heatmap(evidence: np.ndarray, scale: float, side: int) -> Pixels:
    """Return one map (rows, columns) as RGBA pixels (side, side, 4), to be laid over the image."""
    strength = np.clip(resize_map(evidence, side) / scale, -1, 1)
    colours = np.where(
        (strength < 0)[..., None],
        _interpolate_colors(-strength, _COLD_STOPS),
        _interpolate_colors(strength, _WARM_STOPS),
    )
    opacity = 255 * _MAX_OPACITY * np.abs(strength)
    return np.concatenate([colours, opacity[..., None]], axis=2).round().astype(np.uint8)


def overlay_heatmap(image: Pixels, evidence: np.ndarray, scale: float) -> Pixels:
    """Return RGB pixels: the image in grey, its map over it, and lines at a third and two thirds of the scale.

    Small images are enlarged, so that the lines stay fine.
    """
    side = max(len(image), _MIN_SIDE)
    below = cv2.cvtColor(cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2GRAY)
    layer = render_heatmap(evidence, scale, side).astype(np.float32)
    share = layer[..., 3:] / 255
    mixed = (below[..., None] * (1 - share) + layer[..., :3] * share).round().astype(np.uint8)
    for level, width in _CONTOUR_LEVELS:
        cv2.drawContours(mixed, find_contours(evidence, level * scale, side), -1, (255, 255, 255), width, cv2.LINE_AA)
    return mixed


def find_contours(evidence: np.ndarray, level: float, side: int) -> list[np.ndarray]:
    """Return the lines, in pixels of an image of this side, within which a map speaks for its answer so strongly."""
    inside = (resize_map(evidence, side) >= level).astype(np.uint8)
    return list(cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0])


def render_gray_map(evidence: np.ndarray, scale: float, side: int) -> Pixels:
    """Return the map alone as grey pixels (side, side): 128 is nothing, 255 fully for, 1 fully against."""
    return (128 + 127 * np.clip(resize_map(evidence, side) / scale, -1, 1)).round().astype(np.uint8)


def resize_map(evidence: np.ndarray, side: int) -> np.ndarray:
    """Return a map smoothly at the image's size; nothing is higher than the map's own peak."""
    return cv2.resize(evidence.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)


def _interpolate_colors(strength: np.ndarray, stops: tuple[tuple[float, tuple[int, int, int]], ...]) -> np.ndarray:
    at = [place for place, _ in stops]
    return np.stack([np.interp(strength, at, [colour[part] for _, colour in stops]) for part in range(3)], axis=-1)
