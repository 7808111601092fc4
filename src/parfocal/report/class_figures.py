"""Figures of classes: confusion matrices, and how classes are spread over the splits."""
# MERGED: """Figures of probabilities: ROC and precision–recall curves with their bands, and calibration before and after."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from parfocal.evaluation.curves import Curve, compute_precision_recall_curve, compute_roc_curve
from parfocal.evaluation.predictions import Predictions
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


def draw_score_curves(
    predictions: Mapping[str, Predictions], colors: Sequence[str], label: int, title: str
) -> Figure | None:
    """Draw how well each run tells one class from the others; None where a side of the question is absent.

    On the left sensitivity over false alarms (ROC), on the right precision over recall, each with its 95 % band.
    """
    share = float((next(iter(predictions.values())).truth == label).mean())
    if share in (0.0, 1.0):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.1), layout="constrained")
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        for (name, one), colour in zip(predictions.items(), colors, strict=True):
            _plot_curve(left, compute_roc_curve(one, label), colour, name)
            _plot_curve(right, compute_precision_recall_curve(one, label), colour, name)
        left.plot([0, 1], [0, 1], color="#999", linewidth=1, zorder=0)
        right.axhline(share, color="#999", linewidth=1, zorder=0)
        _format_square_axes(left, "False alarms (1 − specificity)", "Sensitivity")
        _format_square_axes(right, "Recall", "Precision")
        add_legend(figure, left.get_legend_handles_labels()[0], below=True)
    return figure


def draw_reliability(title: str, metrics: Mapping[str, Any], color: str) -> Figure:
    """Draw how often each certainty is right, before the temperature and after it, and how many images have it."""
    after = metrics.get("calibration", {}).get("reliability")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 4.8), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        upper.set_title(fill(title, 44), fontsize=10)
        upper.plot([0, 1], [0, 1], color="#999", linewidth=1, zorder=0)
        drawn = [("as the network says", metrics["reliability"], "o--", 0.55)]
        drawn += [("with the temperature", after, "o-", 1.0)] if after else []
        for name, bins, style, strength in drawn:
            places = [one["confidence"] for one in bins]
            upper.plot(places, [one["accuracy"] for one in bins], style, color=color, alpha=strength, ms=4, label=name)
        last = drawn[-1][1]
        edges = [one["from"] for one in last]
        width = last[0]["to"] - last[0]["from"]
        lower.bar(edges, [one["count"] for one in last], width * 0.92, align="edge", color=color)
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="Share that is right")
        lower.set(xlabel="Certainty", ylabel="Images")
        for axis in (upper.xaxis, upper.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        upper.legend(frameon=False, loc="upper left")
    return figure


def _plot_curve(axes: Axes, curve: Curve | None, color: str, name: str) -> None:
    if curve is None:
        return
    axes.plot(curve.x, curve.y, color=color, label=name)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)


def _format_square_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=x_label, ylabel=y_label, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
