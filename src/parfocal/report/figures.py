"""Every figure of a report, drawn from run folders alone, in one style and as SVG and PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from parfocal.files import whole
from parfocal.run import Run

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey by their lightness.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_OF_NETWORK = {"resnet18": 0, "resnet50": 1, "resnet152": 2, "resnet34": 3, "resnet101": 4}
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "svg.hashsalt": "parfocal",
    "savefig.dpi": 160,
}


def colours(runs: Sequence[Run]) -> list[str]:
    """Return one colour a run: always the same for a network, unless a network stands there more than once."""
    models = [run.recipe.network.model for run in runs]
    fixed = len(set(models)) == len(models) and all(model in _OF_NETWORK for model in models)
    places = [_OF_NETWORK[model] for model in models] if fixed else range(len(runs))
    return [_PALETTE[place % len(_PALETTE)] for place in places]


def accuracy_figure(runs: Sequence[Run]) -> Figure:
    """Draw accuracy per epoch of all runs: train dashed, validation solid, test dotted where it was measured."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        styles = {"train": (0, (4, 2)), "valid": "solid", "test": (0, (1, 1.5))}
        drawn: set[str] = set()
        for run, colour in zip(runs, colours(runs), strict=True):
            history, best = run.history(), run.metrics()["best_epoch"]
            for phase, style in styles.items():
                if f"{phase}_accuracy" in history:
                    strong = phase == "valid"
                    values = history[f"{phase}_accuracy"]
                    axes.plot(history["epoch"], values, color=colour, linestyle=style, linewidth=2 if strong else 1.2)
                    drawn.add(phase)
            chosen = history.loc[history["epoch"] == best, "valid_accuracy"]
            axes.plot([best], chosen, "o", color=colour, markersize=8, markeredgecolor="white", zorder=5)
        _majority_line(axes, runs[0].metrics()["valid"])
        _share_axes(axes, "Accuracy")
        axes.set_ylim(top=min(1.01, axes.get_ylim()[1] + 0.01))
        names = [
            Line2D([], [], color=c, linewidth=2, label=run.name) for run, c in zip(runs, colours(runs), strict=True)
        ]
        words = {"train": "train", "valid": "validation", "test": "test (chooses nothing)"}
        names += [Line2D([], [], color="#555", linestyle=styles[p], label=words[p]) for p in styles if p in drawn]
        names.append(Line2D([], [], color="#555", marker="o", linestyle="none", label="chosen epoch"))
        names.append(Line2D([], [], color="#999", linewidth=1, label="majority class"))
        figure.legend(handles=names, loc="outside right upper", frameon=False)
    return figure


def error_figure(runs: Sequence[Run]) -> Figure:
    """Draw training error on the left and test error on the right, as the paper on residual networks does.

    Where the test curve was not measured the right side is the validation error. Networks without shortcuts are dashed.
    """
    histories = [run.history() for run in runs]
    measured = all("test_accuracy" in history for history in histories)
    sides = {"Training error": "train_accuracy", "Test error": "test_accuracy"}
    if not measured:
        sides = {"Training error": "train_accuracy", "Validation error": "valid_accuracy"}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, (title, column) in zip((left, right), sides.items(), strict=True):
            for run, history, colour in zip(runs, histories, colours(runs), strict=True):
                style = "dashed" if is_plain(run) else "solid"
                axes.plot(history["epoch"], 1 - history[column], color=colour, linestyle=style, label=run.name)
            _share_axes(axes, "Error", title)
        figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def is_plain(run: Run) -> bool:
    """Say whether a run's network has no shortcuts."""
    return run.recipe.network.model.startswith("plain")


def confusion_figure(title: str, judged: dict[str, Any]) -> Figure:
    """Draw the confusion matrix of a judged split twice, as counts and as shares of each true class."""
    counts = np.array(judged["confusion"])
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = 2.2 + 0.62 * len(counts)
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(2 * side + 0.8, side + 0.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        figure.suptitle(title)
        _matrix(left, shares, [[f"{value:,}" for value in row] for row in counts], judged["classes"], "Counts")
        texts = [[f"{value:.1%}" if totals[row, 0] else "–" for value in shares[row]] for row in range(len(counts))]
        _matrix(right, shares, texts, judged["classes"], "Share of each true class")
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG and PNG."""
    for suffix in ("svg", "png"):
        with whole(folder / f"{name}.{suffix}") as beside, mpl.rc_context(_STYLE):
            figure.savefig(beside, format=suffix, metadata={"Date": None} if suffix == "svg" else None)


def _share_axes(axes: Axes, name: str, title: str = "") -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("Epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _majority_line(axes: Axes, judged: dict[str, Any]) -> None:
    axes.axhline(judged["majority_accuracy"], color="#999", linewidth=1, zorder=0)


def _matrix(axes: Axes, shares: np.ndarray, texts: list[list[str]], classes: list[str], title: str) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title, fontsize=10)
    axes.set_xticks(
        range(len(classes)),
        classes,
        rotation=30 if len(classes) > 2 else 0,
        ha="right" if len(classes) > 2 else "center",
    )
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("Prediction")
    axes.set_ylabel("Truth")
    for row, values in enumerate(texts):
        for column, text in enumerate(values):
            colour = "white" if shares[row, column] > 0.55 else "#222"
            axes.text(column, row, text, ha="center", va="center", color=colour)
