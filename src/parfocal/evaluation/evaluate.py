"""Loading trained networks and judging them: predictions, metrics and submission of each run, written anew."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from lightning_fabric import Fabric

from parfocal.data.prepared import made_ready
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.evaluation.inference import batches_of, fabric_for, predict_split, ready
from parfocal.evaluation.judgement import judge_fully
from parfocal.evaluation.submission import write_submission
from parfocal.evaluation.watch import alarms, prevalence
from parfocal.model.classifier import Classifier
from parfocal.run import Run, open_runs


def evaluate(runs: Iterable[Path | str] | Path | str) -> list[Run]:
    """Load each run's trained network, predict its valid and test splits and write what comes of it.

    Faults that the run's recipe does not waive are refused; images that can no longer be read, and are waived, are left
    out and listed in the metrics.
    """
    opened = open_runs([runs] if isinstance(runs, str | Path) else runs)
    for run in opened:
        prepared = made_ready(Table.load(run), run.recipe)
        evaluate_run(run, prepared.table, prepared.store, fabric_for(run.recipe.training.precision))
    return opened


def evaluate_run(run: Run, table: Table, store: Store, fabric: Fabric) -> dict[str, Any]:
    """Judge one run's best weights on valid and test and write predictions, submission and metrics."""
    recipe = run.recipe
    classifier = ready(Classifier.load(run.weights)).to(fabric.device)
    metrics: dict[str, Any] = {}
    for split in (name for name in ("valid", "test") if name in table.splits):
        predictions = predict_split(fabric, classifier, table, split, batches_of(split, table, store, recipe, fabric))
        metrics[split] = judge_fully(predictions, recipe.judgement)
        if fabric.is_global_zero:
            predictions.save(run.predictions(split))
        if fabric.is_global_zero and split == "test":
            write_submission(run.folder / "submission.csv", table, predictions, recipe.network.model)
    history = run.history()
    metrics["best_epoch"] = int(classifier.about["epoch"])
    metrics["epochs"] = len(history)
    metrics["selected_by"] = recipe.training.select
    metrics["parameters"] = sum(weight.numel() for weight in classifier.parameters())
    metrics["train_accuracy"] = float(history["train_accuracy"].iloc[metrics["best_epoch"] - 1])
    metrics |= _chosen_on_test(history)
    metrics["images_per_second"] = float(history["images_per_second"].median())
    metrics["waiting"] = float(history["waiting"].median())
    metrics["seconds"] = float(history["seconds"].sum())
    if left_out := _left_out(Table.load(run), table):
        metrics["left_out"] = left_out
    rows = history.to_dict("records")
    metrics["alarms"] = [asdict(alarm) for alarm in alarms(rows, prevalence(table), recipe)]
    if fabric.is_global_zero:
        run.write_metrics(metrics)
    fabric.barrier()
    return metrics


def _left_out(whole: Table, table: Table) -> list[str]:
    """Return the ids of valid and test that the run was made with and that are not judged."""
    rows = whole.rows[whole.rows["split"] != "train"]
    return rows["id"][~rows["id"].isin(table.rows["id"])].tolist()


def _chosen_on_test(history: pd.DataFrame) -> dict[str, Any]:
    """Return the highest test accuracy over all epochs, where it was measured: optimistic, for the test chose it."""
    if "test_accuracy" not in history or history["test_accuracy"].isna().all():
        return {}
    row = int(history["test_accuracy"].argmax())
    accuracy, epoch = float(history["test_accuracy"].iloc[row]), int(history["epoch"].iloc[row])
    return {"chosen_on_test": {"accuracy": accuracy, "epoch": epoch}}
