"""Places: which share of a map lies on a region, and whether its peak does; border and black surround as regions.

A map is coarse. Each of its values stands for a cell of the image, and counts for a region by the share of the cell
that the region covers.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from parfocal.data.decode import Pixels

BORDER_WIDTH = 1 / 12
"""How wide the border is, as a share of the side."""

_MAX_BLACK_VALUE = 12
_MIN_COVERAGE = 1e-6


@dataclass(frozen=True)
class RegionOverlap:
    """How one map lies to one region: which share of what speaks for the answer is on it, and whether the peak is.

    `random_share` and `random_hit` are what to expect of the same values in random places. `share` is None where
    nothing speaks for the answer.
    """

    share: float | None
    random_share: float
    hit: bool
    random_hit: float


def compute_region_overlap(evidence: np.ndarray, region: np.ndarray) -> RegionOverlap:
    """Say how a map (rows, columns) lies to a region (side, side), which may be shares of pixels.

    The peak is a hit where its cell holds some of the region.
    """
    covered = compute_cell_coverage(region, evidence.shape)
    touched = covered > _MIN_COVERAGE
    hit = bool(touched.flat[evidence.argmax()]) and float(evidence.max()) > 0
    return RegionOverlap(compute_region_share(evidence, region), float(covered.mean()), hit, float(touched.mean()))


def compute_region_share(evidence: np.ndarray, region: np.ndarray) -> float | None:
    """Return which share of what speaks for the answer lies on a region, or None where nothing does."""
    positive = np.clip(evidence, 0, None)
    total = float(positive.sum())
    return float((positive * compute_cell_coverage(region, evidence.shape)).sum()) / total if total > 0 else None


def compute_cell_coverage(region: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which share of each cell of a map of this shape a region (side, side) covers."""
    rows, columns = shape
    return cv2.resize(region.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)


def border_mask(side: int) -> np.ndarray:
    """Return which pixels (side, side) are the outer twelfth on each side."""
    made = np.ones((side, side), bool)
    width = max(1, round(side * BORDER_WIDTH))
    made[width : side - width, width : side - width] = False
    return made


def center_mask(side: int) -> np.ndarray:
    """Return which pixels (side, side) are a square in the middle, of about the border's area."""
    across = round(float(np.sqrt(border_mask(side).sum())))
    start = (side - across) // 2
    made = np.zeros((side, side), bool)
    made[start : start + across, start : start + across] = True
    return made


def background_mask(image: Pixels) -> np.ndarray:
    """Return which pixels (side, side) are the surround: black, and joined to the image's edge."""
    black = (image.max(axis=2) <= _MAX_BLACK_VALUE).astype(np.uint8)
    _, parts = cv2.connectedComponents(black, connectivity=4)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, edge[edge > 0])
