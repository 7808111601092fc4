"""Masks: where in an image the thing itself is, framed and looked at as the image is."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from parfocal.data.decode import Pixels, read_picture
from parfocal.data.framing import framed_like
from parfocal.data.layouts.places import IMAGE_SUFFIXES
from parfocal.data.views import seen, still
from parfocal.errors import ParfocalError
from parfocal.recipe import Recipe

PARTS = "parts.csv"
"""The file in a folder of masks that names their values: `value,part`."""

_MOST_PARTS = 16


class Masks:
    """A folder of masks: pictures called as their images are, 0 where nothing is, other values for its parts.

    They lie in the folder itself, or in one called after the split. `parts.csv` names the values.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ParfocalError(f"There is no folder of masks at {folder}.")
        self.folder = folder
        self.names: Mapping[int, str] = {}
        if (folder / PARTS).is_file():
            try:
                rows = pd.read_csv(folder / PARTS)
                self.names = {int(row["value"]): str(row["part"]) for _, row in rows.iterrows()}
            except (KeyError, ValueError):
                raise ParfocalError(f"{folder / PARTS} must have the columns value (a number) and part.") from None

    def find(self, image: Path, split: str = "") -> Path | None:
        """Return where the mask of an image lies, if there is one."""
        below = [self.folder / split, self.folder] if split else [self.folder]
        places = (folder / f"{image.stem}{suffix}" for folder in below for suffix in (".png", *IMAGE_SUFFIXES))
        return next((path for path in places if path.is_file()), None)

    def seen(self, mask: Path, image: Path, recipe: Recipe) -> dict[str, np.ndarray]:
        """Return which share of each pixel that a recipe's network sees belongs to each part, (side, side) by its name.

        Raise Unreadable where one of the two files cannot be read.
        """
        picture, facts = read_picture(image, recipe.images)
        drawn, own = read_picture(mask)
        if (own.width, own.height) != (facts.width, facts.height):
            sizes = f"{own.width}×{own.height}, its image {facts.width}×{facts.height}"
            raise ParfocalError(f"{mask} is {sizes}. A mask must be as large as its image.")
        values = [int(value) for value in np.unique(drawn[..., 0]) if value]
        if len(values) > _MOST_PARTS:
            raise ParfocalError(f"{mask} has {len(values)} values: not a mask, or one that was saved as JPEG.")
        named = {self.names.get(value, f"value {value}"): drawn[..., 0] == value for value in values}
        return {name: _seen(where, picture, recipe) for name, where in named.items()}


def _seen(where: np.ndarray, picture: Pixels, recipe: Recipe) -> np.ndarray:
    """Bring a part to what the network sees: first to the scale at which the picture was decoded, then as it is."""
    height, width = picture.shape[:2]
    scaled = cv2.resize(where.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA)
    framed = framed_like(scaled, picture, recipe.images)
    views = still(1, recipe.images.size, recipe.views)
    return seen(np.repeat(framed[..., None], 3, axis=2), views, 0)[..., 0] / np.float32(255)
