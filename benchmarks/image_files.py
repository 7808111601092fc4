"""A data set of image files as in tutorials, with augmentations by PIL."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.plain_finetune import MEAN, STD

Change = Callable[[Image.Image], Image.Image]


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Images that PIL opens, resizes and augments each time they are needed."""

    def __init__(self, paths: list[Path], labels: Tensor, side: int, change: Change):
        self.paths = paths
        self.labels = labels.tolist()
        self.side = side
        self.change = change

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB").resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(self.change(image))).permute(2, 0, 1).float() / 255
        return (pixels - MEAN) / STD, self.labels[index]


def flip(image: Image.Image) -> Image.Image:
    """Flip an image in both directions at random."""
    for direction in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
        if torch.rand(()) < 0.5:
            image = image.transpose(direction)
    return image


def augment(image: Image.Image) -> Image.Image:
    """Flip and rotate an image, and change its brightness and contrast, at random."""
    image = flip(image).rotate(float(torch.rand(())) * 360, Image.Resampling.BILINEAR)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = enhancer(image).enhance(0.8 + 0.4 * float(torch.rand(())))
    return image
