"""Preprocess images for the Store: crop the fundus disc, center crop, resize, enhance contrast, normalize stain."""

import cv2
import numpy as np

from parfocal.recipe_schema import ImagesConfig

_DISC_SEARCH_SIDE = 256

_GAIN = 4
_MID_GRAY = 128
# Standard deviation of the local average relative to the disc's radius, as in the winning entry of the Kaggle
# diabetic retinopathy competition.
_SIGMA_PER_RADIUS = 1 / 30
_MAX_BLACK = 10

_TRANSMITTED_LIGHT = 240.0
_MIN_OPTICAL_DENSITY = 0.15
_MIN_PIXELS = 100
_MAX_BACKGROUND = 8


def preprocess(image: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Return the RGB pixels (size, size, 3) that a Store holds for an image."""
    return normalize_stain(enhance(crop_and_resize(image, image, config), config), config)


def crop_and_resize(image: np.ndarray, reference: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Crop and resize an image, such as a mask, as `reference`, an image of the same scene and size, would be."""
    if config.crop_disc:
        top, bottom, left, right = find_disc(reference)
        image = image[top:bottom, left:right]
    if config.center_crop:
        image = _center_crop(image, config.center_crop)
    height, width = image.shape[:2]
    shorter_side = min(height, width)
    if config.resize_mode == "none":
        return _center_crop(image, config.size)
    if config.resize_mode == "crop":
        image = _center_crop(image, shorter_side)
    elif config.resize_mode == "pad":
        image = _center_crop(image, max(height, width))
    if image.shape[:2] == (config.size, config.size):
        return np.ascontiguousarray(image)
    # INTER_AREA is six times slower, and no more accurate when the image shrinks by less than half.
    interpolation = cv2.INTER_AREA if shorter_side >= 2 * config.size else cv2.INTER_LINEAR
    return cv2.resize(image, (config.size, config.size), interpolation=interpolation)


def choose_jpeg_reduction(width: int, height: int, config: ImagesConfig) -> int:
    """Return the largest factor (1, 2, 4 or 8) of a reduced JPEG decoding that loses no stored resolution."""
    if config.resize_mode == "none" or config.center_crop:
        return 1
    # The disc can be as small as half of the image.
    scale = min(width, height) / (config.size * (2 if config.crop_disc else 1))
    return next((factor for factor in (8, 4, 2) if scale >= factor), 1)


def find_disc(image: np.ndarray) -> tuple[int, int, int, int]:
    """Return the top, bottom, left and right of the bright disc of a fundus photograph on its black surround.

    Where no disc is found, these are the edges of the whole image.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _DISC_SEARCH_SIDE / max(height, width))
    small_size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
    brightness = cv2.GaussianBlur(small.max(axis=2), (0, 0), 2)
    inside = brightness > max(8, 0.12 * float(np.percentile(brightness, 95)))
    spans: list[tuple[int, int]] = []
    for axis, length in ((1, height), (0, width)):
        lines = np.flatnonzero(inside.mean(axis=axis) > 0.02)
        if len(lines) < 0.25 * inside.shape[1 - axis]:
            return 0, height, 0, width
        spans.append((int(lines[0] / scale), min(length, int(np.ceil((lines[-1] + 1) / scale)))))
    (top, bottom), (left, right) = spans
    return top, bottom, left, right


def _center_crop(image: np.ndarray, side: int) -> np.ndarray:
    """Return the central square without resizing, padded with black if the image is smaller."""
    height, width = image.shape[:2]
    top = max(0, (height - side) // 2)
    left = max(0, (width - side) // 2)
    image = image[top : top + side, left : left + side]
    missing_height, missing_width = (side - length for length in image.shape[:2])
    if missing_height or missing_width:
        top = missing_height // 2
        left = missing_width // 2
        edges = (top, missing_height - top, left, missing_width - left)
        image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return image


def enhance(image: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Apply `config.enhance`: equalize contrast by tiles (CLAHE), subtract the local average color, or do nothing."""
    if config.enhance == "clahe":
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
        return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    if config.enhance == "local_average":
        average = cv2.GaussianBlur(image, (0, 0), max(1.0, len(image) / 2 * _SIGMA_PER_RADIUS))
        enhanced = cv2.addWeighted(image, _GAIN, average, -_GAIN, _MID_GRAY)
        # The black surround becomes mid-gray, like everything that does not differ from its surroundings.
        enhanced[image.max(axis=2) <= _MAX_BLACK] = _MID_GRAY
        return enhanced
    return image


def normalize_stain(image: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Normalize the stain of a smear by Reinhard's or Macenko's method; the reference is in the recipe.

    Black pixels are the background of segmented cells: they are ignored, and stay black. An image with too few stained
    pixels is returned unchanged.
    """
    if config.stain == "none":
        return image
    cell = image.max(axis=2) > _MAX_BACKGROUND
    if np.count_nonzero(cell) < _MIN_PIXELS:
        return image
    normalize = _normalize_reinhard if config.stain == "reinhard" else _normalize_macenko
    cell_pixels = normalize(image[cell], config)
    if cell_pixels is None:
        return image
    normalized = np.zeros_like(image)
    normalized[cell] = cell_pixels
    return normalized


def _normalize_reinhard(cell_pixels: np.ndarray, config: ImagesConfig) -> np.ndarray:
    """Match the mean and standard deviation of the reference in L*a*b*."""
    lab = cv2.cvtColor(cell_pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    std = np.maximum(lab.std(axis=0), 1e-6)
    lab = (lab - lab.mean(axis=0)) / std * config.stain_std + config.stain_mean
    rgb = cv2.cvtColor(lab[None].astype(np.float32), cv2.COLOR_LAB2RGB)[0]
    return np.clip(rgb * 255, 0, 255).round().astype(np.uint8)


def _normalize_macenko(cell_pixels: np.ndarray, config: ImagesConfig) -> np.ndarray | None:
    """Separate the two stains by the extreme directions of optical density and replace their colors."""
    density = -np.log((cell_pixels.astype(np.float64) + 1) / _TRANSMITTED_LIGHT)
    dense = density[(density > _MIN_OPTICAL_DENSITY).any(axis=1)]
    if len(dense) < _MIN_PIXELS:
        return None
    _, eigenvectors = np.linalg.eigh(np.cov(dense.T))
    plane = eigenvectors[:, [2, 1]] * np.where(eigenvectors[:, [2, 1]].sum(axis=0) < 0, -1, 1)
    angle = np.arctan2(*(dense @ plane).T[::-1])
    extreme_angles = np.percentile(angle, (1, 99))
    stains = plane @ np.stack([np.cos(extreme_angles), np.sin(extreme_angles)])
    # The nuclear stain absorbs more red light; it comes first.
    stains = stains[:, np.argsort(-stains[0])]
    concentrations = np.linalg.lstsq(stains, density.T, rcond=None)[0]
    max_concentrations = np.percentile(concentrations, 99, axis=1)
    if (max_concentrations <= 1e-6).any():
        return None
    concentrations *= (np.array(config.stain_max) / max_concentrations)[:, None]
    reference_stains = np.array(config.stain_vectors).reshape(2, 3).T
    light = _TRANSMITTED_LIGHT * np.exp(-reference_stains @ concentrations)
    return np.clip(light - 1, 0, 255).round().astype(np.uint8).T
