"""Augmented views: a random geometric matrix (2×3) and a random color matrix (3×4) for each image of an epoch.

All geometric augmentations of an image (rotation, flips, zoom, stretch, shear, shift, crop) compose into one affine
matrix and thus a single interpolation; all color augmentations (hue, color temperature, saturation, grayscale,
brightness, contrast) compose into one color matrix. Each setting has a random generator keyed by (seed, epoch, name of
the setting), so the views do not depend on threads, on the number of processes, on whether training was resumed, or on
other augmentations.

To add an augmentation, write a function that draws a matrix for each image, list it in `GEOMETRIC_AUGMENTATIONS` or
`COLOR_AUGMENTATIONS`, and add its key to `ViewsConfig` and `AugmentationName`. Views without it stay the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from parfocal.data.custom_transform import CustomTransform
from parfocal.recipe_schema import AugmentationName, ViewsConfig

_CENTER = (0, 0)
_CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))
_IDENTITY = ((1, 0), (0, 1))
_MIRRORED = ((-1, 0), (0, 1))
_FLIPS = (_IDENTITY, _MIRRORED, ((1, 0), (0, -1)), ((-1, 0), (0, -1)))
_ROTATIONS = (((0, -1), (1, 0)), ((0, 1), (-1, 0)), ((0, 1), (1, 0)), ((0, -1), (-1, 0)))

TTA_VIEWS = {
    "none": ((_IDENTITY, _CENTER),),
    "five_crop": tuple((_IDENTITY, position) for position in (_CENTER, *_CORNERS)),
    "ten_crop": tuple((linear, position) for linear in (_IDENTITY, _MIRRORED) for position in (_CENTER, *_CORNERS)),
    "flips": tuple((linear, _CENTER) for linear in _FLIPS),
    "d4": tuple((linear, _CENTER) for linear in (*_FLIPS, *_ROTATIONS)),
}
"""The views of test-time augmentation, by the value of `tta`: a 2×2 matrix, and the center or a corner as (x, y)."""

# Weights of red, green and blue in gray (luma of ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])
_MID_GRAY = 127.5


@dataclass(frozen=True)
class View:
    """One view of an image.

    `geometry` maps a pixel of the view to a pixel of the Store image; `color` maps the colors, and None keeps them.
    `erase_box` (left, top, right, bottom) is filled with black. `custom_transform` is the user's function; it may draw
    random numbers from `seed`.
    """

    geometry: np.ndarray
    color: np.ndarray | None = None
    erase_box: np.ndarray | None = None
    custom_transform: CustomTransform | None = None
    seed: int = 0


@dataclass(frozen=True)
class Views:
    """The Views of many images, stored as arrays, and the side of the square that all of them show."""

    geometry: np.ndarray
    color: np.ndarray | None
    crop_size: int
    erase_boxes: np.ndarray | None = None
    custom_transform: CustomTransform | None = None
    seed: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.geometry)

    def __getitem__(self, index: int) -> View:
        color = None if self.color is None else self.color[index]
        erase_box = None if self.erase_boxes is None else self.erase_boxes[index]
        seed = hash((*self.seed, int(index))) % 2**31 if self.custom_transform else 0
        return View(self.geometry[index], color, erase_box, self.custom_transform, seed)


class EpochDraws:
    """The random numbers of an epoch: each name has a separate stream, keyed by (seed, epoch, name).

    The numbers of a name do not depend on which other names are used, and those of the first images do not depend on
    how many images follow.
    """

    def __init__(self, n_images: int, seed: int, epoch: int) -> None:
        self._n_images = n_images
        self._key = (seed, epoch, 1)

    def __len__(self) -> int:
        return self._n_images

    def uniform(self, name: str) -> np.ndarray:
        """Return a number between 0 and 1 for each image."""
        return np.random.default_rng([*self._key, *name.encode()]).random(self._n_images)

    def signed(self, name: str) -> np.ndarray:
        """Return a number between −1 and 1 for each image."""
        return 2 * self.uniform(name) - 1

    def applies(self, name: AugmentationName, config: ViewsConfig) -> np.ndarray:
        """Return for each image whether an augmentation is applied, by its probability."""
        return self.uniform(f"{name} probability") < config.probabilities.get(name, 1.0)


Augmentation = Callable[[EpochDraws, ViewsConfig], np.ndarray]
"""Draws a matrix for each image (2×2 for geometry, 4×4 for color); called only where the recipe has it on."""


def eval_views(n_images: int, size: int, config: ViewsConfig, tta_view: int = 0) -> Views:
    """Return the views of evaluation on Store images of side `size`: the center crop, or another TTA view."""
    return Views(eval_geometry(n_images, size, config, tta_view), None, config.crop_size)


def tta_views(config: ViewsConfig) -> range:
    """Return the numbers of the TTA views: 1 (the center crop), 5 or 10 crops, 4 flips, or 8 flips and rotations."""
    return range(len(TTA_VIEWS[config.tta]))


def draw_views(
    n_images: int,
    size: int,
    config: ViewsConfig,
    *,
    seed: int,
    epoch: int,
    custom_transform: CustomTransform | None = None,
) -> Views:
    """Draw the augmented views of a training epoch for `n_images` Store images of side `size`.

    If the recipe names a custom transform, it must be passed, as `load_custom_transform` returns it.
    """
    if config.custom_transform and custom_transform is None:
        raise ValueError(f"custom_transform={config.custom_transform} was not loaded.")
    draws = EpochDraws(n_images, seed, epoch)
    color = _compose("color", draws, config)
    return Views(
        geometry=_draw_geometry(draws, size, config),
        color=None if color is None else color[:, :3].astype(np.float32),
        crop_size=config.crop_size,
        erase_boxes=_draw_erase_boxes(draws, config) if config.erase else None,
        custom_transform=custom_transform if config.custom_transform else None,
        seed=(seed, epoch),
    )


def eval_geometry(n_images: int, size: int, config: ViewsConfig, tta_view: int = 0) -> np.ndarray:
    """Return the matrices of a TTA view; view 0 is always the center crop, neither flipped nor rotated."""
    linear, position = TTA_VIEWS[config.tta][tta_view]
    # Whole pixels only, so that evaluation never interpolates.
    shift = np.floor((size - config.crop_size) / 2) * np.array(position, dtype=float)
    if size % 2 != config.crop_size % 2 and position == _CENTER:
        shift = shift - 0.5
    matrices = np.broadcast_to(np.array(linear, dtype=float), (n_images, 2, 2))
    return affine_about_center(matrices, np.tile(shift, (n_images, 1)), size, config.crop_size)


def _draw_geometry(draws: EpochDraws, size: int, config: ViewsConfig) -> np.ndarray:
    """Draw and compose the geometric augmentations of every view of an epoch."""
    linear = _compose("geometry", draws, config)
    if linear is None:
        linear = np.tile(np.eye(2), (len(draws), 1, 1))
    shift = config.shift * size * np.stack([draws.signed("shift_x"), draws.signed("shift_y")], axis=1)
    shift *= draws.applies("shift", config)[:, None]
    position = np.stack([draws.signed("crop_x"), draws.signed("crop_y")], axis=1)
    if config.crop_scale:
        # At least `crop_scale` of the area, with sides up to the ratio `crop_ratio`.
        area = size**2 * (config.crop_scale + (1 - config.crop_scale) * draws.uniform("crop_area"))
        ratio = np.exp(np.log(config.crop_ratio) * draws.signed("crop_ratio"))
        sides = np.minimum(np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1), size)
        linear = linear @ _scaling_matrices(*(sides / config.crop_size).T)
        shift = shift + position * np.maximum(0, size - sides) / 2
    elif config.crop_position == "random":
        # Whole pixels, so that a random crop alone does not blur.
        shift = shift + np.round(position * max(0, (size + 2 * config.crop_padding - config.crop_size) / 2))
    return affine_about_center(linear, shift, size, config.crop_size)


def _compose(group: Literal["geometry", "color"], draws: EpochDraws, config: ViewsConfig) -> np.ndarray | None:
    """Multiply the matrices of all augmentations that are on, the first acting first; None where all are off.

    The recipe says whether to apply all of them, in this order or a random order, or a single one.
    """
    augmentations = GEOMETRIC_AUGMENTATIONS if group == "geometry" else COLOR_AUGMENTATIONS
    steps: dict[AugmentationName, np.ndarray] = {}
    for name, draw in augmentations.items():
        keys = ("flip_horizontal", "flip_vertical") if name == "flip" else (name,)
        if any(getattr(config, key) for key in keys):
            steps[name] = draw(draws, config)
    if not steps:
        return None
    composition = getattr(config, group)
    applied = np.stack([draws.applies(name, config) for name in steps])
    applied &= draws.uniform(f"{group} probability") < getattr(config, f"{group}_probability")
    order = np.argsort([draws.uniform(f"{name} order") for name in steps], axis=0)
    if composition == "one_of":
        applied &= np.arange(len(steps))[:, None] == order[0]
    matrices = np.stack(list(steps.values()))
    identity = np.eye(matrices.shape[-1])
    matrices = np.where(applied[:, :, None, None], matrices, identity)
    images = np.arange(len(draws))
    product = np.tile(identity, (len(draws), 1, 1))
    for number in range(len(steps)):
        step = matrices[order[number], images] if composition == "random_order" else matrices[number]
        product = step @ product
    return product


def affine_about_center(linear: np.ndarray, shift: np.ndarray, size: int, crop_size: int) -> np.ndarray:
    """Return 2×3 matrices that apply `linear` about the center of the view and map it to the center of the image."""
    offset = (size - 1) / 2 + shift - linear @ np.full(2, (crop_size - 1) / 2)
    return np.concatenate([linear, offset[:, :, None]], axis=2).astype(np.float32)


def _draw_stretch(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    stretch = np.sqrt(1 + config.stretch * draws.signed("stretch"))
    return _scaling_matrices(1 / stretch, stretch)


def _draw_zoom(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    zoom = 1 / (1 + config.zoom * draws.signed("zoom"))
    return _scaling_matrices(zoom, zoom)


def _draw_flip(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    return _scaling_matrices(
        np.where(draws.uniform("flip_horizontal") < config.flip_horizontal, -1.0, 1.0),
        np.where(draws.uniform("flip_vertical") < config.flip_vertical, -1.0, 1.0),
    )


def _draw_shear(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    matrices = np.tile(np.eye(2), (len(draws), 1, 1))
    matrices[:, 0, 1] = np.tan(np.deg2rad(config.shear) * draws.signed("shear"))
    return matrices


def _draw_rotate(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    angle = np.deg2rad(config.rotate) * draws.signed("rotate")
    return np.moveaxis(np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), -1, 0)


def _scaling_matrices(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    matrices = np.zeros((len(x), 2, 2))
    matrices[:, 0, 0] = x
    matrices[:, 1, 1] = y
    return matrices


def _draw_hue(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    """Rotate colors about the gray axis (Rodrigues' formula), which leaves every gray unchanged."""
    angle = 2 * np.pi * config.hue * draws.signed("hue")
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    cosine = np.cos(angle)[:, None, None]
    sine = np.sin(angle)[:, None, None]
    return _to_4x4(cosine * np.eye(3) + sine * cross + (1 - cosine) * np.outer(axis, axis))


def _draw_color_temperature(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    """Make colors warmer (more red, less blue) or cooler; a gray pixel keeps its luma."""
    warmth = config.color_temperature * draws.signed("color_temperature")
    gains = np.stack([1 + warmth, np.ones_like(warmth), 1 - warmth], axis=1)
    gains /= (gains @ _LUMA)[:, None]
    return _to_4x4(gains[:, :, None] * np.eye(3))


def _draw_saturation(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    return _saturation_matrices(1 + config.saturation * draws.signed("saturation"))


def _draw_grayscale(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    return _saturation_matrices(np.where(draws.uniform("grayscale") < config.grayscale, 0.0, 1.0))


def _draw_brightness(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    return _gain_matrices(1 + config.brightness * draws.signed("brightness"), 0.0)


def _draw_contrast(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    gain = 1 + config.contrast * draws.signed("contrast")
    return _gain_matrices(gain, (1 - gain) * _MID_GRAY)


def _saturation_matrices(amount: np.ndarray) -> np.ndarray:
    """Keep the gray level of each pixel and scale its distance from gray by `amount`."""
    amount = amount[:, None, None]
    return _to_4x4(amount * np.eye(3) + (1 - amount) * np.broadcast_to(_LUMA, (3, 3)))


def _gain_matrices(gain: np.ndarray, offset: np.ndarray | float) -> np.ndarray:
    matrices = _to_4x4(gain[:, None, None] * np.eye(3))
    matrices[:, :3, 3] = np.reshape(offset, (-1, 1))
    return matrices


def _to_4x4(linear: np.ndarray) -> np.ndarray:
    """Extend 3×3 matrices to 4×4, so that matrices with an offset can be multiplied."""
    matrices = np.tile(np.eye(4), (len(linear), 1, 1))
    matrices[:, :3, :3] = linear
    return matrices


# Both tables are in the order in which the augmentations act, unless the recipe asks for another order.
GEOMETRIC_AUGMENTATIONS: dict[AugmentationName, Augmentation] = {
    "stretch": _draw_stretch,
    "zoom": _draw_zoom,
    "flip": _draw_flip,
    "shear": _draw_shear,
    "rotate": _draw_rotate,
}

COLOR_AUGMENTATIONS: dict[AugmentationName, Augmentation] = {
    "hue": _draw_hue,
    "color_temperature": _draw_color_temperature,
    "saturation": _draw_saturation,
    "grayscale": _draw_grayscale,
    "brightness": _draw_brightness,
    "contrast": _draw_contrast,
}


def _draw_erase_boxes(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    """Draw a box to erase for each image, an empty box where nothing is erased."""
    area = config.crop_size**2 * config.erase_area * draws.uniform("erase_area")
    ratio = np.exp(np.log(3) * draws.signed("erase_ratio"))
    width = np.minimum(np.sqrt(area * ratio), config.crop_size)
    height = np.minimum(np.sqrt(area * (1 / ratio)), config.crop_size)
    left = draws.uniform("erase_x") * (config.crop_size - width)
    top = draws.uniform("erase_y") * (config.crop_size - height)
    applied = draws.uniform("erase") < config.erase
    return np.where(applied, [left, top, left + width, top + height], 0).T.round().astype(np.int64)
