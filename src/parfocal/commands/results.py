"""What runs reached, and how they compare, as tables on standard output."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parfocal.commands.tables import new_table, show
from parfocal.documented import reported
from parfocal.errors import listing
from parfocal.evaluation.compare import Comparison, Value
from parfocal.report.words import (
    HEADINGS,
    chance_words,
    few_words,
    figure_of,
    figures_told,
    looks_told,
    looks_words,
    share_of,
    too_few,
)
from parfocal.run import Run

_ABOUT = (
    "Intervals of 95 % are drawn over groups, which are patients where the data names them. Chance is that of the "
    "images, not of training: compare several seeds for that."
)


def results_table(runs: Sequence[Run]) -> None:
    """Print what each run reached on validation and test with intervals, the majority baseline beside it.

    What a document reports stands beside it too, and the highest test accuracy over the epochs, where it was measured,
    is named as what it is.
    """
    figures_of = {run.name: reported(run.recipe) for run in runs}
    beside = ["reported"] if any(figures_of.values()) else []
    ordered = any(run.recipe.judgement.ordered for run in runs)
    figures = ["balanced_accuracy", "quadratic_kappa" if ordered else "kappa", "auc"]
    names = [HEADINGS[figure] for figure in figures]
    looks = looks_told(runs)
    looked = ["looks"] if looks else []
    table = new_table("run", "best epoch", "split", "images", *looked, "accuracy", *beside, "majority", *names)
    for run in runs:
        metrics = run.metrics()
        for split in ("valid", "test"):
            judged = metrics.get(split, {})
            if judged.get("labelled"):
                cells = [figure_of(judged, name) for name in ("accuracy", "majority_accuracy", *figures)]
                cells[1:1] = [str(Value(figures_of[run.name].get(split)))] if beside else []
                cells[:0] = [str(judged["count"]), *([looks[run.name]] if looks else [])]
                table.add_row(run.name, str(metrics["best_epoch"]), split, *cells)
        if highest := metrics.get("chosen_on_test"):
            words = f"{highest['accuracy']:.3f} (chosen on test, optimistic)"
            table.add_row(run.name, str(highest["epoch"]), "test", "", *("" for _ in looked), words)
    show(table)
    if looks:
        show(looks_words(runs))
    if few := too_few(runs):
        show(few)
    for run in runs:
        if left_out := run.metrics().get("left_out"):
            show(f"{run.name}: {len(left_out)} images that cannot be read any more are left out: {listing(left_out)}.")


def compared_tables(runs: Sequence[Run], comparison: Comparison) -> None:
    """Print what runs reach, means where seeds are several, and which differences are larger than chance."""
    results_table(runs)
    if any(len(one.runs) > 1 for one in comparison.results):
        show()
        comparison_table(comparison)
    show()
    difference_table(comparison)


def comparison_table(comparison: Comparison) -> None:
    """Print what each side of a comparison reaches; where it is several runs, their mean and deviation."""
    compared = figures_told(comparison)
    table = new_table(f"on {comparison.split}", "images", "groups", *(HEADINGS[one] for one in compared), "majority")
    for one in comparison.results:
        cells = [str(one.figures[figure]) for figure in compared]
        name = f"{one.name} ({len(one.runs)} runs)" if len(one.runs) > 1 else one.name
        table.add_row(name, str(one.images), str(one.groups), *cells, f"{one.majority_accuracy:.3f}")
    show(table)


def difference_table(comparison: Comparison) -> None:
    """Print which differences are larger than chance, or why that is not told."""
    compared = figures_told(comparison)
    if comparison.without_differences:
        show(f"{comparison.without_differences}, so their differences are not tested.")
    if not comparison.differences:
        return
    table = new_table("difference", "figure", "value", "p", "p, adjusted", "McNemar's p", "larger than chance")
    for one in comparison.differences:
        if one.figure in compared:
            chances = [chance_words(chance) for chance in (one.chance, one.adjusted, one.mcnemar)]
            value = str(one.shown)
            beyond = "yes" if one.larger_than_chance else "no"
            table.add_row(f"{one.one} – {one.other}", HEADINGS[one.figure], value, *chances, beyond)
    show(table)
    show(_ABOUT)


def decision_tables(runs: Sequence[Run]) -> None:
    """Print what operating points, referral and groups together reach, where they were asked for."""
    _decided_tables(
        (run.name, split, metrics[split])
        for run in runs
        for metrics in [run.metrics()]
        for split in ("valid", "test")
        if metrics.get(split, {}).get("labelled")
    )


def _decided_tables(named: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Print what was decided of judgements, each with its run and what it is of."""
    points = new_table("operating point", "wished for", "split", "answer", "sensitivity", "specificity", "precision")
    referrals = new_table("referral", "split", "stated", "coverage", "referred", "accuracy of the rest")
    joined = new_table("together", "split", "weight of the others", "accuracy", "alone")
    for run, split, judged in named:
        if point := judged.get("operating"):
            # Of two answers the second is the positive one; between grades each is an answer of its own.
            answers = point["classes"][1:] if len(point["classes"]) == 2 else point["classes"]
            for answer in answers:
                own = {**point["per_class"][answer], "intervals": point["intervals"]["per_class"][answer]}
                cells = [figure_of(own, name) for name in ("recall", "specificity", "precision")]
                points.add_row(run, point["wish"], split, answer, *cells)
        if referral := judged.get("referral"):
            names = ("coverage", "referred", "accuracy_of_the_rest")
            cells = [share_of(referral[name]) for name in names]
            referrals.add_row(run, split, f"{referral['stated']:g}", *cells)
        if both := judged.get("together"):
            cells = [f"{both['weight']:.2f}", figure_of(both, "accuracy"), figure_of(judged, "accuracy")]
            joined.add_row(run, split, *cells)
    for table in (points, referrals, joined):
        if table.row_count:
            show()
            show(table)


def elsewhere_table(judged: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what runs reach on other data, the majority baseline beside it, and what their decisions reach there."""
    same = all(one["kappa"] == one["quadratic_kappa"] for one in judged.values())
    kappas = ("kappa",) if same else ("kappa", "quadratic_kappa")
    names = ("accuracy", "majority_accuracy", "balanced_accuracy", *kappas, "auc")
    table = new_table(
        "run", "images", *("majority" if name == "majority_accuracy" else HEADINGS[name] for name in names)
    )
    for name, one in judged.items():
        table.add_row(name, str(one["count"]), *(figure_of(one, figure) for figure in names))
    show(table)
    first = next(iter(judged.values()))
    show(f"Judged on {first['source']}")
    data = Path(first["data"]).name
    if few := few_words((data, one) for one in judged.values()):
        show(few)
    _decided_tables((name, data, one) for name, one in judged.items())
