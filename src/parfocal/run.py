"""Run: a folder of recipe, table, weights, history, predictions and metrics; only the images lie elsewhere."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from parfocal.errors import ParfocalError, UsageError, join_limited
from parfocal.io import atomic_write, write_json
from parfocal.notebook import render_html_table
from parfocal.recipe import Recipe
from parfocal.recipe import load_recipe as read_recipe

_SUMMARY_METRICS = ("accuracy", "majority_accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc")


@dataclass(frozen=True)
class Run:
    """A run folder. Paths are given whether or not the file is there yet; readers say which file is missing."""

    folder: Path
    display_name: str = ""

    @property
    def name(self) -> str:
        """What the run is called: its folder's name, unless `apart` called it otherwise."""
        return self.display_name or self.folder.absolute().name

    @property
    def weights_path(self) -> Path:
        """The best weights so far."""
        return self.folder / "model.safetensors"

    @property
    def checkpoint_path(self) -> Path:
        """Everything needed to go on training."""
        return self.folder / "last.ckpt"

    @property
    def initial_weights_path(self) -> Path:
        """Which weights the run began with, where it did not begin from scratch."""
        return self.folder / "start.json"

    @property
    def plan_path(self) -> Path:
        """Why each value was chosen, where the recipe was planned from the data."""
        return self.folder / "plan.md"

    @property
    def table_path(self) -> Path:
        """Ids, paths, labels, splits and groups as the run used them."""
        return self.folder / "table.csv"

    @property
    def decision_path(self) -> Path:
        """What validation decided after training: temperature, thresholds, what is out of the ordinary."""
        return self.folder / "decision.json"

    @property
    def is_finished(self) -> bool:
        """Whether training reached its end and was judged."""
        return (self.folder / "metrics.json").is_file()

    def _repr_html_(self) -> str:
        """Show the run in a notebook: what it reached, or how far it is."""
        if not self.is_finished:
            return render_html_table(
                f"{self.folder}: not finished", ("run", "epochs"), [(self.name, str(self._count_epochs()))]
            )
        rows = [
            (split, str(judged["count"]), *(_format_metric(judged[name]) for name in _SUMMARY_METRICS))
            for split, judged in self.read_metrics().items()
            if split in ("valid", "test") and judged["labelled"]
        ]
        return render_html_table(
            str(self.folder), ("split", "images", *(name.replace("_", " ") for name in _SUMMARY_METRICS)), rows
        )

    def _count_epochs(self) -> int:
        return len(self.read_history()) if (self.folder / "history.csv").is_file() else 0

    def predictions_path(self, split: str) -> Path:
        """Return where the predictions of a split lie."""
        return self.folder / "predictions" / f"{split}.csv"

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe the run was made with, fully resolved."""
        path = self.folder / "recipe.yaml"
        if not path.is_file():
            raise ParfocalError(f"{self.folder} is not a run folder: it has no recipe.yaml.")
        try:
            return read_recipe(path)
        except UsageError as error:
            raise ParfocalError(f"{path} is not a recipe of this version: {error}") from None

    def read_history(self) -> pd.DataFrame:
        """Return one row for each finished epoch."""
        path = self.folder / "history.csv"
        if not path.is_file():
            raise ParfocalError(f"{self.folder} has no history.csv: no epoch has finished. Go on with --resume.")
        return pd.read_csv(path)

    def read_metrics(self) -> dict[str, Any]:
        """Return every judged figure, by split."""
        return self._read_json("metrics.json", "it has not finished. Go on with --resume.")

    def read_environment(self) -> dict[str, Any]:
        """Return where and with what the run was made, and what is known about its data."""
        return self._read_json("environment.json", "it has not started.")

    def read_load_report(self) -> dict[str, Any] | None:
        """Return which weights the run began with and what of them fitted; None where it began from scratch."""
        return self._read_json("start.json", "it began from scratch.") if self.initial_weights_path.is_file() else None

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write one row for each finished epoch."""
        with atomic_write(self.folder / "history.csv") as beside:
            pd.DataFrame(rows).to_csv(beside, index=False)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write every judged figure; from then on the run counts as finished."""
        write_json(self.folder / "metrics.json", metrics)

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Write where and with what the run is made."""
        write_json(self.folder / "environment.json", environment)

    def _read_json(self, name: str, reason: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            raise ParfocalError(f"{self.folder} has no {name}: {reason}")
        return json.loads(path.read_text(encoding="utf-8"))


def find_runs(folder: Path) -> list[Run]:
    """Return the runs directly below a folder, in the order of their networks' depth, then by name."""
    found = [Run(path.parent) for path in folder.glob("*/recipe.yaml")]
    return sorted(found, key=lambda run: (_parse_depth(run.recipe.network.model), run.name))


def open_runs(paths: Iterable[Path | str]) -> list[Run]:
    """Open run folders, each by a name of its own; a folder that holds several stands for all of them."""
    runs: list[Run] = []
    for path in map(Path, paths):
        if (path / "recipe.yaml").is_file():
            runs.append(Run(path))
        elif below := find_runs(path):
            runs += below
        else:
            near = find_runs(path.parent) if path.parent.is_dir() else []
            hint = f" Runs beside it: {join_limited(run.folder for run in near)}." if near else ""
            raise ParfocalError(f"{path} is not a run folder and holds none.{hint}")
    if not runs:
        raise UsageError("Name at least one run folder, or a folder that holds several.")
    return with_unique_names(runs)


def with_unique_names(runs: Sequence[Run]) -> list[Run]:
    """Call runs by the folders above them as well, where names alone are alike: `first-resnet18`, `second-resnet18`."""
    for place, times in Counter(run.folder.resolve() for run in runs).items():
        if times > 1:
            raise ParfocalError(f"{place} is named twice. Name each run once.")
    parts, depth = [run.folder.absolute().parts for run in runs], 1
    while len({above[-depth:] for above in parts}) < len(parts):
        depth += 1
    if depth == 1:
        return list(runs)
    return [replace(run, display_name="-".join(above[-depth:])) for run, above in zip(runs, parts, strict=True)]


def _parse_depth(model: str) -> int:
    digits = "".join(letter if letter.isdigit() else " " for letter in model).split()
    return int(digits[0]) if digits else 0


def _format_metric(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
