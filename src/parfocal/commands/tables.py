"""Results as tables on standard output, plain where it is not a terminal."""

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from parfocal.documented import reported
from parfocal.errors import listing
from parfocal.run import Run


def results_table(runs: Sequence[Run]) -> None:
    """Print what each run reached on validation and test, the majority baseline and what is reported beside it."""
    figures_of = {run.name: reported(run.recipe) for run in runs}
    beside = ["reported"] if any(figures_of.values()) else []
    table = _table("run", "best epoch", "split", "images", "accuracy", *beside, "majority", "balanced", "kappa", "AUC")
    for run in runs:
        metrics = run.metrics()
        for split in ("valid", "test"):
            judged = metrics.get(split, {})
            if judged.get("labelled"):
                names = ("accuracy", "majority_accuracy", "balanced_accuracy", "kappa", "auc")
                figures = [_figure(judged[name]) for name in names]
                figures[1:1] = [_figure(figures_of[run.name].get(split))] if beside else []
                table.add_row(run.name, str(metrics["best_epoch"]), split, str(judged["count"]), *figures)
    show(table)
    for run in runs:
        if left_out := run.metrics().get("left_out"):
            print(f"{run.name}: {len(left_out)} images that cannot be read any more are left out: {listing(left_out)}.")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def plain_table(*headings: str, rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text below headings."""
    table = _table(*headings)
    for row in rows:
        table.add_row(*row)
    show(table)


def show(table: Table) -> None:
    """Print a table as wide as the terminal, or as it needs to be where there is none."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=200)
    console.print(table)


def _table(*headings: str) -> Table:
    words = {
        "split", "about", "experiments", "from", "trains", "value", "default", "whose", "meaning", "reason", "code",
        "finding",
    }  # fmt: skip
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 or heading in words else "right")
    return table
