"""Masks: where in an image the thing itself is, framed and looked at as the image is."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from parfocal.data.augment import eval_views
from parfocal.data.decode import Pixels, read_image
from parfocal.data.layouts.image_finder import IMAGE_SUFFIXES
from parfocal.data.preprocess import crop_and_resize
from parfocal.data.render import render_one
from parfocal.errors import ParfocalError
from parfocal.recipe import Recipe

REGIONS_FILE = "parts.csv"
"""The file in a folder of masks that names their values: `value,part`."""

_MAX_REGIONS = 16


class MaskFolder:
    """A folder of masks: pictures called as their images are, 0 where nothing is, other values for its parts.

    They lie in the folder itself, or in one called after the split. `parts.csv` names the values.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ParfocalError(f"There is no folder of masks at {folder}.")
        self.folder = folder
        self.region_names: Mapping[int, str] = {}
        if (folder / REGIONS_FILE).is_file():
            try:
                rows = pd.read_csv(folder / REGIONS_FILE)
                self.region_names = {int(row["value"]): str(row["part"]) for _, row in rows.iterrows()}
            except (KeyError, ValueError):
                raise ParfocalError(
                    f"{folder / REGIONS_FILE} must have the columns value (a number) and part."
                ) from None

    def find(self, image_path: Path, split: str = "") -> Path | None:
        """Return where the mask of an image lies, if there is one."""
        below = [self.folder / split, self.folder] if split else [self.folder]
        places = (folder / f"{image_path.stem}{suffix}" for folder in below for suffix in (".png", *IMAGE_SUFFIXES))
        return next((path for path in places if path.is_file()), None)

    def render_regions(self, mask_path: Path, image_path: Path, recipe: Recipe) -> dict[str, np.ndarray]:
        """Return which share of each pixel that a recipe's network sees belongs to each part, (side, side) by its name.

        Raise Unreadable where one of the two files cannot be read.
        """
        picture, facts = read_image(image_path, recipe.images)
        drawn, own = read_image(mask_path)
        if (own.width, own.height) != (facts.width, facts.height):
            sizes = f"{own.width}×{own.height}, its image {facts.width}×{facts.height}"
            raise ParfocalError(f"{mask_path} is {sizes}. A mask must be as large as its image.")
        values = [int(value) for value in np.unique(drawn[..., 0]) if value]
        if len(values) > _MAX_REGIONS:
            raise ParfocalError(f"{mask_path} has {len(values)} values: not a mask, or one that was saved as JPEG.")
        named = {self.region_names.get(value, f"value {value}"): drawn[..., 0] == value for value in values}
        return {name: _render_region(where, picture, recipe) for name, where in named.items()}


def _render_region(region: np.ndarray, image: Pixels, recipe: Recipe) -> np.ndarray:
    """Bring a part to what the network sees: first to the scale at which the picture was decoded, then as it is."""
    height, width = image.shape[:2]
    scaled = cv2.resize(region.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA)
    framed = crop_and_resize(scaled, image, recipe.images)
    views = eval_views(1, recipe.images.size, recipe.views)
    return render_one(np.repeat(framed[..., None], 3, axis=2), views, 0)[..., 0] / np.float32(255)
