"""Figures over the epochs of runs, from the run folders alone: accuracy, loss, error, and predicted classes."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from parfocal.evaluation.alarms import PREDICTED_COLUMN_PREFIX
from parfocal.evaluation.metrics import get_metric
from parfocal.report.figure_style import BASELINE_STYLE, PALETTE, STYLE, add_legend, assign_colors, group_by_color
from parfocal.run import Run
from parfocal.training.stopping import is_better
from parfocal.training.test_curve import explain_missing_test_curve

_LINE_STYLES: dict[str, Any] = {"train": (0, (4, 2)), "valid": "solid", "test": (0, (1, 1.5))}
_LINE_LABELS = {"train": "train", "valid": "validation", "test": "test (not used to select)"}
# A curve of so few epochs has dots: one epoch would be invisible without.
_FEW_EPOCHS = 3
_MARKER_STYLE: dict[str, Any] = {"markersize": 8, "markeredgecolor": "white", "zorder": 5}


def draw_accuracy(runs: Sequence[Run]) -> Figure:
    """Draw the accuracy per epoch of all runs: train dashed, validation solid, test dotted if it was recorded."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        recorded_splits: set[str] = set()
        for run, color in zip(runs, assign_colors(runs), strict=True):
            history = run.read_history()
            for split, style in _LINE_STYLES.items():
                if f"{split}_accuracy" in history:
                    width = 2 if split == "valid" else 1.2
                    values = history[f"{split}_accuracy"]
                    _plot_curve(axes, history["epoch"], values, color=color, ls=style, lw=width)
                    recorded_splits.add(split)
            best_epoch = find_best_epoch(run)
            best_accuracy = history.loc[history["epoch"] == best_epoch, "valid_accuracy"]
            axes.plot([best_epoch], best_accuracy, "o", color=color, **_MARKER_STYLE)
        counts = runs[0].read_environment()["data"]["counts"]["valid"].values()
        axes.axhline(max(counts) / max(1, sum(counts)), **BASELINE_STYLE)
        _format_percent_axes(axes, "Accuracy")
        axes.set_ylim(top=min(1.01, axes.get_ylim()[1] + 0.01))
        lines = _build_legend_lines(runs, linewidth=2)
        lines += [
            Line2D([], [], color="#555", linestyle=style, label=_LINE_LABELS[split])
            for split, style in _LINE_STYLES.items()
            if split in recorded_splits
        ]
        lines.append(Line2D([], [], color="#555", marker="o", linestyle="none", label="best epoch"))
        lines.append(Line2D([], [], color="#999", linewidth=1, label="majority class"))
        add_legend(figure, lines)
    return figure


def describe_missing_test_curve(runs: Sequence[Run]) -> str:
    """Return why there is no test accuracy per epoch although a recipe asks for it; empty if there is one."""
    if not any(run.recipe.training.test_curve for run in runs):
        return ""
    data = runs[0].read_environment()["data"]
    return explain_missing_test_curve(data["rows"], data["counts"])


def draw_learning_curves(runs: Sequence[Run]) -> Figure:
    """Draw the loss and the learning rate of all runs, and the metric that selects the epoch if it is another."""
    select_metrics = {run.recipe.training.select for run in runs}
    select = select_metrics.pop() if len(select_metrics) == 1 and not select_metrics & {"loss", "accuracy"} else ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12 if select else 9, 3.6), layout="constrained")
        loss_axes, *select_axes, rate_axes = figure.subplots(1, 3 if select else 2)
        for run, color in zip(runs, assign_colors(runs), strict=True):
            history = run.read_history()
            epochs = history["epoch"]
            best = history.loc[epochs == find_best_epoch(run)]
            _plot_curve(loss_axes, epochs, history["train_loss"], color=color, ls=_LINE_STYLES["train"], lw=1.2)
            for axes, column in zip((loss_axes, *select_axes), ("valid_loss", f"valid_{select}"), strict=False):
                _plot_curve(axes, epochs, history[column], color=color, linewidth=2)
                axes.plot(best["epoch"], best[column], "o", color=color, **_MARKER_STYLE)
            _plot_curve(rate_axes, epochs, history["learning_rate"], color=color)
        _format_epoch_axes(loss_axes, "Loss")
        for axes in select_axes:
            _format_epoch_axes(axes, f"{get_metric(select).title} on validation")
        _format_epoch_axes(rate_axes, "Learning rate (mean of the epoch)")
        rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        add_legend(figure, _build_legend_lines(runs))
    return figure


def find_best_epoch(run: Run) -> int:
    """Return the epoch whose weights are kept; for a run in training, the best epoch so far."""
    if run.is_finished:
        return run.read_metrics()["best_epoch"]
    select = run.recipe.training.select
    values = run.read_history()[f"valid_{select}"].tolist()
    best = 0
    for index, value in enumerate(values):
        if is_better(value, values[best], select):
            best = index
    return best + 1


def draw_predicted_shares(run: Run) -> Figure:
    """Draw the share of each class among the validation predictions per epoch; dotted lines are the true shares."""
    history = run.read_history()
    counts = run.read_environment()["data"]["counts"]["valid"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        for number, (name, count) in enumerate(counts.items()):
            color = PALETTE[number % len(PALETTE)]
            _plot_curve(axes, history["epoch"], history[PREDICTED_COLUMN_PREFIX + name], color=color, label=name)
            axes.axhline(count / max(1, sum(counts.values())), color=color, linewidth=1, linestyle=_LINE_STYLES["test"])
        for alarm in run.read_metrics()["alarms"]:
            axes.axvspan(alarm["since"] - 0.5, alarm["until"] + 0.5, color="#d55e00", alpha=0.12, linewidth=0)
        _format_percent_axes(axes, "Share of predictions")
        add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def draw_error(runs: Sequence[Run]) -> Figure:
    """Draw training and test (else validation) error as in the paper on residual networks, plain networks dashed."""
    histories = [run.read_history() for run in runs]
    has_test = all("test_accuracy" in history for history in histories)
    held_out = ("Test error", "test_accuracy") if has_test else ("Validation error", "valid_accuracy")
    panels = [("Training error", "train_accuracy"), held_out]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, (title, column) in zip((left, right), panels, strict=True):
            for run, history, color in zip(runs, histories, assign_colors(runs), strict=True):
                style = "dashed" if is_plain(run) else "solid"
                _plot_curve(axes, history["epoch"], 1 - history[column], color=color, ls=style, label=run.name)
            _format_percent_axes(axes, "Error", title)
        add_legend(figure, left.get_legend_handles_labels()[0])
    return figure


def is_plain(run: Run) -> bool:
    """Return whether a run's network is a plain network, without shortcuts."""
    return run.recipe.network.model.startswith("plain")


def _build_legend_lines(runs: Sequence[Run], **style: Any) -> list[Line2D]:
    """Return a line for the legend in the color of each run or group of runs."""
    color_of = dict(zip([run.name for run in runs], assign_colors(runs), strict=True))
    return [
        Line2D([], [], color=color_of[group[0].name], label=name, **style)
        for name, group in group_by_color(runs).items()
    ]


def _plot_curve(axes: Axes, epochs: pd.Series, values: pd.Series, **style: Any) -> None:
    """Plot a value per epoch, with dots if there are few epochs."""
    marker = "." if len(epochs) <= _FEW_EPOCHS else None
    axes.plot(epochs, values, marker=marker, **style)


def _format_percent_axes(axes: Axes, label: str, title: str = "") -> None:
    axes.set_title(title, fontsize=10)
    _format_epoch_axes(axes, label)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _format_epoch_axes(axes: Axes, label: str) -> None:
    axes.set_xlabel("Epoch")
    axes.set_ylabel(label)
    # With a single epoch, Matplotlib would otherwise add fractions of epochs.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
