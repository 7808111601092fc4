"""Test whether a network looks at the right place: overlap of its maps with masks, and the border swap test.

A map is coarse. Each of its cells covers an area of the image, and counts for a region by the share of that area that
the region covers.

The overlap of maps with the border shows little, because a mark in a corner spreads over the few cells of a map. The
border swap test therefore replaces the border by that of another image, and compares this with replacing a central
square of the same area. If the border changes as many predictions as the center, the network uses a shortcut.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from parfocal.data.decode import Pixels
from parfocal.data.masks import MaskFolder
from parfocal.data.parallel import map_ordered
from parfocal.data.table import UNKNOWN
from parfocal.engine.batches import EVALUATION_BATCH_SIZE
from parfocal.errors import ParfocalError, UnreadableImageError
from parfocal.explainability.cam import SCORE, ClassMaps, compute_class_maps
from parfocal.explainability.images import EvalImages, load_eval_images
from parfocal.models.classifier import Classifier
from parfocal.run import Run

ANY_REGION = "any region"
"""The name of all regions of a mask together."""

BORDER_WIDTH = 1 / 12
"""Width of the border, as a share of the side of the image."""

MIN_IMAGES = 20
"""The border swap test needs at least this many images."""

WARNING_THRESHOLD = 0.05
"""No warning if swapping the border changes at most this share of the predictions."""

_MAX_BLACK_VALUE = 12
_MIN_COVERAGE = 1e-6
_MAX_IMAGES = 200
_MAX_OCCLUDED_IMAGES = 24


@dataclass(frozen=True)
class RegionOverlap:
    """How a map overlaps a region: the share of its positive evidence inside, and whether its peak lies inside.

    `random_share` and `random_hit` are the expected values if the same values were in random cells. `share` is None if
    the map has no positive evidence.
    """

    share: float | None
    random_share: float
    hit: bool
    random_hit: float


@dataclass(frozen=True)
class MaskOverlap:
    """How the maps of images overlap a region of their masks.

    `hit_rate` is the share of maps whose peak lies in the region (the pointing game), `share` is the mean share of the
    positive evidence inside it. The `random_…` values are what maps with the same values in random cells reach.
    """

    n_images: int
    hit_rate: float
    random_hit_rate: float
    share: float | None
    random_share: float


@dataclass(frozen=True)
class BorderSwapResult:
    """How much of the maps lies on the border and the black background, and how much the border decides.

    `border_share` and `background_share` are the mean share of the strength of the maps in that region; a uniform map
    has the share of the area. `border_change_rate` is the share of predictions that change when the border is replaced
    by that of another image, `center_change_rate` when a central square of the same area is.
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
        """The warning for the user if the border decides as much as the center; else empty."""
        if self.border_change_rate <= WARNING_THRESHOLD or self.border_change_rate < self.center_change_rate:
            return ""
        return (
            f"{self.border_change_rate:.0%} of the predictions change when the border is replaced by that of another "
            f"image, and {self.center_change_rate:.0%} when a central area of the same size is. Look for scale bars, "
            "marks and framing that reveal the class; `parfocal check` searches for them too."
        )


@dataclass(frozen=True)
class MapLocalization:
    """Where the maps of a split lie: the border swap test, and the overlap with each region of the masks."""

    border_swap: BorderSwapResult | None
    mask_overlaps: dict[str, MaskOverlap]


def measure_localization(
    run: Run,
    classifier: Classifier,
    split: str,
    method: str = "cam",
    stage: str = "",
    masks: Path | str | None = None,
) -> MapLocalization:
    """Measure where a run's maps lie, on up to 200 images, evenly spaced over a split.

    The border swap test always uses exact maps. Masks are compared with the maps of the true class. `masks` is a
    folder; by default the folder `masks` in the data's folder is used if it exists.
    """
    images = load_eval_images(run, split, max_images=_MAX_IMAGES)
    exact_maps = compute_class_maps(classifier, images.pixels)
    regions = _load_mask_regions(run, split, images, masks)
    return MapLocalization(
        border_swap_test(classifier, exact_maps),
        _measure_mask_overlaps(classifier, images, exact_maps, regions, method, stage) if regions else {},
    )


def _load_mask_regions(
    run: Run, split: str, images: EvalImages, masks: Path | str | None
) -> dict[int, dict[str, np.ndarray]]:
    """Return the regions of each mask, by the image's row; masks that are empty in the network's view are left out."""
    path = Path(run.read_environment()["data"]["folder"]) / "masks" if masks is None else Path(masks)
    if masks is None and not path.is_dir():
        return {}
    folder = MaskFolder(path)
    mask_paths = {
        row: mask_path
        for row, image_path in enumerate(images.paths)
        if images.truth[row] != UNKNOWN and (mask_path := folder.find(image_path, split)) is not None
    }
    if not mask_paths and masks is not None:
        example = f"{images.paths[0].stem}.png" if images.paths else "the images"
        raise ParfocalError(f"{folder.folder} has no mask of any image of {split}. Name masks like {example}.")

    def read(row: int) -> dict[str, np.ndarray]:
        try:
            regions = folder.render_regions(mask_paths[row], images.paths[row], run.recipe)
        except UnreadableImageError as error:
            raise ParfocalError(f"{mask_paths[row]} cannot be read: {error}.") from None
        visible = {name: region for name, region in regions.items() if region.any()}
        if not visible:
            return {}
        return {ANY_REGION: np.clip(np.sum(list(visible.values()), axis=0), 0, 1), **visible}

    by_row = zip(mask_paths, map_ordered(list(mask_paths), read, "Reading masks"), strict=True)
    return {row: regions for row, regions in by_row if regions}


def _measure_mask_overlaps(
    classifier: Classifier,
    images: EvalImages,
    exact_maps: ClassMaps,
    regions: dict[int, dict[str, np.ndarray]],
    method: str,
    stage: str,
) -> dict[str, MaskOverlap]:
    """Compare the maps of the true class with the regions of the masks."""
    rows = list(regions)
    if method == "cam":
        evidence = exact_maps.for_labels(images.truth)[rows]
    else:
        if method == "occlusion":
            rows = rows[:: -(-len(rows) // _MAX_OCCLUDED_IMAGES)]
        maps = compute_class_maps(classifier, images.pixels[rows], method, stage)
        evidence = maps.for_labels([images.truth[row] for row in rows])
    overlaps_by_region: dict[str, list[RegionOverlap]] = defaultdict(list)
    for row, values in zip(rows, evidence, strict=True):
        for name, region in regions[row].items():
            overlaps_by_region[name].append(compute_region_overlap(values, region))
    result: dict[str, MaskOverlap] = {}
    for name, overlaps in sorted(overlaps_by_region.items(), key=lambda item: (item[0] != ANY_REGION, item[0])):
        shares = [overlap.share for overlap in overlaps if overlap.share is not None]
        result[name] = MaskOverlap(
            n_images=len(overlaps),
            hit_rate=float(np.mean([overlap.hit for overlap in overlaps])),
            random_hit_rate=float(np.mean([overlap.random_hit for overlap in overlaps])),
            share=float(np.mean(shares)) if shares else None,
            random_share=float(np.mean([overlap.random_share for overlap in overlaps])),
        )
    return result


def border_swap_test(classifier: Classifier, maps: ClassMaps) -> BorderSwapResult | None:
    """Run the border swap test on the images of a network's maps; return None for fewer than 20 images.

    The border and the center of each image are replaced by those of the image half the set further on.
    """
    if len(maps) < MIN_IMAGES:
        return None
    side = maps.pixels.shape[1]
    border = border_mask(side)
    predicted = _predict(classifier, maps.pixels)
    other_images = np.roll(maps.pixels, len(maps) // 2, axis=0)

    def measure_change_rate(region: np.ndarray) -> float:
        swapped = np.where(region[None, :, :, None], other_images, maps.pixels)
        return float((predicted != _predict(classifier, swapped)).mean())

    evidence = maps.for_labels(predicted)
    strength = np.abs(evidence) if maps.names == (SCORE,) else np.clip(evidence, 0, None)
    border_share, border_area = _mean_shares(strength, [border] * len(maps))
    background_share, background_area = _mean_shares(strength, [background_mask(pixels) for pixels in maps.pixels])
    return BorderSwapResult(
        n_images=len(maps),
        border_share=border_share,
        border_area=border_area,
        background_share=background_share,
        background_area=background_area,
        border_change_rate=measure_change_rate(border),
        center_change_rate=measure_change_rate(center_mask(side)),
    )


def _mean_shares(strength: np.ndarray, regions: list[np.ndarray]) -> tuple[float, float]:
    """Return the mean share of the strength of each map in its region, and the mean share of the region's area."""
    coverage = np.stack([compute_cell_coverage(region, strength.shape[1:]) for region in regions])
    total = strength.sum(axis=(1, 2))
    inside = (strength * coverage).sum(axis=(1, 2))
    shares = inside[total > 0] / total[total > 0]
    return float(shares.mean()) if len(shares) else 0.0, float(coverage.mean())


@torch.inference_mode()
def _predict(classifier: Classifier, pixels: Pixels) -> np.ndarray:
    starts = range(0, len(pixels), EVALUATION_BATCH_SIZE)
    device = classifier.mean.device
    batches = (torch.from_numpy(pixels[start : start + EVALUATION_BATCH_SIZE]).to(device) for start in starts)
    return torch.cat([classifier(batch).argmax(dim=1) for batch in batches]).cpu().numpy()


def compute_region_overlap(evidence: np.ndarray, region: np.ndarray) -> RegionOverlap:
    """Compute how a map (rows, columns) overlaps a region (side, side), which may be fractions of pixels.

    The peak is a hit if its cell contains some of the region.
    """
    coverage = compute_cell_coverage(region, evidence.shape)
    is_touched = coverage > _MIN_COVERAGE
    return RegionOverlap(
        share=compute_region_share(evidence, region),
        random_share=float(coverage.mean()),
        hit=bool(is_touched.flat[evidence.argmax()]) and float(evidence.max()) > 0,
        random_hit=float(is_touched.mean()),
    )


def compute_region_share(evidence: np.ndarray, region: np.ndarray) -> float | None:
    """Return the share of the positive evidence that lies in a region, or None if there is no positive evidence."""
    positive = np.clip(evidence, 0, None)
    total = float(positive.sum())
    return float((positive * compute_cell_coverage(region, evidence.shape)).sum()) / total if total > 0 else None


def compute_cell_coverage(region: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the share of each cell of a map of this shape that a region (side, side) covers."""
    rows, columns = shape
    return cv2.resize(region.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)


def border_mask(side: int) -> np.ndarray:
    """Return a mask (side, side) of the border: the outer twelfth on each side."""
    mask = np.ones((side, side), bool)
    width = max(1, round(side * BORDER_WIDTH))
    mask[width : side - width, width : side - width] = False
    return mask


def center_mask(side: int) -> np.ndarray:
    """Return a mask (side, side) of a central square with about the same area as the border."""
    width = round(float(np.sqrt(border_mask(side).sum())))
    start = (side - width) // 2
    mask = np.zeros((side, side), bool)
    mask[start : start + width, start : start + width] = True
    return mask


def background_mask(image: Pixels) -> np.ndarray:
    """Return a mask (side, side) of the background: black pixels that are connected to the edge of the image."""
    black = (image.max(axis=2) <= _MAX_BLACK_VALUE).astype(np.uint8)
    _, components = cv2.connectedComponents(black, connectivity=4)
    edge = np.unique(np.concatenate([components[0], components[-1], components[:, 0], components[:, -1]]))
    return np.isin(components, edge[edge > 0])
