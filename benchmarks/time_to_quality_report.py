"""Tables and figure of a time-to-quality benchmark, from the results of its single trainings."""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.finetuning import OURS, TRAINERS
from benchmarks.machine import describe_command
from benchmarks.pages import describe_origin, save_svg
from parfocal.io import write_text
from parfocal.markdown import Markdown, format_code_block, format_markdown_table
from parfocal.report.figure_style import PALETTE, STYLE, add_legend

LEVELS = (0.70, 0.80, 0.85)
METRICS = {"accuracy": "Accuracy", "kappa": "Quadratic kappa"}
QUALITIES = {
    "accuracy": "accuracy",
    "kappa": "quadratic kappa, most probable class",
    "kappa_of_mean": "quadratic kappa, rounded mean grade",
    "auc": "AUC",
}


def minutes_to_reach(results: Iterable[dict[str, Any]], metric: str, level: float) -> float:
    """Return the minutes of the shortest training that reaches a level; infinity if none does."""
    return min((result["minutes"] for result in results if result[metric] >= level), default=math.inf)


def summarize(results: Sequence[dict[str, Any]], start: str) -> dict[str, dict[str, Any]]:
    """Return for each trainer the minutes to each level, as medians over seeds, and its longest training.

    Minutes are None where at least half of the seeds never reach the level.
    """
    summary: dict[str, dict[str, Any]] = {}
    for trainer in TRAINERS:
        by_seed: dict[int, list[dict[str, Any]]] = {}
        for result in results:
            if (result["trainer"], result["start"]) == (trainer, start):
                by_seed.setdefault(result["seed"], []).append(result)
        if not by_seed:
            continue
        minutes = {
            f"{metric} {level:.2f}": statistics.median(
                minutes_to_reach(of_seed, metric, level) for of_seed in by_seed.values()
            )
            for metric, level in itertools.product(METRICS, LEVELS)
        }
        longest = statistics.median(max(result["minutes"] for result in of_seed) for of_seed in by_seed.values())
        summary[trainer] = {
            "longest": longest,
            **{name: None if math.isinf(value) else value for name, value in minutes.items()},
        }
    return summary


def compute_ratios(summary: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Return how many times Parfocal's minutes the best other trainer and the source documents' recipe need, by level.

    A level that is not reached counts as more than the longest training: `> 3.2`.
    """
    if OURS not in summary:
        return {}
    others = {name: row for name, row in summary.items() if name != OURS}
    ratios: dict[str, dict[str, str]] = {}
    for level, ours in summary[OURS].items():
        if level == "longest" or ours is None:
            continue
        reached = [row[level] for row in others.values() if row[level] is not None]
        ratios[level] = {}
        if others:
            best = min(reached, default=min(row["longest"] for row in others.values()))
            ratios[level]["best other"] = f"{'' if reached else '> '}{best / ours:.1f}"
        if documents := others.get("documents"):
            value = documents[level]
            sign = "> " if value is None else ""
            ratios[level]["documents"] = f"{sign}{(documents['longest'] if value is None else value) / ours:.1f}"
    return ratios


def format_minutes(summary: dict[str, dict[str, Any]], left_out: dict[str, str]) -> Markdown:
    """Format the minutes to each level as a Markdown table."""
    levels = [f"{metric} {level:.2f}" for metric, level in itertools.product(METRICS, LEVELS)]
    rows: list[list[str]] = []
    for trainer, row in summary.items():
        cells = [f"> {row['longest']:.3g}" if row[level] is None else f"{row[level]:.3g}" for level in levels]
        rows.append([trainer, *cells])
    rows += [[trainer, reason, *["–"] * (len(levels) - 1)] for trainer, reason in left_out.items()]
    return format_markdown_table(["processor minutes to", *levels], rows)


def format_quality(results: Sequence[dict[str, Any]], start: str) -> Markdown:
    """Format the medians over seeds of each trainer and length as a Markdown table."""
    by_length: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        if result["start"] == start:
            by_length.setdefault((result["trainer"], result["length"]), []).append(result)
    rows = [
        [
            trainer,
            length,
            len(group),
            f"{statistics.median(result['minutes'] for result in group):.3g}",
            f"{statistics.median(result['wall_minutes'] for result in group):.3g}",
            *(f"{statistics.median(result[name] for result in group):.3f}" for name in QUALITIES),
        ]
        for (trainer, length), group in by_length.items()
    ]
    return format_markdown_table(
        ["trainer", "length", "seeds", "processor minutes", "minutes", *QUALITIES.values()], rows
    )


def write_page(path: Path, data: str, results: Sequence[dict[str, Any]], left_out: dict[str, str]) -> None:
    """Write the tables of all starts as a Markdown page."""
    seeds = ", ".join(map(str, sorted({result["seed"] for result in results})))
    lines = [
        f"# Time to quality: {data}",
        "",
        f"{describe_origin(results)}. Medians over seeds {seeds}.",
        "",
        f"![Accuracy and quadratic kappa over processor minutes]({path.stem}.svg)",
    ]
    for start in dict.fromkeys(result["start"] for result in results):
        summary = summarize(results, start)
        lines += ["", f"## From {start}", "", format_minutes(summary, left_out), "", format_quality(results, start)]
        if ratios := compute_ratios(summary):
            headings = list(next(iter(ratios.values())))
            rows = [[level, *values.values()] for level, values in ratios.items()]
            lines += ["", format_markdown_table(["÷ Parfocal", *headings], rows)]
    write_text(path, "\n".join([*lines, "", format_code_block(describe_command(), "sh"), ""]))


def save_curves(results: Sequence[dict[str, Any]], folder: Path, name: str) -> None:
    """Draw a line of medians for each trainer and a dot for each training, a row for each start; write an SVG."""
    starts = list(dict.fromkeys(result["start"] for result in results))
    trainers = list(dict.fromkeys(result["trainer"] for result in results))
    if not results:
        return
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.6 * len(starts)), layout="constrained")
        grid = figure.subplots(len(starts), len(METRICS), squeeze=False)
        for start, axes_of_start in zip(starts, grid, strict=True):
            for axes, (metric, title) in zip(axes_of_start, METRICS.items(), strict=True):
                for trainer, color in zip(trainers, PALETTE, strict=False):
                    chosen = [each for each in results if (each["trainer"], each["start"]) == (trainer, start)]
                    _draw_trainer(axes, chosen, metric, trainer, color)
                axes.set(title=f"{title}, from {start}", xlabel="Processor minutes", xscale="log", ylim=(None, 1))
                axes.xaxis.set_major_formatter("{x:g}")
        add_legend(figure, grid[0][0].get_lines())
    save_svg(figure, folder, name)


def _draw_trainer(axes: Axes, results: Sequence[dict[str, Any]], metric: str, trainer: str, color: str) -> None:
    by_length: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_length.setdefault(result["length"], []).append(result)
    points = sorted(
        (
            statistics.median(result["minutes"] for result in group),
            statistics.median(result[metric] for result in group),
        )
        for group in by_length.values()
    )
    axes.plot([x for x, _ in points], [y for _, y in points], color=color, marker="o", markersize=4, label=trainer)
    axes.scatter(
        [result["minutes"] for result in results], [result[metric] for result in results], color=color, s=8, alpha=0.5
    )
