"""Loading trained networks and judging them: predictions, metrics and submission of each run, written anew.

Figures are taken from the predictions as they lie in their files, never from the network.
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from parfocal.data.passes import in_order
from parfocal.data.prepared import made_ready
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.evaluation.decision import Decision, Wishes, decided, looks_of
from parfocal.evaluation.filing import filed
from parfocal.evaluation.inference import batches_of, fabric_for, predict_split, ready
from parfocal.evaluation.judgement import judge_fully
from parfocal.evaluation.ordinary import MOST, Ordinary, fitted_ordinary, measures
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.submission import write_submission
from parfocal.evaluation.watch import alarms
from parfocal.evaluation.whereabouts import table_of
from parfocal.model.classifier import Classifier
from parfocal.recipe import Recipe
from parfocal.recipe import recipe as find_recipe
from parfocal.run import Run, open_runs

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def evaluate(
    runs: Iterable[Path | str] | Path | str,
    *,
    operating: str | None = None,
    refer: float | None = None,
    looks: str | None = None,
    together: bool | None = None,
) -> list[Run]:
    """Load each run's trained network, predict its valid and test splits and write what comes of it.

    What is wished for is decided on validation and kept with the run: an `operating` point such as `sensitivity=0.95`,
    a coverage for images that a human should see (`refer`), how images are looked at (`looks`, such as `eight`), and
    whether images are also judged `together` with the others of their group. `none`, 0 and False take it back.

    Faults that the run's recipe does not waive are refused; images that can no longer be read, and are waived, are left
    out and listed in the metrics.
    """
    opened = open_runs([runs] if isinstance(runs, str | Path) else runs)
    wishes = Wishes(operating, refer, looks, together)
    for run in opened:
        # All are asked before the first is judged: a refusal leaves every run as it was.
        wishes.check(run.recipe.judgement, len(run.environment()["data"]["classes"]))
        looked_at(run.recipe, looks_of(wishes, Decision.load(run.decision)))
    for run in opened:
        prepared = made_ready(table_of(run), run.recipe)
        fabric = fabric_for(run.recipe.training.precision)
        recipe = looked_at(run.recipe, looks_of(wishes, Decision.load(run.decision)))
        classifier = Classifier.load(run.weights)
        said = predict_table(classifier, prepared.table, prepared.store, recipe, fabric)
        judge_run(run, classifier, prepared.table, prepared.store, said, wishes)
    return opened


def judge_run(
    run: Run,
    classifier: Classifier,
    table: Table,
    store: Store,
    said: dict[str, Predictions],
    wishes: Wishes | None = None,
) -> None:
    """Judge what a run's network said and write predictions, decision, submission and metrics; in one process."""
    wishes, judgement = wishes or Wishes(), run.recipe.judgement
    about, ordinary = _about_training(run, table, classifier), _ordinary(table, store)
    with filed(run, said) as held:
        decision = decided(held["valid"], wishes, Decision.load(run.decision), judgement, ordinary)
        figures = {split: judge_fully(one, judgement, decision) for split, one in held.items()}
        if "test" in held:
            answers = decision.answers(held["test"], judgement)
            write_submission(run.folder / "submission.csv", table, answers, run.recipe.network.model)
    decision.save(run.decision)
    run.write_metrics({**figures, **about})


def predict_table(
    classifier: Classifier, table: Table, store: Store, recipe: Recipe, fabric: "Fabric"
) -> dict[str, Predictions]:
    """Return what a network says about the valid and test splits of a table, where there are such."""
    network = ready(classifier).to(fabric.device)
    splits = [split for split in ("valid", "test") if split in table.splits]
    return {
        split: predict_split(fabric, network, table, split, batches_of(split, table, store, recipe, fabric))
        for split in splits
    }


def looked_at(recipe: Recipe, looks: str) -> Recipe:
    """Return the recipe with its looks of evaluation replaced, if others are named."""
    return find_recipe(recipe, evaluation=looks) if looks else recipe


def _ordinary(table: Table, store: Store) -> Ordinary | None:
    """Measure what images of validation look like, evenly over them where they are very many."""
    places = store.places(table)[table.positions("valid")]
    chosen = places[:: -(-len(places) // MOST)].tolist()
    return fitted_ordinary(list(in_order(chosen, lambda place: measures(store.pixels[place]), "Measuring valid")))


def _about_training(run: Run, table: Table, classifier: Classifier) -> dict[str, Any]:
    """Return what the history says of how the weights came about, and what is left out of the judgement."""
    history, best = run.history(), int(classifier.about["epoch"])
    rows = history.to_dict("records")
    left_out = _left_out(Table.load(run), table)
    return {
        "best_epoch": best,
        "epochs": len(history),
        "selected_by": run.recipe.training.select,
        "parameters": sum(weight.numel() for weight in classifier.parameters()),
        "train_accuracy": float(history["train_accuracy"].iloc[best - 1]),
        **_chosen_on_test(history),
        "images_per_second": float(history["images_per_second"].median()),
        "waiting": float(history["waiting"].median()),
        "seconds": float(history["seconds"].sum()),
        **({"left_out": left_out} if left_out else {}),
        "alarms": [asdict(alarm) for alarm in alarms(rows, table.counts("valid"), run.recipe)],
    }


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
