"""Figures of classes: confusion matrices, and how classes are spread over the splits."""

from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from parfocal.report.figures import PALETTE, STYLE, add_legend


def draw_confusion_matrix(title: str, metrics: dict[str, Any]) -> Figure:
    """Draw the confusion matrix of a judged split twice, as counts and as shares of each true class."""
    counts = np.array(metrics["confusion"])
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = 2.2 + 0.62 * len(counts)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(2 * side + 0.8, side + 0.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        figure.suptitle(fill(title, 60))
        _draw_matrix(left, shares, [[f"{value:,}" for value in row] for row in counts], metrics["classes"], "Counts")
        texts = [[f"{value:.1%}" if totals[row, 0] else "–" for value in shares[row]] for row in range(len(counts))]
        _draw_matrix(right, shares, texts, metrics["classes"], "Share of each true class")
    return figure


def draw_class_distribution(counts: dict[str, dict[str, int]]) -> Figure:
    """Draw the share of each class in each split as bars, with the number of images above them."""
    with mpl.rc_context({**STYLE, "axes.grid.axis": "y"}):
        classes = list(next(iter(counts.values())))
        figure = Figure(figsize=(max(5.0, 1.1 + 0.55 * len(counts) * len(classes)), 3.2), layout="constrained")
        axes = figure.subplots()
        width = 0.82 / len(counts)
        for number, (split, of) in enumerate(counts.items()):
            places = np.arange(len(classes)) + (number - (len(counts) - 1) / 2) * width
            shares = np.array(list(of.values())) / max(1, sum(of.values()))
            bars = axes.bar(places, shares, width * 0.94, color=PALETTE[number], label=split)
            axes.bar_label(bars, [f"{count:,}" for count in of.values()], fontsize=8, padding=1)
        axes.set_xticks(range(len(classes)), classes)
        axes.set_ylabel("Share of the split")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.margins(y=0.12)
        add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _draw_matrix(axes: Axes, shares: np.ndarray, texts: list[list[str]], classes: list[str], title: str) -> None:
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
