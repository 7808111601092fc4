"""Bringing pictures of any shape to the Store's square: disc, crop, fit, then enhancement and stain."""
# MERGED: """Making small lesions stand out from uneven light, once and for all images alike."""
# MERGED: """Bringing every smear to one stain, by Reinhard's or Macenko's method, with the reference from the recipe.
#
# Black pixels are the ground of segmented cells: they take no part, and stay black.
# """

import cv2
import numpy as np

from parfocal.schema import ImagesConfig

_DISC_SEARCH_SIDE = 256


def preprocess(image: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Return the RGB pixels (size, size, 3) that a Store holds of a picture."""
    return normalize_stain(enhance(crop_and_resize(image, image, config), config), config)


def crop_and_resize(image: np.ndarray, reference: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Return another picture of the same scene and size, such as a mask, cut and fitted as `picture` is."""
    if config.crop_disc:
        top, bottom, left, right = find_disc(reference)
        image = image[top:bottom, left:right]
    if config.center_crop:
        image = _center_crop(image, config.center_crop)
    return _resize(image, config)


def choose_jpeg_reduction(width: int, height: int, config: ImagesConfig) -> int:
    """Say by how much a JPEG may be shrunk while it is decoded: 1, 2, 4 or 8, never below what the framing keeps."""
    if config.resize_mode == "none" or config.center_crop:
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
    if config.resize_mode == "none":
        return _center_crop(image, config.size)
    if config.resize_mode == "crop":
        image = _center_crop(image, side)
    elif config.resize_mode == "pad":
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


_GAIN = 4
_MID_GRAY = 128
# Deviation of the local mean: a thirtieth of the radius, as in the fundus competition's winning entry.
_SIGMA_PER_RADIUS = 1 / 30
_MAX_BLACK = 10


def enhance(image: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Return the picture with `clahe` (contrast evened by tiles), with its `local_average` taken away, or as it is."""
    if config.enhance == "clahe":
        return _apply_clahe(image)
    if config.enhance == "local_average":
        return _subtract_local_average(image)
    return image


def _apply_clahe(image: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _subtract_local_average(image: np.ndarray) -> np.ndarray:
    """Spread what differs from the local mean colour about mid-grey; the black surround becomes mid-grey too."""
    average = cv2.GaussianBlur(image, (0, 0), max(1.0, len(image) / 2 * _SIGMA_PER_RADIUS))
    spread = cv2.addWeighted(image, _GAIN, average, -_GAIN, _MID_GRAY)
    spread[image.max(axis=2) <= _MAX_BLACK] = _MID_GRAY
    return spread


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
    lab = (lab - lab.mean(axis=0)) / spread * config.stain_std + config.stain_mean
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
    amounts *= (np.array(config.stain_max) / most)[:, None]
    vectors_wanted = np.array(config.stain_vectors).reshape(2, 3).T
    return np.clip(_TRANSMITTED_LIGHT * np.exp(-vectors_wanted @ amounts) - 1, 0, 255).round().astype(np.uint8).T
