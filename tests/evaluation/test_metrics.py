"""The registry of metrics is consistent, and metrics hold where classes are absent or all predictions are one class."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from sklearn import metrics as sklearn_metrics

import parfocal
from parfocal.evaluation.metrics import (
    CLASS_METRICS,
    METRICS,
    SELECTION_METRICS,
    SPLIT_METRICS,
    compute_metrics,
    get_metric,
)
from parfocal.evaluation.predictions import Predictions
from parfocal.recipe_schema import TrainingConfig
from tests.evaluation.make_predictions import make_predictions, random_predictions


@given(predictions=random_predictions())
def test_metrics_follow_from_the_confusion_matrix(predictions: Predictions) -> None:
    values = compute_metrics(predictions)
    n_images = len(predictions)
    matrix = np.array(values["confusion"])
    assert matrix.sum() == values["count"] == n_images
    assert values["accuracy"] == pytest.approx(matrix.trace() / n_images)
    assert values["majority_accuracy"] == pytest.approx(np.bincount(predictions.truth).max() / n_images)
    for label, name in enumerate(predictions.classes):
        assert values["per_class"][name]["support"] == matrix[label].sum()
        assert values["per_class"][name]["predicted"] == matrix[:, label].sum()


@given(predictions=random_predictions())
def test_rank_metrics_are_means_over_the_classes_or_those_of_the_second_of_two(predictions: Predictions) -> None:
    n_classes = len(predictions.classes)
    values = compute_metrics(predictions)
    scores_by_side = [
        (predictions.truth == label, predictions.probabilities[:, label])
        for label in ([1] if n_classes == 2 else range(n_classes))
    ]
    areas = [
        sklearn_metrics.roc_auc_score(is_positive, scores)
        for is_positive, scores in scores_by_side
        if is_positive.any() and not is_positive.all()
    ]
    assert values["auc"] == (pytest.approx(np.mean(areas)) if areas else None)
    areas = [
        sklearn_metrics.average_precision_score(is_positive, scores)
        for is_positive, scores in scores_by_side
        if is_positive.any()
    ]
    assert values["average_precision"] == (pytest.approx(np.mean(areas)) if areas else None)


def test_the_evaluator_of_medmnist_gives_the_same_values() -> None:
    # Expected values: the evaluator of medmnist 3.0.2, for these labels and scores of its data set retinamnist. It
    # takes the mean over classes of the ROC AUC of one class against the rest, and the accuracy of the largest scores.
    rng = np.random.default_rng(400)
    truth = rng.choice(5, 400, p=[0.435, 0.115, 0.23, 0.17, 0.05])
    scores = rng.dirichlet(np.ones(5), 400) + 0.3 * np.eye(5)[truth] * rng.random((400, 1))
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), 6)
    values = compute_metrics(make_predictions(truth, scores))
    assert values["auc"] == pytest.approx(0.7484523816616632, abs=1e-12)
    assert values["accuracy"] == 0.3675


def test_errors_between_grades_are_weighted_by_their_distance() -> None:
    truth = [0, 1, 2, 3, 4]
    near = compute_metrics(make_predictions(truth, np.eye(5)[[0, 1, 2, 3, 3]]))
    far = compute_metrics(make_predictions(truth, np.eye(5)[[0, 1, 2, 3, 0]]))
    assert near["quadratic_kappa"] > far["quadratic_kappa"]
    assert near["mean_absolute_error"] == 0.2
    assert far["mean_absolute_error"] == 0.8


def test_always_predicting_one_class_is_no_better_than_the_majority_baseline() -> None:
    values = compute_metrics(make_predictions([0, 0, 0, 1], np.tile([0.9, 0.1], (4, 1))))
    assert values["accuracy"] == values["majority_accuracy"] == 0.75
    assert values["balanced_accuracy"] == 0.5
    assert values["kappa"] == 0
    assert values["auc"] == 0.5
    assert values["per_class"]["class 1"]["precision"] is None


def test_with_a_single_true_class_undefined_metrics_are_none() -> None:
    values = compute_metrics(make_predictions([0, 0], np.array([[0.9, 0.1], [0.8, 0.2]])))
    assert values["auc"] is None
    assert values["average_precision"] is None
    assert values["per_class"]["class 1"]["recall"] is None
    assert values["per_class"]["class 0"]["specificity"] is None
    assert values["kappa"] == 0


def test_a_single_image_has_metrics() -> None:
    values = compute_metrics(make_predictions([1], np.array([[0.2, 0.5, 0.3]])))
    assert (values["accuracy"], values["balanced_accuracy"], values["macro_f1"], values["kappa"]) == (1, 1, 1, 0)
    assert values["loss"] == pytest.approx(-np.log(0.5))
    assert values["auc"] is None


def test_without_labels_there_are_no_metrics() -> None:
    assert compute_metrics(make_predictions([0, -1], np.full((2, 2), 0.5))) == {"count": 2, "labeled": False}


def test_every_metric_has_a_name_of_its_own() -> None:
    for attribute in ("name", "heading", "label"):
        names = [getattr(metric, attribute) for metric in METRICS]
        assert len(set(names)) == len(names)
    assert get_metric("auc").title == "ROC AUC"
    assert get_metric("balanced_accuracy").title == "Balanced accuracy"


def test_every_metric_is_computed_and_nothing_else() -> None:
    values = compute_metrics(make_predictions([0, 1, 1], np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])))
    others = {"count", "groups", "labeled", "classes", "majority_accuracy", "per_class", "confusion"}
    assert values.keys() - others == {metric.name for metric in SPLIT_METRICS}
    assert values["per_class"]["class 1"].keys() - {"support", "predicted"} == {metric.name for metric in CLASS_METRICS}


def test_the_recipe_can_select_by_exactly_the_selectable_metrics() -> None:
    choices = get_args(TrainingConfig.model_fields["select"].annotation)
    assert choices == SELECTION_METRICS


def test_greater_is_better_matches_what_a_better_prediction_does() -> None:
    truth = [0, 1, 2, 2]
    poor = compute_metrics(make_predictions(truth, np.eye(3)[[1, 1, 2, 0]] * 0.4 + 0.2))
    good = compute_metrics(make_predictions(truth, np.eye(3)[truth] * 0.4 + 0.2))
    for metric in SPLIT_METRICS:
        if metric.source != "bins":
            assert (good[metric.name] > poor[metric.name]) == metric.greater_is_better, metric.name


_ERROR_RATE_ROW = """
    Metric("error_rate", "error rate", "confusion", lambda matrix: 1 - confusion.accuracy(matrix),
           greater_is_better=False, compared=True, tables="all"),
"""

_USE_ERROR_RATE = """
import io
import json
from contextlib import redirect_stdout
import numpy as np
from parfocal.commands.tables import print_compared_results
from parfocal.evaluation.bootstrap import compute_intervals
from parfocal.evaluation.compare import compare_predictions
from parfocal.evaluation.metrics import ResampledMetrics, compute_metrics
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.summary import WIDE_TABLE_METRICS, SummaryRow
from parfocal.report.tables import format_comparison

rng = np.random.default_rng(0)
ids = tuple(map(str, range(80)))
truth = rng.integers(0, 2, 80)
sides = {name: Predictions(ids, ids, truth, rng.dirichlet([1, 1], 80), ("a", "b")) for name in ("first", "second")}
metrics = compute_metrics(sides["first"])
comparison = compare_predictions({name: {name: side} for name, side in sides.items()}, "test", 100)
with redirect_stdout(io.StringIO()) as terminal:
    print_compared_results(comparison)
print(json.dumps({
    "value": metrics["error_rate"],
    "accuracy": metrics["accuracy"],
    "interval": compute_intervals(ResampledMetrics(sides["first"]), 100)["error_rate"],
    "p_values": [item.p_value for item in comparison.differences if item.metric == "error_rate"],
    "summary": SummaryRow.from_metrics("first", "test", metrics).metrics["error_rate"].value,
    "csv": format_comparison(comparison, "csv", {"first": "none", "second": "none"}),
    "latex": format_comparison(comparison, "latex", {}),
    "terminal": terminal.getvalue(),
    "report": WIDE_TABLE_METRICS,
    "notebook": comparison._repr_html_(),
}))
"""


def test_one_row_adds_a_metric_to_files_intervals_tests_and_tables(tmp_path: Path) -> None:
    shutil.copytree(Path(parfocal.__file__).parent, tmp_path / "parfocal", ignore=shutil.ignore_patterns("static"))
    registry = tmp_path / "parfocal" / "evaluation" / "metrics.py"
    source = registry.read_text(encoding="utf-8")
    before, end, after = source.partition("\n)  # fmt: skip\n")
    registry.write_text(before + _ERROR_RATE_ROW + end + after, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-c", _USE_ERROR_RATE],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    values = json.loads(result.stdout)
    assert values["value"] == values["summary"] == pytest.approx(1 - values["accuracy"])
    assert values["interval"][0] < values["value"] < values["interval"][1]
    assert len(values["p_values"]) == 1
    for table in ("csv", "report"):
        assert "error_rate" in values[table]
    for table in ("latex", "terminal", "notebook"):
        assert "error rate" in values[table]
