"""Does a network look at the right place? Its maps over a split, held against masks, the border and the surround."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.decode import UnreadableImageError
from parfocal.data.masks import MaskFolder
from parfocal.data.passes import map_ordered
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import ParfocalError
from parfocal.explaining.cam import ClassMaps, compute_class_maps, load_eval_views, locate_images
from parfocal.explaining.margin import BorderSwapResult, border_swap_test
from parfocal.explaining.places import RegionOverlap, compute_region_overlap
from parfocal.model.classifier import Classifier
from parfocal.run import Run

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
