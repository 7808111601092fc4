"""Figures over epochs, drawn from run folders alone; and the one style and form of every figure of a report."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from parfocal.evaluation.alarms import PREDICTED_COLUMN_PREFIX
from parfocal.evaluation.compare import group_runs
from parfocal.io import atomic_write
from parfocal.report.formatting import format_metric_title
from parfocal.run import Run
from parfocal.training.early_stopping import is_better

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey by their lightness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_NETWORK_COLORS = {"resnet18": 0, "resnet50": 1, "resnet152": 2, "resnet34": 3, "resnet101": 4}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    # Letters stay letters: smaller files, which can be searched and are read aloud.
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "svg.hashsalt": "parfocal",
    # A name with two dollar signs is no formula.
    "text.parse_math": False,
    "savefig.dpi": 160,
}


_LINE_STYLES: dict[str, Any] = {"train": (0, (4, 2)), "valid": "solid", "test": (0, (1, 1.5))}
_MARKER_STYLE: dict[str, Any] = {"markersize": 8, "markeredgecolor": "white", "zorder": 5}


def assign_colors(runs: Sequence[Run]) -> list[str]:
    """Return one colour a run: always the same for a network, unless a network stands there more than once.

    Where runs are more than colours, those that differ in their seed alone share one.
    """
    models = [run.recipe.network.model for run in runs]
    if len(set(models)) == len(models) and all(model in _NETWORK_COLORS for model in models):
        return [PALETTE[_NETWORK_COLORS[model]] for model in models]
    own = {
        run.name: PALETTE[place % len(PALETTE)]
        for place, sharing in enumerate(_group_by_color(runs).values())
        for run in sharing
    }
    return [own[run.name] for run in runs]


def _group_by_color(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return which runs share a colour, by the name that a legend has for them."""
    if len(runs) <= len(PALETTE):
        return {run.name: [run] for run in runs}
    families = group_runs(runs).items()
    return {f"{name} ({len(family)} runs)" if len(family) > 1 else name: family for name, family in families}


def _map_legend_colors(runs: Sequence[Run]) -> dict[str, str]:
    """Return the colour of each name of a legend."""
    own = dict(zip([run.name for run in runs], assign_colors(runs), strict=True))
    return {name: own[sharing[0].name] for name, sharing in _group_by_color(runs).items()}


def draw_accuracy(runs: Sequence[Run]) -> Figure:
    """Draw accuracy per epoch of all runs: train dashed, validation solid, test dotted where it was measured."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        drawn: set[str] = set()
        for run, colour in zip(runs, assign_colors(runs), strict=True):
            history, best = run.read_history(), find_best_epoch(run)
            for phase, style in _LINE_STYLES.items():
                if f"{phase}_accuracy" in history:
                    strong = phase == "valid"
                    values = history[f"{phase}_accuracy"]
                    axes.plot(history["epoch"], values, color=colour, linestyle=style, linewidth=2 if strong else 1.2)
                    drawn.add(phase)
            chosen = history.loc[history["epoch"] == best, "valid_accuracy"]
            axes.plot([best], chosen, "o", color=colour, **_MARKER_STYLE)
        counts = runs[0].read_environment()["data"]["counts"]["valid"].values()
        axes.axhline(max(counts) / max(1, sum(counts)), color="#999", linewidth=1, zorder=0)
        _format_percent_axes(axes, "Accuracy")
        axes.set_ylim(top=min(1.01, axes.get_ylim()[1] + 0.01))
        names = [
            Line2D([], [], color=colour, linewidth=2, label=name) for name, colour in _map_legend_colors(runs).items()
        ]
        words = {"train": "train", "valid": "validation", "test": "test (chooses nothing)"}
        names += [
            Line2D([], [], color="#555", linestyle=_LINE_STYLES[p], label=words[p]) for p in _LINE_STYLES if p in drawn
        ]
        names.append(Line2D([], [], color="#555", marker="o", linestyle="none", label="chosen epoch"))
        names.append(Line2D([], [], color="#999", linewidth=1, label="majority class"))
        add_legend(figure, names)
    return figure


def draw_learning_curves(runs: Sequence[Run]) -> Figure:
    """Draw the loss of all runs, train dashed and validation solid, what chose the epochs, and the learning rate.

    What chose the epochs has a figure of its own where it is neither the loss nor the accuracy, and the same for all.
    """
    selects = {run.recipe.training.select for run in runs}
    chosen = selects.pop() if len(selects) == 1 and not selects & {"loss", "accuracy"} else ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12 if chosen else 9, 3.6), layout="constrained")
        losses, *between, rates = figure.subplots(1, 3 if chosen else 2)
        for run, colour in zip(runs, assign_colors(runs), strict=True):
            history = run.read_history()
            at_best = history.loc[history["epoch"] == find_best_epoch(run)]
            losses.plot(
                history["epoch"], history["train_loss"], color=colour, linestyle=_LINE_STYLES["train"], linewidth=1.2
            )
            for axes, column in zip((losses, *between), ("valid_loss", f"valid_{chosen}"), strict=False):
                axes.plot(history["epoch"], history[column], color=colour, linewidth=2)
                axes.plot(at_best["epoch"], at_best[column], "o", color=colour, **_MARKER_STYLE)
            rates.plot(history["epoch"], history["learning_rate"], color=colour)
        _format_epoch_axes(losses, "Loss")
        for axes in between:
            _format_epoch_axes(axes, f"{format_metric_title(chosen)} on validation")
        _format_epoch_axes(rates, "Learning rate, mean of the epoch")
        rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        names = [Line2D([], [], color=colour, label=name) for name, colour in _map_legend_colors(runs).items()]
        add_legend(figure, names)
    return figure


def find_best_epoch(run: Run) -> int:
    """Return the epoch whose weights are kept; of a run that is not finished, the best one so far."""
    if run.is_finished:
        return run.read_metrics()["best_epoch"]
    select, best = run.recipe.training.select, 0
    values = run.read_history()[f"valid_{select}"].tolist()
    for place, value in enumerate(values):
        best = place if is_better(value, values[best], select) else best
    return best + 1


def draw_predicted_shares(run: Run) -> Figure:
    """Draw, for each epoch, what share of the predictions on validation each class is; its true share as a line."""
    history, true = run.read_history(), run.read_environment()["data"]["counts"]["valid"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        for number, (name, count) in enumerate(true.items()):
            colour = PALETTE[number % len(PALETTE)]
            axes.plot(history["epoch"], history[PREDICTED_COLUMN_PREFIX + name], color=colour, label=name)
            axes.axhline(count / max(1, sum(true.values())), color=colour, linewidth=1, linestyle=_LINE_STYLES["test"])
        for alarm in run.read_metrics()["alarms"]:
            axes.axvspan(alarm["since"] - 0.5, alarm["until"] + 0.5, color="#d55e00", alpha=0.12, linewidth=0)
        _format_percent_axes(axes, "Share of predictions")
        add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def draw_error(runs: Sequence[Run]) -> Figure:
    """Draw training error on the left and test error on the right, as the paper on residual networks does.

    Where the test curve was not measured the right side is the validation error. Networks without shortcuts are dashed.
    """
    histories = [run.read_history() for run in runs]
    measured = all("test_accuracy" in history for history in histories)
    sides = {"Training error": "train_accuracy", "Test error": "test_accuracy"}
    if not measured:
        sides = {"Training error": "train_accuracy", "Validation error": "valid_accuracy"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, (title, column) in zip((left, right), sides.items(), strict=True):
            for run, history, colour in zip(runs, histories, assign_colors(runs), strict=True):
                style = "dashed" if is_plain(run) else "solid"
                axes.plot(history["epoch"], 1 - history[column], color=colour, linestyle=style, label=run.name)
            _format_percent_axes(axes, "Error", title)
        add_legend(figure, left.get_legend_handles_labels()[0])
    return figure


def is_plain(run: Run) -> bool:
    """Say whether a run's network has no shortcuts."""
    return run.recipe.network.model.startswith("plain")


def add_legend(figure: Figure, artists: Sequence[Artist], *, below: bool = False) -> None:
    """Put a legend beside the axes, or below them in columns; a long name takes several lines, to leave them room."""
    names = [fill(str(one.get_label()), 28) for one in artists]
    place = "outside lower center" if below else "outside right upper"
    figure.legend(artists, names, loc=place, ncols=3 if below else 1, frameon=False)


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG and PNG."""
    with mpl.rc_context(STYLE):
        # Laid out once, and not again for each form, nor drawn before it only to see whether it would be.
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
        for suffix in ("svg", "png"):
            with atomic_write(folder / f"{name}.{suffix}") as beside:
                figure.savefig(beside, format=suffix, metadata={"Date": None} if suffix == "svg" else None)


def _format_percent_axes(axes: Axes, name: str, title: str = "") -> None:
    axes.set_title(title, fontsize=10)
    _format_epoch_axes(axes, name)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _format_epoch_axes(axes: Axes, name: str) -> None:
    axes.set_xlabel("Epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
