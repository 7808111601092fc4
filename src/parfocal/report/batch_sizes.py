"""The figure of accuracy over batch size, at a constant and at a scaled learning rate."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from parfocal.recipe import Recipe, format_value, get_value, list_keys
from parfocal.report.figure_style import PALETTE, STYLE, add_legend
from parfocal.report.formatting import SPLIT_NAMES, read_labeled_metrics
from parfocal.run import Run

# Runs that differ in other keys are on different lines.
_KEYS_OF_A_LINE = {"name", "about", "seed", "fold", "batch_size"}
_SCALING_LABELS = {
    "none": "constant learning rate",
    "linear": "learning rate × batch size / 32",
    "square_root": "learning rate × √(batch size / 32)",
}


def draw_batch_sizes(runs: Sequence[Run], split: str) -> Figure | None:
    """Draw the accuracy of the best epoch by batch size; None unless runs differ in the batch size and little else.

    Runs with the same settings but for the batch size are a line through the means of their seeds and folds.
    """
    lines = _find_lines(runs)
    if not lines:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        axes = figure.subplots()
        batch_sizes: set[int] = set()
        for number, (label, runs_by_size) in enumerate(lines.items()):
            color = PALETTE[number % len(PALETTE)]
            means: list[float] = []
            for batch_size, same in runs_by_size.items():
                accuracies = [read_labeled_metrics(run)[split]["accuracy"] for run in same]
                axes.plot([batch_size] * len(accuracies), accuracies, ".", color=color, alpha=0.6)
                means.append(float(np.mean(accuracies)))
            axes.plot(list(runs_by_size), means, color=color, label=label)
            batch_sizes |= set(runs_by_size)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(batch_sizes))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("Batch size")
        axes.set_ylabel(f"Accuracy on {SPLIT_NAMES[split]}")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _find_lines(runs: Sequence[Run]) -> dict[str, dict[int, list[Run]]]:
    """Return the runs of each line by batch size, in ascending order; a line has at least two batch sizes."""
    families: dict[str, list[Run]] = {}
    for run in runs:
        content = {key: get_value(run.recipe, key) for key in list_keys() if key not in _KEYS_OF_A_LINE}
        families.setdefault(repr(content), []).append(run)
    lines = [family for family in families.values() if len({run.recipe.training.batch_size for run in family}) > 1]
    recipes = [family[0].recipe for family in lines]
    result: dict[str, dict[int, list[Run]]] = {}
    for family in lines:
        by_size: dict[int, list[Run]] = {}
        for run in sorted(family, key=lambda run: run.recipe.training.batch_size):
            by_size.setdefault(run.recipe.training.batch_size, []).append(run)
        result[_describe_line(family[0].recipe, recipes)] = by_size
    return result


def _describe_line(recipe: Recipe, recipes: Sequence[Recipe]) -> str:
    """Return the label of a line: how its learning rate follows the batch size, and what else no other line has."""
    words = [_SCALING_LABELS[recipe.training.lr_scaling]]
    for key in list_keys():
        values = {repr(get_value(other, key)) for other in recipes}
        if key not in _KEYS_OF_A_LINE and key != "lr_scaling" and len(values) > 1:
            value = format_value(get_value(recipe, key))
            words.append(value if key == "model" else f"{key}={value}")
    return ", ".join(words)
