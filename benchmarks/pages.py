"""What the pages of several benchmarks need: figures as SVG, and the machines and commits of measurements in words."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from shutil import copyfile
from typing import Any

from matplotlib.figure import Figure

from parfocal.report.figure_style import save_figure


def save_svg(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG only, in the style of the report."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        save_figure(figure, Path(temporary), name)
        copyfile(Path(temporary) / f"{name}.svg", folder / f"{name}.svg")


def describe_origin(records: Iterable[dict[str, Any]]) -> str:
    """Return the commits and machines of measurements, each once; a record has `commit` and `machine`."""
    records = list(records)
    commits = ", ".join(dict.fromkeys(record["commit"] for record in records))
    machines = dict.fromkeys(
        f"{machine['device']}, {machine['cores']} cores, {machine['instructions']}, PyTorch {machine['torch']}"
        for machine in (record["machine"] for record in records)
    )
    return f"Commit {commits}; {'; '.join(machines)}"
