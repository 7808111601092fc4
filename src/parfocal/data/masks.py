"""Segmentation masks: which pixels of an image show a lesion or a cell, preprocessed and cropped as the image is."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from parfocal.data.augment import eval_views
from parfocal.data.decode import read_image
from parfocal.data.layouts.image_finder import IMAGE_SUFFIXES
from parfocal.data.preprocess import crop_and_resize
from parfocal.data.warp import render_one
from parfocal.errors import ParfocalError
from parfocal.recipe import Recipe

REGIONS_FILE = "regions.csv"
"""The file in a folder of masks that names their values: `value,region`."""

_MAX_REGIONS = 16


class MaskFolder:
    """A folder of masks: each has the name of its image, value 0 for the background and other values for the regions.

    The masks are in the folder itself, or in a subfolder with the name of the split. `regions.csv` names the values.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ParfocalError(f"There is no folder of masks at {folder}.")
        self.folder = folder
        self.region_names: Mapping[int, str] = {}
        path = folder / REGIONS_FILE
        if path.is_file():
            try:
                rows = pd.read_csv(path)
                self.region_names = {int(row["value"]): str(row["region"]) for _, row in rows.iterrows()}
            except (KeyError, ValueError):
                raise ParfocalError(f"{path} must have the columns value (a number) and region.") from None

    def find(self, image_path: Path, split: str = "") -> Path | None:
        """Return the path of the mask of an image, or None."""
        folders = [self.folder / split, self.folder] if split else [self.folder]
        suffixes = (".png", *IMAGE_SUFFIXES)
        candidates = (folder / f"{image_path.stem}{suffix}" for folder in folders for suffix in suffixes)
        return next((path for path in candidates if path.is_file()), None)

    def render_regions(self, mask_path: Path, image_path: Path, recipe: Recipe) -> dict[str, np.ndarray]:
        """Return by name which share of each pixel belongs to a region, (crop_size, crop_size), as the network sees it.

        Raise UnreadableImageError if either file cannot be read.
        """
        image, image_info = read_image(image_path, recipe.images)
        mask, mask_info = read_image(mask_path)
        if (mask_info.width, mask_info.height) != (image_info.width, image_info.height):
            sizes = f"{mask_info.width}×{mask_info.height}, its image {image_info.width}×{image_info.height}"
            raise ParfocalError(f"{mask_path} is {sizes}. A mask must be as large as its image.")
        values = [int(value) for value in np.unique(mask[..., 0]) if value]
        if len(values) > _MAX_REGIONS:
            raise ParfocalError(f"{mask_path} has {len(values)} values: not a mask, or it was saved as JPEG.")
        height, width = image.shape[:2]
        views = eval_views(1, recipe.images.size, recipe.views)
        regions: dict[str, np.ndarray] = {}
        for value in values:
            region = np.uint8(255) * (mask[..., 0] == value)
            # The image may be decoded at reduced scale.
            region = cv2.resize(region, (width, height), interpolation=cv2.INTER_AREA)
            region = crop_and_resize(region, image, recipe.images)
            rendered = render_one(np.repeat(region[..., None], 3, axis=2), views, 0)
            regions[self.region_names.get(value, f"value {value}")] = rendered[..., 0] / np.float32(255)
        return regions
