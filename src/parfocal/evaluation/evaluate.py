"""The full judgement of a split: every figure, how sure it is, and what the decisions made on validation do to it."""
# MERGED: """Predictions put into a run's folder only when all that is made of them has been made."""
# MERGED: """Loading trained networks and judging them: predictions, metrics and submission of each run, written anew.
#
# Figures are taken from the predictions as they lie in their files, never from the network.
# """

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from parfocal.data.checks import check_and_prepare
from parfocal.data.parallel import map_ordered
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.engine.batches import build_batches
from parfocal.engine.device import build_fabric, to_channels_last
from parfocal.evaluation.alarms import alarms
from parfocal.evaluation.bootstrap import compute_intervals, compute_proportion
from parfocal.evaluation.calibration import compute_reliability_diagram
from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision, resolve_tta
from parfocal.evaluation.fellow_eyes import fuse_fellow_eyes
from parfocal.evaluation.inference import predict_split
from parfocal.evaluation.locate import locate_table
from parfocal.evaluation.metrics import ResampledMetrics, collect_metrics, compute_metrics
from parfocal.evaluation.operating_point import OperatingPoint, binarize, binarize_grades
from parfocal.evaluation.out_of_distribution import MAX_IMAGES, OodMonitor, compute_features, fit_ood_monitor
from parfocal.evaluation.patients import aggregate_by_group
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referral import ConformalReferral
from parfocal.evaluation.submission import write_submission
from parfocal.io import atomic_write
from parfocal.models.classifier import Classifier
from parfocal.recipe import Recipe
from parfocal.recipe import load_recipe as find_recipe
from parfocal.run import Run, open_runs
from parfocal.schema import EvaluationConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PROBABILITY_METRICS = ("brier", "loss", "ece", "auc", "average_precision")


def evaluate_split(
    predictions: Predictions, config: EvaluationConfig, decision: Decision | None = None
) -> dict[str, Any]:
    """Return what `judge` does, as plain data, with `intervals`, `reliability` and what the rest calls for.

    `patients` is there where some group has several images, and `referable` where the recipe names a grade. With a
    decision, `calibration` holds the figures of its temperature, and `operating`, `together` and `referral` what they
    reach, where they were asked for. All figures but these are of the predictions as they are.
    """
    if not predictions.labeled:
        return compute_metrics(predictions)
    found = {
        **_compute_metrics_with_intervals(predictions),
        "reliability": compute_reliability_diagram(predictions.truth, predictions.probabilities),
    }
    if found["groups"] < found["count"]:
        joined, left_out = aggregate_by_group(predictions, config.ordered)
        found["patients"] = {
            "left_out": left_out,
            **{way: _compute_metrics_with_intervals(one) for way, one in joined.items() if len(one)},
        }
    if config.referable:
        found["referable"] = _compute_metrics_with_intervals(binarize_grades(predictions, config.referable))
    return found if decision is None else found | _evaluate_decision(predictions, config, decision)


def _compute_metrics_with_intervals(predictions: Predictions) -> dict[str, Any]:
    weighed = ResampledMetrics(predictions)
    return {**collect_metrics(predictions, weighed), "intervals": compute_intervals(weighed)}


def _evaluate_decision(predictions: Predictions, config: EvaluationConfig, decision: Decision) -> dict[str, Any]:
    calibrated = decision.calibrate(predictions)
    figures = compute_metrics(calibrated)
    found: dict[str, Any] = {
        "calibration": {
            "temperature": decision.temperature,
            **{name: figures[name] for name in ("loss", "brier", "ece")},
            "reliability": compute_reliability_diagram(calibrated.truth, calibrated.probabilities),
        }
    }
    if decision.operating_point is not None:
        found["operating"] = _evaluate_operating_point(calibrated, config, decision.operating_point)
    if decision.fellow_eye_weight is not None:
        found["together"] = {
            "weight": decision.fellow_eye_weight,
            **_compute_metrics_with_intervals(fuse_fellow_eyes(predictions, decision.fellow_eye_weight)),
        }
    if decision.referral is not None:
        found["referral"] = _evaluate_referral(
            calibrated, decision.predict_labels(calibrated.probabilities, config), decision.referral
        )
    return found


def _evaluate_operating_point(
    calibrated: Predictions, config: EvaluationConfig, point: OperatingPoint
) -> dict[str, Any]:
    """Judge the answers of an operating point: its sensitivity is the recall of the second class."""
    positive = point.is_positive(calibrated.probabilities, config)
    question = calibrated if positive is None else binarize(calibrated, config)
    said = point.predict_labels(calibrated.probabilities, config) if positive is None else positive.astype(np.int64)
    found = _compute_metrics_with_intervals(replace(question, probabilities=np.eye(len(question.classes))[said]))
    for figures in (found, found["intervals"]):
        for name in _PROBABILITY_METRICS:
            figures.pop(name, None)
        for one in figures["per_class"].values():
            for name in [name for name in one if name in _PROBABILITY_METRICS or "_at_" in name]:
                del one[name]
    return {"wish": point.goal, "thresholds": list(point.thresholds), **found}


def _evaluate_referral(calibrated: Predictions, labels: np.ndarray, referral: ConformalReferral) -> dict[str, Any]:
    """Measure how often the sets hold the truth, how many images are referred, and how good the other answers are."""
    held = referral.prediction_sets(calibrated.probabilities)[np.arange(len(calibrated)), calibrated.truth]
    sure = ~referral.is_referred(calibrated.probabilities)
    groups = np.array(calibrated.groups)
    right = labels == calibrated.truth
    return {
        "stated": referral.coverage,
        "coverage": compute_proportion(calibrated.groups, held),
        "referred": compute_proportion(calibrated.groups, ~sure),
        "accuracy_of_the_rest": compute_proportion(groups[sure].tolist(), right[sure]) if sure.any() else None,
    }


@contextmanager
def write_predictions(run: Run, predictions: Mapping[str, Predictions]) -> Iterator[dict[str, Predictions]]:
    """Yield predictions by split as their files will hold them; the files get their names if the block succeeds.

    Figures are taken of what is yielded, so that they can be taken anew from the files. Where the block refuses, those
    of before are still there.
    """
    with ExitStack() as files:
        held: dict[str, Predictions] = {}
        for split, one in predictions.items():
            beside = files.enter_context(atomic_write(run.predictions_path(split)))
            one.save(beside)
            held[split] = Predictions.load(beside)
        yield held


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
        wishes.check(run.recipe.evaluation, len(run.read_environment()["data"]["classes"]))
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
    options, judgement = options or DecisionOptions(), run.recipe.evaluation
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
