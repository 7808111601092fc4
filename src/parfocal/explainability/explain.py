"""Seeing where networks look: maps of images on one scale, as sheets, files and figures."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd

from parfocal.data.decode import Pixels
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
    """What `explain` wrote: sheets, and one row of `figures` for each map that is shown.

    `scale` is full strength on the sheets; `lying` says of each run where its maps of the split lie; `unreadable` are
    images that could not be read, with reasons.
    """

    folder: Path
    sheets: tuple[Path, ...]
    heatmaps: pd.DataFrame
    scale: float
    localization: dict[str, MapLocalization]
    unreadable: dict[str, str]


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
) -> Explanation:
    """Write where networks look in images of a split, or in image files, into a folder.

    Of a split (`valid`, `test`) the first run's surest right answers, surest mistakes and greatest doubts are shown,
    `each` so many, or those with the `ids`; otherwise `images` are files, folders, and CSV files with a column `Path`.
    All maps, of all runs, are on one scale. Of a split it is also measured where the maps lie: on the border, on the
    black surround, and within `masks`, by default those in the data's folder `masks`, if there are any.
    """
    folder, opened = Path(out), open_runs([runs] if isinstance(runs, str | Path) else runs)
    networks = _load_networks(opened)
    sources = [images] if isinstance(images, str | Path) else list(images)
    split = _parse_split(sources, opened)
    if split:
        subjects = select_from_split(opened, split, ids, n_per_kind)
    elif ids is not None:
        raise UsageError("Ids are of a split: say valid or test before them, or name the images themselves.")
    else:
        subjects = select_from_files(opened, sources)
    if not subjects.images:
        name, reason = next(iter(subjects.unreadable.items()))
        raise ParfocalError(f"None of the images can be read. {name}: {reason}.")
    opinions = [
        RunExplanation(
            run.name,
            network.classes,
            one.predicted,
            one.probabilities,
            compute_class_maps(network, one.pixels, method, stage),
        )
        for run, network, one in zip(opened, networks, subjects.predictions, strict=True)
    ]
    shown = [one.select_maps(number, each.truth) for one in opinions for number, each in enumerate(subjects.images)]
    scale = compute_shared_scale(*(map_ for maps in shown for map_ in maps.values()))
    sheets = tuple(_write_sheets(folder, subjects, opinions, scale))
    folders = make_safe_names([run.name for run in opened])
    figures = pd.DataFrame(
        [row for one in opinions for row in _write_maps(folder, folders[one.name], subjects, one, scale)]
    )
    lying = {
        run.name: measure_localization(run, network, split, method, stage, masks)
        for run, network in zip(opened, networks, strict=True)
        if split
    }
    result = Explanation(folder, sheets, figures, scale, lying, subjects.unreadable)
    _write_summary(result, method, stage, split)
    return result


def _load_networks(runs: Sequence[Run]) -> list[Classifier]:
    """Load the runs' networks; all must tell the same classes apart."""
    networks = [Classifier.load(run.weights_path) for run in runs]
    for run, network in zip(runs, networks, strict=True):
        if network.classes != networks[0].classes:
            told = [", ".join(one.classes) for one in (networks[0], network)]
            raise ParfocalError(f"{runs[0].name} tells {told[0]} apart, {run.name} {told[1]}.")
    return networks


def _parse_split(sources: Sequence[Path | str], runs: Sequence[Run]) -> str:
    """Return the split that is meant, or nothing where files are."""
    word = str(sources[0]) if len(sources) == 1 else ""
    if word in SPLITS:
        return word
    if word and not Path(word).suffix and not Path(word).exists():
        splits = sorted(path.stem for path in runs[0].predictions_path("").parent.glob("*.csv"))
        raise UsageError(f"There is no split and no file {word!r}. {did_you_mean(word, splits or SPLITS)}")
    return ""


def _write_sheets(
    folder: Path, selection: Selection, explanations: Sequence[RunExplanation], scale: float
) -> Iterator[Path]:
    """Write the images with their maps, as many sheets as that takes."""
    starts = range(0, len(selection.images), MAX_IMAGES_PER_SHEET)
    for number, start in enumerate(starts, start=1):
        path = folder / (f"sheet-{number}.png" if len(starts) > 1 else "sheet.png")
        # A name with two dollar signs is no formula.
        with atomic_write(path) as beside, mpl.rc_context({"text.parse_math": False}):
            figure = draw_sheet(selection.images[start : start + MAX_IMAGES_PER_SHEET], explanations, scale, start)
            figure.savefig(beside, format="png", dpi=150)
        yield path


def _write_maps(
    folder: Path, run_folder: str, selection: Selection, explanation: RunExplanation, scale: float
) -> Iterator[dict[str, Any]]:
    """Write the maps of one network as numbers and pictures, and yield what is told of each that is shown."""
    side, called = explanation.maps.pixels.shape[1], make_safe_names(explanation.maps.names)
    for number, one in enumerate(selection.images):
        pixels, answer = explanation.maps.pixels[number], int(explanation.predicted[number])
        stem = folder / "maps" / run_folder / f"{number + 1:03d}-{_make_safe_name(PurePath(one.id).stem)}"
        with atomic_write(stem.with_name(f"{stem.name}.npy")) as beside, beside.open("wb") as file:
            np.save(file, explanation.maps.values[number])
        regions = {"border": border_mask(side), "surround": background_mask(pixels)}
        for name, map_ in explanation.select_maps(number, one.truth).items():
            _write_png(stem.with_name(f"{stem.name}-{called[name]}-map.png"), render_gray_map(map_, scale, side))
            _write_png(stem.with_name(f"{stem.name}-{called[name]}.png"), overlay_heatmap(pixels, map_, scale))
            down, across = np.unravel_index(map_.argmax(), map_.shape)
            yield {
                "run": explanation.name,
                "id": one.id,
                "kind": one.kind,
                "truth": "" if one.truth == UNKNOWN else explanation.classes[one.truth],
                "answer": explanation.classes[answer],
                "probability": float(explanation.probabilities[number, answer]),
                "map": name,
                "peak": float(map_.max()),
                "peak_x": round((across + 0.5) * side / map_.shape[1], 1),
                "peak_y": round((down + 0.5) * side / map_.shape[0], 1),
                "lowest": float(map_.min()),
                **{f"on_{name}": compute_region_share(map_, region) for name, region in regions.items()},
                "file": str((stem.with_name(f"{stem.name}.npy")).relative_to(folder)),
            }


def _write_png(path: Path, pixels: Pixels) -> None:
    _, data = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    with atomic_write(path) as beside:
        beside.write_bytes(data.tobytes())


def make_safe_names(names: Sequence[str]) -> dict[str, str]:
    """Return for each name one that any file may have; those that would be alike are numbered."""
    plain: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        one, number = _make_safe_name(name), 1
        # Some file systems take capitals for small letters.
        while one.casefold() in taken:
            number += 1
            one = f"{_make_safe_name(name)}-{number}"
        taken.add(one.casefold())
        plain[name] = one
    return plain


def _make_safe_name(name: str) -> str:
    """Return a name that any file may have."""
    return re.sub(r"[^\w.=-]+", "-", name).strip("-.") or "unnamed"


def _write_summary(result: Explanation, method: str, stage: str, split: str) -> None:
    """Write the figures of the maps as CSV, and all else that is known as JSON."""
    with atomic_write(result.folder / "figures.csv") as beside:
        result.heatmaps.to_csv(beside, index=False, float_format="%.6g")
    about = {
        "method": method,
        "stage": stage,
        "split": split,
        "scale": result.scale,
        "sheets": [path.name for path in result.sheets],
        "lying": {name: one.as_dict() for name, one in result.localization.items()},
        "unreadable": result.unreadable,
    }
    write_json(result.folder / "explained.json", about)
