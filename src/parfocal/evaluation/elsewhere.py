"""External evaluation: a trained network on data of another source, its classes mapped onto the network's."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.arrays import file_of
from parfocal.data.check_images import check_pixels
from parfocal.data.finding import refuse
from parfocal.data.readers import read
from parfocal.data.store import Store, prepare
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import ParfocalError, UsageError, listing, nearest
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.evaluate import looked_at, predict_table
from parfocal.evaluation.inference import fabric_for
from parfocal.evaluation.judgement import judge_fully
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.whereabouts import table_of
from parfocal.files import write_json
from parfocal.model.classifier import Classifier
from parfocal.progress import say
from parfocal.run import Run


def evaluate_elsewhere(run: Run, data: Path | str, classes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Judge a run on every labelled image of other data, and write predictions and metrics into `RUN/external/NAME`.

    NAME is the data's, with a number where other data of that name, or another map, was judged before.

    `classes` maps the data's classes, by name or code, onto the run's; one mapped onto nothing is left out, and one
    that is not named must be called the same. Nothing is chosen here: looks, temperature and thresholds are the run's.
    """
    source = read(data)
    decision, classifier = Decision.load(run.decision), Classifier.load(run.weights)
    table = mapped(source, classifier.classes, classes or {})
    store = prepare(table, run.recipe.images)
    refuse([one for one in check_pixels(table, store.index) if one.code == "unreadable_images"])
    _refuse_own(run, table, store)
    fabric = fabric_for(run.recipe.training.precision)
    said = predict_table(classifier, table, store, looked_at(run.recipe, decision.looks), fabric)["test"]
    about = {"data": str(Path(data).resolve()), "source": table.source, "map": dict(classes or {})}
    folder = _folder(run, about)
    said.save(folder / "predictions.csv")
    judged = judge_fully(Predictions.load(folder / "predictions.csv"), run.recipe.judgement, decision)
    metrics = {**about, **judged}
    write_json(folder / "metrics.json", metrics)
    return metrics


def mapped(table: Table, classes: tuple[str, ...], names: Mapping[str, str]) -> Table:
    """Return the labelled rows of a table as one test split, its labels those of other classes."""
    known = {**dict(zip(table.codes, table.classes, strict=True)), **{one: one for one in table.classes}}
    for old, new in names.items():
        if old not in known:
            raise UsageError(f"--map {old}={new}: the data has no class {old!r}. {nearest(old, table.classes)}")
        if new and new not in classes:
            raise UsageError(f"--map {old}={new}: the run has no class {new!r}. {nearest(new, classes)}")
    by_name = {known[old]: new for old, new in names.items()}
    targets = [by_name.get(one, one) for one in table.classes]
    labels = table.rows["label"].to_numpy()
    there = [one for number, one in enumerate(table.classes) if (labels == number).any()]
    lost = [one for one in there if by_name.get(one, one) and by_name.get(one, one) not in classes]
    if lost:
        raise UsageError(
            f"The data's classes {listing(lost)} are none of the run's: {', '.join(classes)}. "
            f"Say which they are, or leave them out: --map {','.join(f'{one}=' for one in lost)}"
        )
    places = np.array([classes.index(one) if one in classes else UNKNOWN for one in targets] + [UNKNOWN])
    rows = table.rows.assign(label=places[labels], split="test")
    rows = rows[rows["label"] != UNKNOWN].reset_index(drop=True)
    if rows.empty:
        raise ParfocalError(f"{table.source} has no labelled images of the run's classes.")
    return replace(table, rows=rows, classes=classes, codes=classes, lists={})


def parsed_classes(text: str) -> dict[str, str]:
    """Read `old=new,…`; `old=` leaves a class out."""
    pairs = [word.partition("=") for word in text.split(",") if word]
    if any(not equals for _, equals, _ in pairs):
        raise UsageError(f"--map {text} is not of the form old=new,old=new.")
    return {old.strip(): new.strip() for old, _, new in pairs}


def _folder(run: Run, about: Mapping[str, Any]) -> Path:
    """Return where figures of data belong: named after it, and numbered where those of other data or maps lie there."""
    data = Path(about["data"])
    name = data.name if data.is_dir() else data.stem
    folder, number = run.folder / "external" / name, 1
    while not _is_for(folder, about):
        number += 1
        folder = folder.with_name(f"{name}-{number}")
    return folder


def _is_for(folder: Path, about: Mapping[str, Any]) -> bool:
    """Say whether a folder is free, or holds figures of the same data under the same map."""
    if not (folder / "metrics.json").is_file():
        return True
    there = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return all(there.get(key) == about[key] for key in ("data", "map"))


def _refuse_own(run: Run, table: Table, store: Store) -> None:
    """Refuse images that the run was trained or chosen on, by their pixels, as long as its own files are there."""
    own = table_of(run)
    if not all(file_of(path).is_file() for path in own.rows["path"]):
        say(f"The images that {run.name} was trained on are gone; copies of them cannot be looked for.")
        return
    seen = own.rows.loc[own.rows["split"] != "test", "path"]
    digests = prepare(own, run.recipe.images).index.set_index("path")["digest"]
    shared = store.index.loc[store.index["digest"].isin(set(digests[seen])), "path"]
    if len(shared):
        raise ParfocalError(
            f"{len(shared)} images of {table.source} are among those that {run.name} was trained or chosen on: "
            f"{listing(shared, 2)}. Evaluate on data that it has not seen."
        )
