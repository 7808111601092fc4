"""Evaluate trained networks: predict the valid and test splits of a run, and write predictions, metrics and submission.

Metrics are computed from the predictions as they are in their files, never from the network directly.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parfocal.data.checks import check_and_prepare
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.engine.batches import build_batches
from parfocal.engine.device import build_fabric, to_channels_last
from parfocal.evaluation.alarms import alarms
from parfocal.evaluation.bootstrap import compute_metrics_with_intervals
from parfocal.evaluation.calibration import compute_reliability_diagram
from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision
from parfocal.evaluation.inference import predict_split
from parfocal.evaluation.locate import locate_table
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.operating_point import binarize_grades
from parfocal.evaluation.patients import aggregate_by_group
from parfocal.evaluation.positive_class import find_positive_class
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.submission import write_submission
from parfocal.io import atomic_write, reject_link
from parfocal.manifest import create_manifest
from parfocal.models.classifier import Classifier
from parfocal.recipe import Recipe, load_recipe
from parfocal.recipe_schema import EvaluationConfig
from parfocal.run import Run, open_runs
from parfocal.run_files import DamagedFileError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def evaluate(
    runs: Iterable[Path | str] | Path | str,
    *,
    operating_point: str | None = None,
    refer: float | None = None,
    tta: str | None = None,
    fellow_eyes: bool | None = None,
    decide: str | None = None,
    positive: str | None = None,
    **others: Any,
) -> list[Run]:
    """Load the trained network of each run, predict its valid and test splits, and write predictions and metrics.

    Each option is fitted on validation and kept with the run; None keeps what was decided before. `operating_point`
    chooses a threshold for a goal such as "sensitivity=0.95" ("none" for no threshold). `refer` is the target coverage
    of referral to a human (0 for no referral). `tta` names the views for test-time augmentation, such as "d4" ("recipe"
    for those of the recipe). `fellow_eyes` also evaluates each image combined with the others of its patient. `decide`
    is the decision rule for the predicted class, such as "thresholds" ("none" for that of the recipe). `positive` is
    the positive class of two, by name or code ("none" leaves it to the recipe and the names of the classes).

    Errors in the data that the recipe does not allow are raised. Unreadable images that it allows are left out and
    listed in the metrics.
    """
    opened = open_runs([runs] if isinstance(runs, str | Path) else runs)
    options = DecisionOptions(operating_point, refer, tta, fellow_eyes, decide, positive, others)
    # All runs are checked before the first is evaluated, so that an error leaves every run as it was.
    for run in opened:
        chosen = options.choose_positive(Decision.load(run.decision_path).positive)
        classes = run.read_environment()["data"]["classes"]
        options.check(run.recipe.evaluation, classes, find_positive_class(run, chosen))
        _find_tta(run, options)
    for run in opened:
        prepared = check_and_prepare(locate_table(run), run.recipe)
        fabric = build_fabric(run.recipe.training.precision)
        classifier = Classifier.load(run.weights_path)
        views = _find_tta(run, options)
        recipe = with_tta(run.recipe, views)
        predictions = predict_table(classifier, prepared.table, prepared.store, recipe, fabric)
        evaluate_run(run, classifier, prepared.table, prepared.store, predictions, replace(options, tta=views))
        create_manifest(run.folder)
    return opened


def _find_tta(run: Run, options: DecisionOptions) -> str:
    """Return the views that the options, or else the run's decision, name; "recipe" if they are those of the recipe."""
    tta = options.tta or Decision.load(run.decision_path).tta or "recipe"
    return "recipe" if with_tta(run.recipe, tta).views.tta == run.recipe.views.tta else tta


def with_tta(recipe: Recipe, tta: str) -> Recipe:
    """Return the recipe with other views for test-time augmentation; "" and "recipe" change nothing."""
    return recipe if tta in ("", "recipe") else load_recipe(recipe, tta=tta)


def predict_table(
    classifier: Classifier, table: Table, store: Store, recipe: Recipe, fabric: "Fabric"
) -> dict[str, Predictions]:
    """Return the predictions of a network for the valid and test splits, as far as the table has them."""
    network = to_channels_last(classifier).to(fabric.device)
    return {
        split: predict_split(fabric, network, table, split, build_batches(split, table, store, recipe, fabric))
        for split in ("valid", "test")
        if split in table.splits
    }


def evaluate_run(
    run: Run,
    classifier: Classifier,
    table: Table,
    store: Store,
    predictions: dict[str, Predictions],
    options: DecisionOptions | None = None,
) -> None:
    """Write the predictions, decision, submission and metrics of a run; call it in a single process."""
    config = run.recipe.evaluation
    training = _describe_training(run, table, classifier)
    previous = Decision.load(run.decision_path)

    def fit(valid: Predictions) -> Decision:
        return fit_decision(valid, options or DecisionOptions(), previous, run.recipe, table, store, table.codes)

    with write_predictions(run, predictions, fit) as (decision, written):
        metrics = {split: evaluate_split(of_split, config, decision) for split, of_split in written.items()}
        if "test" in written:
            test = written["test"]
            labels = decision.predict_labels(decision.calibrate(test).probabilities).tolist()
            labels_by_id = dict(zip(test.ids, labels, strict=True))
            write_submission(run.folder / "submission.csv", table, labels_by_id, run.recipe.network.model)
    decision.save(run.decision_path)
    run.write_metrics({**metrics, **training})


@contextmanager
def write_predictions(
    run: Run, predictions: Mapping[str, Predictions], fit: Callable[[Predictions], Decision]
) -> Iterator[tuple[Decision, dict[str, Predictions]]]:
    """Write predictions, with the classes of a decision that is fitted on `valid`; yield the decision and both splits.

    Everything is computed from what the files hold, so that it can be computed from them again. They count only if
    the block succeeds; if it fails, the previous files remain.
    """
    with ExitStack() as files:
        paths: dict[str, Path] = {}
        for split, of_split in predictions.items():
            path = run.predictions_path(split)
            reject_link(path.parent)
            paths[split] = files.enter_context(atomic_write(path))
            of_split.save(paths[split])
        written = {split: Predictions.load(path) for split, path in paths.items()}
        decision = fit(written["valid"])
        written = {split: decision.decide(of_split) for split, of_split in written.items()}
        for split, of_split in written.items():
            of_split.save(paths[split])
        yield decision, written


def evaluate_split(
    predictions: Predictions, config: EvaluationConfig, decision: Decision | None = None
) -> dict[str, Any]:
    """Return every metric of a split as plain data, with confidence `intervals` and the `reliability` diagram.

    `by_group` holds the metrics per patient (or what the groups are) if a group has more than 1 image, and `referable`
    those of the referable grades if the recipe names the lowest. With a decision, each kind adds its section, such as
    `calibration` and `operating_point`; all other metrics are those of the predictions as they are, whose classes are
    those of the decision rule.
    """
    if not predictions.labeled:
        return compute_metrics(predictions)
    decide = (decision or Decision()).decide
    metrics = {
        **compute_metrics_with_intervals(predictions),
        "reliability": compute_reliability_diagram(predictions.truth, predictions.probabilities),
    }
    if metrics["groups"] < metrics["count"]:
        by_group, n_excluded = aggregate_by_group(predictions, config.ordered)
        metrics["by_group"] = {
            "excluded": n_excluded,
            # A vote counts classes that the rule has already decided.
            **{
                way: compute_metrics_with_intervals(joint if way == "vote" else decide(joint))
                for way, joint in by_group.items()
                if len(joint)
            },
        }
    if config.referable:
        metrics["referable"] = compute_metrics_with_intervals(binarize_grades(predictions, config.referable))
    return metrics if decision is None else metrics | decision.evaluate(predictions)


def _describe_training(run: Run, table: Table, classifier: Classifier) -> dict[str, Any]:
    """Return how the weights were trained, from the history, and which images are not evaluated any more."""
    history = run.read_history()
    best = int(classifier.metadata["epoch"])
    if not 1 <= best <= len(history):
        raise DamagedFileError(
            run.folder / "history.csv", f"it has {len(history)} epochs, and the weights are those of epoch {best}"
        )
    chosen_on_test: dict[str, Any] = {}
    if "test_accuracy" in history and history["test_accuracy"].notna().any():
        # The highest test accuracy of all epochs: optimistic, because test chose the epoch.
        row = history.iloc[int(history["test_accuracy"].argmax())]
        chosen_on_test = {"chosen_on_test": {"accuracy": float(row["test_accuracy"]), "epoch": int(row["epoch"])}}
    original = Table.load(run).rows
    evaluated = original["id"][original["split"] != "train"]
    unreadable = evaluated[~evaluated.isin(table.rows["id"])].tolist()
    return {
        "best_epoch": best,
        "epochs": len(history),
        "selected_by": run.recipe.training.select,
        "parameters": sum(weight.numel() for weight in classifier.parameters()),
        "train_accuracy": float(history["train_accuracy"].iloc[best - 1]),
        **chosen_on_test,
        "images_per_second": float(history["images_per_second"].median()),
        "waiting": float(history["waiting"].median()),
        "seconds": float(history["seconds"].sum()),
        **({"unreadable_images": unreadable} if unreadable else {}),
        "alarms": [
            asdict(alarm) for alarm in alarms(history.to_dict("records"), table.count_classes("valid"), run.recipe)
        ],
    }
