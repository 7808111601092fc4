"""ImageDataset: a `torch.utils.data.Dataset` of a data set's images, for custom training loops.

It reads, preprocesses and augments images exactly as `parfocal.train` does.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from parfocal.data.augment import draw_views, eval_views
from parfocal.data.bit_depth import resolve_bit_depth
from parfocal.data.checks import check_and_prepare
from parfocal.data.custom_transform import load_custom_transform, separate_functions
from parfocal.data.split import read_and_split
from parfocal.data.table import UNKNOWN
from parfocal.data.warp import render_one
from parfocal.errors import UsageError, did_you_mean
from parfocal.recipe import Recipe, load_recipe


class ImageDataset(Dataset[tuple[Tensor, int] | Tensor]):
    """The images of a split, or of a submission list such as `resnet_18_test`, as float tensors with their labels.

    `mode` is `train`, `valid`, `test` or the name of a list. In `train` the images are augmented: set `epoch` before
    each pass to draw new views. In the other modes the center crop is returned. If a label of the mode is unknown, as
    in a test split without truth, images are returned alone, and `labels` has -1 where the label is unknown. The data
    are checked as before training: errors are raised, unless the recipe accepts them. `custom_transform` is a function
    for the recipe key of that name, and `allow_code` lists the modules whose code the recipe may name.
    """

    def __init__(
        self,
        root: Path | str,
        mode: str,
        recipe: str | Path | Recipe | None = None,
        *,
        custom_transform: Callable[..., Any] | None = None,
        allow_code: Sequence[str] = (),
    ) -> None:
        changes, allowed = separate_functions(
            {} if custom_transform is None else {"custom_transform": custom_transform}, allow_code, recipe
        )
        self.recipe = load_recipe(recipe, **changes)
        self._custom_transform = load_custom_transform(self.recipe.views.custom_transform, allowed)
        table, images = resolve_bit_depth(read_and_split(root, self.recipe), self.recipe.images)
        self.recipe = self.recipe.model_copy(update={"images": images})
        modes = [*table.splits, *table.submission_lists]
        if mode not in modes:
            raise UsageError(f"There is no mode {mode!r}. {did_you_mean(mode, modes)}")
        prepared = check_and_prepare(table, self.recipe)
        self.table = prepared.table
        rows = self.table.get_positions(mode)
        if self.table.submission_lists.get(mode):
            positions = {image_id: position for position, image_id in enumerate(self.table.rows["id"])}
            listed = [positions[image_id] for image_id in self.table.submission_lists[mode]]
            rows = np.array(listed, dtype=np.int64)
        self.ids = tuple(self.table.rows["id"].iloc[rows])
        self.labels = self.table.rows["label"].to_numpy()[rows]
        self.is_labeled = bool((self.labels != UNKNOWN).all())
        self.epoch = 0
        self._training = mode == "train"
        self._pixels = prepared.store.pixels
        self._indices = self.table.find_positions_in(prepared.store.index)[rows]
        self._views = eval_views(len(rows), self.recipe.images.size, self.recipe.views)
        self._views_epoch = -1

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | Tensor:
        """Return the image (3, crop_size, crop_size) as float32 between 0 and 1, and its label if it is known."""
        if self._training and self._views_epoch != self.epoch:
            size = self.recipe.images.size
            self._views = draw_views(
                len(self),
                size,
                self.recipe.views,
                seed=self.recipe.seed,
                epoch=self.epoch,
                custom_transform=self._custom_transform,
            )
            self._views_epoch = self.epoch
        pixels = torch.from_numpy(render_one(self._pixels[self._indices[index]], self._views, index))
        image = pixels.permute(2, 0, 1).float() / 255
        return (image, int(self.labels[index])) if self.is_labeled else image
