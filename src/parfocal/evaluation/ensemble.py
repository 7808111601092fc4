"""Ensembles: the mean of what several runs say about the same images, judged like one."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.compare import Comparison, best_split, comparison_of
from parfocal.evaluation.decision import Decision, Wishes, decided
from parfocal.evaluation.filing import filed
from parfocal.evaluation.judgement import judge_fully
from parfocal.evaluation.matching import aligned, different_images
from parfocal.evaluation.predictions import Predictions
from parfocal.files import write_json
from parfocal.run import Run, open_runs

MEMBERS = "ensemble.json"
"""The file of an ensemble's folder that names its runs."""


def ensemble(runs: Sequence[Run], out: Path, wishes: Wishes | None = None) -> Comparison:
    """Average the predictions of evaluated runs, decide on validation, and write predictions, decision and metrics.

    Returns the comparison of the members and the ensemble on test, or on valid where nobody knows the truth of test.
    """
    if len(runs) < 2:
        raise UsageError(f"An ensemble needs at least two runs, and there is {len(runs)}.")
    _refuse_run(out)
    own, part, wishes = Run(out), runs[0].recipe.judgement, wishes or Wishes()
    tested = all(run.predictions("test").is_file() for run in runs)
    said = {
        split: {run.name: Predictions.load(run.predictions(split)) for run in runs}
        for split in (("valid", "test") if tested else ("valid",))
    }
    averaged = {split: averaged_of(members) for split, members in said.items()}
    wishes.check(part, len(averaged["valid"].classes))
    ordinary = Decision.load(runs[0].decision).ordinary
    with filed(own, averaged) as held:
        decision = decided(held["valid"], wishes, Decision.load(own.decision), part, ordinary)
        figures = {split: judge_fully(one, part, decision) for split, one in held.items()}
    # Each member looks at images in its own way.
    replace(decision, looks="").save(own.decision)
    own.write_metrics(figures)
    write_json(out / MEMBERS, {"members": [os.path.relpath(run.folder, out) for run in runs]})
    split = best_split([*runs, own])
    members = {name: {name: one} for name, one in said[split].items()}
    return comparison_of({**members, "ensemble": {"ensemble": held[split]}}, split, only="ensemble")


def _refuse_run(out: Path) -> None:
    """Refuse a folder that is a run's: its predictions and figures would be lost, and it would be no run any more."""
    if (out / "recipe.yaml").is_file():
        raise UsageError(f"{out} is a run, which an ensemble would overwrite. Name another folder.")


def averaged_of(said: dict[str, Predictions]) -> Predictions:
    """Return the mean probabilities of several runs about the same images."""
    different = different_images(list(said), list(said.values()))
    if different:
        raise ParfocalError(f"{different}; an ensemble needs the same images for all.")
    first, *others = said.values()
    probabilities = [first.probabilities, *(aligned(one, first).probabilities for one in others)]
    return replace(first, probabilities=np.mean(probabilities, axis=0))


def members(folder: Path) -> list[Run]:
    """Return the runs of an ensemble's folder."""
    named = json.loads((folder / MEMBERS).read_text(encoding="utf-8"))["members"]
    return open_runs(Path(os.path.normpath(folder / one)) for one in named)
