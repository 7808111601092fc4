"""The lab report of the assignment as Markdown, with the facts, tables and figures of the runs filled in.

Passages that only the author can write are marked in italics between square brackets.
"""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from parfocal.evaluation.compare import Comparison, compare_runs
from parfocal.evaluation.metrics import get_metric
from parfocal.evaluation.summary import has_intervals, summarize
from parfocal.io import write_text
from parfocal.markdown import format_code
from parfocal.models.architectures import get_architecture
from parfocal.recipe import Recipe, describe_keys, format_value, get_value, load_recipe
from parfocal.report.formatting import (
    SPLIT_NAMES,
    describe_few_groups,
    describe_significance,
    describe_worse_calibration,
    format_metric,
    read_labeled_metrics,
)
from parfocal.report.html import render
from parfocal.report.report import (
    build_headline,
    default_report_path,
    draw_figures,
    format_rerun_commands,
    open_comparable,
)
from parfocal.run import Run

_TRAINING_KEYS = (
    "batch_size",
    "learning_rate",
    "epochs",
    "optimizer",
    "momentum",
    "weight_decay",
    "schedule",
    "loss",
    "init",
)
# The report lists these keys even if they have their default value.
_ALWAYS_LISTED_KEYS = ("images.resize_mode", "images.size", "views.crop_size")


def write_lab_report(runs: Iterable[Path | str | Run], out: Path | str | None = None) -> Comparison:
    """Write the lab report of finished runs and its figures; the result holds its path as `report_path`."""
    opened = open_comparable(runs)
    path = Path(out) if out is not None else default_report_path(opened).with_suffix(".md")
    comparison = replace(compare_runs(opened), report_path=path)
    figures = path.parent / "figures"
    draw_figures(opened, comparison.split, figures)
    has_views = _copy_views(opened[0].views_path, figures)
    write_text(path, _build_lab_report(opened, comparison, has_views))
    return comparison


def _copy_views(path: Path, folder: Path) -> bool:
    """Copy the picture of the augmented views to the figures, if there is one that can be read.

    It is decoded and encoded again, so that no other file can pass as the picture of a run.
    """
    image = cv2.imread(str(path)) if path.is_file() else None
    return image is not None and cv2.imwrite(str(folder / path.name), image)


def _build_lab_report(runs: Sequence[Run], comparison: Comparison, has_views: bool) -> str:
    """Return the text of the lab report; it refers to figures in the folder `figures` next to it."""
    recipe = runs[0].recipe
    data = runs[0].read_environment()["data"]
    split_rows: list[tuple[Any, ...]] = []
    for split, count in data["rows"].items():
        class_counts = data["counts"].get(split, {})
        class_cells = (class_counts.get(name, "–") for name in data["classes"])
        group_cells = [] if data["groups_are"] == "images" else [data["groups"][split]]
        split_rows.append((split, count, *group_cells, *class_cells))
    network_rows: list[tuple[Any, ...]] = []
    accuracy_rows: list[tuple[Any, ...]] = []
    training_rows: list[tuple[Any, ...]] = []
    matrix_rows: dict[str, list[tuple[str, ...]]] = {}
    for run in runs:
        metrics = run.read_metrics()
        metrics_by_split = read_labeled_metrics(run)
        architecture = get_architecture(run.recipe.network.model)
        load_report = run.read_load_report()
        network_rows.append(
            (
                run.name,
                architecture.block,
                ", ".join(map(str, architecture.stages)),
                "yes" if architecture.shortcut else "no",
                f"{metrics['parameters']:,}",
                load_report["text"] if load_report else "random weights",
            )
        )
        test_metrics = metrics_by_split.get("test")
        highest = metrics.get("chosen_on_test")
        accuracy_rows.append(
            (
                run.name,
                format_metric(test_metrics, "accuracy") if test_metrics else "no test split with labels",
                metrics["best_epoch"],
                f"{highest['accuracy']:.3f} (epoch {highest['epoch']})" if highest else "not recorded",
                format_metric(metrics_by_split["valid"], "accuracy"),
                f"{(test_metrics or metrics_by_split['valid'])['majority_accuracy']:.3f}",
            )
        )
        values = {**run.recipe.training.model_dump(mode="json"), "init": run.recipe.network.init}
        if values["optimizer"] != "sgd":
            # For Adam the key is beta1, which is no momentum in the sense of the lab.
            values["momentum"] = "–"
        training_rows.append((run.name, *(format_value(values[key]) for key in _TRAINING_KEYS)))
        matrix_rows[run.name] = _build_matrix_rows(metrics_by_split[comparison.split])
    return render(
        "lab.md",
        run_names=[run.name for run in runs],
        data=data,
        headline=build_headline(runs, comparison),
        batch_sizes=_describe_batch_sizes(runs),
        network_rows=network_rows,
        split_rows=split_rows,
        matrix_rows=matrix_rows,
        split=comparison.split,
        split_name=SPLIT_NAMES[comparison.split],
        preprocessing_rows=_build_setting_rows(recipe, ("images.", "views.", "network.normalization")),
        method_rows=_build_setting_rows(recipe, ("training.", "network.", "evaluation.")),
        accuracy_rows=accuracy_rows,
        has_intervals=has_intervals(summarize(runs)),
        few_groups=describe_few_groups(runs),
        training_keys=_TRAINING_KEYS,
        training_rows=training_rows,
        has_views=has_views,
        evaluate_command=shlex.join(["parfocal", "evaluate", *(os.path.relpath(run.folder) for run in runs)]),
        submissions=[os.path.relpath(path) for run in runs if (path := run.folder / "submission.csv").is_file()],
        remarks=_build_remarks(runs, comparison),
        commands="\n".join(map(format_rerun_commands, runs)),
    )


def _describe_batch_sizes(runs: Sequence[Run]) -> str:
    """Return the sentence about the batch size, or about that of each network."""
    sizes = {run.name: run.recipe.training.batch_size for run in runs}
    if len(set(sizes.values())) == 1:
        return f"The batch size is {next(iter(sizes.values()))}."
    return f"The batch sizes are {', '.join(f'{size} for {name}' for name, size in sizes.items())}."


def _build_matrix_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the confusion matrix with the share of each true class in parentheses."""
    rows: list[tuple[str, ...]] = []
    for name, counts in zip(metrics["classes"], metrics["confusion"], strict=True):
        total = sum(counts)
        rows.append((name, *(f"{count} ({count / total:.1%})" if total else "–" for count in counts)))
    return rows


def _build_setting_rows(recipe: Recipe, prefixes: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return key, value and meaning of the keys with these prefixes that differ from the default."""
    default_recipe = load_recipe(None)
    rows: list[tuple[str, str, str]] = []
    for key, _, meaning in describe_keys():
        value = get_value(recipe, key)
        is_listed = key in _ALWAYS_LISTED_KEYS or value != get_value(default_recipe, key)
        if key.startswith(prefixes) and is_listed:
            rows.append((format_code(key), format_value(value), meaning))
    return rows


def _build_remarks(runs: Sequence[Run], comparison: Comparison) -> list[str]:
    """Return remarks on differences, alarms, training time, and findings in the data."""
    remarks = [
        f"The {get_metric(difference.metric).label} of {difference.first} minus that of {difference.second} is "
        f"{difference.metric_value}: {describe_significance(difference)}."
        for difference in comparison.differences
        if difference.metric in ("accuracy", "balanced_accuracy")
    ]
    for run in runs:
        metrics = run.read_metrics()
        remarks += [f"{run.name}: {alarm['text']}" for alarm in metrics["alarms"]]
        minutes = metrics["seconds"] / 60
        remarks.append(
            f"{run.name} trained for {minutes:.1f} minutes at {metrics['images_per_second']:,.0f} images per second."
        )
    remarks += describe_worse_calibration(runs)
    findings = runs[0].read_environment()["data"]["findings"]
    return remarks + [finding["message"] for finding in findings if finding["severity"] != "note"]
