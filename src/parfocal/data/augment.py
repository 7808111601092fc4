"""The random numbers behind an epoch's views: one column a setting, so that changing one leaves the others alone."""
# MERGED: """Where a view looks: rotation, flips, zoom, stretch, shear, shift and crop as one 2×3 matrix an image."""
# MERGED: """What a view does to colours: brightness, contrast, saturation, hue and grey as one 3×4 matrix an image."""

import copy
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np

from parfocal.data.decode import Pixels
from parfocal.errors import UsageError
from parfocal.schema import AugmentationName, ViewsConfig

_COLUMNS = (
    "rotate", "flip_horizontal", "flip_vertical", "zoom", "stretch", "shear", "shift_across", "shift_down",
    "brightness", "contrast", "saturation", "hue", "grayscale", "place_across", "place_down", "area", "aspect",
    "erase", "erase_area", "erase_aspect", "erase_across", "erase_down", "geometry", "color",
)  # fmt: skip
_PROBABILITIES = (
    "rotate", "flip", "zoom", "stretch", "shear", "shift", "brightness", "contrast", "saturation", "hue", "grayscale",
)  # fmt: skip
_MAX_STEPS = 8


class EpochDraws:
    """All numbers of one epoch, between 0 and 1, drawn at once from a generator keyed by (seed, epoch).

    They are drawn for each image in turn, so the first images' numbers do not depend on how many follow.
    """

    def __init__(self, n_images: int, seed: int, epoch: int) -> None:
        width = len(_COLUMNS) + len(_PROBABILITIES) + 2 * _MAX_STEPS
        self._values = np.random.default_rng([seed, epoch, 1]).random((n_images, width))

    def __len__(self) -> int:
        return len(self._values)

    def uniform(self, name: str) -> np.ndarray:
        """Return a setting's numbers, from 0 to 1."""
        return self._values[:, _COLUMNS.index(name)]

    def signed(self, name: str) -> np.ndarray:
        """Return a setting's numbers, from −1 to 1."""
        return 2 * self.uniform(name) - 1

    def applies(self, name: AugmentationName, config: ViewsConfig) -> np.ndarray:
        """Say for each image whether a step is taken, by its chance."""
        return self._values[:, len(_COLUMNS) + _PROBABILITIES.index(name)] < config.probabilities.get(name, 1.0)

    def compose(
        self, group: Literal["geometry", "color"], steps: Mapping[AugmentationName, np.ndarray], config: ViewsConfig
    ) -> np.ndarray:
        """Multiply the steps' matrices for each image, the first step acting first, as the recipe has the group."""
        how, chance = getattr(config, group), getattr(config, f"{group}_probability")
        taken = np.stack([self.applies(name, config) for name in steps]) & (self.uniform(group) < chance)
        start = len(_COLUMNS) + len(_PROBABILITIES) + (0 if group == "geometry" else _MAX_STEPS)
        order = np.argsort(self._values[:, start : start + len(steps)], axis=1)
        if how == "one_of":
            taken &= np.arange(len(steps))[:, None] == order[:, 0]
        matrices = np.stack(list(steps.values()))
        side = matrices.shape[-1]
        matrices = np.where(taken[:, :, None, None], matrices, np.eye(side))
        rows = np.arange(len(self))
        product = np.tile(np.eye(side), (len(self), 1, 1))
        for number in range(len(steps)):
            step = matrices[order[:, number], rows] if how == "random_order" else matrices[number]
            product = step @ product
        return product


_CENTER = (0, 0)
_CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))
_IDENTITY, _MIRRORED = ((1, 0), (0, 1)), ((-1, 0), (0, 1))
_FLIPS = (_IDENTITY, _MIRRORED, ((1, 0), (0, -1)), ((-1, 0), (0, -1)))
_ROTATIONS = (((0, -1), (1, 0)), ((0, 1), (-1, 0)), ((0, 1), (1, 0)), ((0, -1), (-1, 0)))

TTA_VIEWS = {
    "none": ((_IDENTITY, _CENTER),),
    "five_crop": tuple((_IDENTITY, place) for place in (_CENTER, *_CORNERS)),
    "ten_crop": tuple((way, place) for way in (_IDENTITY, _MIRRORED) for place in (_CENTER, *_CORNERS)),
    "flips": tuple((way, _CENTER) for way in _FLIPS),
    "d4": tuple((way, _CENTER) for way in (*_FLIPS, *_ROTATIONS)),
}
"""The looks whose answers evaluation averages: how each turns the image, and whether its centre or which corner."""


def eval_geometry(n_images: int, size: int, config: ViewsConfig, tta_view: int = 0) -> np.ndarray:
    """Return the matrices of one look of evaluation; the first is always the central square as it is."""
    way, (across, down) = TTA_VIEWS[config.tta][tta_view]
    linear = np.broadcast_to(np.array(way, dtype=float), (n_images, 2, 2))
    room = (size - config.crop_size) / 2
    # Whole pixels only, so that evaluation never interpolates.
    shift = np.tile([np.floor(room) * across, np.floor(room) * down], (n_images, 1))
    if size % 2 != config.crop_size % 2 and (across, down) == _CENTER:
        shift = shift - 0.5
    return affine_about_center(linear, shift, size, config.crop_size)


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
    if config.crop_scale:
        sides = _draw_crop_sides(draws, size, config)
        linear = linear @ _scaling_matrices(*(sides / config.crop_size).T)
        shift = shift + place * np.maximum(0, size - sides) / 2
    elif config.crop_position == "random":
        # Whole pixels: a random crop alone does not blur.
        shift = shift + np.round(place * max(0, (size + 2 * config.crop_padding - config.crop_size) / 2))
    return affine_about_center(linear, shift, size, config.crop_size)


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
    area = size**2 * (config.crop_scale + (1 - config.crop_scale) * draws.uniform("area"))
    ratio = np.exp(np.log(config.crop_ratio) * draws.signed("aspect"))
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


# Luma of ITU-R BT.601: what a colour weighs when it turns grey.
_LUMA = np.array([0.299, 0.587, 0.114])
_MID_GRAY = 127.5


def draw_colors(draws: EpochDraws, config: ViewsConfig) -> np.ndarray | None:
    """Compose the colours of every view of an epoch; None where nothing is asked for."""
    if not any((config.brightness, config.contrast, config.saturation, config.hue, config.grayscale)):
        return None
    contrast = 1 + config.contrast * draws.signed("contrast")
    steps: dict[AugmentationName, np.ndarray] = {
        "hue": _to_4x4(_hue_matrices(2 * np.pi * config.hue * draws.signed("hue"))),
        "saturation": _to_4x4(_saturation_matrices(1 + config.saturation * draws.signed("saturation"))),
        "grayscale": _to_4x4(_saturation_matrices(np.where(draws.uniform("grayscale") < config.grayscale, 0.0, 1.0))),
        "brightness": _gain_matrices(1 + config.brightness * draws.signed("brightness"), 0.0),
        "contrast": _gain_matrices(contrast, (1 - contrast) * _MID_GRAY),
    }
    matrices = draws.compose("color", steps, config)
    return matrices[:, :3].astype(np.float32)


def _saturation_matrices(amount: np.ndarray) -> np.ndarray:
    """Keep each pixel's grey and spread its colour about it by `amount`."""
    amount = amount[:, None, None]
    return amount * np.eye(3) + (1 - amount) * np.broadcast_to(_LUMA, (3, 3))


def _hue_matrices(angle: np.ndarray) -> np.ndarray:
    """Rotate colours about the grey axis (Rodrigues), which keeps every grey as it is."""
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return cosine * np.eye(3) + sine * cross + (1 - cosine) * np.outer(axis, axis)


def _gain_matrices(gain: np.ndarray, offset: np.ndarray | float) -> np.ndarray:
    matrix = _to_4x4(gain[:, None, None] * np.eye(3))
    matrix[:, :3, 3] = np.reshape(offset, (-1, 1))
    return matrix


def _to_4x4(linear: np.ndarray) -> np.ndarray:
    """Return 4×4 matrices, which compose, of 3×3 ones."""
    matrix = np.tile(np.eye(4), (len(linear), 1, 1))
    matrix[:, :3, :3] = linear
    return matrix


CustomTransform = Callable[[Pixels, int], Pixels]


@dataclass(frozen=True)
class View:
    """One look: `geometry` takes a pixel of the view to the Store's, `colour` (or None) its colour to the view's.

    `erased` is a box (left, top, right, bottom) that is blackened, if any; `last` a step of the user's own, and `seed`
    what it may draw from.
    """

    geometry: np.ndarray
    color: np.ndarray | None = None
    erase_box: np.ndarray | None = None
    custom_transform: CustomTransform | None = None
    seed: int = 0


@dataclass(frozen=True)
class Views:
    """A View for each of many images, as arrays, and the side of what they show."""

    geometry: np.ndarray
    color: np.ndarray | None
    crop_size: int
    erase_boxes: np.ndarray | None = None
    custom_transform: CustomTransform | None = None
    seed: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.geometry)

    def __getitem__(self, index: int) -> View:
        colour = None if self.color is None else self.color[index]
        erased = None if self.erase_boxes is None else self.erase_boxes[index]
        seed = hash((*self.seed, int(index))) % 2**31 if self.custom_transform else 0
        return View(self.geometry[index], colour, erased, self.custom_transform, seed)


def eval_views(n_images: int, size: int, config: ViewsConfig, tta_view: int = 0) -> Views:
    """Return the views of evaluation: the central square of Store images of side `size`, or another look of several."""
    return Views(eval_geometry(n_images, size, config, tta_view), None, config.crop_size)


def tta_views(config: ViewsConfig) -> range:
    """Return the numbers of the looks whose answers evaluation averages: 1, 4 or 8 flips and turns, 5 or 10 crops."""
    return range(len(TTA_VIEWS[config.tta]))


def draw_views(n_images: int, size: int, config: ViewsConfig, *, seed: int, epoch: int) -> Views:
    """Draw the views of one training epoch for `count` Store images of side `size`."""
    dice = EpochDraws(n_images, seed, epoch)
    last = load_custom_transform(config.custom_transform) if config.custom_transform else None
    return Views(
        draw_geometry(dice, size, config),
        draw_colors(dice, config),
        config.crop_size,
        _draw_erase_boxes(dice, config),
        last,
        (seed, epoch),
    )


def load_custom_transform(name: str) -> CustomTransform:
    """Find the step `module:function`: `image -> image`, taking `seed=` if it can, or called as Albumentations is."""
    module, colon, attribute = name.partition(":")
    try:
        step: Any = getattr(import_module(module), attribute) if colon else None
    except (ImportError, AttributeError) as error:
        raise UsageError(f"custom_transform={name}: {error}.") from None
    if not callable(step):
        raise UsageError(f"custom_transform={name} is not of the form module:function, or that is nothing to call.")
    own: Callable[..., Any] = step
    if hasattr(own, "set_random_seed"):
        return _wrap_albumentations(own)
    if "seed" in inspect.signature(own).parameters:
        return lambda image, seed: own(image, seed=seed)
    return lambda image, _: own(image)


def _wrap_albumentations(transform: Any) -> CustomTransform:
    """Call an Albumentations step with its numbers drawn from the view's seed, a copy of it for each thread."""
    copies = threading.local()

    def step(image: Pixels, seed: int) -> Pixels:
        if not hasattr(copies, "own"):
            copies.own = copy.deepcopy(transform)
        copies.own.set_random_seed(seed)
        return copies.own(image=image)["image"]

    return step


def _draw_erase_boxes(draws: EpochDraws, config: ViewsConfig) -> np.ndarray | None:
    """Draw a box for each image, empty where nothing is erased."""
    if not config.erase:
        return None
    area = config.crop_size**2 * config.erase_area * draws.uniform("erase_area")
    ratio = np.exp(np.log(3) * draws.signed("erase_aspect"))
    width, height = (np.minimum(np.sqrt(area * by), config.crop_size) for by in (ratio, 1 / ratio))
    happens = draws.uniform("erase") < config.erase
    left, top = (
        draws.uniform("erase_across") * (config.crop_size - width),
        draws.uniform("erase_down") * (config.crop_size - height),
    )
    return np.where(happens, [left, top, left + width, top + height], 0).T.round().astype(np.int64)
