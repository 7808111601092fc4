"""Near-duplicate images: a descriptor of each image, and the sets of images whose descriptors are nearly the same.

Measured on copies (JPEG at quality 50 to 95, resized by a factor of 0.5 to 2, brighter by 5 %, darker by 10 %): the
smallest fraction of any of these copies that is found, of JPEGs at quality 95, and of copies that are darker, resized
by 0.8 and recompressed at once; and the number of pairs of different images that are taken for copies.

    smear fields, 224 pixels         1.00  1.00  1.00    37 of 3.9 million pairs
    segmented cells on black, 450    0.96  1.00  0.98    -
    segmented cells on black, 64     0.57  1.00  0.48    -
    fundus photographs, 224          0.98  1.00  0.98    14 of 4.9 million pairs
    fundus photographs, 224 to 64    0.98  1.00  0.98    14 of 4.9 million pairs
    fundus photographs, 256          1.00  1.00  1.00    0 of 4.9 million pairs
    fundus photographs, 256 to 64    1.00  1.00  0.99    0 of 4.9 million pairs
    natural images, 32               0.89  1.00  0.97    1 of 12.5 million pairs

Some of these pairs are unmarked copies, above all those of the smear fields. Images smaller than 16 pixels are skipped.
"""

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MIN_SIMILARITY = 0.95
"""Near-duplicates have descriptors with at least this cosine similarity."""

N_COEFFICIENTS = 64
"""The length of a descriptor."""

_N_WAVES = 14
_MAX_SIDE = 96
_WINDOW_DEVIATIONS = 2.5
_NEIGHBORHOOD = 0.058
_SOFTNESS = 8.0
_MIN_FOREGROUND = 6.0
_MAX_FOREGROUND = 24.0
_MIN_COEFFICIENT = 0.001
_MAX_PAIRS_AT_ONCE = 1 << 22

# Frequencies that are even in both directions are left out: they measure the size of a centered cell or disc, which
# all images of a data set have in common.
_FREQUENCIES = sorted(
    ((row, column) for row in range(_N_WAVES) for column in range(_N_WAVES) if row % 2 or column % 2),
    key=lambda frequency: (sum(frequency), frequency),
)[:N_COEFFICIENTS]
_ROW_FREQUENCIES, _COLUMN_FREQUENCIES = (np.array(numbers) for numbers in zip(*_FREQUENCIES, strict=True))
_HALF_PERIODS = np.pi * np.arange(_N_WAVES, dtype=np.float32)[:, None]


def find_near_duplicates(descriptors: np.ndarray, min_similarity: float = MIN_SIMILARITY) -> list[np.ndarray]:
    """Return the sets of row numbers whose descriptors are linked by steps of at least this cosine similarity.

    Rows of zeros are in no set.
    """
    unique, inverse = np.unique(descriptors, axis=0, return_inverse=True)
    labels = np.arange(len(unique))
    n_rows = max(1, _MAX_PAIRS_AT_ONCE // max(1, len(unique)))
    for start in range(0, len(unique), n_rows):
        block = slice(start, start + n_rows)
        near = unique[block] @ unique[start:].T >= min_similarity
        # Every row is near itself.
        np.fill_diagonal(near, False)
        if near.any():
            near &= labels[block, None] != labels[start:]
            first, second = np.nonzero(near)
            edges = (labels[start + first], labels[start + second])
            graph = coo_array((np.ones(len(first), bool), edges), shape=(len(unique), len(unique)))
            labels = connected_components(graph, directed=False)[1][labels]
    labels = np.where(unique.any(axis=1), labels, -1)[inverse.ravel()]
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    duplicates = [rows for rows in np.split(order, starts) if len(rows) > 1]
    return sorted(duplicates, key=lambda rows: int(rows[0]))


def find_nearest(descriptors: np.ndarray, references: np.ndarray, min_similarity: float = MIN_SIMILARITY) -> np.ndarray:
    """Return for each descriptor the row of the most similar reference, or -1 if none is similar enough."""
    nearest = np.full(len(descriptors), -1)
    n_rows = max(1, _MAX_PAIRS_AT_ONCE // max(1, len(references)))
    for start in range(0, len(descriptors) if len(references) else 0, n_rows):
        similarities = descriptors[start : start + n_rows] @ references.T
        is_near = similarities.max(axis=1) >= min_similarity
        nearest[start : start + n_rows] = np.where(is_near, similarities.argmax(axis=1), -1)
    return nearest


def compute_descriptor(image: np.ndarray) -> np.ndarray:
    """Return 64 numbers, a unit vector, that change little when an RGB image is recompressed, resized or brightened.

    They are low-frequency cosine coefficients. Before, the brightness and contrast around every pixel are normalized,
    and the cosines are fitted to the foreground. An image that is too uniform, or smaller than 16 pixels, has only
    zeros. Rotated, mirrored and cropped copies have different descriptors.
    """
    height, width = image.shape[:2]
    no_descriptor = np.zeros(N_COEFFICIENTS, np.float32)
    if min(height, width) < 16:
        return no_descriptor
    gray, reduction = _to_gray(image)
    rows = (np.arange(gray.shape[0], dtype=np.float32) + 0.5) * (reduction / height)
    columns = (np.arange(gray.shape[1], dtype=np.float32) + 0.5) * (reduction / width)
    row_window, column_window = _find_foreground_windows(gray, rows, columns)
    foreground = float(np.sqrt((row_window[1] - row_window[0]) * (column_window[1] - column_window[0])))
    # Subtract from every pixel the mean around it, and divide by the standard deviation there.
    sigma_y, sigma_x = (max(0.5, _NEIGHBORHOOD * foreground * side) for side in gray.shape)
    contrast = gray - cv2.GaussianBlur(gray, (0, 0), sigma_x, sigmaY=sigma_y)
    deviation = cv2.sqrt(cv2.GaussianBlur(contrast * contrast, (0, 0), sigma_x, sigmaY=sigma_y))
    normalized = contrast / (deviation + _SOFTNESS)
    waves = _cosine_basis(rows, *row_window) @ normalized @ _cosine_basis(columns, *column_window).T
    coefficients = waves[_ROW_FREQUENCIES, _COLUMN_FREQUENCIES]
    if np.count_nonzero(np.abs(coefficients) < _MIN_COEFFICIENT) > N_COEFFICIENTS // 2:
        return no_descriptor
    # Square roots, so that a few large coefficients, which images of one kind share, do not outweigh all others.
    descriptor = np.copysign(np.sqrt(np.abs(coefficients)), coefficients)
    return (descriptor / np.linalg.norm(descriptor)).astype(np.float32)


def _to_gray(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the gray image, halved until its shorter side is below 96 pixels, and the factor of the reduction."""
    reduction = 1
    while min(image.shape[:2]) >= _MAX_SIDE:
        height = image.shape[0] // 2
        width = image.shape[1] // 2
        image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        reduction *= 2
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), reduction


def _find_foreground_windows(gray: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> list[tuple[float, float]]:
    """Return where the foreground, which differs from the border, starts and ends: in shares of height and width."""
    border = np.concatenate((gray[0], gray[-1], gray[:, 0], gray[:, -1])).mean()
    # The noise that a JPEG leaves on a black background must not widen the window.
    foreground = np.clip(np.abs(gray - border) - _MIN_FOREGROUND, 0, _MAX_FOREGROUND)
    windows: list[tuple[float, float]] = []
    for axis, positions in ((1, rows), (0, columns)):
        weights = foreground.sum(axis) + 1e-6
        weights /= weights.sum()
        center = float(weights @ positions)
        deviation = max(float(np.sqrt(weights @ (positions - center) ** 2)), 0.01)
        start = max(0.0, center - _WINDOW_DEVIATIONS * deviation)
        end = min(1.0, center + _WINDOW_DEVIATIONS * deviation)
        windows.append((start, end))
    return windows


def _cosine_basis(positions: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return cosines of 0, 1, 2, … half-periods between start and end, 0 outside, weighted so that weights sum to 1."""
    half = 0.5 * (positions[1] - positions[0])
    inside = np.clip(np.minimum(positions + half, end) - np.maximum(positions - half, start), 0, None)
    return np.cos(_HALF_PERIODS * ((positions - start) / (end - start))) * (inside / inside.sum())
