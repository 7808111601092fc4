"""Figures of classes and probabilities: confusion matrix, class distribution, ROC and precision–recall, reliability."""

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
from parfocal.report.figure_style import BASELINE_STYLE, PALETTE, STYLE, add_legend


def draw_confusion_matrix(title: str, metrics: dict[str, Any]) -> Figure:
    """Draw the confusion matrix of a split twice: as counts, and as shares of each true class."""
    counts = np.array(metrics["confusion"])
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    count_texts = [[f"{value:,}" for value in row] for row in counts]
    share_texts = [
        [f"{value:.1%}" if total else "–" for value in row] for row, total in zip(shares, totals[:, 0], strict=True)
    ]
    side = 2.2 + 0.62 * len(counts)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(2 * side + 0.8, side + 0.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        figure.suptitle(fill(title, 60))
        _draw_matrix(left, shares, count_texts, metrics["classes"], "Counts")
        _draw_matrix(right, shares, share_texts, metrics["classes"], "Share of each true class")
    return figure


def _draw_matrix(axes: Axes, shares: np.ndarray, texts: list[list[str]], classes: list[str], title: str) -> None:
    has_many_classes = len(classes) > 2
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title, fontsize=10)
    rotation, alignment = (30, "right") if has_many_classes else (0, "center")
    axes.set_xticks(range(len(classes)), classes, rotation=rotation, ha=alignment)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    for row, row_texts in enumerate(texts):
        for column, text in enumerate(row_texts):
            color = "white" if shares[row, column] > 0.55 else "#222"
            axes.text(column, row, text, ha="center", va="center", color=color)


def draw_class_distribution(counts: dict[str, dict[str, int]]) -> Figure:
    """Draw the share of each class in each split as bars, labeled with the number of images."""
    with mpl.rc_context({**STYLE, "axes.grid.axis": "y"}):
        classes = list(next(iter(counts.values())))
        figure = Figure(figsize=(max(5.0, 1.1 + 0.55 * len(counts) * len(classes)), 3.2), layout="constrained")
        axes = figure.subplots()
        width = 0.82 / len(counts)
        for number, (split, split_counts) in enumerate(counts.items()):
            positions = np.arange(len(classes)) + (number - (len(counts) - 1) / 2) * width
            shares = np.array(list(split_counts.values())) / max(1, sum(split_counts.values()))
            bars = axes.bar(positions, shares, width * 0.94, color=PALETTE[number], label=split)
            axes.bar_label(bars, [f"{count:,}" for count in split_counts.values()], fontsize=8, padding=1)
        axes.set_xticks(range(len(classes)), classes)
        axes.set_ylabel("Share of the split")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.margins(y=0.12)
        add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def draw_score_curves(
    predictions: Mapping[str, Predictions], colors: Sequence[str], label: int, title: str
) -> Figure | None:
    """Draw the ROC and precision–recall curves of a class with 95 % bands; None if all or no images have the class."""
    prevalence = float((next(iter(predictions.values())).truth == label).mean())
    if prevalence in (0.0, 1.0):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.1), layout="constrained")
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        for (name, run_predictions), color in zip(predictions.items(), colors, strict=True):
            _plot_curve(left, compute_roc_curve(run_predictions, label), color, name)
            _plot_curve(right, compute_precision_recall_curve(run_predictions, label), color, name)
        left.plot([0, 1], [0, 1], **BASELINE_STYLE)
        right.axhline(prevalence, **BASELINE_STYLE)
        left.set(xlabel="False positive rate (1 − specificity)", ylabel="Sensitivity")
        right.set(xlabel="Recall", ylabel="Precision")
        for axes in (left, right):
            axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
            _format_percent(axes)
        add_legend(figure, left.get_legend_handles_labels()[0], below=True)
    return figure


def _plot_curve(axes: Axes, curve: Curve | None, color: str, name: str) -> None:
    if curve is None:
        return
    axes.plot(curve.x, curve.y, color=color, label=name)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)


def draw_reliability(title: str, metrics: Mapping[str, Any], color: str) -> Figure:
    """Draw the reliability diagram, before and after temperature scaling, above the number of images by confidence."""
    curves = [("uncalibrated", metrics["reliability"], "o--", 0.55)]
    if "reliability" in metrics.get("calibration", {}):
        curves.append(("temperature scaling", metrics["calibration"]["reliability"], "o-", 1.0))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 4.8), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        upper.set_title(fill(title, 44), fontsize=10)
        upper.plot([0, 1], [0, 1], **BASELINE_STYLE)
        for name, bins, style, alpha in curves:
            confidences = [confidence_bin["confidence"] for confidence_bin in bins]
            accuracies = [confidence_bin["accuracy"] for confidence_bin in bins]
            upper.plot(confidences, accuracies, style, color=color, alpha=alpha, ms=4, label=name)
        _, last_bins, _, _ = curves[-1]
        edges = [confidence_bin["from"] for confidence_bin in last_bins]
        counts = [confidence_bin["count"] for confidence_bin in last_bins]
        width = last_bins[0]["to"] - last_bins[0]["from"]
        lower.bar(edges, counts, width * 0.92, align="edge", color=color)
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy")
        lower.set(xlabel="Confidence", ylabel="Images")
        _format_percent(upper)
        upper.legend(frameon=False, loc="upper left")
    return figure


def _format_percent(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
