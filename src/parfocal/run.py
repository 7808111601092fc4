"""Runs: a folder with the recipe, table, weights, history, predictions and metrics of a training."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from parfocal.errors import ParfocalError, UsageError, join_limited
from parfocal.groups import GroupKind
from parfocal.io import atomic_write, write_json
from parfocal.manifest import MANIFEST_FILE, file_exists, verify_file, warn_without_manifest
from parfocal.notebook import render_html_table
from parfocal.recipe import Recipe, load_recipe
from parfocal.recipe_file import read_recipe_file
from parfocal.run_files import Environment, InitialWeights, RunMetrics, read_csv_file, read_json_file

_SUMMARY_METRICS = ("accuracy", "majority_accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc")


@dataclass(frozen=True)
class Run:
    """A run folder. A path property names a file whether or not it exists; a read method reports a missing file."""

    folder: Path
    display_name: str = ""

    @property
    def name(self) -> str:
        """The name of the folder, unless `with_unique_names` gave the run another name."""
        return self.display_name or self.folder.absolute().name

    @property
    def weights_path(self) -> Path:
        """The weights of the best epoch."""
        return self.folder / "model.safetensors"

    @property
    def checkpoint_path(self) -> Path:
        """The complete training state, from which training resumes."""
        return self.folder / "last.ckpt"

    @property
    def initial_weights_path(self) -> Path:
        """The report on loaded initial weights; absent if the run was trained from scratch."""
        return self.folder / "initial_weights.json"

    @property
    def plan_path(self) -> Path:
        """The reason for each value of an automatically configured recipe."""
        return self.folder / "plan.md"

    @property
    def views_path(self) -> Path:
        """A picture of training images with their augmented views."""
        return self.folder / "views.png"

    @property
    def table_path(self) -> Path:
        """Ids, paths, labels, splits and groups of the images."""
        return self.folder / "table.csv"

    @property
    def decision_path(self) -> Path:
        """The decision rule fitted on validation: temperature, thresholds, out-of-distribution limits."""
        return self.folder / "decision.json"

    @property
    def is_finished(self) -> bool:
        """Whether the run is trained and evaluated."""
        return (self.folder / "metrics.json").is_file()

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from. A finished run can do without the one that it had."""
        return self.checkpoint_path.is_file() if self.is_finished else file_exists(self.checkpoint_path)

    @property
    def groups_are(self) -> GroupKind:
        """What a group of the data is, such as patients; images if nothing is known about groups."""
        return self.read_environment()["data"]["groups_are"]

    def _repr_html_(self) -> str:
        """Show the metrics in a notebook, or the number of epochs of an unfinished run."""
        if not self.is_finished:
            n_epochs = len(self.read_history()) if (self.folder / "history.csv").is_file() else 0
            return render_html_table(f"{self.folder}: not finished", ("run", "epochs"), [(self.name, str(n_epochs))])
        rows = [
            (split, str(metrics["count"]), *(_format_metric(metrics[name]) for name in _SUMMARY_METRICS))
            for split, metrics in self.read_metrics().items()
            if split in ("valid", "test") and metrics["labeled"]
        ]
        headings = ("split", "images", *(name.replace("_", " ") for name in _SUMMARY_METRICS))
        return render_html_table(str(self.folder), headings, rows)

    def predictions_path(self, split: str) -> Path:
        """Return the path of the predictions of a split."""
        return self.folder / "predictions" / f"{split}.csv"

    def has_predictions(self, split: str) -> bool:
        """Return whether there are predictions of a split; it is an error if there are only their metrics."""
        path = self.predictions_path(split)
        if path.is_file():
            return True
        if self.is_finished and split in self.read_metrics():
            raise ParfocalError(f"{path} is missing. Create it with `parfocal evaluate {self.folder}`.")
        return False

    @cached_property
    def recipe(self) -> Recipe:
        """The complete recipe of the run."""
        path = self.folder / "recipe.yaml"
        if not verify_file(path):
            raise ParfocalError(f"{self.folder} is not a run folder: it has no recipe.yaml.")
        warn_without_manifest(self.folder)
        try:
            file = read_recipe_file(path)
            # A file that was cut off can still be valid YAML; the keys that it lost would silently get their defaults.
            lost = [section for section in Recipe.model_fields if section not in file.choices]
            recipe = load_recipe(file)
        except UsageError as error:
            raise ParfocalError(f"{path} is not a recipe of this version: {error}") from None
        if lost:
            raise ParfocalError(
                f"{path} is incomplete: it has no {', '.join(lost)}. Restore it from a copy of the run."
            )
        return recipe

    def read_history(self) -> pd.DataFrame:
        """Return a row per finished epoch."""
        path = self.folder / "history.csv"
        if not path.is_file():
            raise ParfocalError(
                f"{self.folder} has no history.csv: no epoch has finished. Continue training with resume."
            )
        columns = ("learning_rate", "images_per_second", "waiting", "seconds")
        measured = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
        return read_csv_file(path, (), ("epoch", *measured, *columns, f"valid_{self.recipe.training.select}"))

    def read_metrics(self) -> dict[str, Any]:
        """Return the metrics by split, and the facts about the whole run."""
        path = self._find_file("metrics.json", "the run has not finished. Continue training with resume.")
        return read_json_file(path, RunMetrics, f"Write it again with `parfocal evaluate {self.folder}`.")

    def read_environment(self) -> dict[str, Any]:
        """Return the software, the hardware and the facts about the data of the run."""
        return read_json_file(self._find_file("environment.json", "the run has not started."), Environment)

    def read_load_report(self) -> dict[str, Any] | None:
        """Return which initial weights were loaded, as a `LoadReport`; None if the run was trained from scratch."""
        path = self.initial_weights_path
        return read_json_file(path, InitialWeights) if path.is_file() else None

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write a row per finished epoch."""
        with atomic_write(self.folder / "history.csv") as temporary_path:
            pd.DataFrame(rows).to_csv(temporary_path, index=False)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write all metrics, which marks the run as finished."""
        write_json(self.folder / "metrics.json", metrics)

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Write the software, the hardware and the facts about the data of the run."""
        write_json(self.folder / "environment.json", environment)

    def _find_file(self, name: str, reason: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise ParfocalError(f"{self.folder} has no {name}: {reason}")
        return path


def find_runs(folder: Path) -> list[Run]:
    """Return the runs directly in a folder, sorted by the depth of their networks and by name."""

    def get_depth_and_name(run: Run) -> tuple[int, str]:
        number = re.search(r"\d+", run.recipe.network.model)
        return int(number[0]) if number else 0, run.name

    for path in folder.glob(f"*/{MANIFEST_FILE}"):
        file_exists(path.with_name("recipe.yaml"))
    return sorted([Run(path.parent) for path in folder.glob("*/recipe.yaml")], key=get_depth_and_name)


def open_runs(paths: Iterable[Path | str]) -> list[Run]:
    """Open run folders under unique names; a folder that contains runs stands for all of them."""
    runs: list[Run] = []
    for path in map(Path, paths):
        if file_exists(path / "recipe.yaml"):
            runs.append(Run(path))
        elif contained := find_runs(path):
            runs += contained
        else:
            nearby = find_runs(path.parent) if path.parent.is_dir() else []
            hint = f" Runs in {path.parent}: {join_limited(run.folder for run in nearby)}." if nearby else ""
            raise ParfocalError(f"{path} is not a run folder and contains no runs.{hint}")
    if not runs:
        raise UsageError("Name at least one run folder, or a folder that contains runs.")
    return with_unique_names(runs)


def with_unique_names(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with unique names, which include parent folders if necessary: `first-resnet18`."""
    for folder, count in Counter(run.folder.resolve() for run in runs).items():
        if count > 1:
            raise ParfocalError(f"{folder} is named twice. Name each run once.")
    paths = [run.folder.absolute().parts for run in runs]
    depth = 1
    while len({path[-depth:] for path in paths}) < len(paths):
        depth += 1
    if depth == 1:
        return list(runs)
    return [replace(run, display_name="-".join(path[-depth:])) for run, path in zip(runs, paths, strict=True)]


def _format_metric(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
