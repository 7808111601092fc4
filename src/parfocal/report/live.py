"""The page of a run while it trains: how far it is and how it goes, drawn anew after each epoch."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parfocal.evaluation.alarms import alarms
from parfocal.io import write_text
from parfocal.report.figures import assign_colors, draw_accuracy, draw_learning_curves, find_best_epoch, save_figure
from parfocal.report.formatting import format_metric_name
from parfocal.report.render import render
from parfocal.report.report import embed_svg
from parfocal.run import Run, find_runs

# Where epochs are shorter than drawing takes, most of the time is still for training.
_MIN_PAUSE_FACTOR = 10


def make_live_callback() -> Callable[[Run], Path | None]:
    """Return what redraws `report.html` in a run's folder after an epoch, to be handed to `train` as `after_epoch`.

    Where the folder above holds several runs that have begun, its page is redrawn too, with all of them. Each page asks
    the browser to load it again every so often; the finished report takes its place at the end.
    """
    last, cost = 0.0, 0.0

    def redraw(run: Run) -> Path | None:
        nonlocal last, cost
        started = time.monotonic()
        if started - last < _MIN_PAUSE_FACTOR * cost:
            return None
        page = write_live_page([run], run.folder / "report.html")
        beside = [one for one in find_runs(run.folder.parent) if (one.folder / "history.csv").is_file()]
        if len(beside) > 1:
            write_live_page(beside, run.folder.parent / "report.html")
        last = time.monotonic()
        cost = last - started
        return page

    return redraw


def write_live_page(runs: Sequence[Run], page: Path) -> Path:
    """Write the page of runs that have finished at least one epoch."""
    figures = page.parent / "figures"
    save_figure(draw_accuracy(runs), figures, "accuracy")
    save_figure(draw_learning_curves(runs), figures, "learning")
    drawn = {name: embed_svg(figures / f"{name}.svg") for name in ("accuracy", "learning")}
    shown = [{"colour": colour, **_build_progress(run)} for run, colour in zip(runs, assign_colors(runs), strict=True)]
    write_text(page, render("live.html", runs=shown, drawn=drawn))
    return page


def _build_progress(run: Run) -> dict[str, Any]:
    history, part = run.read_history(), run.recipe.training
    rows = history.to_dict("records")
    row, best = rows[-1], rows[find_best_epoch(run) - 1]
    left = max(0, part.epochs - len(rows)) * float(history["seconds"].tail(3).mean())
    if part.minutes:
        left = max(0.0, part.minutes * 60 - float(history["seconds"].sum()))
    counts = run.read_environment()["data"]["counts"]["valid"]
    return {
        "name": run.name,
        "epoch": len(rows),
        "of": f"{part.minutes:g} min" if part.minutes else str(part.epochs),
        "left": 0.0 if run.is_finished else left,
        "finished": run.is_finished,
        "row": row,
        "best": best,
        "select": format_metric_name(part.select),
        "best_value": best[f"valid_{part.select}"],
        "majority": max(counts.values()) / max(1, sum(counts.values())),
        "alarms": [alarm.text for alarm in alarms(rows, counts, run.recipe)],
    }
