"""The random numbers behind an epoch's views: one column a setting, so that changing one leaves the others alone."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from parfocal.parts import AugmentationName, ViewsConfig

_COLUMNS = (
    "rotate", "flip_horizontal", "flip_vertical", "zoom", "stretch", "shear", "shift_across", "shift_down",
    "brightness", "contrast", "saturation", "hue", "grey", "place_across", "place_down", "area", "aspect",
    "erase", "erase_area", "erase_aspect", "erase_across", "erase_down", "geometry", "colours",
)  # fmt: skip
_PROBABILITIES = (
    "rotate", "flip", "zoom", "stretch", "shear", "shift", "brightness", "contrast", "saturation", "hue", "grey",
)  # fmt: skip
_MAX_STEPS = 8


class EpochDraws:
    """All numbers of one epoch, between 0 and 1, drawn at once from a generator keyed by (seed, epoch).

    They are drawn for each image in turn, so the first images' numbers do not depend on how many follow.
    """

    def __init__(self, n_images: int, seed: int, epoch: int) -> None:
        width = len(_COLUMNS) + len(_PROBABILITIES) + 2 * _MAX_STEPS
        self._values = np.random.default_rng([seed, epoch, 1]).random((n_images, width))

    def __len__(self) -> int:
        return len(self._values)

    def uniform(self, name: str) -> np.ndarray:
        """Return a setting's numbers, from 0 to 1."""
        return self._values[:, _COLUMNS.index(name)]

    def signed(self, name: str) -> np.ndarray:
        """Return a setting's numbers, from −1 to 1."""
        return 2 * self.uniform(name) - 1

    def applies(self, name: AugmentationName, config: ViewsConfig) -> np.ndarray:
        """Say for each image whether a step is taken, by its chance."""
        return self._values[:, len(_COLUMNS) + _PROBABILITIES.index(name)] < config.chances.get(name, 1.0)

    def compose(
        self, group: Literal["geometry", "colours"], steps: Mapping[AugmentationName, np.ndarray], config: ViewsConfig
    ) -> np.ndarray:
        """Multiply the steps' matrices for each image, the first step acting first, as the recipe has the group."""
        how, chance = getattr(config, group), getattr(config, f"{group}_chance")
        taken = np.stack([self.applies(name, config) for name in steps]) & (self.uniform(group) < chance)
        start = len(_COLUMNS) + len(_PROBABILITIES) + (0 if group == "geometry" else _MAX_STEPS)
        order = np.argsort(self._values[:, start : start + len(steps)], axis=1)
        if how == "one_of":
            taken &= np.arange(len(steps))[:, None] == order[:, 0]
        matrices = np.stack(list(steps.values()))
        side = matrices.shape[-1]
        matrices = np.where(taken[:, :, None, None], matrices, np.eye(side))
        rows = np.arange(len(self))
        product = np.tile(np.eye(side), (len(self), 1, 1))
        for number in range(len(steps)):
            step = matrices[order[:, number], rows] if how == "random_order" else matrices[number]
            product = step @ product
        return product
