"""Places: which share of a map lies on a region, and whether its peak does; border and black surround as regions.

A map is coarse. Each of its values stands for a cell of the image, and counts for a region by the share of the cell
that the region covers.
"""
# MERGED: """The shortcut figure: what lies on the border and the black surround, and whether answers hang on the border.
#
# Shares of a map alone show little: what is told by a mark in a corner spreads over the few cells of a map. So the border
# is also exchanged for that of another image, and beside it a square of the same area in the middle.
# """
# MERGED: """Does a network look at the right place? Its maps over a split, held against masks, the border and the surround."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from parfocal.data.decode import Pixels
from parfocal.data.masks import MaskFolder
from parfocal.data.parallel import map_ordered
from parfocal.data.table import UNKNOWN, Table
from parfocal.engine.batches import EVALUATION_BATCH_SIZE
from parfocal.errors import ParfocalError, UnreadableImageError
from parfocal.explainability.cam import SCORE, ClassMaps, compute_class_maps, load_eval_views, locate_images
from parfocal.models.classifier import Classifier
from parfocal.run import Run

BORDER_WIDTH = 1 / 12
"""How wide the border is, as a share of the side."""

_MAX_BLACK_VALUE = 12
_MIN_COVERAGE = 1e-6


@dataclass(frozen=True)
class RegionOverlap:
    """How one map lies to one region: which share of what speaks for the answer is on it, and whether the peak is.

    `random_share` and `random_hit` are what to expect of the same values in random places. `share` is None where
    nothing speaks for the answer.
    """

    share: float | None
    random_share: float
    hit: bool
    random_hit: float


def compute_region_overlap(evidence: np.ndarray, region: np.ndarray) -> RegionOverlap:
    """Say how a map (rows, columns) lies to a region (side, side), which may be shares of pixels.

    The peak is a hit where its cell holds some of the region.
    """
    covered = compute_cell_coverage(region, evidence.shape)
    touched = covered > _MIN_COVERAGE
    hit = bool(touched.flat[evidence.argmax()]) and float(evidence.max()) > 0
    return RegionOverlap(compute_region_share(evidence, region), float(covered.mean()), hit, float(touched.mean()))


def compute_region_share(evidence: np.ndarray, region: np.ndarray) -> float | None:
    """Return which share of what speaks for the answer lies on a region, or None where nothing does."""
    positive = np.clip(evidence, 0, None)
    total = float(positive.sum())
    return float((positive * compute_cell_coverage(region, evidence.shape)).sum()) / total if total > 0 else None


def compute_cell_coverage(region: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which share of each cell of a map of this shape a region (side, side) covers."""
    rows, columns = shape
    return cv2.resize(region.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)


def border_mask(side: int) -> np.ndarray:
    """Return which pixels (side, side) are the outer twelfth on each side."""
    made = np.ones((side, side), bool)
    width = max(1, round(side * BORDER_WIDTH))
    made[width : side - width, width : side - width] = False
    return made


def center_mask(side: int) -> np.ndarray:
    """Return which pixels (side, side) are a square in the middle, of about the border's area."""
    across = round(float(np.sqrt(border_mask(side).sum())))
    start = (side - across) // 2
    made = np.zeros((side, side), bool)
    made[start : start + across, start : start + across] = True
    return made


def background_mask(image: Pixels) -> np.ndarray:
    """Return which pixels (side, side) are the surround: black, and joined to the image's edge."""
    black = (image.max(axis=2) <= _MAX_BLACK_VALUE).astype(np.uint8)
    _, parts = cv2.connectedComponents(black, connectivity=4)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, edge[edge > 0])


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


ANY_REGION = "any part"
"""What all parts of a mask together are called."""

_MAX_IMAGES = 200
_MAX_OCCLUDED_IMAGES = 24


@dataclass(frozen=True)
class MaskOverlap:
    """How maps lie to a part of the masks: over how many images, how often the peak hits it, which share is on it.

    Beside each stands what maps with the same values in random places would reach.
    """

    n_images: int
    hit_rate: float
    random_hit_rate: float
    share: float | None
    random_share: float


@dataclass(frozen=True)
class MapLocalization:
    """Where the maps of a split lie: on its margin, and within the parts of its masks, as far as there are any."""

    border_swap: BorderSwapResult | None
    mask_overlaps: dict[str, MaskOverlap]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def measure_localization(
    run: Run, network: Classifier, split: str, method: str = "cam", stage: str = "", masks: Path | str | None = None
) -> MapLocalization:
    """Measure where a run's maps lie over up to 200 images of a split, evenly taken.

    Masks are held against the maps of the truth; the margin is always judged by exact maps.
    """
    files = locate_images(run, split)
    every = -(-len(files) // _MAX_IMAGES)
    pixels, ids, _ = load_eval_views(run.recipe, dict(list(files.items())[::every]))
    exact = compute_class_maps(network, pixels)
    return MapLocalization(
        border_swap_test(network, exact), _compare_with_masks(run, network, split, exact, ids, method, stage, masks)
    )


def _compare_with_masks(
    run: Run,
    network: Classifier,
    split: str,
    exact_maps: ClassMaps,
    ids: Sequence[str],
    method: str,
    stage: str,
    masks: Path | str | None,
) -> dict[str, MaskOverlap]:
    """Hold the maps of the truth against the masks there are."""
    files, truth = locate_images(run, split, ids), _load_truth(run, split)
    usual = Path(run.read_environment()["data"]["folder"]) / "masks"
    if masks is None and not usual.is_dir():
        return {}
    folder = MaskFolder(Path(masks) if masks is not None else usual)
    found = {one: folder.find(files[one], split) for one in ids if truth[one] != UNKNOWN}
    drawn = {one: path for one, path in found.items() if path is not None}
    if not drawn:
        if masks is None:
            return {}
        like = f"{files[ids[0]].stem}.png" if ids else "the images"
        raise ParfocalError(f"{folder.folder} has no mask of an image of {split}. Masks are called like {like}.")
    parts = _read_mask_regions(run, folder, drawn, files)
    rows = [row for row, one in enumerate(ids) if one in parts]
    if method == "occlusion":
        rows = rows[:: -(-len(rows) // _MAX_OCCLUDED_IMAGES)]
    maps = exact_maps if method == "cam" else compute_class_maps(network, exact_maps.pixels[rows], method, stage)
    if method == "cam":
        maps = maps.subset(rows)
    evidence = maps.for_labels([truth[ids[row]] for row in rows])
    seen: dict[str, list[RegionOverlap]] = {}
    for map_, row in zip(evidence, rows, strict=True):
        for name, region in parts[ids[row]].items():
            seen.setdefault(name, []).append(compute_region_overlap(map_, region))
    return {name: _average_overlaps(seen[name]) for name in sorted(seen, key=lambda name: (name != ANY_REGION, name))}


def _read_mask_regions(
    run: Run, folder: MaskFolder, mask_files: dict[str, Path], image_files: dict[str, Path]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the parts of each mask that shows anything where the network looks, and all of them together."""

    def look(one: str) -> dict[str, np.ndarray]:
        try:
            found = folder.render_regions(mask_files[one], image_files[one], run.recipe)
        except UnreadableImageError as reason:
            raise ParfocalError(f"{mask_files[one]} cannot be read: {reason}.") from None
        present = {name: region for name, region in found.items() if region.any()}
        together = np.clip(np.sum(list(present.values()), axis=0), 0, 1)
        return {ANY_REGION: together, **present} if present else {}

    seen = zip(mask_files, map_ordered(list(mask_files), look, "Reading masks"), strict=True)
    return {one: parts for one, parts in seen if parts}


def _load_truth(run: Run, split: str) -> dict[str, int]:
    rows = Table.load(run).get_rows(split)
    return {one: int(label) for one, label in zip(rows["id"], rows["label"], strict=True)}


def _average_overlaps(overlaps: Sequence[RegionOverlap]) -> MaskOverlap:
    shares = [one.share for one in overlaps if one.share is not None]
    return MaskOverlap(
        len(overlaps),
        float(np.mean([one.hit for one in overlaps])),
        float(np.mean([one.random_hit for one in overlaps])),
        float(np.mean(shares)) if shares else None,
        float(np.mean([one.random_share for one in overlaps])),
    )
