"""External validation: evaluate a trained network on another data set, whose classes are mapped onto the run's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.checks import check_pixels, raise_errors
from parfocal.data.decode import get_container_file
from parfocal.data.layouts import read
from parfocal.data.layouts.image_finder import is_existing_file
from parfocal.data.near_duplicates import compute_descriptor, find_nearest
from parfocal.data.parallel import map_ordered
from parfocal.data.store import Store, prepare
from parfocal.data.table import UNKNOWN, Table
from parfocal.engine.device import build_fabric
from parfocal.errors import ParfocalError, UsageError, did_you_mean, join_limited
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.evaluate import evaluate_split, predict_table, with_tta
from parfocal.evaluation.locate import locate_table
from parfocal.evaluation.predictions import Predictions
from parfocal.io import reject_link, write_json
from parfocal.models.classifier import Classifier
from parfocal.progress import print_warning
from parfocal.run import Run
from parfocal.run_files import ExternalMetrics, read_json_file

MAX_NEAR_DUPLICATES = 0.02
"""The largest share of near-duplicates of training images that is evaluated without being allowed.

Even if the network remembers all of them, its accuracy gains no more than this. Fewer can be different images that
look alike: that happens in up to three of a million pairs of fundus photographs.
"""

_ALLOWABLE = ("near_duplicates",)


def evaluate_external(
    run: Run, data: Path | str, class_map: Mapping[str, str] | None = None, allow: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate a run on all labeled images of another data set; write predictions and metrics to `RUN/external/NAME`.

    NAME is the name of the data, with a number if other data of that name, or another class map, was evaluated before.

    `class_map` renames classes of the data (by name or code) to classes of the run; "" drops a class. A class without
    an entry must have the same name in the run. Nothing is fitted here: the run has decided TTA, temperature
    and decision rule.

    Images of the run's training or validation split are an error, also as other files. Near-duplicates of them are
    counted and listed in the metrics, and an error above MAX_NEAR_DUPLICATES unless `allow` names "near_duplicates".
    """
    for name in allow:
        if name not in _ALLOWABLE:
            raise UsageError(f"allow={name} is not a finding that can be allowed. {did_you_mean(name, _ALLOWABLE)}")
    decision = Decision.load(run.decision_path)
    classifier = Classifier.load(run.weights_path)
    decision.check_classes(len(classifier.classes), run.decision_path)
    table = map_classes(read(data), classifier.classes, class_map or {})
    store = prepare(table, run.recipe.images)
    raise_errors([finding for finding in check_pixels(table, store.index) if finding.code == "unreadable_images"])
    near_duplicates = _check_unseen(run, table, store, "near_duplicates" in allow)
    fabric = build_fabric(run.recipe.training.precision)
    predictions = predict_table(classifier, table, store, with_tta(run.recipe, decision.tta), fabric)["test"]
    predictions = decision.decide(predictions)
    metadata = {
        "data": str(Path(data).resolve()),
        "source": table.source,
        "groups_are": table.groups_are,
        "class_map": dict(class_map or {}),
    }
    folder = _find_folder(run, metadata)
    predictions.save(folder / "predictions.csv")
    saved = Predictions.load(folder / "predictions.csv")
    copies = {} if near_duplicates is None else {"near_duplicates": near_duplicates}
    metrics = {**metadata, **evaluate_split(saved, run.recipe.evaluation, decision), **copies}
    write_json(folder / "metrics.json", metrics)
    return metrics


def map_classes(table: Table, classes: tuple[str, ...], class_map: Mapping[str, str]) -> Table:
    """Return the labeled rows of a table as a test split, with labels that index other classes."""
    names = dict(zip((*table.codes, *table.classes), (*table.classes, *table.classes), strict=True))
    for old, new in class_map.items():
        if old not in names:
            raise UsageError(
                f"class_map {old}={new}: the data has no class {old!r}. {did_you_mean(old, table.classes)}"
            )
        if new and new not in classes:
            raise UsageError(f"class_map {old}={new}: the run has no class {new!r}. {did_you_mean(new, classes)}")
    mapped = {names[old]: new for old, new in class_map.items()}
    new_names = [mapped.get(name, name) for name in table.classes]
    labels = table.rows["label"].to_numpy()
    unknown = [
        name
        for label, (name, new) in enumerate(zip(table.classes, new_names, strict=True))
        if new and new not in classes and (labels == label).any()
    ]
    if unknown:
        raise UsageError(
            f"The classes {join_limited(unknown)} of the data are not classes of the run ({', '.join(classes)}). "
            f"Rename them with class_map, or drop them: {','.join(f'{name}=' for name in unknown)}"
        )
    targets = [classes.index(new) if new in classes else UNKNOWN for new in new_names]
    # The last entry is for UNKNOWN, which is -1.
    rows = table.rows.assign(label=np.array([*targets, UNKNOWN])[labels], split="test")
    rows = rows[rows["label"] != UNKNOWN].reset_index(drop=True)
    if rows.empty:
        raise ParfocalError(f"{table.source} has no labeled images of the run's classes.")
    return replace(table, rows=rows, classes=classes, codes=classes, submission_lists={})


def parse_class_map(text: str) -> dict[str, str]:
    """Parse `old=new,…`; `old=` drops a class."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if any(not equals for _, equals, _ in pairs):
        raise UsageError(f"class_map {text} is not valid. Write it as old=new,old=new.")
    return {old.strip(): new.strip() for old, _, new in pairs}


def _find_folder(run: Run, metadata: Mapping[str, Any]) -> Path:
    """Return the folder for results: named after the data, with a number if it holds results of other data or maps."""
    data = Path(metadata["data"])
    name = data.name if data.is_dir() else data.stem
    folder = reject_link(run.folder / "external") / name
    number = 1
    while (folder / "metrics.json").is_file():
        existing = read_json_file(folder / "metrics.json", ExternalMetrics, "Delete it, and evaluate again.")
        if all(existing.get(key) == metadata[key] for key in ("data", "class_map")):
            break
        number += 1
        folder = folder.with_name(f"{name}-{number}")
    return reject_link(folder)


def _check_unseen(run: Run, table: Table, store: Store, allow_near_duplicates: bool) -> dict[str, Any] | None:
    """Reject images that the run was trained or validated on, and return the near-duplicates of such images.

    The result is None if the files of the run are missing.
    """
    original = locate_table(run)
    if not all(is_existing_file(get_container_file(path)) for path in original.paths):
        print_warning(f"The training images of {run.name} are missing, so copies of them cannot be found.")
        return None
    seen_store = prepare(original, run.recipe.images)
    seen = replace(original, rows=original.rows[original.rows["split"] != "test"])
    seen_positions = np.unique(seen.find_positions_in(seen_store.index))
    digests = seen_store.index["digest"].to_numpy()[seen_positions]
    shared = store.index.loc[store.index["digest"].isin(set(digests) - {""}), "path"]
    if len(shared):
        raise ParfocalError(
            f"{len(shared)} images of {table.source} are training or validation images of {run.name}: "
            f"{join_limited(shared, 2)}. Evaluate on data that the run has not seen."
        )
    positions = np.unique(table.find_positions_in(store.index))
    nearest = find_nearest(_compute_descriptors(store, positions), _compute_descriptors(seen_store, seen_positions))
    paths = store.index["path"].to_numpy()
    seen_paths = seen_store.index["path"].to_numpy()
    pairs = [
        [str(paths[position]), str(seen_paths[seen_positions[row]])]
        for position, row in zip(positions, nearest, strict=True)
        if row >= 0
    ]
    share = len(pairs) / len(positions)
    if share > MAX_NEAR_DUPLICATES and not allow_near_duplicates:
        raise ParfocalError(
            f"{len(pairs)} of {len(positions)} images of {table.source} look nearly like training or validation images "
            f"of {run.name}, more than {MAX_NEAR_DUPLICATES:.0%}: {join_limited(map(' ≈ '.join, pairs))}. Remove the "
            "copies, or accept them with allow=near_duplicates."
        )
    return {"count": len(pairs), "share": share, "pairs": pairs}


def _compute_descriptors(store: Store, positions: np.ndarray) -> np.ndarray:
    """Return the descriptors of prepared images: nothing is decoded a second time."""
    describe = map_ordered(positions.tolist(), lambda row: compute_descriptor(store.pixels[row]), "Comparing")
    return np.stack(list(describe))
