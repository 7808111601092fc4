"""The page of a run in training: its progress and learning curves, rewritten after each epoch."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parfocal.evaluation.alarms import alarms
from parfocal.evaluation.metrics import get_metric
from parfocal.io import reject_link, write_text
from parfocal.report.figure_style import assign_colors, save_figure
from parfocal.report.html import embed_image, render
from parfocal.report.learning_curves import draw_accuracy, draw_learning_curves, find_best_epoch
from parfocal.run import Run, find_runs

# If an epoch is shorter than drawing takes, most of the time must remain for training.
_MIN_PAUSE_FACTOR = 10


def make_live_callback() -> Callable[[Run], Path | None]:
    """Return a callback that rewrites `report.html` in a run's folder; pass it to `train` as `after_epoch`.

    If more runs have started in the parent folder, the callback also rewrites its page, which shows all of them. Each
    page asks the browser to reload it. The report of the finished run replaces the page at the end.
    """
    last_time = 0.0
    duration = 0.0

    def rewrite(run: Run) -> Path | None:
        nonlocal last_time, duration
        start_time = time.monotonic()
        if start_time - last_time < _MIN_PAUSE_FACTOR * duration:
            return None
        page = write_live_page([run], run.folder / "report.html")
        started_runs = [other for other in find_runs(run.folder.parent) if (other.folder / "history.csv").is_file()]
        if len(started_runs) > 1:
            write_live_page(started_runs, run.folder.parent / "report.html")
        last_time = time.monotonic()
        duration = last_time - start_time
        return page

    return rewrite


def write_live_page(runs: Sequence[Run], page: Path) -> Path:
    """Write the page of runs that have finished an epoch or more."""
    folder = reject_link(page.parent / "figures")
    save_figure(draw_accuracy(runs), folder, "accuracy")
    save_figure(draw_learning_curves(runs), folder, "learning-curves")
    text = render(
        "live.html",
        runs=[{"color": color, **_build_progress(run)} for run, color in zip(runs, assign_colors(runs), strict=True)],
        accuracy_figure=embed_image(folder / "accuracy.svg"),
        learning_curves_figure=embed_image(folder / "learning-curves.svg"),
    )
    write_text(page, text)
    return page


def _build_progress(run: Run) -> dict[str, Any]:
    history = run.read_history()
    config = run.recipe.training
    rows = history.to_dict("records")
    best = rows[find_best_epoch(run) - 1]
    if run.is_finished:
        seconds_left = 0.0
    elif config.minutes:
        seconds_left = max(0.0, config.minutes * 60 - float(history["seconds"].sum()))
    else:
        seconds_left = max(0, config.n_epochs - len(rows)) * float(history["seconds"].tail(3).mean())
    counts = run.read_environment()["data"]["counts"]["valid"]
    return {
        "name": run.name,
        "epoch": len(rows),
        "limit": f"{config.minutes:g} min" if config.minutes else str(config.n_epochs),
        "seconds_left": seconds_left,
        "is_finished": run.is_finished,
        "last": rows[-1],
        "best": best,
        "select": config.select,
        "select_label": get_metric(config.select).label,
        "best_value": best[f"valid_{config.select}"],
        "majority_accuracy": max(counts.values()) / max(1, sum(counts.values())),
        "alarms": [alarm.text for alarm in alarms(rows, counts, run.recipe)],
    }
