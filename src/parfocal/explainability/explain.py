"""Explain predictions: write heatmaps of images as sheets, as files and as a table."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from parfocal.data.encode import write_image
from parfocal.data.table import SPLITS, UNKNOWN
from parfocal.errors import ParfocalError, UsageError, did_you_mean
from parfocal.explainability.cam import compute_class_maps
from parfocal.explainability.heatmap import compute_shared_scale, overlay_heatmap, render_gray_map
from parfocal.explainability.localization import (
    MapLocalization,
    background_mask,
    border_mask,
    compute_region_share,
    measure_localization,
)
from parfocal.explainability.selection import Selection, select_from_files, select_from_split
from parfocal.explainability.sheet import MAX_IMAGES_PER_SHEET, RunExplanation, draw_sheet
from parfocal.io import atomic_write, write_json
from parfocal.models.classifier import Classifier
from parfocal.run import Run, open_runs


@dataclass(frozen=True)
class Explanation:
    """What `explain` wrote.

    `heatmaps` has a row for each heatmap on the sheets. `scales` holds the value of full strength in the maps of each
    run. `localization` says for each run where its maps of the split lie. `unreadable` maps images that cannot be read
    to the reason.
    """

    folder: Path
    sheets: tuple[Path, ...]
    heatmaps: pd.DataFrame
    scales: dict[str, float]
    localization: dict[str, MapLocalization]
    unreadable: dict[str, str]

    @property
    def scale(self) -> float:
        """The largest value of full strength."""
        return max(self.scales.values())


def explain(
    runs: Path | str | Sequence[Path | str],
    images: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    method: str = "cam",
    stage: str = "",
    ids: Sequence[str] | None = None,
    n_per_kind: int = 4,
    masks: Path | str | None = None,
    own_scale: bool = False,
) -> Explanation:
    """Explain the predictions of trained networks with heatmaps, and write them into the folder `out`.

    `images` is a split (`valid` or `test`), or image files, folders of images, and CSV files with a column `Path`. Of
    a split, the images with these `ids` are explained, or else `n_per_kind` of the first run's most confident correct
    predictions, most confident mistakes and most uncertain predictions. All maps of all runs have the same scale; with
    `own_scale` those of each run have a scale of their own, which shows where a network of weak evidence looks.

    For a split, `explain` also measures where the maps lie: on the border, on the black background, and within `masks`
    (by default the folder `masks` in the data's folder, if it exists).
    """
    folder = Path(out)
    opened = open_runs([runs] if isinstance(runs, str | Path) else runs)
    classifiers = _load_classifiers(opened)
    sources = [images] if isinstance(images, str | Path) else list(images)
    split = _parse_split(sources, opened)
    if ids is not None and not split:
        raise UsageError("ids select images of a split. Pass images='valid' or images='test' with ids.")
    selection = select_from_split(opened, split, ids, n_per_kind) if split else select_from_files(opened, sources)
    if not selection.images:
        name, reason = next(iter(selection.unreadable.items()))
        raise ParfocalError(f"None of the images can be read. {name}: {reason}.")
    explanations = [
        RunExplanation(
            run.name,
            classifier.classes,
            predictions.predicted,
            predictions.probabilities,
            compute_class_maps(classifier, predictions.pixels, method, stage),
        )
        for run, classifier, predictions in zip(opened, classifiers, selection.predictions, strict=True)
    ]
    scales = _compute_scales(selection, explanations, own_scale)
    result = Explanation(
        folder=folder,
        sheets=tuple(_write_sheets(folder, selection, explanations, scales)),
        heatmaps=pd.DataFrame(_write_maps(folder, selection, explanations, scales)),
        scales=scales,
        localization={
            run.name: measure_localization(run, classifier, split, method, stage, masks)
            for run, classifier in zip(opened, classifiers, strict=True)
            if split
        },
        unreadable=selection.unreadable,
    )
    with atomic_write(folder / "heatmaps.csv") as temporary:
        result.heatmaps.to_csv(temporary, index=False, float_format="%.6g")
    summary = {
        "method": method,
        "stage": stage,
        "split": split,
        "scale": result.scale,
        "scales": result.scales,
        "sheets": [path.name for path in result.sheets],
        "localization": {name: asdict(localization) for name, localization in result.localization.items()},
        "unreadable": result.unreadable,
    }
    write_json(folder / "explanation.json", summary)
    return result


def _compute_scales(selection: Selection, explanations: Sequence[RunExplanation], own_scale: bool) -> dict[str, float]:
    """Return the value of full strength in the maps of each run: the same for all, or that of each run."""
    scales = {
        explanation.name: compute_shared_scale(
            *(
                evidence
                for index, image in enumerate(selection.images)
                for evidence in explanation.select_maps(index, image.truth).values()
            )
        )
        for explanation in explanations
    }
    return scales if own_scale else dict.fromkeys(scales, max(scales.values()))


def _load_classifiers(runs: Sequence[Run]) -> list[Classifier]:
    """Load the networks of runs; reject runs with different classes."""
    classifiers = [Classifier.load(run.weights_path) for run in runs]
    for run, classifier in zip(runs, classifiers, strict=True):
        if classifier.classes != classifiers[0].classes:
            raise ParfocalError(
                f"The runs have different classes: {runs[0].name} has {', '.join(classifiers[0].classes)}; "
                f"{run.name} has {', '.join(classifier.classes)}."
            )
    return classifiers


def _parse_split(sources: Sequence[Path | str], runs: Sequence[Run]) -> str:
    """Return the split that `sources` names, or an empty string if they are files."""
    word = str(sources[0]) if len(sources) == 1 else ""
    if word in SPLITS:
        return word
    if word and not Path(word).suffix and not Path(word).exists():
        splits = sorted(path.stem for path in runs[0].predictions_path("").parent.glob("*.csv"))
        raise UsageError(f"There is no split and no file {word!r}. {did_you_mean(word, splits or SPLITS)}")
    return ""


def _write_sheets(
    folder: Path, selection: Selection, explanations: Sequence[RunExplanation], scales: dict[str, float]
) -> Iterator[Path]:
    """Write the images with their heatmaps on as many sheets as they need."""
    starts = range(0, len(selection.images), MAX_IMAGES_PER_SHEET)
    for number, start in enumerate(starts, start=1):
        path = folder / (f"sheet-{number}.png" if len(starts) > 1 else "sheet.png")
        # Matplotlib would read a name with two dollar signs as a formula.
        with atomic_write(path) as temporary, mpl.rc_context({"text.parse_math": False}):
            figure = draw_sheet(selection.images[start : start + MAX_IMAGES_PER_SHEET], explanations, scales, start)
            figure.savefig(temporary, format="png", dpi=150)
        yield path


def _write_maps(
    folder: Path, selection: Selection, explanations: Sequence[RunExplanation], scales: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """Write the maps of all runs as arrays and images, and yield the row of each heatmap on the sheets."""
    run_folders = make_safe_names([explanation.name for explanation in explanations])
    for explanation in explanations:
        side = explanation.maps.pixels.shape[1]
        scale = scales[explanation.name]
        map_names = make_safe_names(explanation.maps.names)
        border = border_mask(side)
        for index, image in enumerate(selection.images):
            pixels = explanation.maps.pixels[index]
            predicted = int(explanation.predicted[index])
            background = background_mask(pixels)
            stem = f"{index + 1:03d}-{_make_safe_name(PurePath(image.id).stem)}"
            map_folder = folder / "maps" / run_folders[explanation.name]
            with atomic_write(map_folder / f"{stem}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, explanation.maps.values[index])
            for name, evidence in explanation.select_maps(index, image.truth).items():
                write_image(map_folder / f"{stem}-{map_names[name]}-map.png", render_gray_map(evidence, scale, side))
                write_image(map_folder / f"{stem}-{map_names[name]}.png", overlay_heatmap(pixels, evidence, scale))
                row, column = np.unravel_index(evidence.argmax(), evidence.shape)
                yield {
                    "run": explanation.name,
                    "id": image.id,
                    "kind": image.kind,
                    "truth": "" if image.truth == UNKNOWN else explanation.classes[image.truth],
                    "predicted": explanation.classes[predicted],
                    "probability": float(explanation.probabilities[index, predicted]),
                    "map": name,
                    "peak": float(evidence.max()),
                    "peak_x": round((column + 0.5) * side / evidence.shape[1], 1),
                    "peak_y": round((row + 0.5) * side / evidence.shape[0], 1),
                    "minimum": float(evidence.min()),
                    "border_share": compute_region_share(evidence, border),
                    "background_share": compute_region_share(evidence, background),
                    "file": str((map_folder / f"{stem}.npy").relative_to(folder)),
                }


def make_safe_names(names: Sequence[str]) -> dict[str, str]:
    """Map each name to a file name that is valid on every system; names that would collide are numbered."""
    safe_names: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        safe_name = _make_safe_name(name)
        number = 1
        # Some file systems do not distinguish upper and lower case.
        while safe_name.casefold() in taken:
            number += 1
            safe_name = f"{_make_safe_name(name)}-{number}"
        taken.add(safe_name.casefold())
        safe_names[name] = safe_name
    return safe_names


def _make_safe_name(name: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", name).strip("-.") or "unnamed"
