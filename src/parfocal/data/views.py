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

from parfocal.data.colours import draw_colors
from parfocal.data.decode import Pixels
from parfocal.data.dice import EpochDraws
from parfocal.data.geometry import TTA_VIEWS, draw_geometry, eval_geometry
from parfocal.errors import UsageError
from parfocal.parts import ViewsConfig

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
    return Views(eval_geometry(n_images, size, config, tta_view), None, config.crop)


def tta_views(config: ViewsConfig) -> range:
    """Return the numbers of the looks whose answers evaluation averages: 1, 4 or 8 flips and turns, 5 or 10 crops."""
    return range(len(TTA_VIEWS[config.evaluation]))


def draw_views(n_images: int, size: int, config: ViewsConfig, *, seed: int, epoch: int) -> Views:
    """Draw the views of one training epoch for `count` Store images of side `size`."""
    dice = EpochDraws(n_images, seed, epoch)
    last = load_custom_transform(config.also) if config.also else None
    return Views(
        draw_geometry(dice, size, config),
        draw_colors(dice, config),
        config.crop,
        _draw_erase_boxes(dice, config),
        last,
        (seed, epoch),
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
    if view.color is not None:
        cv2.transform(out, view.color, dst=out)
    if view.custom_transform is not None:
        out[:] = view.custom_transform(out.copy(), view.seed)
    if view.erase_box is not None:
        left, top, right, bottom = view.erase_box
        out[top:bottom, left:right] = 0


def render_one(image: Pixels, views: Views, index: int) -> Pixels:
    """Return what one of many views shows of a Store image."""
    out = np.empty((views.crop_size, views.crop_size, 3), np.uint8)
    render(image, views[index], out)
    return out


def load_custom_transform(name: str) -> CustomTransform:
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
    area = config.crop**2 * config.erase_area * draws.uniform("erase_area")
    ratio = np.exp(np.log(3) * draws.signed("erase_aspect"))
    width, height = (np.minimum(np.sqrt(area * by), config.crop) for by in (ratio, 1 / ratio))
    happens = draws.uniform("erase") < config.erase
    left, top = (
        draws.uniform("erase_across") * (config.crop - width),
        draws.uniform("erase_down") * (config.crop - height),
    )
    return np.where(happens, [left, top, left + width, top + height], 0).T.round().astype(np.int64)
