"""Render heatmaps: evidence for a class in warm colors, evidence against it in cold colors, transparent at zero.

Opacity shows strength on a scale that the caller sets, so that an empty map looks empty.
"""

import cv2
import numpy as np

from parfocal.data.decode import Pixels

_WARM_STOPS = ((0.0, (255, 64, 0)), (0.5, (255, 140, 0)), (1.0, (255, 245, 60)))
_COLD_STOPS = ((0.0, (0, 70, 200)), (0.5, (0, 130, 255)), (1.0, (120, 235, 255)))
_MAX_OPACITY = 0.85
_MIN_SIDE = 224
# Each contour line: its share of the scale, and its width in pixels.
_CONTOUR_LEVELS = ((1 / 3, 1), (2 / 3, 2))


def compute_shared_scale(*evidence: np.ndarray) -> float:
    """Return the largest absolute value of maps that are to be compared; 1 if all are empty or zero."""
    return max((float(np.abs(array).max()) for array in evidence if array.size), default=0.0) or 1.0


def render_heatmap(evidence: np.ndarray, scale: float, side: int) -> Pixels:
    """Return a map (rows, columns) as RGBA pixels (side, side, 4), to be laid over the image."""
    strength = np.clip(resize_map(evidence, side) / scale, -1, 1)
    colors = np.where(
        (strength < 0)[..., None],
        _interpolate_colors(-strength, _COLD_STOPS),
        _interpolate_colors(strength, _WARM_STOPS),
    )
    opacity = 255 * _MAX_OPACITY * np.abs(strength)
    return np.concatenate([colors, opacity[..., None]], axis=2).round().astype(np.uint8)


def overlay_heatmap(image: Pixels, evidence: np.ndarray, scale: float) -> Pixels:
    """Return RGB pixels: the image in gray, its map over it, and contour lines at 1/3 and 2/3 of the scale."""
    # Small images are enlarged, so that the lines stay thin.
    side = max(len(image), _MIN_SIDE)
    gray = cv2.cvtColor(cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2GRAY)
    heatmap = render_heatmap(evidence, scale, side).astype(np.float32)
    opacity = heatmap[..., 3:] / 255
    blended = (gray[..., None] * (1 - opacity) + heatmap[..., :3] * opacity).round().astype(np.uint8)
    for level, width in _CONTOUR_LEVELS:
        lines = find_contours(evidence, level * scale, side)
        cv2.drawContours(blended, lines, -1, (255, 255, 255), width, cv2.LINE_AA)
    return blended


def find_contours(evidence: np.ndarray, level: float, side: int) -> list[np.ndarray]:
    """Return the outlines, in pixels of an image of this side, of the areas where a map reaches a level."""
    inside = (resize_map(evidence, side) >= level).astype(np.uint8)
    return list(cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0])


def render_gray_map(evidence: np.ndarray, scale: float, side: int) -> Pixels:
    """Return a map alone as gray pixels (side, side): 128 is zero, 255 fully for the class, 1 fully against it."""
    return (128 + 127 * np.clip(resize_map(evidence, side) / scale, -1, 1)).round().astype(np.uint8)


def resize_map(evidence: np.ndarray, side: int) -> np.ndarray:
    """Interpolate a map to the size of the image; no value exceeds the peak of the map."""
    return cv2.resize(evidence.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)


def _interpolate_colors(strength: np.ndarray, stops: tuple[tuple[float, tuple[int, int, int]], ...]) -> np.ndarray:
    positions = [position for position, _ in stops]
    channels = [[color[channel] for _, color in stops] for channel in range(3)]
    return np.stack([np.interp(strength, positions, values) for values in channels], axis=-1)
