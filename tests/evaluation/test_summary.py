"""A summary has one row for each run and labeled split, with every metric and its interval."""

from pathlib import Path

import numpy as np

from parfocal.evaluation.bootstrap import compute_intervals
from parfocal.evaluation.metrics import SPLIT_METRICS, ResampledMetrics, compute_metrics
from parfocal.evaluation.summary import (
    TABLE_METRICS,
    MetricValue,
    add_baseline,
    select_distinct,
    select_for_order,
    summarize,
)
from parfocal.run import Run
from tests.evaluation.make_predictions import make_predictions


def test_every_labeled_split_of_every_run_has_a_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    predictions = make_predictions(truth, rng.dirichlet(np.ones(3), 60))
    metrics = {
        **compute_metrics(predictions),
        "intervals": compute_intervals(ResampledMetrics(predictions), 50),
    }
    runs = [Run(tmp_path / name) for name in ("first", "second")]
    unlabeled = {"count": 60, "labeled": False}
    runs[0].write_metrics({"valid": metrics, "test": metrics, "best_epoch": 3})
    runs[1].write_metrics({"valid": metrics, "test": unlabeled, "best_epoch": 5})
    rows = summarize(runs)
    assert [(row.run, row.split, row.best_epoch) for row in rows] == [
        ("first", "valid", 3),
        ("first", "test", 3),
        ("second", "valid", 5),
    ]
    row = rows[0]
    assert (row.n_images, row.n_groups) == (60, 60)
    assert row.metrics.keys() == {"majority_accuracy"} | {metric.name for metric in SPLIT_METRICS}
    assert row.metrics["kappa"] == MetricValue(metrics["kappa"], metrics["intervals"]["kappa"])
    assert row.metrics["majority_accuracy"].interval is None
    class_metrics = metrics["per_class"]["class 2"]
    class_row = row.classes["class 2"]
    assert (class_row.n_images, class_row.n_predicted) == (class_metrics["support"], class_metrics["predicted"])
    expected = MetricValue(class_metrics["recall"], metrics["intervals"]["per_class"]["class 2"]["recall"])
    assert class_row.metrics["recall"] == expected


def test_tables_leave_out_quadratic_kappa_for_two_classes() -> None:
    truth = [0, 1, 1, 0]
    two_classes = compute_metrics(make_predictions(truth, np.eye(2)[[0, 1, 0, 0]]))
    three_classes = compute_metrics(make_predictions([*truth, 2], np.eye(3)[[0, 1, 0, 0, 0]]))
    assert select_distinct(TABLE_METRICS, [two_classes]) == ["accuracy", "balanced_accuracy", "kappa", "auc"]
    assert select_distinct(TABLE_METRICS, [two_classes, three_classes]) == list(TABLE_METRICS)


def test_a_narrow_table_shows_the_kappa_that_suits_the_classes() -> None:
    assert select_for_order(TABLE_METRICS, ordered=False) == ["accuracy", "balanced_accuracy", "kappa", "auc"]
    assert select_for_order(TABLE_METRICS, ordered=True) == ["accuracy", "balanced_accuracy", "quadratic_kappa", "auc"]


def test_the_baseline_follows_accuracy() -> None:
    assert add_baseline(["accuracy", "auc"]) == ["accuracy", "majority_accuracy", "auc"]


def test_a_notebook_shows_the_same_metrics_for_a_run_as_the_tables(tmp_path: Path) -> None:
    metrics = compute_metrics(make_predictions([0, 1, 2], np.eye(3)[[0, 1, 1]]))
    run = Run(tmp_path / "run")
    run.write_metrics({"test": metrics})
    columns = "".join(f'<th scope="col">{name.replace("_", " ")}</th>' for name in add_baseline(TABLE_METRICS))
    assert columns in run._repr_html_()


def test_values_are_formatted_with_standard_deviation_and_interval() -> None:
    assert str(MetricValue(None)) == "–"
    assert str(MetricValue(0.5)) == "0.500"
    assert str(MetricValue(-0.1, [-0.2, 0.05])) == "-0.100 (-0.200 to 0.050)"
    assert str(MetricValue(0.5, [0.4, 0.6], 0.02)) == "0.500 ± 0.020 (0.400–0.600)"
