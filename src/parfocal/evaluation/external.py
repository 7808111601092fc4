"""External evaluation: a trained network on data of another source, its classes mapped onto the network's."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.checks import check_pixels
from parfocal.data.decode import get_container_file
from parfocal.data.findings import raise_errors
from parfocal.data.layouts import read
from parfocal.data.store import Store, prepare
from parfocal.data.table import UNKNOWN, Table
from parfocal.engine.device import build_fabric
from parfocal.errors import ParfocalError, UsageError, did_you_mean, join_limited
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.evaluate import evaluate_split, predict_table, with_tta
from parfocal.evaluation.locate import locate_table
from parfocal.evaluation.predictions import Predictions
from parfocal.io import write_json
from parfocal.models.classifier import Classifier
from parfocal.progress import print_line
from parfocal.run import Run


def evaluate_external(run: Run, data: Path | str, class_map: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Judge a run on every labelled image of other data, and write predictions and metrics into `RUN/external/NAME`.

    NAME is the data's, with a number where other data of that name, or another map, was judged before.

    `classes` maps the data's classes, by name or code, onto the run's; one mapped onto nothing is left out, and one
    that is not named must be called the same. Nothing is chosen here: looks, temperature and thresholds are the run's.
    """
    source = read(data)
    decision, classifier = Decision.load(run.decision_path), Classifier.load(run.weights_path)
    table = map_classes(source, classifier.classes, class_map or {})
    store = prepare(table, run.recipe.images)
    raise_errors([one for one in check_pixels(table, store.index) if one.code == "unreadable_images"])
    _check_unseen(run, table, store)
    fabric = build_fabric(run.recipe.training.precision)
    said = predict_table(classifier, table, store, with_tta(run.recipe, decision.tta), fabric)["test"]
    about = {"data": str(Path(data).resolve()), "source": table.source, "map": dict(class_map or {})}
    folder = _find_folder(run, about)
    said.save(folder / "predictions.csv")
    judged = evaluate_split(Predictions.load(folder / "predictions.csv"), run.recipe.evaluation, decision)
    metrics = {**about, **judged}
    write_json(folder / "metrics.json", metrics)
    return metrics


def map_classes(table: Table, classes: tuple[str, ...], class_map: Mapping[str, str]) -> Table:
    """Return the labelled rows of a table as one test split, its labels those of other classes."""
    known = {**dict(zip(table.codes, table.classes, strict=True)), **{one: one for one in table.classes}}
    for old, new in class_map.items():
        if old not in known:
            raise UsageError(f"--map {old}={new}: the data has no class {old!r}. {did_you_mean(old, table.classes)}")
        if new and new not in classes:
            raise UsageError(f"--map {old}={new}: the run has no class {new!r}. {did_you_mean(new, classes)}")
    by_name = {known[old]: new for old, new in class_map.items()}
    targets = [by_name.get(one, one) for one in table.classes]
    labels = table.rows["label"].to_numpy()
    there = [one for number, one in enumerate(table.classes) if (labels == number).any()]
    lost = [one for one in there if by_name.get(one, one) and by_name.get(one, one) not in classes]
    if lost:
        raise UsageError(
            f"The data's classes {join_limited(lost)} are none of the run's: {', '.join(classes)}. "
            f"Say which they are, or leave them out: --map {','.join(f'{one}=' for one in lost)}"
        )
    places = np.array([classes.index(one) if one in classes else UNKNOWN for one in targets] + [UNKNOWN])
    rows = table.rows.assign(label=places[labels], split="test")
    rows = rows[rows["label"] != UNKNOWN].reset_index(drop=True)
    if rows.empty:
        raise ParfocalError(f"{table.source} has no labelled images of the run's classes.")
    return replace(table, rows=rows, classes=classes, codes=classes, submission_lists={})


def parse_class_map(text: str) -> dict[str, str]:
    """Read `old=new,…`; `old=` leaves a class out."""
    pairs = [word.partition("=") for word in text.split(",") if word]
    if any(not equals for _, equals, _ in pairs):
        raise UsageError(f"--map {text} is not of the form old=new,old=new.")
    return {old.strip(): new.strip() for old, _, new in pairs}


def _find_folder(run: Run, metadata: Mapping[str, Any]) -> Path:
    """Return where figures of data belong: named after it, and numbered where those of other data or maps lie there."""
    data = Path(metadata["data"])
    name = data.name if data.is_dir() else data.stem
    folder, number = run.folder / "external" / name, 1
    while not _is_available(folder, metadata):
        number += 1
        folder = folder.with_name(f"{name}-{number}")
    return folder


def _is_available(folder: Path, metadata: Mapping[str, Any]) -> bool:
    """Say whether a folder is free, or holds figures of the same data under the same map."""
    if not (folder / "metrics.json").is_file():
        return True
    there = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return all(there.get(key) == metadata[key] for key in ("data", "map"))


def _check_unseen(run: Run, table: Table, store: Store) -> None:
    """Refuse images that the run was trained or chosen on, by their pixels, as long as its own files are there."""
    own = locate_table(run)
    if not all(get_container_file(path).is_file() for path in own.rows["path"]):
        print_line(f"The images that {run.name} was trained on are gone; copies of them cannot be looked for.")
        return
    seen = own.rows.loc[own.rows["split"] != "test", "path"]
    digests = prepare(own, run.recipe.images).index.set_index("path")["digest"]
    shared = store.index.loc[store.index["digest"].isin(set(digests[seen])), "path"]
    if len(shared):
        raise ParfocalError(
            f"{len(shared)} images of {table.source} are among those that {run.name} was trained or chosen on: "
            f"{join_limited(shared, 2)}. Evaluate on data that it has not seen."
        )
