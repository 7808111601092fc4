"""The style of all figures of a report: colors of runs, legends, and how a figure is saved."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from parfocal.evaluation.compare import group_runs
from parfocal.io import atomic_write
from parfocal.run import Run

# The palette of Okabe and Ito: distinguishable with color blindness, and in gray by lightness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_NETWORK_COLORS = {"resnet18": 0, "resnet50": 1, "resnet152": 2, "resnet34": 3, "resnet101": 4}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    # Text stays text: the file is smaller, can be searched, and can be read by a screen reader.
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "svg.hashsalt": "parfocal",
    # Matplotlib would read a name with two dollar signs as a formula.
    "text.parse_math": False,
    "savefig.dpi": 160,
}
BASELINE_STYLE: dict[str, Any] = {"color": "#999", "linewidth": 1, "zorder": 0}


def assign_colors(runs: Sequence[Run]) -> list[str]:
    """Return a color for each run: always the same for a network, unless two runs use the same network.

    If there are more runs than colors, runs that differ only in their seed share a color.
    """
    models = [run.recipe.network.model for run in runs]
    if len(set(models)) == len(models) and all(model in _NETWORK_COLORS for model in models):
        return [PALETTE[_NETWORK_COLORS[model]] for model in models]
    color_of = {
        run.name: PALETTE[number % len(PALETTE)]
        for number, group in enumerate(group_by_color(runs).values())
        for run in group
    }
    return [color_of[run.name] for run in runs]


def group_by_color(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs that share a color, by the name of the group in a legend."""
    if len(runs) <= len(PALETTE):
        return {run.name: [run] for run in runs}
    families = group_runs(runs).items()
    return {f"{name} ({len(family)} runs)" if len(family) > 1 else name: family for name, family in families}


def add_legend(figure: Figure, artists: Sequence[Artist], *, below: bool = False) -> None:
    """Add a legend to the right of the axes, or below them; long names are wrapped to keep the axes wide."""
    labels = [fill(str(artist.get_label()), 28) for artist in artists]
    location = "outside lower center" if below else "outside right upper"
    figure.legend(artists, labels, loc=location, ncols=3 if below else 1, frameon=False)


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG and PNG."""
    with mpl.rc_context(STYLE):
        # Compute the layout once instead of once per file.
        if engine := figure.get_layout_engine():
            engine.execute(figure)
        figure.set_layout_engine(None)
        for suffix in ("svg", "png"):
            with atomic_write(folder / f"{name}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
