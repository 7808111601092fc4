"""Loading trained networks and judging them: predictions, metrics and submission of each run, written anew.

Figures are taken from the predictions as they lie in their files, never from the network.
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from parfocal.data.passes import map_ordered
from parfocal.data.prepared import check_and_prepare
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision, resolve_tta
from parfocal.evaluation.filing import write_predictions
from parfocal.evaluation.inference import build_batches, build_fabric, predict_split, to_channels_last
from parfocal.evaluation.judgement import evaluate_split
from parfocal.evaluation.ordinary import MAX_IMAGES, OodMonitor, compute_features, fit_ood_monitor
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.submission import write_submission
from parfocal.evaluation.watch import alarms
from parfocal.evaluation.whereabouts import locate_table
from parfocal.model.classifier import Classifier
from parfocal.recipe import Recipe
from parfocal.recipe import load_recipe as find_recipe
from parfocal.run import Run, open_runs

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def evaluate(
    runs: Iterable[Path | str] | Path | str,
    *,
    operating_point: str | None = None,
    refer: float | None = None,
    tta: str | None = None,
    fuse_eyes: bool | None = None,
) -> list[Run]:
    """Load each run's trained network, predict its valid and test splits and write what comes of it.

    What is wished for is decided on validation and kept with the run: an `operating` point such as `sensitivity=0.95`,
    a coverage for images that a human should see (`refer`), how images are looked at (`looks`, such as `eight`), and
    whether images are also judged `together` with the others of their group. `none`, 0 and False take it back.

    Faults that the run's recipe does not waive are refused; images that can no longer be read, and are waived, are left
    out and listed in the metrics.
    """
    opened = open_runs([runs] if isinstance(runs, str | Path) else runs)
    wishes = DecisionOptions(operating_point, refer, tta, fuse_eyes)
    for run in opened:
        # All are asked before the first is judged: a refusal leaves every run as it was.
        wishes.check(run.recipe.judgement, len(run.read_environment()["data"]["classes"]))
        with_tta(run.recipe, resolve_tta(wishes, Decision.load(run.decision_path)))
    for run in opened:
        prepared = check_and_prepare(locate_table(run), run.recipe)
        fabric = build_fabric(run.recipe.training.precision)
        recipe = with_tta(run.recipe, resolve_tta(wishes, Decision.load(run.decision_path)))
        classifier = Classifier.load(run.weights_path)
        said = predict_table(classifier, prepared.table, prepared.store, recipe, fabric)
        evaluate_run(run, classifier, prepared.table, prepared.store, said, wishes)
    return opened


def evaluate_run(
    run: Run,
    classifier: Classifier,
    table: Table,
    store: Store,
    predictions: dict[str, Predictions],
    options: DecisionOptions | None = None,
) -> None:
    """Judge what a run's network said and write predictions, decision, submission and metrics; in one process."""
    options, judgement = options or DecisionOptions(), run.recipe.judgement
    about, ordinary = _describe_training(run, table, classifier), _fit_ood(table, store)
    with write_predictions(run, predictions) as held:
        decision = fit_decision(held["valid"], options, Decision.load(run.decision_path), judgement, ordinary)
        figures = {split: evaluate_split(one, judgement, decision) for split, one in held.items()}
        if "test" in held:
            answers = decision.predict_labels_by_id(held["test"], judgement)
            write_submission(run.folder / "submission.csv", table, answers, run.recipe.network.model)
    decision.save(run.decision_path)
    run.write_metrics({**figures, **about})


def predict_table(
    classifier: Classifier, table: Table, store: Store, recipe: Recipe, fabric: "Fabric"
) -> dict[str, Predictions]:
    """Return what a network says about the valid and test splits of a table, where there are such."""
    network = to_channels_last(classifier).to(fabric.device)
    splits = [split for split in ("valid", "test") if split in table.splits]
    return {
        split: predict_split(fabric, network, table, split, build_batches(split, table, store, recipe, fabric))
        for split in splits
    }


def with_tta(recipe: Recipe, tta: str) -> Recipe:
    """Return the recipe with its looks of evaluation replaced, if others are named."""
    return find_recipe(recipe, evaluation=tta) if tta else recipe


def _fit_ood(table: Table, store: Store) -> OodMonitor | None:
    """Measure what images of validation look like, evenly over them where they are very many."""
    places = store.get_positions(table)[table.get_positions("valid")]
    chosen = places[:: -(-len(places) // MAX_IMAGES)].tolist()
    return fit_ood_monitor(
        list(map_ordered(chosen, lambda place: compute_features(store.pixels[place]), "Measuring valid"))
    )


def _describe_training(run: Run, table: Table, classifier: Classifier) -> dict[str, Any]:
    """Return what the history says of how the weights came about, and what is left out of the judgement."""
    history, best = run.read_history(), int(classifier.metadata["epoch"])
    rows = history.to_dict("records")
    left_out = _find_left_out(Table.load(run), table)
    return {
        "best_epoch": best,
        "epochs": len(history),
        "selected_by": run.recipe.training.select,
        "parameters": sum(weight.numel() for weight in classifier.parameters()),
        "train_accuracy": float(history["train_accuracy"].iloc[best - 1]),
        **_find_best_test_epoch(history),
        "images_per_second": float(history["images_per_second"].median()),
        "waiting": float(history["waiting"].median()),
        "seconds": float(history["seconds"].sum()),
        **({"left_out": left_out} if left_out else {}),
        "alarms": [asdict(alarm) for alarm in alarms(rows, table.count_classes("valid"), run.recipe)],
    }


def _find_left_out(full_table: Table, table: Table) -> list[str]:
    """Return the ids of valid and test that the run was made with and that are not judged."""
    rows = full_table.rows[full_table.rows["split"] != "train"]
    return rows["id"][~rows["id"].isin(table.rows["id"])].tolist()


def _find_best_test_epoch(history: pd.DataFrame) -> dict[str, Any]:
    """Return the highest test accuracy over all epochs, where it was measured: optimistic, for the test chose it."""
    if "test_accuracy" not in history or history["test_accuracy"].isna().all():
        return {}
    row = int(history["test_accuracy"].argmax())
    accuracy, epoch = float(history["test_accuracy"].iloc[row]), int(history["epoch"].iloc[row])
    return {"chosen_on_test": {"accuracy": accuracy, "epoch": epoch}}
