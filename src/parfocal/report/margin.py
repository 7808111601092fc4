"""The shortcut figure: what lies on the border and the black surround, and whether answers hang on the border."""

from dataclasses import dataclass

import numpy as np
import torch

from parfocal.data.decode import Pixels
from parfocal.evaluation.inference import EVALUATION_BATCH
from parfocal.model.classifier import Classifier
from parfocal.report.cam import SCORE, Maps
from parfocal.report.places import border, cells, surround

LEAST_IMAGES = 20
"""Of fewer images nothing is said."""

WARNED_ABOVE = 0.1
"""The share of changed answers above which there is a warning; docs/explanation.md says why."""


@dataclass(frozen=True)
class Margin:
    """How maps lie to the outer twelfth of the images and to their black surround, and what the border decides.

    `border_share` and `surround_share` are the mean share of a map's strength there; a map scattered evenly has the
    share of the area. `changed` is the share of answers that change when the border is that of another image.
    """

    images: int
    border_share: float
    border_area: float
    surround_share: float
    surround_area: float
    changed: float

    @property
    def warning(self) -> str:
        """What to tell the user, or nothing."""
        if self.changed <= WARNED_ABOVE:
            return ""
        return (
            f"{self.changed:.0%} of the answers change when the border is that of another image. Look at the sheet, "
            "and for scale bars, marks and framing that tell the class with `parfocal check`."
        )


def margin_of(network: Classifier, maps: Maps) -> Margin | None:
    """Measure the margin by a network's maps of at least 20 images; of fewer return None.

    Each image's border is exchanged for that of the image half a round further on.
    """
    if len(maps) < LEAST_IMAGES:
        return None
    side = maps.pixels.shape[1]
    edge = border(side)
    answers = _answers(network, maps.pixels)
    others = np.roll(maps.pixels, len(maps) // 2, axis=0)
    changed = answers != _answers(network, np.where(edge[None, :, :, None], others, maps.pixels))
    evidence = maps.of(answers)
    strength = np.abs(evidence) if maps.answers == (SCORE,) else np.clip(evidence, 0, None)
    black = [surround(pixels) for pixels in maps.pixels]
    border_share, border_area = _shares(strength, [edge] * len(maps))
    surround_share, surround_area = _shares(strength, black)
    return Margin(len(maps), border_share, border_area, surround_share, surround_area, float(changed.mean()))


def _shares(strength: np.ndarray, regions: list[np.ndarray]) -> tuple[float, float]:
    """Return the mean share of the maps' strength that lies on a region of each, and the mean share of its area."""
    covered = np.stack([cells(one, strength.shape[1:]) for one in regions])
    total = strength.sum(axis=(1, 2))
    there = (strength * covered).sum(axis=(1, 2))
    shares = there[total > 0] / total[total > 0]
    return float(shares.mean()) if len(shares) else 0.0, float(covered.mean())


@torch.inference_mode()
def _answers(network: Classifier, pixels: Pixels) -> np.ndarray:
    starts = range(0, len(pixels), EVALUATION_BATCH)
    device = network.mean.device
    batches = (torch.from_numpy(pixels[start : start + EVALUATION_BATCH]).to(device) for start in starts)
    return torch.cat([network(batch).argmax(dim=1) for batch in batches]).cpu().numpy()
