"""Does a network look at the right place? Its maps over a split, held against masks, the border and the surround."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.decode import Unreadable
from parfocal.data.masks import Masks
from parfocal.data.passes import in_order
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import ParfocalError
from parfocal.explaining.cam import Maps, class_maps, files_of, seen_files
from parfocal.explaining.margin import Margin, margin_of
from parfocal.explaining.places import Place, place
from parfocal.model.classifier import Classifier
from parfocal.run import Run

ANY = "any part"
"""What all parts of a mask together are called."""

_MOST = 200
_MOST_OCCLUDED = 24


@dataclass(frozen=True)
class Within:
    """How maps lie to a part of the masks: over how many images, how often the peak hits it, which share is on it.

    Beside each stands what maps with the same values in random places would reach.
    """

    images: int
    hits: float
    random_hits: float
    share: float | None
    random_share: float


@dataclass(frozen=True)
class Lying:
    """Where the maps of a split lie: on its margin, and within the parts of its masks, as far as there are any."""

    margin: Margin | None
    within: dict[str, Within]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def lying_of(
    run: Run, network: Classifier, split: str, method: str = "cam", stage: str = "", masks: Path | str | None = None
) -> Lying:
    """Measure where a run's maps lie over up to 200 images of a split, evenly taken.

    Masks are held against the maps of the truth; the margin is always judged by exact maps.
    """
    files = files_of(run, split)
    every = -(-len(files) // _MOST)
    pixels, ids, _ = seen_files(run.recipe, dict(list(files.items())[::every]))
    exact = class_maps(network, pixels)
    return Lying(margin_of(network, exact), _within(run, network, split, exact, ids, method, stage, masks))


def _within(
    run: Run,
    network: Classifier,
    split: str,
    exact: Maps,
    ids: Sequence[str],
    method: str,
    stage: str,
    masks: Path | str | None,
) -> dict[str, Within]:
    """Hold the maps of the truth against the masks there are."""
    files, truth = files_of(run, split, ids), _truth(run, split)
    usual = Path(run.environment()["data"]["folder"]) / "masks"
    if masks is None and not usual.is_dir():
        return {}
    folder = Masks(Path(masks) if masks is not None else usual)
    found = {one: folder.find(files[one], split) for one in ids if truth[one] != UNKNOWN}
    drawn = {one: path for one, path in found.items() if path is not None}
    if not drawn:
        if masks is None:
            return {}
        like = f"{files[ids[0]].stem}.png" if ids else "the images"
        raise ParfocalError(f"{folder.folder} has no mask of an image of {split}. Masks are called like {like}.")
    parts = _parts(run, folder, drawn, files)
    rows = [row for row, one in enumerate(ids) if one in parts]
    if method == "occlusion":
        rows = rows[:: -(-len(rows) // _MOST_OCCLUDED)]
    maps = exact if method == "cam" else class_maps(network, exact.pixels[rows], method, stage)
    if method == "cam":
        maps = maps.taken(rows)
    evidence = maps.of([truth[ids[row]] for row in rows])
    seen: dict[str, list[Place]] = {}
    for map_, row in zip(evidence, rows, strict=True):
        for name, region in parts[ids[row]].items():
            seen.setdefault(name, []).append(place(map_, region))
    return {name: _mean(seen[name]) for name in sorted(seen, key=lambda name: (name != ANY, name))}


def _parts(run: Run, folder: Masks, drawn: dict[str, Path], files: dict[str, Path]) -> dict[str, dict[str, np.ndarray]]:
    """Return the parts of each mask that shows anything where the network looks, and all of them together."""

    def look(one: str) -> dict[str, np.ndarray]:
        try:
            found = folder.seen(drawn[one], files[one], run.recipe)
        except Unreadable as reason:
            raise ParfocalError(f"{drawn[one]} cannot be read: {reason}.") from None
        present = {name: region for name, region in found.items() if region.any()}
        together = np.clip(np.sum(list(present.values()), axis=0), 0, 1)
        return {ANY: together, **present} if present else {}

    seen = zip(drawn, in_order(list(drawn), look, "Reading masks"), strict=True)
    return {one: parts for one, parts in seen if parts}


def _truth(run: Run, split: str) -> dict[str, int]:
    rows = Table.load(run).of(split)
    return {one: int(label) for one, label in zip(rows["id"], rows["label"], strict=True)}


def _mean(places: Sequence[Place]) -> Within:
    shares = [one.share for one in places if one.share is not None]
    return Within(
        len(places),
        float(np.mean([one.hit for one in places])),
        float(np.mean([one.random_hit for one in places])),
        float(np.mean(shares)) if shares else None,
        float(np.mean([one.random_share for one in places])),
    )
