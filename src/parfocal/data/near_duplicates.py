"""Near-identical images: a fingerprint of what a picture shows, and the sets of fingerprints that lie close together.

Measured on copies (JPEG of quality 30 to 90, resized by 0.5 to 2, brighter or darker by 5 to 10 %, and all at once):
the share found within 2, 3 and 4 bits, and how many pairs of other pictures came as close without looking alike.

    smear fields, 224 pixels         0.92  0.97  0.98    none of 3.9 million pairs
    segmented cells on black, 450    0.91  0.95  0.97    none of 1,431 pairs
    fundus photographs, 224          0.90  0.96  0.99    2, 4 and 17 of 4.9 million pairs
    fundus photographs, 256          0.96  0.99  1.00    0, 2 and 6 of 12.5 million pairs
    natural images, 32               0.62     -  0.82    none of 12.5 million pairs

Equal pixels have distance 0. Of pictures below about 64 pixels, resized copies are mostly missed.
"""

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_DISTANCE = 8
"""The largest distance that `alike` searches; beyond it unlike pictures would meet by chance."""

_N_BITS = 64
_N_WAVES = 14
_MAX_SIDE = 96
_WINDOW_DEVIATIONS = 2.5
_NEIGHBORHOOD = 0.058
_SOFTNESS = 8.0
_MAX_FOREGROUND = 24.0
_MIN_COEFFICIENT = 0.001
_MAX_GROUP = 512
_LOOKAHEAD = 16

# A wave that is even both ways says how large a centred cell or disc is, which all pictures of a set share.
_FREQUENCIES = sorted(
    ((down, across) for down in range(_N_WAVES) for across in range(_N_WAVES) if down % 2 or across % 2),
    key=lambda wave: (sum(wave), wave),
)[:_N_BITS]
_ROW_FREQUENCIES, _COLUMN_FREQUENCIES = (np.array(numbers) for numbers in zip(*_FREQUENCIES, strict=True))
_HALF_PERIODS = np.pi * np.arange(_N_WAVES, dtype=np.float32)[:, None]


def perceptual_hash(image: np.ndarray) -> int:
    """Return 64 bits that stay nearly the same when an RGB picture is recompressed, resized or slightly brightened.

    Each bit is the sign of one slow wave (cosine) in the picture, once its light and contrast are evened out around
    every pixel and the waves are fitted over what stands out from the border. A picture that is too plain to tell
    from others, or smaller than 16 pixels, gets 0. Turned, mirrored and cropped copies get other fingerprints.
    """
    height, width = image.shape[:2]
    if min(height, width) < 16:
        return 0
    grey, halved = _to_gray(image)
    rows = (np.arange(grey.shape[0], dtype=np.float32) + 0.5) * (halved / height)
    columns = (np.arange(grey.shape[1], dtype=np.float32) + 0.5) * (halved / width)
    down, across = _find_foreground_windows(grey, rows, columns)
    part = float(np.sqrt((down[1] - down[0]) * (across[1] - across[0])))
    waves = (
        _cosine_basis(rows, *down) @ _normalize_contrast(grey, _NEIGHBORHOOD * part) @ _cosine_basis(columns, *across).T
    )
    telling = waves[_ROW_FREQUENCIES, _COLUMN_FREQUENCIES]
    if np.count_nonzero(np.abs(telling) < _MIN_COEFFICIENT) > _N_BITS // 2:
        return 0
    return int.from_bytes(np.packbits(telling > 0).tobytes(), "big")


def _to_gray(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the picture in grey, its shorter side below 96 pixels, and how many pixels became one."""
    halved = 1
    while min(image.shape[:2]) >= _MAX_SIDE:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        halved *= 2
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), halved


def _find_foreground_windows(gray: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> list[tuple[float, float]]:
    """Return where what stands out from the border begins and ends, as shares of the height and of the width."""
    border = np.concatenate((gray[0], gray[-1], gray[:, 0], gray[:, -1])).mean()
    foreground = np.minimum(np.abs(gray - border), _MAX_FOREGROUND)
    windows: list[tuple[float, float]] = []
    for axis, places in ((1, rows), (0, columns)):
        weights = foreground.sum(axis) + 1e-6
        weights /= weights.sum()
        centre = float(weights @ places)
        spread = max(float(np.sqrt(weights @ (places - centre) ** 2)), 0.01)
        windows.append((max(0.0, centre - _WINDOW_DEVIATIONS * spread), min(1.0, centre + _WINDOW_DEVIATIONS * spread)))
    return windows


def _normalize_contrast(gray: np.ndarray, sigma: float) -> np.ndarray:
    """Take from every pixel the mean around it, and divide by the contrast there."""
    down, across = (max(0.5, sigma * side) for side in gray.shape)
    contrast = gray - cv2.GaussianBlur(gray, (0, 0), across, sigmaY=down)
    deviation = cv2.sqrt(cv2.GaussianBlur(contrast * contrast, (0, 0), across, sigmaY=down))
    return contrast / (deviation + _SOFTNESS)


def _cosine_basis(positions: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return cosines of 0, 1, 2, … half-periods between start and end, nothing outside, in weights that sum to one."""
    half = 0.5 * (positions[1] - positions[0])
    inside = np.clip(np.minimum(positions + half, end) - np.maximum(positions - half, start), 0, None)
    return np.cos(_HALF_PERIODS * ((positions - start) / (end - start))) * (inside / inside.sum())


def find_near_duplicates(hashes: np.ndarray, max_distance: int = 3) -> list[np.ndarray]:
    """Return the sets of row numbers whose fingerprints are chained together by steps of at most `distance` bits.

    Rows whose fingerprint is 0 are in no set. Two fingerprints that differ in at most `distance` bits agree in at
    least one of `distance` + 1 groups of bits, so only those that share such a group are compared.
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise ValueError(f"regression_loss={max_distance}; it is 0 to {MAX_DISTANCE} bits")
    values, places = np.unique(np.asarray(hashes, dtype=np.uint64), return_inverse=True)
    sets = _UnionFind(len(values))
    if max_distance and len(values) > 1:
        known = np.flatnonzero(values)
        _join_near(values, known, np.arange(_N_BITS), max_distance, sets)
    found = np.where(values == 0, -1, sets.labels())[places]
    order = np.argsort(found, kind="stable")
    order = order[np.searchsorted(found[order], 0) :]
    starts = np.flatnonzero(np.diff(found[order])) + 1
    together = [rows for rows in np.split(order, starts) if len(rows) > 1]
    return sorted(together, key=lambda rows: int(rows[0]))


class _UnionFind:
    """Which values are chained together so far."""

    def __init__(self, count: int) -> None:
        self._number = np.arange(count)
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting = 0

    def labels(self) -> np.ndarray:
        """Return for each value the number of its set."""
        if self._pairs:
            first, second = (self._number[np.concatenate(side)] for side in zip(*self._pairs, strict=True))
            edges = coo_array((np.ones(len(first)), (first, second)), shape=2 * self._number.shape)
            self._number = connected_components(edges, directed=False)[1][self._number]
            self._pairs, self._waiting = [], 0
        return self._number

    def are_separate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Say of each pair whether it is not yet known to be in one set."""
        return self._number[first] != self._number[second]

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Take in pairs that belong together."""
        self._pairs.append((first, second))
        self._waiting += len(first)
        if self._waiting > len(self._number):
            self.labels()


def _join_near(values: np.ndarray, rows: np.ndarray, bits: np.ndarray, max_distance: int, sets: _UnionFind) -> None:
    """Join those rows whose values, which agree in all other bits, differ in at most `distance` of these bits."""
    mixed = np.array([np.mean(values[rows] >> np.uint64(bit) & np.uint64(1)) for bit in bits])
    telling = bits[np.argsort(np.abs(mixed - 0.5), kind="stable")]
    crowds: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(max_distance + 1):
        # Dealt out like cards, so that no group is left with bits that all values share.
        group = telling[start :: max_distance + 1]
        keys = values[rows] & np.bitwise_or.reduce(np.uint64(1) << group.astype(np.uint64), initial=0)
        order = np.argsort(keys, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(keys[order])) + 1, len(order))
        sizes = np.diff(ends, prepend=0)
        crowded = (sizes > _MAX_GROUP) & (0 < len(group) < len(bits))
        within = [rows[order[end - size : end]] for end, size in zip(ends[crowded], sizes[crowded], strict=True)]
        crowds += [(crowd, np.setdiff1d(bits, group)) for crowd in within]
        reach = np.where(np.repeat(crowded, sizes), np.arange(len(order)) + _LOOKAHEAD, len(order))
        _compare_neighbors(values, rows[order], np.minimum(np.repeat(ends, sizes), reach), max_distance, sets)
    for crowd, rest in crowds:
        if np.ptp(sets.labels()[crowd]):
            _join_near(values, crowd, rest, max_distance, sets)


def _compare_neighbors(
    values: np.ndarray, rows: np.ndarray, ends: np.ndarray, max_distance: int, sets: _UnionFind
) -> None:
    """Join close rows among those that lie side by side, each with all that follow it up to its end."""
    open_ones = np.flatnonzero(ends > np.arange(len(rows)) + 1)
    step = 1
    while len(open_ones):
        first, second = rows[open_ones], rows[open_ones + step]
        near = _has_few_bits(values[first] ^ values[second], max_distance)
        near &= sets.are_separate(first, second)
        if near.any():
            sets.join(first[near], second[near])
        step += 1
        open_ones = open_ones[ends[open_ones] > open_ones + step]


def _has_few_bits(bits: np.ndarray, max_bits: int) -> np.ndarray:
    """Say of each number whether at most so many of its bits are set."""
    for _ in range(max_bits):
        bits = bits & (bits - np.uint64(1))
    return bits == 0
