"""Figures of probabilities: ROC and precision–recall curves with their bands, and calibration before and after."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.score_curves import Curve, precision_recall, roc
from parfocal.report.figures import STYLE, legend


def scores_figure(said: Mapping[str, Predictions], colours: Sequence[str], label: int, title: str) -> Figure | None:
    """Draw how well each run tells one class from the others; None where a side of the question is absent.

    On the left sensitivity over false alarms (ROC), on the right precision over recall, each with its 95 % band.
    """
    share = float((next(iter(said.values())).truth == label).mean())
    if share in (0.0, 1.0):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.1), layout="constrained")
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        for (name, one), colour in zip(said.items(), colours, strict=True):
            _drawn(left, roc(one, label), colour, name)
            _drawn(right, precision_recall(one, label), colour, name)
        left.plot([0, 1], [0, 1], color="#999", linewidth=1, zorder=0)
        right.axhline(share, color="#999", linewidth=1, zorder=0)
        _square(left, "False alarms (1 − specificity)", "Sensitivity")
        _square(right, "Recall", "Precision")
        legend(figure, left.get_legend_handles_labels()[0], below=True)
    return figure


def reliability_figure(title: str, judged: Mapping[str, Any], colour: str) -> Figure:
    """Draw how often each certainty is right, before the temperature and after it, and how many images have it."""
    after = judged.get("calibration", {}).get("reliability")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 4.8), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        upper.set_title(fill(title, 44), fontsize=10)
        upper.plot([0, 1], [0, 1], color="#999", linewidth=1, zorder=0)
        drawn = [("as the network says", judged["reliability"], "o--", 0.55)]
        drawn += [("with the temperature", after, "o-", 1.0)] if after else []
        for name, bins, style, strength in drawn:
            places = [one["confidence"] for one in bins]
            upper.plot(places, [one["accuracy"] for one in bins], style, color=colour, alpha=strength, ms=4, label=name)
        last = drawn[-1][1]
        edges = [one["from"] for one in last]
        width = last[0]["to"] - last[0]["from"]
        lower.bar(edges, [one["count"] for one in last], width * 0.92, align="edge", color=colour)
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="Share that is right")
        lower.set(xlabel="Certainty", ylabel="Images")
        for axis in (upper.xaxis, upper.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        upper.legend(frameon=False, loc="upper left")
    return figure


def _drawn(axes: Axes, curve: Curve | None, colour: str, name: str) -> None:
    if curve is None:
        return
    axes.plot(curve.at, curve.value, color=colour, label=name)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.at, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)


def _square(axes: Axes, along: str, up: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=along, ylabel=up, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
