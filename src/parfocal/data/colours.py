"""What a view does to colours: brightness, contrast, saturation, hue and grey as one 3×4 matrix an image."""

import numpy as np

from parfocal.data.dice import EpochDraws
from parfocal.parts import AugmentationName, ViewsConfig

# Luma of ITU-R BT.601: what a colour weighs when it turns grey.
_LUMA = np.array([0.299, 0.587, 0.114])
_MID_GRAY = 127.5


def draw_colors(draws: EpochDraws, config: ViewsConfig) -> np.ndarray | None:
    """Compose the colours of every view of an epoch; None where nothing is asked for."""
    if not any((config.brightness, config.contrast, config.saturation, config.hue, config.grey)):
        return None
    contrast = 1 + config.contrast * draws.signed("contrast")
    steps: dict[AugmentationName, np.ndarray] = {
        "hue": _to_4x4(_hue_matrices(2 * np.pi * config.hue * draws.signed("hue"))),
        "saturation": _to_4x4(_saturation_matrices(1 + config.saturation * draws.signed("saturation"))),
        "grey": _to_4x4(_saturation_matrices(np.where(draws.uniform("grey") < config.grey, 0.0, 1.0))),
        "brightness": _gain_matrices(1 + config.brightness * draws.signed("brightness"), 0.0),
        "contrast": _gain_matrices(contrast, (1 - contrast) * _MID_GRAY),
    }
    matrices = draws.compose("colours", steps, config)
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
