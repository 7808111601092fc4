"""ZCA whitening of the pixels of small crops, as the first layer of a classifier."""

import torch
from torch import Tensor, nn


class PixelWhitening(nn.Module):
    """Subtract the mean crop of the training split, and multiply by the ZCA matrix of all pixels and colors.

    The result has the shape of the crops (N, 3, size, size) and looks like them, with edges but without large areas.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        n_values = 3 * size * size
        self.register_buffer("mean", torch.zeros(n_values))
        self.register_buffer("matrix", torch.eye(n_values))

    def forward(self, crops: Tensor) -> Tensor:
        """Whiten crops (N, 3, size, size) on the 0–1 scale."""
        return nn.functional.linear(crops.flatten(1) - self.mean, self.matrix).reshape(crops.shape)
