"""View: how one image is looked at once, a 2×3 geometry matrix and a 3×4 colour matrix.

Everything that moves pixels composes into one matrix and one interpolation, everything that changes colours into one
matrix of colours. Views are drawn for a whole epoch at once from a generator keyed by (seed, epoch), so what an image
looks like does not depend on threads, ranks or resume.
"""

import copy
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import cv2
import numpy as np

from parfocal.data.colours import drawn_colours
from parfocal.data.decode import Pixels
from parfocal.data.dice import Dice
from parfocal.data.geometry import LOOKS, drawn_geometry, straight
from parfocal.errors import UsageError
from parfocal.parts import ViewsPart

OwnStep = Callable[[Pixels, int], Pixels]


@dataclass(frozen=True)
class View:
    """One look: `geometry` takes a pixel of the view to the Store's, `colour` (or None) its colour to the view's.

    `erased` is a box (left, top, right, bottom) that is blackened, if any; `last` a step of the user's own, and `seed`
    what it may draw from.
    """

    geometry: np.ndarray
    colour: np.ndarray | None = None
    erased: np.ndarray | None = None
    last: OwnStep | None = None
    seed: int = 0


@dataclass(frozen=True)
class Views:
    """A View for each of many images, as arrays, and the side of what they show."""

    geometry: np.ndarray
    colour: np.ndarray | None
    side: int
    erased: np.ndarray | None = None
    last: OwnStep | None = None
    seed: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.geometry)

    def __getitem__(self, number: int) -> View:
        colour = None if self.colour is None else self.colour[number]
        erased = None if self.erased is None else self.erased[number]
        seed = hash((*self.seed, int(number))) % 2**31 if self.last else 0
        return View(self.geometry[number], colour, erased, self.last, seed)


def still(count: int, size: int, part: ViewsPart, look: int = 0) -> Views:
    """Return the views of evaluation: the central square of Store images of side `size`, or another look of several."""
    return Views(straight(count, size, part, look), None, part.crop)


def looks(part: ViewsPart) -> range:
    """Return the numbers of the looks whose answers evaluation averages: 1, 4 or 8 flips and turns, 5 or 10 crops."""
    return range(len(LOOKS[part.evaluation]))


def drawn(count: int, size: int, part: ViewsPart, *, seed: int, epoch: int) -> Views:
    """Draw the views of one training epoch for `count` Store images of side `size`."""
    dice = Dice(count, seed, epoch)
    last = own_step(part.also) if part.also else None
    return Views(
        drawn_geometry(dice, size, part), drawn_colours(dice, part), part.crop, _erased(dice, part), last, (seed, epoch)
    )


def render(image: Pixels, view: View, out: Pixels) -> None:
    """Write what `view` shows of a Store image into `out` (side, side, 3)."""
    # OpenCV warps four channels three times as fast as three, so a fourth goes along and is dropped again.
    seen = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        view.geometry,
        (out.shape[1], out.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    cv2.cvtColor(seen, cv2.COLOR_RGBA2RGB, dst=out)
    if view.colour is not None:
        cv2.transform(out, view.colour, dst=out)
    if view.last is not None:
        out[:] = view.last(out.copy(), view.seed)
    if view.erased is not None:
        left, top, right, bottom = view.erased
        out[top:bottom, left:right] = 0


def seen(image: Pixels, views: Views, number: int) -> Pixels:
    """Return what one of many views shows of a Store image."""
    out = np.empty((views.side, views.side, 3), np.uint8)
    render(image, views[number], out)
    return out


def own_step(name: str) -> OwnStep:
    """Find the step `module:function`: `image -> image`, taking `seed=` if it can, or called as Albumentations is."""
    module, colon, attribute = name.partition(":")
    try:
        step: Any = getattr(import_module(module), attribute) if colon else None
    except (ImportError, AttributeError) as error:
        raise UsageError(f"also={name}: {error}.") from None
    if not callable(step):
        raise UsageError(f"also={name} is not of the form module:function, or that is nothing to call.")
    own: Callable[..., Any] = step
    if hasattr(own, "set_random_seed"):
        return _seeded(own)
    if "seed" in inspect.signature(own).parameters:
        return lambda image, seed: own(image, seed=seed)
    return lambda image, _: own(image)


def _seeded(composed: Any) -> OwnStep:
    """Call an Albumentations step with its numbers drawn from the view's seed, a copy of it for each thread."""
    copies = threading.local()

    def step(image: Pixels, seed: int) -> Pixels:
        if not hasattr(copies, "own"):
            copies.own = copy.deepcopy(composed)
        copies.own.set_random_seed(seed)
        return copies.own(image=image)["image"]

    return step


def _erased(dice: Dice, part: ViewsPart) -> np.ndarray | None:
    """Draw a box for each image, empty where nothing is erased."""
    if not part.erase:
        return None
    area = part.crop**2 * part.erase_area * dice.of("erase_area")
    ratio = np.exp(np.log(3) * dice.spread("erase_aspect"))
    width, height = (np.minimum(np.sqrt(area * by), part.crop) for by in (ratio, 1 / ratio))
    happens = dice.of("erase") < part.erase
    left, top = (dice.of("erase_across") * (part.crop - width), dice.of("erase_down") * (part.crop - height))
    return np.where(happens, [left, top, left + width, top + height], 0).T.round().astype(np.int64)
