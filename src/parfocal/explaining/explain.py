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
from parfocal.errors import ParfocalError, UsageError, nearest
from parfocal.explaining.cam import class_maps
from parfocal.explaining.heat import grey, overlay, shared_scale
from parfocal.explaining.lying import Lying, lying_of
from parfocal.explaining.places import border, share_within, surround
from parfocal.explaining.sheet import MOST_ON_A_SHEET, Opinion, sheet
from parfocal.explaining.subjects import Subjects, of_files, of_split
from parfocal.files import whole, write_json
from parfocal.model.classifier import Classifier
from parfocal.run import Run, open_runs


@dataclass(frozen=True)
class Explained:
    """What `explain` wrote: sheets, and one row of `figures` for each map that is shown.

    `scale` is full strength on the sheets; `lying` says of each run where its maps of the split lie; `unreadable` are
    images that could not be read, with reasons.
    """

    folder: Path
    sheets: tuple[Path, ...]
    figures: pd.DataFrame
    scale: float
    lying: dict[str, Lying]
    unreadable: dict[str, str]


def explain(
    runs: Path | str | Sequence[Path | str],
    images: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    method: str = "cam",
    stage: str = "",
    ids: Sequence[str] | None = None,
    each: int = 4,
    masks: Path | str | None = None,
) -> Explained:
    """Write where networks look in images of a split, or in image files, into a folder.

    Of a split (`valid`, `test`) the first run's surest right answers, surest mistakes and greatest doubts are shown,
    `each` so many, or those with the `ids`; otherwise `images` are files, folders, and CSV files with a column `Path`.
    All maps, of all runs, are on one scale. Of a split it is also measured where the maps lie: on the border, on the
    black surround, and within `masks`, by default those in the data's folder `masks`, if there are any.
    """
    folder, opened = Path(out), open_runs([runs] if isinstance(runs, str | Path) else runs)
    networks = _networks(opened)
    sources = [images] if isinstance(images, str | Path) else list(images)
    split = _split(sources, opened)
    if split:
        subjects = of_split(opened, split, ids, each)
    elif ids is not None:
        raise UsageError("Ids are of a split: say valid or test before them, or name the images themselves.")
    else:
        subjects = of_files(opened, sources)
    if not subjects.shown:
        name, reason = next(iter(subjects.unreadable.items()))
        raise ParfocalError(f"None of the images can be read. {name}: {reason}.")
    opinions = [
        Opinion(
            run.name, network.classes, one.labels, one.probabilities, class_maps(network, one.pixels, method, stage)
        )
        for run, network, one in zip(opened, networks, subjects.said, strict=True)
    ]
    shown = [one.evidence(number, each.truth) for one in opinions for number, each in enumerate(subjects.shown)]
    scale = shared_scale(*(map_ for maps in shown for map_ in maps.values()))
    sheets = tuple(_sheets(folder, subjects, opinions, scale))
    folders = plain_names([run.name for run in opened])
    figures = pd.DataFrame([row for one in opinions for row in _maps(folder, folders[one.name], subjects, one, scale)])
    lying = {
        run.name: lying_of(run, network, split, method, stage, masks)
        for run, network in zip(opened, networks, strict=True)
        if split
    }
    result = Explained(folder, sheets, figures, scale, lying, subjects.unreadable)
    _write(result, method, stage, split)
    return result


def _networks(runs: Sequence[Run]) -> list[Classifier]:
    """Load the runs' networks; all must tell the same classes apart."""
    networks = [Classifier.load(run.weights) for run in runs]
    for run, network in zip(runs, networks, strict=True):
        if network.classes != networks[0].classes:
            told = [", ".join(one.classes) for one in (networks[0], network)]
            raise ParfocalError(f"{runs[0].name} tells {told[0]} apart, {run.name} {told[1]}.")
    return networks


def _split(sources: Sequence[Path | str], runs: Sequence[Run]) -> str:
    """Return the split that is meant, or nothing where files are."""
    word = str(sources[0]) if len(sources) == 1 else ""
    if word in SPLITS:
        return word
    if word and not Path(word).suffix and not Path(word).exists():
        splits = sorted(path.stem for path in runs[0].predictions("").parent.glob("*.csv"))
        raise UsageError(f"There is no split and no file {word!r}. {nearest(word, splits or SPLITS)}")
    return ""


def _sheets(folder: Path, subjects: Subjects, opinions: Sequence[Opinion], scale: float) -> Iterator[Path]:
    """Write the images with their maps, as many sheets as that takes."""
    starts = range(0, len(subjects.shown), MOST_ON_A_SHEET)
    for number, start in enumerate(starts, start=1):
        path = folder / (f"sheet-{number}.png" if len(starts) > 1 else "sheet.png")
        # A name with two dollar signs is no formula.
        with whole(path) as beside, mpl.rc_context({"text.parse_math": False}):
            figure = sheet(subjects.shown[start : start + MOST_ON_A_SHEET], opinions, scale, start)
            figure.savefig(beside, format="png", dpi=150)
        yield path


def _maps(folder: Path, own: str, subjects: Subjects, opinion: Opinion, scale: float) -> Iterator[dict[str, Any]]:
    """Write the maps of one network as numbers and pictures, and yield what is told of each that is shown."""
    side, called = opinion.maps.pixels.shape[1], plain_names(opinion.maps.answers)
    for number, one in enumerate(subjects.shown):
        pixels, answer = opinion.maps.pixels[number], int(opinion.labels[number])
        stem = folder / "maps" / own / f"{number + 1:03d}-{_plain(PurePath(one.id).stem)}"
        with whole(stem.with_name(f"{stem.name}.npy")) as beside, beside.open("wb") as file:
            np.save(file, opinion.maps.values[number])
        regions = {"border": border(side), "surround": surround(pixels)}
        for name, map_ in opinion.evidence(number, one.truth).items():
            _picture(stem.with_name(f"{stem.name}-{called[name]}-map.png"), grey(map_, scale, side))
            _picture(stem.with_name(f"{stem.name}-{called[name]}.png"), overlay(pixels, map_, scale))
            down, across = np.unravel_index(map_.argmax(), map_.shape)
            yield {
                "run": opinion.name,
                "id": one.id,
                "kind": one.kind,
                "truth": "" if one.truth == UNKNOWN else opinion.classes[one.truth],
                "answer": opinion.classes[answer],
                "probability": float(opinion.probabilities[number, answer]),
                "map": name,
                "peak": float(map_.max()),
                "peak_x": round((across + 0.5) * side / map_.shape[1], 1),
                "peak_y": round((down + 0.5) * side / map_.shape[0], 1),
                "lowest": float(map_.min()),
                **{f"on_{name}": share_within(map_, region) for name, region in regions.items()},
                "file": str((stem.with_name(f"{stem.name}.npy")).relative_to(folder)),
            }


def _picture(path: Path, pixels: Pixels) -> None:
    _, data = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    with whole(path) as beside:
        beside.write_bytes(data.tobytes())


def plain_names(names: Sequence[str]) -> dict[str, str]:
    """Return for each name one that any file may have; those that would be alike are numbered."""
    plain: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        one, number = _plain(name), 1
        # Some file systems take capitals for small letters.
        while one.casefold() in taken:
            number += 1
            one = f"{_plain(name)}-{number}"
        taken.add(one.casefold())
        plain[name] = one
    return plain


def _plain(name: str) -> str:
    """Return a name that any file may have."""
    return re.sub(r"[^\w.=-]+", "-", name).strip("-.") or "unnamed"


def _write(result: Explained, method: str, stage: str, split: str) -> None:
    """Write the figures of the maps as CSV, and all else that is known as JSON."""
    with whole(result.folder / "figures.csv") as beside:
        result.figures.to_csv(beside, index=False, float_format="%.6g")
    about = {
        "method": method,
        "stage": stage,
        "split": split,
        "scale": result.scale,
        "sheets": [path.name for path in result.sheets],
        "lying": {name: one.as_dict() for name, one in result.lying.items()},
        "unreadable": result.unreadable,
    }
    write_json(result.folder / "explained.json", about)
