"""Bringing pictures of any shape to the Store's square: disc, crop, fit, then enhancement and stain."""

import cv2
import numpy as np

from parfocal.data.enhance import enhanced
from parfocal.data.stain import stained
from parfocal.parts import ImagesPart

_DISC_SIDE = 256


def frame(picture: np.ndarray, images: ImagesPart) -> np.ndarray:
    """Return the RGB pixels (size, size, 3) that a Store holds of a picture."""
    return stained(enhanced(framed_like(picture, picture, images), images), images)


def framed_like(other: np.ndarray, picture: np.ndarray, images: ImagesPart) -> np.ndarray:
    """Return another picture of the same scene and size, such as a mask, cut and fitted as `picture` is."""
    if images.crop_disc:
        top, bottom, left, right = disc(picture)
        other = other[top:bottom, left:right]
    if images.centre_crop:
        other = _centre(other, images.centre_crop)
    return _fitted(other, images)


def reduction(width: int, height: int, images: ImagesPart) -> int:
    """Say by how much a JPEG may be shrunk while it is decoded: 1, 2, 4 or 8, never below what the framing keeps."""
    if images.fit == "none" or images.centre_crop:
        return 1
    # A disc may fill as little as half of the picture.
    spare = min(width, height) / (images.size * (2 if images.crop_disc else 1))
    return next((factor for factor in (8, 4, 2) if spare >= factor), 1)


def disc(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Find the bright disc of a fundus photograph on its black surround: top, bottom, left and right."""
    height, width = picture.shape[:2]
    scale = min(1.0, _DISC_SIDE / max(height, width))
    small = cv2.resize(
        picture, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    bright = cv2.GaussianBlur(small.max(axis=2), (0, 0), 2)
    inside = bright > max(8, 0.12 * float(np.percentile(bright, 95)))
    spans: list[tuple[int, int]] = []
    for axis, length in ((1, height), (0, width)):
        lines = np.flatnonzero(inside.mean(axis=axis) > 0.02)
        if len(lines) < 0.25 * inside.shape[1 - axis]:
            return 0, height, 0, width
        spans.append((int(lines[0] / scale), min(length, int(np.ceil((lines[-1] + 1) / scale)))))
    (top, bottom), (left, right) = spans
    return top, bottom, left, right


def _fitted(picture: np.ndarray, images: ImagesPart) -> np.ndarray:
    height, width = picture.shape[:2]
    side = min(height, width)
    if images.fit == "none":
        return _centre(picture, images.size)
    if images.fit == "crop":
        picture = _centre(picture, side)
    elif images.fit == "pad":
        picture = _centre(picture, max(height, width))
    if picture.shape[:2] == (images.size, images.size):
        return np.ascontiguousarray(picture)
    # Averaging by area is six times slower, and no nearer to the full picture, where less than half is dropped.
    method = cv2.INTER_AREA if side >= 2 * images.size else cv2.INTER_LINEAR
    return cv2.resize(picture, (images.size, images.size), interpolation=method)


def _centre(picture: np.ndarray, side: int) -> np.ndarray:
    """Return the central square at the picture's own scale, black where the picture is smaller."""
    height, width = picture.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    picture = picture[top : top + side, left : left + side]
    down, across = side - picture.shape[0], side - picture.shape[1]
    if not down and not across:
        return picture
    edges = (down // 2, down - down // 2, across // 2, across - across // 2)
    return cv2.copyMakeBorder(picture, *edges, cv2.BORDER_CONSTANT, value=(0, 0, 0))
