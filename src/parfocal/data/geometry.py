"""Where a view looks: rotation, flips, zoom, stretch, shear, shift and crop as one 2×3 matrix an image."""

import numpy as np

from parfocal.data.dice import Dice
from parfocal.parts import Step, ViewsPart

_CENTRE = (0, 0)
_CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))
_AS_IT_IS, _MIRRORED = ((1, 0), (0, 1)), ((-1, 0), (0, 1))
_FLIPS = (_AS_IT_IS, _MIRRORED, ((1, 0), (0, -1)), ((-1, 0), (0, -1)))
_TURNS = (((0, -1), (1, 0)), ((0, 1), (-1, 0)), ((0, 1), (1, 0)), ((0, -1), (-1, 0)))

LOOKS = {
    "centre": ((_AS_IT_IS, _CENTRE),),
    "five": tuple((_AS_IT_IS, place) for place in (_CENTRE, *_CORNERS)),
    "ten": tuple((way, place) for way in (_AS_IT_IS, _MIRRORED) for place in (_CENTRE, *_CORNERS)),
    "flips": tuple((way, _CENTRE) for way in _FLIPS),
    "eight": tuple((way, _CENTRE) for way in (*_FLIPS, *_TURNS)),
}
"""The looks whose answers evaluation averages: how each turns the image, and whether its centre or which corner."""


def straight(count: int, size: int, part: ViewsPart, look: int = 0) -> np.ndarray:
    """Return the matrices of one look of evaluation; the first is always the central square as it is."""
    way, (across, down) = LOOKS[part.evaluation][look]
    linear = np.broadcast_to(np.array(way, dtype=float), (count, 2, 2))
    room = (size - part.crop) / 2
    # Whole pixels only, so that evaluation never interpolates.
    shift = np.tile([np.floor(room) * across, np.floor(room) * down], (count, 1))
    if size % 2 != part.crop % 2 and (across, down) == _CENTRE:
        shift = shift - 0.5
    return about_centres(linear, shift, size, part.crop)


def drawn_geometry(dice: Dice, size: int, part: ViewsPart) -> np.ndarray:
    """Compose the geometry of every view of an epoch."""
    stretched = np.sqrt(1 + part.stretch * dice.spread("stretch"))
    zoomed = 1 / (1 + part.zoom * dice.spread("zoom"))
    steps: dict[Step, np.ndarray] = {
        "stretch": _diagonal(1 / stretched, stretched),
        "zoom": _diagonal(zoomed, zoomed),
        "flip": _flips(dice, part),
        "shear": _shears(np.deg2rad(part.shear) * dice.spread("shear")),
        "rotate": _turns(np.deg2rad(part.rotate) * dice.spread("rotate")),
    }
    linear = dice.composed("geometry", steps, part)
    shift = part.shift * size * np.stack([dice.spread("shift_across"), dice.spread("shift_down")], axis=1)
    shift *= dice.happens("shift", part)[:, None]
    place = np.stack([dice.spread("place_across"), dice.spread("place_down")], axis=1)
    if part.resized:
        sides = _resized_sides(dice, size, part)
        linear = linear @ _diagonal(*(sides / part.crop).T)
        shift = shift + place * np.maximum(0, size - sides) / 2
    elif part.place == "random":
        # Whole pixels: a random crop alone does not blur.
        shift = shift + np.round(place * max(0, (size + 2 * part.pad - part.crop) / 2))
    return about_centres(linear, shift, size, part.crop)


def about_centres(linear: np.ndarray, shift: np.ndarray, size: int, crop: int) -> np.ndarray:
    """Return matrices that apply `linear` about the view's centre and land on the Store image's centre."""
    offset = (size - 1) / 2 + shift - linear @ np.full(2, (crop - 1) / 2)
    return np.concatenate([linear, offset[:, :, None]], axis=2).astype(np.float32)


def _flips(dice: Dice, part: ViewsPart) -> np.ndarray:
    across = np.where(dice.of("flip_horizontal") < part.flip_horizontal, -1.0, 1.0)
    down = np.where(dice.of("flip_vertical") < part.flip_vertical, -1.0, 1.0)
    return _diagonal(across, down)


def _resized_sides(dice: Dice, size: int, part: ViewsPart) -> np.ndarray:
    """Draw width and height of a crop that has a share of the area and a ratio of its sides."""
    area = size**2 * (part.resized + (1 - part.resized) * dice.of("area"))
    ratio = np.exp(np.log(part.aspect) * dice.spread("aspect"))
    return np.minimum(np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1), size)


def _turns(angle: np.ndarray) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)


def _shears(angle: np.ndarray) -> np.ndarray:
    matrix = np.tile(np.eye(2), (len(angle), 1, 1))
    matrix[:, 0, 1] = np.tan(angle)
    return matrix


def _diagonal(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    matrix = np.zeros((len(across), 2, 2))
    matrix[:, 0, 0], matrix[:, 1, 1] = across, down
    return matrix
