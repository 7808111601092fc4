"""Ensembles: the mean of what several runs say about the same images, judged like one."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.compare import Comparison, choose_split, compare_predictions
from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision
from parfocal.evaluation.evaluate import evaluate_split, write_predictions
from parfocal.evaluation.predictions import Predictions, align_predictions, describe_mismatch
from parfocal.io import write_json
from parfocal.run import Run, open_runs

MEMBERS_FILE = "ensemble.json"
"""The file of an ensemble's folder that names its runs."""


def build_ensemble(runs: Sequence[Run], out: Path, options: DecisionOptions | None = None) -> Comparison:
    """Average the predictions of evaluated runs, decide on validation, and write predictions, decision and metrics.

    Returns the comparison of the members and the ensemble on test, or on valid where nobody knows the truth of test.
    """
    if len(runs) < 2:
        raise UsageError(f"An ensemble needs at least two runs, and there is {len(runs)}.")
    _check_not_run(out)
    own, part, options = Run(out), runs[0].recipe.evaluation, options or DecisionOptions()
    tested = all(run.predictions_path("test").is_file() for run in runs)
    said = {
        split: {run.name: Predictions.load(run.predictions_path(split)) for run in runs}
        for split in (("valid", "test") if tested else ("valid",))
    }
    averaged = {split: average_predictions(members) for split, members in said.items()}
    options.check(part, len(averaged["valid"].classes))
    ordinary = Decision.load(runs[0].decision_path).ood
    with write_predictions(own, averaged) as held:
        decision = fit_decision(held["valid"], options, Decision.load(own.decision_path), part, ordinary)
        figures = {split: evaluate_split(one, part, decision) for split, one in held.items()}
    # Each member looks at images in its own way.
    replace(decision, tta="").save(own.decision_path)
    own.write_metrics(figures)
    write_json(out / MEMBERS_FILE, {"members": [os.path.relpath(run.folder, out) for run in runs]})
    split = choose_split([*runs, own])
    members = {name: {name: one} for name, one in said[split].items()}
    return compare_predictions({**members, "ensemble": {"ensemble": held[split]}}, split, baseline="ensemble")


def _check_not_run(out: Path) -> None:
    """Refuse a folder that is a run's: its predictions and figures would be lost, and it would be no run any more."""
    if (out / "recipe.yaml").is_file():
        raise UsageError(f"{out} is a run, which an ensemble would overwrite. Name another folder.")


def average_predictions(predictions: dict[str, Predictions]) -> Predictions:
    """Return the mean probabilities of several runs about the same images."""
    different = describe_mismatch(list(predictions), list(predictions.values()))
    if different:
        raise ParfocalError(f"{different}; an ensemble needs the same images for all.")
    first, *others = predictions.values()
    probabilities = [first.probabilities, *(align_predictions(one, first).probabilities for one in others)]
    return replace(first, probabilities=np.mean(probabilities, axis=0))


def open_members(folder: Path) -> list[Run]:
    """Return the runs of an ensemble's folder."""
    named = json.loads((folder / MEMBERS_FILE).read_text(encoding="utf-8"))["members"]
    return open_runs(Path(os.path.normpath(folder / one)) for one in named)
