"""The assignment's report as Markdown: its headings, with the facts, tables and figures of the runs filled in.

What only the author can write is left marked, in italics between square brackets.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parfocal.evaluation.compare import Comparison, compare_runs
from parfocal.io import write_text
from parfocal.models.resnet import get_architecture
from parfocal.recipe import Recipe, describe_keys, load_recipe
from parfocal.report.formatting import format_metric, format_metric_name, read_labeled_metrics
from parfocal.report.render import render
from parfocal.report.report import (
    build_headline,
    check_comparable,
    default_report_path,
    draw_figures,
    format_rerun_commands,
)
from parfocal.reported import format_value
from parfocal.run import Run, open_runs

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

_NETWORK_HEADINGS = ("network", "blocks", "in each stage", "shortcuts", "weights", "begins with")
_SETTING_HEADINGS = ("key", "value", "meaning")
_ACCURACY_HEADINGS = (
    "network",
    "test accuracy",
    "epoch, chosen on validation",
    "highest over the epochs: chosen on test, optimistic",
    "validation accuracy",
    "always the largest class",
)


def write_lab_report(runs: Iterable[Path | str | Run], out: Path | str | None = None) -> Comparison:
    """Write the lab's report of finished runs as Markdown, with its figures beside it; `page` says where it lies."""
    opened = open_runs(run.folder if isinstance(run, Run) else run for run in runs)
    check_comparable(opened)
    page = Path(out) if out is not None else default_report_path(opened).with_suffix(".md")
    comparison = replace(compare_runs(opened), page=page)
    draw_figures(opened, comparison.split, page.parent / "figures")
    write_text(page, build_lab_report(opened, comparison))
    return comparison


def build_lab_report(runs: Sequence[Run], comparison: Comparison) -> str:
    """Return the report's text; its figures are looked for in `figures/` beside it."""
    first, data = runs[0].recipe, runs[0].read_environment()["data"]
    return render(
        "lab.md",
        names=", ".join(run.name for run in runs),
        runs=[run.name for run in runs],
        data=data,
        rows=", ".join(f"{split} {count:,}" for split, count in data["rows"].items()),
        answer=build_headline(runs, comparison),
        batch=first.training.batch_size,
        networks=_format_table(_NETWORK_HEADINGS, map(_build_network_row, runs)),
        splits=_format_table(("split", "images", "patients or groups", *data["classes"]), _build_split_rows(data)),
        matrices=[(run.name, _format_confusion_matrix(run, comparison.split)) for run in runs],
        split=comparison.split,
        preprocessing=_format_table(
            _SETTING_HEADINGS, _build_setting_rows(first, ("images.", "views.", "network.normalization"))
        ),
        method=_format_table(_SETTING_HEADINGS, _build_setting_rows(first, ("training.", "network.", "evaluation."))),
        highest=_format_table(_ACCURACY_HEADINGS, map(_build_accuracy_row, runs)),
        learnt=_format_table(("network", *_TRAINING_KEYS), map(_build_training_row, runs)),
        folders=" ".join(os.path.relpath(run.folder) for run in runs),
        submissions=[os.path.relpath(one) for run in runs if (one := run.folder / "submission.csv").is_file()],
        remarks=_build_remarks(runs, comparison),
        again=[format_rerun_commands(run) for run in runs],
    )


def _format_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table; a bar in a cell would end it, and is escaped."""
    cells = [[str(one).replace("|", "\\|").replace("\n", " ") for one in row] for row in (headings, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{'---|' * len(headings)}", *lines[1:]])


def _build_network_row(run: Run) -> tuple[Any, ...]:
    shape, begun = get_architecture(run.recipe.network.model), run.read_load_report()
    start = begun["text"] if begun else "random weights"
    stages = ", ".join(map(str, shape.stages))
    return (
        run.name,
        shape.block,
        stages,
        "yes" if shape.shortcut else "no",
        f"{run.read_metrics()['parameters']:,}",
        start,
    )


def _build_split_rows(data: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (split, count, data["groups"][split], *(data["counts"].get(split, {}).get(one, "–") for one in data["classes"]))
        for split, count in data["rows"].items()
    ]


def _format_confusion_matrix(run: Run, split: str) -> str:
    judged = read_labeled_metrics(run)[split]
    rows: list[tuple[str, ...]] = []
    for name, row in zip(judged["classes"], judged["confusion"], strict=True):
        total = sum(row)
        rows.append((name, *(f"{count} ({count / total:.1%})" if total else "–" for count in row)))
    return _format_table(("truth \\ prediction", *judged["classes"]), rows)


def _build_setting_rows(run_recipe: Recipe, prefixes: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return what a recipe decides otherwise than the defaults do, among the keys that begin so."""
    usual, rows = load_recipe(None), []
    for key, _, meaning in describe_keys():
        value, default = _get_nested(run_recipe, key), _get_nested(usual, key)
        if key.startswith(prefixes) and (
            value != default or key in ("images.resize_mode", "images.size", "views.crop_size")
        ):
            rows.append((f"`{key}`", format_value(value), meaning))
    return rows


def _get_nested(run_recipe: Recipe, key: str) -> Any:
    value: Any = run_recipe
    for step in key.split("."):
        value = getattr(value, step)
    return value


def _build_accuracy_row(run: Run) -> tuple[Any, ...]:
    metrics, judged = run.read_metrics(), read_labeled_metrics(run)
    highest = metrics.get("chosen_on_test")
    return (
        run.name,
        format_metric(judged["test"], "accuracy") if "test" in judged else "no test split with labels",
        metrics["best_epoch"],
        f"{highest['accuracy']:.3f} (epoch {highest['epoch']})" if highest else "not measured",
        format_metric(judged["valid"], "accuracy"),
        f"{judged['test' if 'test' in judged else 'valid']['majority_accuracy']:.3f}",
    )


def _build_training_row(run: Run) -> tuple[str, ...]:
    part = run.recipe.training
    values = {**part.model_dump(mode="json"), "init": run.recipe.network.init}
    return (run.name, *(format_value(values[key]) for key in _TRAINING_KEYS))


def _build_remarks(runs: Sequence[Run], comparison: Comparison) -> list[str]:
    """Return what the runs show that is worth a word: differences, alarms, faults of the data, time."""
    found = [
        f"{one.first} and {one.second} differ in {format_metric_name(one.metric)} by {one.metric_value}, "
        + ("more than chance would." if one.significant else "no more than chance may.")
        for one in comparison.differences
        if one.metric in ("accuracy", "balanced_accuracy")
    ]
    for run in runs:
        metrics = run.read_metrics()
        found += [f"{run.name}: {alarm['text']}" for alarm in metrics["alarms"]]
        minutes, rate = metrics["seconds"] / 60, metrics["images_per_second"]
        found.append(f"{run.name} trained for {minutes:.1f} minutes at {rate:,.0f} images a second.")
    found += [one["text"] for one in runs[0].read_environment()["data"]["findings"] if one["severity"] != "note"]
    return found
