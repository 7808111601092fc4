"""Where a view looks: rotation, flips, zoom, stretch, shear, shift and crop as one 2×3 matrix an image."""

import numpy as np

from parfocal.data.dice import EpochDraws
from parfocal.parts import AugmentationName, ViewsConfig

_CENTER = (0, 0)
_CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))
_IDENTITY, _MIRRORED = ((1, 0), (0, 1)), ((-1, 0), (0, 1))
_FLIPS = (_IDENTITY, _MIRRORED, ((1, 0), (0, -1)), ((-1, 0), (0, -1)))
_ROTATIONS = (((0, -1), (1, 0)), ((0, 1), (-1, 0)), ((0, 1), (1, 0)), ((0, -1), (-1, 0)))

TTA_VIEWS = {
    "centre": ((_IDENTITY, _CENTER),),
    "five": tuple((_IDENTITY, place) for place in (_CENTER, *_CORNERS)),
    "ten": tuple((way, place) for way in (_IDENTITY, _MIRRORED) for place in (_CENTER, *_CORNERS)),
    "flips": tuple((way, _CENTER) for way in _FLIPS),
    "eight": tuple((way, _CENTER) for way in (*_FLIPS, *_ROTATIONS)),
}
"""The looks whose answers evaluation averages: how each turns the image, and whether its centre or which corner."""


def eval_geometry(n_images: int, size: int, config: ViewsConfig, tta_view: int = 0) -> np.ndarray:
    """Return the matrices of one look of evaluation; the first is always the central square as it is."""
    way, (across, down) = TTA_VIEWS[config.evaluation][tta_view]
    linear = np.broadcast_to(np.array(way, dtype=float), (n_images, 2, 2))
    room = (size - config.crop) / 2
    # Whole pixels only, so that evaluation never interpolates.
    shift = np.tile([np.floor(room) * across, np.floor(room) * down], (n_images, 1))
    if size % 2 != config.crop % 2 and (across, down) == _CENTER:
        shift = shift - 0.5
    return affine_about_center(linear, shift, size, config.crop)


def draw_geometry(draws: EpochDraws, size: int, config: ViewsConfig) -> np.ndarray:
    """Compose the geometry of every view of an epoch."""
    stretched = np.sqrt(1 + config.stretch * draws.signed("stretch"))
    zoomed = 1 / (1 + config.zoom * draws.signed("zoom"))
    steps: dict[AugmentationName, np.ndarray] = {
        "stretch": _scaling_matrices(1 / stretched, stretched),
        "zoom": _scaling_matrices(zoomed, zoomed),
        "flip": _draw_flips(draws, config),
        "shear": _shear_matrices(np.deg2rad(config.shear) * draws.signed("shear")),
        "rotate": _rotation_matrices(np.deg2rad(config.rotate) * draws.signed("rotate")),
    }
    linear = draws.compose("geometry", steps, config)
    shift = config.shift * size * np.stack([draws.signed("shift_across"), draws.signed("shift_down")], axis=1)
    shift *= draws.applies("shift", config)[:, None]
    place = np.stack([draws.signed("place_across"), draws.signed("place_down")], axis=1)
    if config.resized:
        sides = _draw_crop_sides(draws, size, config)
        linear = linear @ _scaling_matrices(*(sides / config.crop).T)
        shift = shift + place * np.maximum(0, size - sides) / 2
    elif config.place == "random":
        # Whole pixels: a random crop alone does not blur.
        shift = shift + np.round(place * max(0, (size + 2 * config.pad - config.crop) / 2))
    return affine_about_center(linear, shift, size, config.crop)


def affine_about_center(linear: np.ndarray, shift: np.ndarray, size: int, crop_size: int) -> np.ndarray:
    """Return matrices that apply `linear` about the view's centre and land on the Store image's centre."""
    offset = (size - 1) / 2 + shift - linear @ np.full(2, (crop_size - 1) / 2)
    return np.concatenate([linear, offset[:, :, None]], axis=2).astype(np.float32)


def _draw_flips(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    across = np.where(draws.uniform("flip_horizontal") < config.flip_horizontal, -1.0, 1.0)
    down = np.where(draws.uniform("flip_vertical") < config.flip_vertical, -1.0, 1.0)
    return _scaling_matrices(across, down)


def _draw_crop_sides(draws: EpochDraws, size: int, config: ViewsConfig) -> np.ndarray:
    """Draw width and height of a crop that has a share of the area and a ratio of its sides."""
    area = size**2 * (config.resized + (1 - config.resized) * draws.uniform("area"))
    ratio = np.exp(np.log(config.aspect) * draws.signed("aspect"))
    return np.minimum(np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1), size)


def _rotation_matrices(angle: np.ndarray) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)


def _shear_matrices(angle: np.ndarray) -> np.ndarray:
    matrix = np.tile(np.eye(2), (len(angle), 1, 1))
    matrix[:, 0, 1] = np.tan(angle)
    return matrix


def _scaling_matrices(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    matrix = np.zeros((len(x), 2, 2))
    matrix[:, 0, 0], matrix[:, 1, 1] = x, y
    return matrix
