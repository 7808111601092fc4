"""The shortcut figure: what lies on the border and the black surround, and whether answers hang on the border.

Shares of a map alone show little: what is told by a mark in a corner spreads over the few cells of a map. So the border
is also exchanged for that of another image, and beside it a square of the same area in the middle.
"""

from dataclasses import dataclass

import numpy as np
import torch

from parfocal.data.decode import Pixels
from parfocal.evaluation.inference import EVALUATION_BATCH_SIZE
from parfocal.explaining.cam import SCORE, ClassMaps
from parfocal.explaining.places import background_mask, border_mask, center_mask, compute_cell_coverage
from parfocal.model.classifier import Classifier

MIN_IMAGES = 20
"""Of fewer images nothing is said."""

WARNING_THRESHOLD = 0.05
"""The share of answers below which the border may change them without a warning."""


@dataclass(frozen=True)
class BorderSwapResult:
    """How maps lie to the outer twelfth of the images and to their black surround, and what the border decides.

    `border_share` and `surround_share` are the mean share of a map's strength there; a map scattered evenly has the
    share of the area. `border_changes` is the share of answers that change when the border is that of another image,
    `middle_changes` when a square of the same area in the middle is.
    """

    n_images: int
    border_share: float
    border_area: float
    background_share: float
    background_area: float
    border_change_rate: float
    center_change_rate: float

    @property
    def warning(self) -> str:
        """What to tell the user where the border decides as much as the middle, or nothing."""
        if self.border_change_rate <= WARNING_THRESHOLD or self.border_change_rate < self.center_change_rate:
            return ""
        return (
            f"{self.border_change_rate:.0%} of the answers change when the border is that of another image, and "
            f"{self.center_change_rate:.0%} when as much of the middle is. Look for scale bars, marks and framing that "
            "tell the class; `parfocal check` does too."
        )


def border_swap_test(network: Classifier, maps: ClassMaps) -> BorderSwapResult | None:
    """Measure the margin by a network's maps of at least 20 images; of fewer return None.

    Each image's border, and the middle, are exchanged for those of the image half a round further on.
    """
    if len(maps) < MIN_IMAGES:
        return None
    side = maps.pixels.shape[1]
    edge = border_mask(side)
    answers = _predict(network, maps.pixels)
    others = np.roll(maps.pixels, len(maps) // 2, axis=0)
    border_changes, middle_changes = (
        float((answers != _predict(network, np.where(region[None, :, :, None], others, maps.pixels))).mean())
        for region in (edge, center_mask(side))
    )
    evidence = maps.for_labels(answers)
    strength = np.abs(evidence) if maps.names == (SCORE,) else np.clip(evidence, 0, None)
    black = [background_mask(pixels) for pixels in maps.pixels]
    border_share, border_area = _mean_shares(strength, [edge] * len(maps))
    surround_share, surround_area = _mean_shares(strength, black)
    shares = (border_share, border_area, surround_share, surround_area)
    return BorderSwapResult(len(maps), *shares, border_changes, middle_changes)


def _mean_shares(strength: np.ndarray, regions: list[np.ndarray]) -> tuple[float, float]:
    """Return the mean share of the maps' strength that lies on a region of each, and the mean share of its area."""
    covered = np.stack([compute_cell_coverage(one, strength.shape[1:]) for one in regions])
    total = strength.sum(axis=(1, 2))
    there = (strength * covered).sum(axis=(1, 2))
    shares = there[total > 0] / total[total > 0]
    return float(shares.mean()) if len(shares) else 0.0, float(covered.mean())


@torch.inference_mode()
def _predict(network: Classifier, pixels: Pixels) -> np.ndarray:
    starts = range(0, len(pixels), EVALUATION_BATCH_SIZE)
    device = network.mean.device
    batches = (torch.from_numpy(pixels[start : start + EVALUATION_BATCH_SIZE]).to(device) for start in starts)
    return torch.cat([network(batch).argmax(dim=1) for batch in batches]).cpu().numpy()
