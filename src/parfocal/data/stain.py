"""Bringing every smear to one stain, by Reinhard's or Macenko's method, with the reference from the recipe.

Black pixels are the ground of segmented cells: they take no part, and stay black.
"""

import cv2
import numpy as np

from parfocal.parts import ImagesConfig

_TRANSMITTED_LIGHT = 240.0
_MIN_OPTICAL_DENSITY = 0.15
_MIN_PIXELS = 100
_MAX_BACKGROUND = 8


def normalize_stain(image: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Return the picture in the reference stain, or as it is where none is asked for or too little is stained."""
    if config.stain == "none":
        return image
    cell = image.max(axis=2) > _MAX_BACKGROUND
    if np.count_nonzero(cell) < _MIN_PIXELS:
        return image
    seen = image[cell]
    changed = _normalize_reinhard(seen, config) if config.stain == "reinhard" else _normalize_macenko(seen, config)
    if changed is None:
        return image
    out = np.zeros_like(image)
    out[cell] = changed
    return out


def _normalize_reinhard(cell_pixels: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Give the colours, in L*a*b*, the reference's mean and deviation."""
    lab = cv2.cvtColor(cell_pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    spread = np.maximum(lab.std(axis=0), 1e-6)
    lab = (lab - lab.mean(axis=0)) / spread * config.stain_deviation + config.stain_mean
    rgb = cv2.cvtColor(lab[None].astype(np.float32), cv2.COLOR_LAB2RGB)[0]
    return np.clip(rgb * 255, 0, 255).round().astype(np.uint8)


def _normalize_macenko(cell_pixels: np.ndarray, config: ImagesConfig) -> np.ndarray | None:
    """Find the two stains as the extreme directions of optical density, and give each the reference's colour."""
    density = -np.log((cell_pixels.astype(np.float64) + 1) / _TRANSMITTED_LIGHT)
    dense = density[(density > _MIN_OPTICAL_DENSITY).any(axis=1)]
    if len(dense) < _MIN_PIXELS:
        return None
    _, vectors = np.linalg.eigh(np.cov(dense.T))
    plane = vectors[:, [2, 1]] * np.where(vectors[:, [2, 1]].sum(axis=0) < 0, -1, 1)
    angle = np.arctan2(*(dense @ plane).T[::-1])
    ends = np.percentile(angle, (1, 99))
    stains = plane @ np.stack([np.cos(ends), np.sin(ends)])
    # The stain that takes more of the red light is the nucleus's, and comes first.
    stains = stains[:, np.argsort(-stains[0])]
    amounts = np.linalg.lstsq(stains, density.T, rcond=None)[0]
    most = np.percentile(amounts, 99, axis=1)
    if (most <= 1e-6).any():
        return None
    amounts *= (np.array(config.stain_most) / most)[:, None]
    vectors_wanted = np.array(config.stain_vectors).reshape(2, 3).T
    return np.clip(_TRANSMITTED_LIGHT * np.exp(-vectors_wanted @ amounts) - 1, 0, 255).round().astype(np.uint8).T
