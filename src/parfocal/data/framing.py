"""Bringing pictures of any shape to the Store's square: disc, crop, fit, then enhancement and stain."""

import cv2
import numpy as np

from parfocal.data.enhance import enhance
from parfocal.data.stain import normalize_stain
from parfocal.parts import ImagesConfig

_DISC_SEARCH_SIDE = 256


def preprocess(image: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Return the RGB pixels (size, size, 3) that a Store holds of a picture."""
    return normalize_stain(enhance(crop_and_resize(image, image, config), config), config)


def crop_and_resize(image: np.ndarray, reference: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Return another picture of the same scene and size, such as a mask, cut and fitted as `picture` is."""
    if config.crop_disc:
        top, bottom, left, right = find_disc(reference)
        image = image[top:bottom, left:right]
    if config.centre_crop:
        image = _center_crop(image, config.centre_crop)
    return _resize(image, config)


def choose_jpeg_reduction(width: int, height: int, config: ImagesConfig) -> int:
    """Say by how much a JPEG may be shrunk while it is decoded: 1, 2, 4 or 8, never below what the framing keeps."""
    if config.fit == "none" or config.centre_crop:
        return 1
    # A disc may fill as little as half of the picture.
    spare = min(width, height) / (config.size * (2 if config.crop_disc else 1))
    return next((factor for factor in (8, 4, 2) if spare >= factor), 1)


def find_disc(image: np.ndarray) -> tuple[int, int, int, int]:
    """Find the bright disc of a fundus photograph on its black surround: top, bottom, left and right."""
    height, width = image.shape[:2]
    scale = min(1.0, _DISC_SEARCH_SIDE / max(height, width))
    small = cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
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


def _resize(image: np.ndarray, config: ImagesConfig) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    if config.fit == "none":
        return _center_crop(image, config.size)
    if config.fit == "crop":
        image = _center_crop(image, side)
    elif config.fit == "pad":
        image = _center_crop(image, max(height, width))
    if image.shape[:2] == (config.size, config.size):
        return np.ascontiguousarray(image)
    # Averaging by area is six times slower, and no nearer to the full picture, where less than half is dropped.
    method = cv2.INTER_AREA if side >= 2 * config.size else cv2.INTER_LINEAR
    return cv2.resize(image, (config.size, config.size), interpolation=method)


def _center_crop(image: np.ndarray, side: int) -> np.ndarray:
    """Return the central square at the picture's own scale, black where the picture is smaller."""
    height, width = image.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    image = image[top : top + side, left : left + side]
    down, across = side - image.shape[0], side - image.shape[1]
    if not down and not across:
        return image
    edges = (down // 2, down - down // 2, across // 2, across - across // 2)
    return cv2.copyMakeBorder(image, *edges, cv2.BORDER_CONSTANT, value=(0, 0, 0))
