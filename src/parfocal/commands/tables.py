"""Tables on standard output: the results of runs, their comparison, and their decisions."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from parfocal.errors import join_limited
from parfocal.evaluation.compare import Comparison
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.decision_rule import RULE_METRICS
from parfocal.evaluation.summary import (
    TABLE_METRICS,
    SummaryRow,
    add_baseline,
    select_distinct,
    select_for_order,
    summarize,
)
from parfocal.report.formatting import (
    HEADINGS,
    describe_few_groups,
    describe_tta,
    describe_worse_calibration,
    find_tta_to_show,
    format_few_groups,
    format_metric,
    format_p_value,
    format_share,
    read_labeled_metrics,
    read_training_accuracy,
    select_positive_class,
    select_table_metrics,
)
from parfocal.reported import find_reported_accuracies
from parfocal.run import Run

_TEXT_COLUMNS = {
    "about", "accuracy", "code", "decide", "default", "experiments", "finding", "goal", "meaning", "metric", "origin",
    "positive", "predicted", "reason", "significance", "source", "split", "trains", "tta", "unit", "value",
}  # fmt: skip
_INTERVALS_FOOTNOTE = "The 95 % confidence intervals are bootstrapped over {groups}. "
_P_VALUES_FOOTNOTE = (
    "Intervals and p-values reflect the choice of images, not the randomness of training. "
    "Compare several seeds for that."
)


def print_table(*headings: str, rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under headings. Text columns are aligned left, numbers right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 or heading in _TEXT_COLUMNS else "right")
    for row in rows:
        table.add_row(*row)
    show(table)


def show(table: Table | str = "") -> None:
    """Print a table or a line, fitted to the width of the terminal if there is any."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=200)
    console.print(table, highlight=False, markup=not isinstance(table, str))


def print_results(runs: Sequence[Run]) -> None:
    """Print the results of each run by split, with intervals and the majority-class baseline.

    The accuracy that a source document reports, and the highest test accuracy of all epochs, are shown if known. If a
    document reports a training accuracy, that of the run is shown too.
    """
    reported = {run.name: find_reported_accuracies(run.recipe) for run in runs}
    has_reported = any(reported.values())
    tta = find_tta_to_show(runs)
    metrics = add_baseline(select_for_order(TABLE_METRICS, any(run.recipe.evaluation.ordered for run in runs)))
    metric_headings = [HEADINGS[metric] for metric in metrics]
    if has_reported:
        # The reported accuracy follows the accuracy, which is the first metric.
        metric_headings.insert(1, "reported")
    rows: list[list[str]] = []
    for run in runs:
        for row in summarize([run]):
            cells = [str(row.metrics[metric]) for metric in metrics]
            if has_reported:
                cells.insert(1, str(reported[run.name].get(row.split, "–")))
            tta_cell = [tta[run.name]] if tta else []
            rows.append([run.name, str(row.best_epoch), row.split, str(row.n_images), *tta_cell, *cells])
        if "train" in reported[run.name]:
            accuracy = f"{read_training_accuracy(run):.3f} (during training)"
            tta_cell = [""] if tta else []
            best_epoch = str(run.read_metrics()["best_epoch"])
            rows.append([run.name, best_epoch, "train", "", *tta_cell, accuracy, str(reported[run.name]["train"])])
        if highest := run.read_metrics().get("chosen_on_test"):
            accuracy = f"{highest['accuracy']:.3f} (chosen on test, optimistic)"
            rows.append([run.name, str(highest["epoch"]), "test", "", *([""] if tta else []), accuracy])
    print_table("run", "best epoch", "split", "images", *(["tta"] if tta else []), *metric_headings, rows=rows)
    if tta:
        show(describe_tta(runs))
    if few_groups := describe_few_groups(runs):
        show(few_groups)
    for sentence in describe_worse_calibration(runs):
        show(sentence)
    for run in runs:
        if unreadable := run.read_metrics().get("unreadable_images"):
            show(f"{run.name}: {len(unreadable)} images are no longer readable, left out: {join_limited(unreadable)}.")


def print_comparison(runs: Sequence[Run], comparison: Comparison) -> None:
    """Print the results of each run, means over seeds if there are any, and the differences with p-values."""
    print_results(runs)
    if any(len(result.runs) > 1 for result in comparison.results):
        show()
        print_compared_results(comparison)
    show()
    print_differences(comparison)


def print_compared_results(comparison: Comparison) -> None:
    """Print the results of each group of runs: mean and standard deviation if a group has more than one run."""
    metrics = select_table_metrics(comparison)
    has_groups = comparison.groups_are != "images"
    rows = [
        (
            f"{result.name} ({len(result.runs)} runs)" if len(result.runs) > 1 else result.name,
            str(result.n_images),
            *([str(result.n_groups)] if has_groups else []),
            *(str(result.metrics[metric]) for metric in metrics),
            f"{result.majority_accuracy:.3f}",
        )
        for result in comparison.results
    ]
    headings = [HEADINGS[metric] for metric in metrics]
    print_table(
        f"on {comparison.split}",
        "images",
        *([comparison.groups_are] if has_groups else []),
        *headings,
        "majority",
        rows=rows,
    )


def print_differences(comparison: Comparison) -> None:
    """Print the differences between runs with their significance, or why they are not tested."""
    metrics = select_table_metrics(comparison)
    if comparison.not_compared_reason:
        show(f"{comparison.not_compared_reason}, so their differences are not tested.")
    if not comparison.differences:
        return
    rows = [
        (
            f"{difference.first} – {difference.second}",
            HEADINGS[difference.metric],
            str(difference.metric_value),
            format_p_value(difference.p_value),
            format_p_value(difference.adjusted_p_value),
            format_p_value(difference.mcnemar_p_value),
            difference.significance_text,
        )
        for difference in comparison.differences
        if difference.metric in metrics
    ]
    print_table("difference", "metric", "value", "p", "adjusted p", "McNemar's p", "significance", rows=rows)
    has_intervals = any(difference.interval for difference in comparison.differences)
    intervals_footnote = _INTERVALS_FOOTNOTE.format(groups=comparison.groups_are) if has_intervals else ""
    show(intervals_footnote + _P_VALUES_FOOTNOTE)


def print_decisions(runs: Sequence[Run]) -> None:
    """Print the results by decision rule, at operating points, of referral and of combined eyes, and what was fitted.

    Decision rules are shown where there is more than one to choose from, the others if they were chosen.
    """
    _print_decision_tables(
        (run.name, split, metrics) for run in runs for split, metrics in read_labeled_metrics(run).items()
    )
    for run in runs:
        show()
        show(f"Fitted on the validation images by {run.name}: {' '.join(Decision.load(run.decision_path).describe())}")


def _print_decision_tables(metrics_by_split: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Print the decision results of (run, split, metrics)."""
    rules: list[list[str]] = []
    points: list[list[str]] = []
    referrals: list[list[str]] = []
    fused: list[list[str]] = []
    for run, split, metrics in metrics_by_split:
        if decisions := metrics.get("decisions"):
            for rule, values in decisions["by_rule"].items():
                cells = [format_metric(values, metric) for metric in RULE_METRICS]
                rules.append([run, split, rule, "yes" if rule == decisions["rule"] else "", *cells])
        if point := metrics.get("operating_point"):
            name, class_metrics = select_positive_class(point)
            cells = [format_metric(class_metrics, metric) for metric in ("recall", "specificity", "precision")]
            points.append([run, point["goal"], split, name, *cells])
        if referral := metrics.get("referral"):
            cells = [format_share(referral[name]) for name in ("coverage", "referral_rate", "selective_accuracy")]
            referrals.append([run, split, f"{referral['target_coverage']:g}", *cells])
        if fusion := metrics.get("fellow_eyes"):
            cells = [f"{fusion['weight']:.2f}", format_metric(fusion, "accuracy"), format_metric(metrics, "accuracy")]
            fused.append([run, split, *cells])
    rule_headings = ("decision rule", "split", "decide", "in force", *(HEADINGS[metric] for metric in RULE_METRICS))
    point_headings = ("operating point", "goal", "split", "positive", "sensitivity", "specificity", "precision")
    referral_headings = ("referral", "split", "target coverage", "coverage", "referral rate", "selective accuracy")
    fused_headings = ("fellow eyes", "split", "weight of the others", "accuracy", "single image")
    for headings, rows in (
        (rule_headings, rules),
        (point_headings, points),
        (referral_headings, referrals),
        (fused_headings, fused),
    ):
        if rows:
            show()
            print_table(*headings, rows=rows)


def print_external_results(metrics_by_run: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the results of runs on another data set, with the majority-class baseline and the decision results."""
    names = add_baseline(select_distinct(TABLE_METRICS, list(metrics_by_run.values())))
    summary = [SummaryRow.from_metrics(run, "external", metrics) for run, metrics in metrics_by_run.items()]
    rows = [(row.run, str(row.n_images), *(str(row.metrics[name]) for name in names)) for row in summary]
    print_table("run", "images", *(HEADINGS[name] for name in names), rows=rows)
    first = next(iter(metrics_by_run.values()))
    show(f"Evaluated on {first['source']}")
    for run, metrics in metrics_by_run.items():
        if (copies := metrics.get("near_duplicates")) and copies["count"]:
            listed = join_limited(map(" ≈ ".join, copies["pairs"]))
            show(
                f"{copies['count']} of {metrics['count']} images look nearly like training or validation images of "
                f"{run}, and count in its metrics: {listed}."
            )
    data = Path(first["data"]).name
    named_metrics = [(data, metrics) for metrics in metrics_by_run.values()]
    if few_groups := format_few_groups(first["groups_are"], named_metrics):
        show(few_groups)
    _print_decision_tables((run, data, metrics) for run, metrics in metrics_by_run.items())
