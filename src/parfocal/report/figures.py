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

from parfocal.evaluation.compare import gathered
from parfocal.evaluation.watch import SAYS
from parfocal.files import whole
from parfocal.report.words import title_of
from parfocal.run import Run
from parfocal.training.patience import better

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey by their lightness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_OF_NETWORK = {"resnet18": 0, "resnet50": 1, "resnet152": 2, "resnet34": 3, "resnet101": 4}
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


_LINES: dict[str, Any] = {"train": (0, (4, 2)), "valid": "solid", "test": (0, (1, 1.5))}
_DOT: dict[str, Any] = {"markersize": 8, "markeredgecolor": "white", "zorder": 5}


def colours(runs: Sequence[Run]) -> list[str]:
    """Return one colour a run: always the same for a network, unless a network stands there more than once.

    Where runs are more than colours, those that differ in their seed alone share one.
    """
    models = [run.recipe.network.model for run in runs]
    if len(set(models)) == len(models) and all(model in _OF_NETWORK for model in models):
        return [PALETTE[_OF_NETWORK[model]] for model in models]
    own = {
        run.name: PALETTE[place % len(PALETTE)]
        for place, sharing in enumerate(_sharing(runs).values())
        for run in sharing
    }
    return [own[run.name] for run in runs]


def _sharing(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return which runs share a colour, by the name that a legend has for them."""
    if len(runs) <= len(PALETTE):
        return {run.name: [run] for run in runs}
    families = gathered(runs).items()
    return {f"{name} ({len(family)} runs)" if len(family) > 1 else name: family for name, family in families}


def _named(runs: Sequence[Run]) -> dict[str, str]:
    """Return the colour of each name of a legend."""
    own = dict(zip([run.name for run in runs], colours(runs), strict=True))
    return {name: own[sharing[0].name] for name, sharing in _sharing(runs).items()}


def accuracy_figure(runs: Sequence[Run]) -> Figure:
    """Draw accuracy per epoch of all runs: train dashed, validation solid, test dotted where it was measured."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        drawn: set[str] = set()
        for run, colour in zip(runs, colours(runs), strict=True):
            history, best = run.history(), chosen_epoch(run)
            for phase, style in _LINES.items():
                if f"{phase}_accuracy" in history:
                    strong = phase == "valid"
                    values = history[f"{phase}_accuracy"]
                    axes.plot(history["epoch"], values, color=colour, linestyle=style, linewidth=2 if strong else 1.2)
                    drawn.add(phase)
            chosen = history.loc[history["epoch"] == best, "valid_accuracy"]
            axes.plot([best], chosen, "o", color=colour, **_DOT)
        counts = runs[0].environment()["data"]["counts"]["valid"].values()
        axes.axhline(max(counts) / max(1, sum(counts)), color="#999", linewidth=1, zorder=0)
        _share_axes(axes, "Accuracy")
        axes.set_ylim(top=min(1.01, axes.get_ylim()[1] + 0.01))
        names = [Line2D([], [], color=colour, linewidth=2, label=name) for name, colour in _named(runs).items()]
        words = {"train": "train", "valid": "validation", "test": "test (chooses nothing)"}
        names += [Line2D([], [], color="#555", linestyle=_LINES[p], label=words[p]) for p in _LINES if p in drawn]
        names.append(Line2D([], [], color="#555", marker="o", linestyle="none", label="chosen epoch"))
        names.append(Line2D([], [], color="#999", linewidth=1, label="majority class"))
        legend(figure, names)
    return figure


def learning_figure(runs: Sequence[Run]) -> Figure:
    """Draw the loss of all runs, train dashed and validation solid, what chose the epochs, and the learning rate.

    What chose the epochs has a figure of its own where it is neither the loss nor the accuracy, and the same for all.
    """
    selects = {run.recipe.training.select for run in runs}
    chosen = selects.pop() if len(selects) == 1 and not selects & {"loss", "accuracy"} else ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12 if chosen else 9, 3.6), layout="constrained")
        losses, *between, rates = figure.subplots(1, 3 if chosen else 2)
        for run, colour in zip(runs, colours(runs), strict=True):
            history = run.history()
            at_best = history.loc[history["epoch"] == chosen_epoch(run)]
            losses.plot(history["epoch"], history["train_loss"], color=colour, linestyle=_LINES["train"], linewidth=1.2)
            for axes, column in zip((losses, *between), ("valid_loss", f"valid_{chosen}"), strict=False):
                axes.plot(history["epoch"], history[column], color=colour, linewidth=2)
                axes.plot(at_best["epoch"], at_best[column], "o", color=colour, **_DOT)
            rates.plot(history["epoch"], history["learning_rate"], color=colour)
        _epochs(losses, "Loss")
        for axes in between:
            _epochs(axes, f"{title_of(chosen)} on validation")
        _epochs(rates, "Learning rate, mean of the epoch")
        rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        names = [Line2D([], [], color=colour, label=name) for name, colour in _named(runs).items()]
        legend(figure, names)
    return figure


def chosen_epoch(run: Run) -> int:
    """Return the epoch whose weights are kept; of a run that is not finished, the best one so far."""
    if run.finished:
        return run.metrics()["best_epoch"]
    select, best = run.recipe.training.select, 0
    values = run.history()[f"valid_{select}"].tolist()
    for place, value in enumerate(values):
        best = place if better(value, values[best], select) else best
    return best + 1


def says_figure(run: Run) -> Figure:
    """Draw, for each epoch, what share of the predictions on validation each class is; its true share as a line."""
    history, true = run.history(), run.environment()["data"]["counts"]["valid"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        for number, (name, count) in enumerate(true.items()):
            colour = PALETTE[number % len(PALETTE)]
            axes.plot(history["epoch"], history[SAYS + name], color=colour, label=name)
            axes.axhline(count / max(1, sum(true.values())), color=colour, linewidth=1, linestyle=_LINES["test"])
        for alarm in run.metrics()["alarms"]:
            axes.axvspan(alarm["since"] - 0.5, alarm["until"] + 0.5, color="#d55e00", alpha=0.12, linewidth=0)
        _share_axes(axes, "Share of predictions")
        legend(figure, axes.get_legend_handles_labels()[0])
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
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, (title, column) in zip((left, right), sides.items(), strict=True):
            for run, history, colour in zip(runs, histories, colours(runs), strict=True):
                style = "dashed" if is_plain(run) else "solid"
                axes.plot(history["epoch"], 1 - history[column], color=colour, linestyle=style, label=run.name)
            _share_axes(axes, "Error", title)
        legend(figure, left.get_legend_handles_labels()[0])
    return figure


def is_plain(run: Run) -> bool:
    """Say whether a run's network has no shortcuts."""
    return run.recipe.network.model.startswith("plain")


def legend(figure: Figure, drawn: Sequence[Artist], *, below: bool = False) -> None:
    """Put a legend beside the axes, or below them in columns; a long name takes several lines, to leave them room."""
    names = [fill(str(one.get_label()), 28) for one in drawn]
    place = "outside lower center" if below else "outside right upper"
    figure.legend(drawn, names, loc=place, ncols=3 if below else 1, frameon=False)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG and PNG."""
    with mpl.rc_context(STYLE):
        # Laid out once, and not again for each form, nor drawn before it only to see whether it would be.
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
        for suffix in ("svg", "png"):
            with whole(folder / f"{name}.{suffix}") as beside:
                figure.savefig(beside, format=suffix, metadata={"Date": None} if suffix == "svg" else None)


def _share_axes(axes: Axes, name: str, title: str = "") -> None:
    axes.set_title(title, fontsize=10)
    _epochs(axes, name)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _epochs(axes: Axes, name: str) -> None:
    axes.set_xlabel("Epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
