"""Tables on standard output, plain where it is not a terminal."""
# MERGED: """What runs reached, and how they compare, as tables on standard output."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from parfocal.errors import join_limited
from parfocal.evaluation.compare import Comparison, MetricValue
from parfocal.report.formatting import (
    HEADINGS,
    describe_few_groups,
    describe_tta,
    find_tta_to_show,
    format_few_groups,
    format_metric,
    format_p_value,
    format_share,
    select_table_metrics,
)
from parfocal.reported import find_reported_accuracy
from parfocal.run import Run


def print_table(*headings: str, rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text below headings."""
    table = new_table(*headings)
    for row in rows:
        table.add_row(*row)
    show(table)


def show(table: Table | str = "") -> None:
    """Print a table, or a line, as wide as the terminal, or as it needs to be where there is none."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=200)
    console.print(table, highlight=False, markup=not isinstance(table, str))


def new_table(*headings: str) -> Table:
    """Return an empty table; words stand at the left of their column, figures at the right."""
    words = {
        "split", "about", "experiments", "from", "trains", "value", "default", "whose", "meaning", "reason", "code",
        "finding", "figure", "accuracy", "wished for", "answer", "unit", "looks",
    }  # fmt: skip
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 or heading in words else "right")
    return table


_FOOTNOTE = (
    "Intervals of 95 % are drawn over groups, which are patients where the data names them. Chance is that of the "
    "images, not of training: compare several seeds for that."
)


def print_results(runs: Sequence[Run]) -> None:
    """Print what each run reached on validation and test with intervals, the majority baseline beside it.

    What a document reports stands beside it too, and the highest test accuracy over the epochs, where it was measured,
    is named as what it is.
    """
    figures_of = {run.name: find_reported_accuracy(run.recipe) for run in runs}
    beside = ["reported"] if any(figures_of.values()) else []
    ordered = any(run.recipe.evaluation.ordered for run in runs)
    figures = ["balanced_accuracy", "quadratic_kappa" if ordered else "kappa", "auc"]
    names = [HEADINGS[figure] for figure in figures]
    looks = find_tta_to_show(runs)
    looked = ["looks"] if looks else []
    table = new_table("run", "best epoch", "split", "images", *looked, "accuracy", *beside, "majority", *names)
    for run in runs:
        metrics = run.read_metrics()
        for split in ("valid", "test"):
            judged = metrics.get(split, {})
            if judged.get("labelled"):
                cells = [format_metric(judged, name) for name in ("accuracy", "majority_accuracy", *figures)]
                cells[1:1] = [str(MetricValue(figures_of[run.name].get(split)))] if beside else []
                cells[:0] = [str(judged["count"]), *([looks[run.name]] if looks else [])]
                table.add_row(run.name, str(metrics["best_epoch"]), split, *cells)
        if highest := metrics.get("chosen_on_test"):
            words = f"{highest['accuracy']:.3f} (chosen on test, optimistic)"
            table.add_row(run.name, str(highest["epoch"]), "test", "", *("" for _ in looked), words)
    show(table)
    if looks:
        show(describe_tta(runs))
    if few := describe_few_groups(runs):
        show(few)
    for run in runs:
        if left_out := run.read_metrics().get("left_out"):
            show(
                f"{run.name}: {len(left_out)} images that cannot be read any more are left out: {join_limited(left_out)}."
            )


def print_comparison(runs: Sequence[Run], comparison: Comparison) -> None:
    """Print what runs reach, means where seeds are several, and which differences are larger than chance."""
    print_results(runs)
    if any(len(one.runs) > 1 for one in comparison.results):
        show()
        print_compared_results(comparison)
    show()
    print_differences(comparison)


def print_compared_results(comparison: Comparison) -> None:
    """Print what each side of a comparison reaches; where it is several runs, their mean and deviation."""
    compared = select_table_metrics(comparison)
    table = new_table(f"on {comparison.split}", "images", "groups", *(HEADINGS[one] for one in compared), "majority")
    for one in comparison.results:
        cells = [str(one.metrics[figure]) for figure in compared]
        name = f"{one.name} ({len(one.runs)} runs)" if len(one.runs) > 1 else one.name
        table.add_row(name, str(one.n_images), str(one.n_groups), *cells, f"{one.majority_accuracy:.3f}")
    show(table)


def print_differences(comparison: Comparison) -> None:
    """Print which differences are larger than chance, or why that is not told."""
    compared = select_table_metrics(comparison)
    if comparison.not_compared_reason:
        show(f"{comparison.not_compared_reason}, so their differences are not tested.")
    if not comparison.differences:
        return
    table = new_table("difference", "figure", "value", "p", "p, adjusted", "McNemar's p", "larger than chance")
    for one in comparison.differences:
        if one.metric in compared:
            chances = [format_p_value(chance) for chance in (one.p_value, one.adjusted_p_value, one.mcnemar_p_value)]
            value = str(one.metric_value)
            beyond = "yes" if one.significant else "no"
            table.add_row(f"{one.first} – {one.second}", HEADINGS[one.metric], value, *chances, beyond)
    show(table)
    show(_FOOTNOTE)


def print_decisions(runs: Sequence[Run]) -> None:
    """Print what operating points, referral and groups together reach, where they were asked for."""
    _print_decision_tables(
        (run.name, split, metrics[split])
        for run in runs
        for metrics in [run.read_metrics()]
        for split in ("valid", "test")
        if metrics.get(split, {}).get("labelled")
    )


def _print_decision_tables(metrics_by_split: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Print what was decided of judgements, each with its run and what it is of."""
    points = new_table("operating point", "wished for", "split", "answer", "sensitivity", "specificity", "precision")
    referrals = new_table("referral", "split", "stated", "coverage", "referred", "accuracy of the rest")
    joined = new_table("together", "split", "weight of the others", "accuracy", "alone")
    for run, split, judged in metrics_by_split:
        if point := judged.get("operating"):
            # Of two answers the second is the positive one; between grades each is an answer of its own.
            answers = point["classes"][1:] if len(point["classes"]) == 2 else point["classes"]
            for answer in answers:
                own = {**point["per_class"][answer], "intervals": point["intervals"]["per_class"][answer]}
                cells = [format_metric(own, name) for name in ("recall", "specificity", "precision")]
                points.add_row(run, point["wish"], split, answer, *cells)
        if referral := judged.get("referral"):
            names = ("coverage", "referred", "accuracy_of_the_rest")
            cells = [format_share(referral[name]) for name in names]
            referrals.add_row(run, split, f"{referral['stated']:g}", *cells)
        if both := judged.get("together"):
            cells = [f"{both['weight']:.2f}", format_metric(both, "accuracy"), format_metric(judged, "accuracy")]
            joined.add_row(run, split, *cells)
    for table in (points, referrals, joined):
        if table.row_count:
            show()
            show(table)


def print_external_results(metrics_by_run: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what runs reach on other data, the majority baseline beside it, and what their decisions reach there."""
    same = all(one["kappa"] == one["quadratic_kappa"] for one in metrics_by_run.values())
    kappas = ("kappa",) if same else ("kappa", "quadratic_kappa")
    names = ("accuracy", "majority_accuracy", "balanced_accuracy", *kappas, "auc")
    table = new_table(
        "run", "images", *("majority" if name == "majority_accuracy" else HEADINGS[name] for name in names)
    )
    for name, one in metrics_by_run.items():
        table.add_row(name, str(one["count"]), *(format_metric(one, figure) for figure in names))
    show(table)
    first = next(iter(metrics_by_run.values()))
    show(f"Judged on {first['source']}")
    data = Path(first["data"]).name
    if few := format_few_groups((data, one) for one in metrics_by_run.values()):
        show(few)
    _print_decision_tables((name, data, one) for name, one in metrics_by_run.items())
