"""Images: a `torch.utils.data.Dataset` over the same reading, framing and views, for loops of one's own."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from parfocal.data.augment import draw_views, eval_views
from parfocal.data.checks import check_and_prepare
from parfocal.data.render import render_one
from parfocal.data.split import read_and_split
from parfocal.errors import UsageError, did_you_mean
from parfocal.recipe import Recipe
from parfocal.recipe import load_recipe as find_recipe


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """The images of one split, or of one ordered list such as `resnet_18_test`, as float tensors with their labels.

    `mode` is `train`, `valid`, `test` or the name of a list. In `train` each image is looked at anew every epoch: set
    `epoch` before each pass. Elsewhere it is looked at straight. The label is -1 where the data tells none. Faults that
    training would refuse are refused here, and what the recipe waives is left out here too.
    """

    def __init__(self, root: Path | str, mode: str, recipe: str | Path | Recipe | None = None) -> None:
        self.recipe = find_recipe(recipe)
        table = read_and_split(root, self.recipe)
        if mode not in (*table.splits, *table.submission_lists):
            raise UsageError(
                f"There is no mode {mode!r}. {did_you_mean(mode, [*table.splits, *table.submission_lists])}"
            )
        prepared = check_and_prepare(table, self.recipe)
        self.table = prepared.table
        place = {one: row for row, one in enumerate(self.table.rows["id"])}
        chosen = [place[one] for one in self.table.submission_lists.get(mode, ())]
        rows = np.array(chosen, dtype=np.int64) if chosen else self.table.get_positions(mode)
        self.ids = tuple(self.table.rows["id"].iloc[rows])
        self.labels = self.table.rows["label"].to_numpy()[rows]
        self.epoch = 0
        self._training = mode == "train"
        self._pixels = prepared.store.pixels
        self._indices = prepared.store.get_positions(self.table)[rows]
        self._views = eval_views(len(rows), self.recipe.images.size, self.recipe.views)
        self._views_epoch = -1

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return the image (3, crop, crop) as float32 between 0 and 1, and its label."""
        if self._training and self._views_epoch != self.epoch:
            size, views = self.recipe.images.size, self.recipe.views
            self._views = draw_views(len(self), size, views, seed=self.recipe.seed, epoch=self.epoch)
            self._views_epoch = self.epoch
        pixels = torch.from_numpy(render_one(self._pixels[self._indices[index]], self._views, index))
        return pixels.permute(2, 0, 1).float() / 255, int(self.labels[index])
