"""The page of a run while it trains: how far it is and how it goes, drawn anew after each epoch."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parfocal.evaluation.watch import alarms
from parfocal.files import write_text
from parfocal.report.content import embedded
from parfocal.report.figures import accuracy_figure, chosen_epoch, colours, learning_figure, save
from parfocal.report.render import render
from parfocal.report.words import words_of
from parfocal.run import Run, runs_in

# Where epochs are shorter than drawing takes, most of the time is still for training.
_PATIENCE = 10


def live() -> Callable[[Run], Path | None]:
    """Return what redraws `report.html` in a run's folder after an epoch, to be handed to `train` as `after_epoch`.

    Where the folder above holds several runs that have begun, its page is redrawn too, with all of them. Each page asks
    the browser to load it again every so often; the finished report takes its place at the end.
    """
    last, cost = 0.0, 0.0

    def redraw(run: Run) -> Path | None:
        nonlocal last, cost
        started = time.monotonic()
        if started - last < _PATIENCE * cost:
            return None
        page = write_live_page([run], run.folder / "report.html")
        beside = [one for one in runs_in(run.folder.parent) if (one.folder / "history.csv").is_file()]
        if len(beside) > 1:
            write_live_page(beside, run.folder.parent / "report.html")
        last = time.monotonic()
        cost = last - started
        return page

    return redraw


def write_live_page(runs: Sequence[Run], page: Path) -> Path:
    """Write the page of runs that have finished at least one epoch."""
    figures = page.parent / "figures"
    save(accuracy_figure(runs), figures, "accuracy")
    save(learning_figure(runs), figures, "learning")
    drawn = {name: embedded(figures / f"{name}.svg") for name in ("accuracy", "learning")}
    shown = [{"colour": colour, **_so_far(run)} for run, colour in zip(runs, colours(runs), strict=True)]
    write_text(page, render("live.html", runs=shown, drawn=drawn))
    return page


def _so_far(run: Run) -> dict[str, Any]:
    history, part = run.history(), run.recipe.training
    rows = history.to_dict("records")
    row, best = rows[-1], rows[chosen_epoch(run) - 1]
    left = max(0, part.epochs - len(rows)) * float(history["seconds"].tail(3).mean())
    if part.minutes:
        left = max(0.0, part.minutes * 60 - float(history["seconds"].sum()))
    counts = run.environment()["data"]["counts"]["valid"]
    return {
        "name": run.name,
        "epoch": len(rows),
        "of": f"{part.minutes:g} min" if part.minutes else str(part.epochs),
        "left": 0.0 if run.finished else left,
        "finished": run.finished,
        "row": row,
        "best": best,
        "select": words_of(part.select),
        "best_value": best[f"valid_{part.select}"],
        "majority": max(counts.values()) / max(1, sum(counts.values())),
        "alarms": [alarm.text for alarm in alarms(rows, counts, run.recipe)],
    }
