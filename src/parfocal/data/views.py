"""View: how one image is looked at once, a 2×3 geometry matrix and a 3×4 colour matrix.

Rotation, flips, zoom, stretch, shear, shift and crop compose into one matrix and one interpolation; brightness,
contrast, saturation, hue and grey into one matrix of colours. Views are drawn for a whole epoch at once from a
generator keyed by (seed, epoch), so what an image looks like does not depend on threads, ranks or resume.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from parfocal.data.decode import Pixels
from parfocal.recipe import ViewsPart

# Luma of ITU-R BT.601: what a colour weighs when it turns grey.
_LUMA = np.array([0.299, 0.587, 0.114])
_MID_GREY = 127.5


@dataclass(frozen=True)
class View:
    """One look: `geometry` takes a pixel of the view to the Store's, `colour` (or None) its colour to the view's."""

    geometry: np.ndarray
    colour: np.ndarray | None


@dataclass(frozen=True)
class Views:
    """A View for each of many images, as arrays (N, 2, 3) and (N, 3, 4), and the side of what they show."""

    geometry: np.ndarray
    colour: np.ndarray | None
    side: int

    def __len__(self) -> int:
        return len(self.geometry)

    def __getitem__(self, number: int) -> View:
        return View(self.geometry[number], None if self.colour is None else self.colour[number])


def still(count: int, size: int, part: ViewsPart) -> Views:
    """Return the views of evaluation: the central square of Store images of side `size`, nothing drawn."""
    geometry = _about_centres(np.broadcast_to(np.eye(2), (count, 2, 2)), np.zeros((count, 2)), size, part.crop)
    return Views(geometry, None, part.crop)


def drawn(count: int, size: int, part: ViewsPart, *, seed: int, epoch: int) -> Views:
    """Draw the views of one training epoch for `count` Store images of side `size`."""
    # One column a setting, all drawn always: changing one setting leaves the others' draws alone.
    dice = np.random.default_rng([seed, epoch, 1]).random((count, 16))
    spread = 2 * dice - 1
    return Views(_geometry(dice, spread, size, part), _colours(dice, spread, part), part.crop)


def render(image: Pixels, view: View, out: Pixels) -> None:
    """Write what `view` shows of a Store image into `out` (side, side, 3)."""
    cv2.warpAffine(
        image,
        view.geometry,
        (out.shape[1], out.shape[0]),
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    if view.colour is not None:
        out[:] = cv2.transform(out, view.colour)


def _geometry(dice: np.ndarray, spread: np.ndarray, size: int, part: ViewsPart) -> np.ndarray:
    angle = np.deg2rad(part.rotate) * spread[:, 0]
    scale = 1 + part.zoom * spread[:, 3]
    aspect = np.sqrt(1 + part.stretch * spread[:, 4])
    across = np.where(dice[:, 1] < part.flip_horizontal, -1, 1) / (scale * aspect)
    down = np.where(dice[:, 2] < part.flip_vertical, -1, 1) * aspect / scale
    slant = np.tan(np.deg2rad(part.shear) * spread[:, 5])
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = _matrices([[cosine, -sine], [sine, cosine]])
    lean = _matrices([[np.ones_like(slant), slant], [np.zeros_like(slant), np.ones_like(slant)]])
    stretch = _matrices([[across, np.zeros_like(across)], [np.zeros_like(down), down]])
    shift = part.shift * size * spread[:, 6:8]
    return _about_centres(turn @ lean @ stretch, shift, size, part.crop)


def _about_centres(linear: np.ndarray, shift: np.ndarray, size: int, crop: int) -> np.ndarray:
    """Return matrices that apply `linear` about the view's centre and land on the Store image's centre."""
    offset = (size - 1) / 2 + shift - linear @ np.full(2, (crop - 1) / 2)
    return np.concatenate([linear, offset[:, :, None]], axis=2).astype(np.float32)


def _colours(dice: np.ndarray, spread: np.ndarray, part: ViewsPart) -> np.ndarray | None:
    if not any((part.brightness, part.contrast, part.saturation, part.hue, part.grey)):
        return None
    count = len(dice)
    grey = np.broadcast_to(_LUMA, (3, 3))
    saturation = 1 + part.saturation * spread[:, 10]
    saturation = np.where(dice[:, 12] < part.grey, 0, saturation)[:, None, None]
    mix = saturation * np.eye(3) + (1 - saturation) * grey
    mix = mix @ _hue_turns(2 * np.pi * part.hue * spread[:, 11])
    contrast = 1 + part.contrast * spread[:, 9]
    gain = (1 + part.brightness * spread[:, 8]) * contrast
    matrix = np.empty((count, 3, 4))
    matrix[:, :, :3] = gain[:, None, None] * mix
    matrix[:, :, 3] = ((1 - contrast) * _MID_GREY)[:, None]
    return matrix.astype(np.float32)


def _hue_turns(angle: np.ndarray) -> np.ndarray:
    """Rotate colours about the grey axis (Rodrigues), which keeps every grey as it is."""
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return cosine * np.eye(3) + sine * cross + (1 - cosine) * np.outer(axis, axis)


def _matrices(rows: list[list[np.ndarray]]) -> np.ndarray:
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
