"""The figure of accuracy over batch size, at a constant and at a scaled learning rate."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from parfocal.recipe import Recipe, format_value, get_value, list_keys
from parfocal.recipe_schema import MachineConfig
from parfocal.report.figure_style import PALETTE, STYLE, add_legend
from parfocal.report.formatting import SPLIT_NAMES, read_labeled_metrics
from parfocal.run import Run

# Runs on one line may differ in these keys.
_IGNORED_KEYS = {"name", "about", "seed", "fold", "batch_size", *MachineConfig.model_fields}
_SCALING_LABELS = {
    "none": "learning rate not scaled",
    "linear": "linear scaling of the learning rate",
    "square_root": "square-root scaling of the learning rate",
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
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        add_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _find_lines(runs: Sequence[Run]) -> dict[str, dict[int, list[Run]]]:
    """Return the runs of each line by batch size, in ascending order; a line has at least two batch sizes."""
    families: dict[str, dict[int, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: run.recipe.training.batch_size):
        settings = repr([get_value(run.recipe, key) for key in list_keys() if key not in _IGNORED_KEYS])
        families.setdefault(settings, {}).setdefault(run.recipe.training.batch_size, []).append(run)
    lines = [family for family in families.values() if len(family) > 1]
    recipes = [next(iter(line.values()))[0].recipe for line in lines]
    return {_describe_line(recipe, recipes): line for recipe, line in zip(recipes, lines, strict=True)}


def _describe_line(recipe: Recipe, recipes: Sequence[Recipe]) -> str:
    """Return the label of a line: how its learning rate follows the batch size, and what else differs among lines."""
    words = [_SCALING_LABELS[recipe.training.lr_scaling]]
    for key in list_keys():
        if key in _IGNORED_KEYS or key == "lr_scaling":
            continue
        value = get_value(recipe, key)
        if any(get_value(other, key) != value for other in recipes):
            words.append(format_value(value) if key == "model" else f"{key}={format_value(value)}")
    return ", ".join(words)
