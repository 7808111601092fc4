"""The whole way from a prepared image to calibrated probabilities as one network; an export needs nothing else."""

import numpy as np
import torch
from torch import Tensor, nn

from parfocal.data.augment import eval_geometry, tta_views
from parfocal.models.classifier import Classifier
from parfocal.schema import ViewsConfig


class ExportGraph(nn.Module):
    """Looks at a prepared image as evaluation does, averages what the network says, and applies the temperature.

    It takes uint8 pixels (N, size, size, 3), of the size of the recipe's Store, and gives float32 (N, classes).
    """

    def __init__(self, classifier: Classifier, size: int, views: ViewsConfig, temperature: float) -> None:
        super().__init__()
        self.classifier, self.size, self.temperature = classifier, size, temperature
        matrices = [eval_geometry(1, size, views, look)[0] for look in tta_views(views)]
        self.tta_views = nn.ModuleList(TTAView(matrix, size, views.crop_size) for matrix in matrices)

    def forward(self, pixels: Tensor) -> Tensor:
        """Give calibrated probabilities (N, classes) for uint8 pixels (N, size, size, 3)."""
        logits = self.classifier(torch.cat([look(pixels) for look in self.tta_views])).float()
        if len(self.tta_views) > 1:
            said = (
                torch.softmax(logits, dim=1).reshape(len(self.tta_views), -1, len(self.classifier.classes)).mean(dim=0)
            )
            logits = torch.log(said.clamp(min=torch.finfo(torch.float32).tiny))
        return torch.softmax(logits / self.temperature, dim=1)


class TTAView(nn.Module):
    """One look of evaluation: which rows and columns are taken, in which order, and whether they change places."""

    def __init__(self, matrix: np.ndarray, size: int, crop: int) -> None:
        super().__init__()
        self.transposed = abs(matrix[0, 0]) < 0.5
        along = np.arange(crop)
        columns = matrix[0, 1 if self.transposed else 0] * along + matrix[0, 2]
        rows = matrix[1, 0 if self.transposed else 1] * along + matrix[1, 2]
        self.half_pixel = bool(np.any(columns % 1 != 0))
        self.is_identity = not self.transposed and all(np.array_equal(one, np.arange(size)) for one in (rows, columns))
        self.register_buffer("rows", torch.from_numpy(np.floor(rows).astype(np.int64)))
        self.register_buffer("columns", torch.from_numpy(np.floor(columns).astype(np.int64)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Give what is seen of pixels (N, size, size, 3): (N, crop, crop, 3)."""
        if self.is_identity:
            return pixels
        if not self.half_pixel:
            return self._gather(pixels, 0, 0)
        # Between four pixels lies their mean, rounded as in every other evaluation.
        four = [self._gather(pixels, down, across).float() for down in (0, 1) for across in (0, 1)]
        return torch.stack(four).mean(dim=0).round()

    def _gather(self, pixels: Tensor, down: int, across: int) -> Tensor:
        rows, columns = self.get_buffer("rows") + down, self.get_buffer("columns") + across
        seen = pixels.index_select(1, rows).index_select(2, columns)
        return seen.transpose(1, 2) if self.transposed else seen
