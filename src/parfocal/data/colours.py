"""What a view does to colours: brightness, contrast, saturation, hue and grey as one 3×4 matrix an image."""

import numpy as np

from parfocal.data.dice import Dice
from parfocal.parts import Step, ViewsPart

# Luma of ITU-R BT.601: what a colour weighs when it turns grey.
_LUMA = np.array([0.299, 0.587, 0.114])
_MID_GREY = 127.5


def drawn_colours(dice: Dice, part: ViewsPart) -> np.ndarray | None:
    """Compose the colours of every view of an epoch; None where nothing is asked for."""
    if not any((part.brightness, part.contrast, part.saturation, part.hue, part.grey)):
        return None
    contrast = 1 + part.contrast * dice.spread("contrast")
    steps: dict[Step, np.ndarray] = {
        "hue": _square(_hue_turns(2 * np.pi * part.hue * dice.spread("hue"))),
        "saturation": _square(_towards_grey(1 + part.saturation * dice.spread("saturation"))),
        "grey": _square(_towards_grey(np.where(dice.of("grey") < part.grey, 0.0, 1.0))),
        "brightness": _scaled(1 + part.brightness * dice.spread("brightness"), 0.0),
        "contrast": _scaled(contrast, (1 - contrast) * _MID_GREY),
    }
    matrices = dice.composed("colours", steps, part)
    return matrices[:, :3].astype(np.float32)


def _towards_grey(amount: np.ndarray) -> np.ndarray:
    """Keep each pixel's grey and spread its colour about it by `amount`."""
    amount = amount[:, None, None]
    return amount * np.eye(3) + (1 - amount) * np.broadcast_to(_LUMA, (3, 3))


def _hue_turns(angle: np.ndarray) -> np.ndarray:
    """Rotate colours about the grey axis (Rodrigues), which keeps every grey as it is."""
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return cosine * np.eye(3) + sine * cross + (1 - cosine) * np.outer(axis, axis)


def _scaled(gain: np.ndarray, offset: np.ndarray | float) -> np.ndarray:
    matrix = _square(gain[:, None, None] * np.eye(3))
    matrix[:, :3, 3] = np.reshape(offset, (-1, 1))
    return matrix


def _square(linear: np.ndarray) -> np.ndarray:
    """Return 4×4 matrices, which compose, of 3×3 ones."""
    matrix = np.tile(np.eye(4), (len(linear), 1, 1))
    matrix[:, :3, :3] = linear
    return matrix
