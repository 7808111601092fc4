"""A network from a prepared image to calibrated probabilities. An export needs nothing else."""

import numpy as np
import torch
from torch import Tensor, nn

from parfocal.data.augment import eval_geometry, tta_views
from parfocal.models.classifier import Classifier
from parfocal.recipe_schema import ViewsConfig


class ExportGraph(nn.Module):
    """Render the views of a prepared image as in evaluation, average their predictions, and apply the temperature.

    The input is uint8 pixels (N, size, size, 3), the size of the recipe's Store; the output is float32 (N, classes).
    """

    def __init__(self, classifier: Classifier, size: int, views: ViewsConfig, temperature: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.size = size
        self.temperature = temperature
        matrices = [eval_geometry(1, size, views, tta_view)[0] for tta_view in tta_views(views)]
        self.tta_views = nn.ModuleList(TTAView(matrix, size, views.crop_size) for matrix in matrices)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return calibrated probabilities (N, classes) for uint8 pixels (N, size, size, 3)."""
        n_views = len(self.tta_views)
        logits = self.classifier(torch.cat([tta_view(pixels) for tta_view in self.tta_views])).float()
        if n_views > 1:
            probabilities = torch.softmax(logits, dim=1).reshape(n_views, -1, len(self.classifier.classes)).mean(dim=0)
            logits = torch.log(probabilities.clamp(min=torch.finfo(torch.float32).tiny))
        return torch.softmax(logits / self.temperature, dim=1)


class TTAView(nn.Module):
    """A view of test-time augmentation: a crop, flipped or turned by index operations only."""

    def __init__(self, matrix: np.ndarray, size: int, crop_size: int) -> None:
        super().__init__()
        self.transposed = abs(matrix[0, 0]) < 0.5
        positions = np.arange(crop_size)
        columns = matrix[0, 1 if self.transposed else 0] * positions + matrix[0, 2]
        rows = matrix[1, 0 if self.transposed else 1] * positions + matrix[1, 2]
        self.half_pixel = bool(np.any(columns % 1 != 0))
        every_position = np.arange(size)
        covers_all = np.array_equal(rows, every_position) and np.array_equal(columns, every_position)
        self.is_identity = covers_all and not self.transposed
        self.register_buffer("rows", torch.from_numpy(np.floor(rows).astype(np.int64)))
        self.register_buffer("columns", torch.from_numpy(np.floor(columns).astype(np.int64)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the view (N, crop_size, crop_size, 3) of pixels (N, size, size, 3)."""
        if self.is_identity:
            return pixels
        if not self.half_pixel:
            return self._gather(pixels, 0, 0)
        # Halfway between four pixels, take their mean, rounded as in every other evaluation.
        neighbors = [self._gather(pixels, down, across).float() for down in (0, 1) for across in (0, 1)]
        return torch.stack(neighbors).mean(dim=0).round()

    def _gather(self, pixels: Tensor, down: int, across: int) -> Tensor:
        rows = self.get_buffer("rows") + down
        columns = self.get_buffer("columns") + across
        view = pixels.index_select(1, rows).index_select(2, columns)
        return view.transpose(1, 2) if self.transposed else view
