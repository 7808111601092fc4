"""Ensembles: average the predictions of runs, and evaluate the average like a run."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.compare import Comparison, choose_split, compare_predictions
from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision
from parfocal.evaluation.evaluate import evaluate_split, write_predictions
from parfocal.evaluation.positive_class import find_positive_class
from parfocal.evaluation.predictions import Predictions, align_predictions, describe_mismatch
from parfocal.groups import find_common_kind
from parfocal.io import write_json
from parfocal.manifest import create_manifest, file_exists, warn_without_manifest
from parfocal.run import Run, open_runs
from parfocal.run_files import Members, read_json_file

MEMBERS_FILE = "ensemble.json"
"""The file in the folder of an ensemble that lists its runs."""


def build_ensemble(runs: Sequence[Run], out: Path, options: DecisionOptions | None = None) -> Comparison:
    """Average the predictions of evaluated runs, fit the decisions, and write predictions, decision and metrics.

    Return the comparison of the members with the ensemble on test, or on valid if the truth of test is unknown.
    """
    if len(runs) < 2:
        raise UsageError(f"An ensemble needs at least two runs, and there is {len(runs)}.")
    if file_exists(out / "recipe.yaml"):
        raise UsageError(f"{out} is a run, which the ensemble would overwrite. Choose another folder.")
    ensemble = Run(out)
    config = runs[0].recipe.evaluation
    options = options or DecisionOptions()
    has_test = all(run.has_predictions("test") for run in runs)
    by_split = {
        split: {run.name: Predictions.load(run.predictions_path(split)) for run in runs}
        for split in (("valid", "test") if has_test else ("valid",))
    }
    averages = {split: average_predictions(by_run) for split, by_run in by_split.items()}
    previous = Decision.load(ensemble.decision_path)
    of_member = Decision.load(runs[0].decision_path)
    positive = previous.positive or of_member.positive
    positive_class = find_positive_class(runs[0], options.choose_positive(positive))
    options.check(config, averages["valid"].classes, positive_class)
    fitted_on_predictions = tuple(decision for decision in previous.fitted if not decision.reads_pixels)
    previous = replace(previous, fitted=fitted_on_predictions, positive=positive)
    previous = previous.with_fitted(*of_member.pixel_decisions)
    codes = runs[0].read_environment()["data"]["codes"]
    with write_predictions(
        ensemble, averages, lambda valid: fit_decision(valid, options, previous, runs[0].recipe, codes=codes)
    ) as (decision, written):
        metrics = {split: evaluate_split(predictions, config, decision) for split, predictions in written.items()}
    create_manifest(out)
    # Test-time augmentation can differ between members.
    replace(decision, tta="").save(ensemble.decision_path)
    ensemble.write_metrics(metrics)
    write_json(out / MEMBERS_FILE, {"members": [os.path.relpath(run.folder, out) for run in runs]})
    split = choose_split([*runs, ensemble])
    compared = {name: {name: predictions} for name, predictions in by_split[split].items()}
    compared["ensemble"] = {"ensemble": written[split]}
    groups_are = find_common_kind(run.groups_are for run in runs)
    return compare_predictions(compared, split, groups_are=groups_are, baseline="ensemble")


def average_predictions(predictions: dict[str, Predictions]) -> Predictions:
    """Return the mean probabilities of runs for the same images."""
    mismatch = describe_mismatch(list(predictions), list(predictions.values()))
    if mismatch:
        raise ParfocalError(f"{mismatch}. An ensemble needs the same images for all runs.")
    first, *others = predictions.values()
    probabilities = [first.probabilities, *(align_predictions(other, first).probabilities for other in others)]
    return replace(first, probabilities=np.mean(probabilities, axis=0), labels=None)


def open_members(folder: Path) -> list[Run]:
    """Open the runs of an ensemble."""
    warn_without_manifest(folder)
    members = read_json_file(folder / MEMBERS_FILE, Members, "Create the ensemble again.")["members"]
    return open_runs(Path(os.path.normpath(folder / member)) for member in members)
