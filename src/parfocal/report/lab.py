"""The assignment's report as Markdown: its headings, with the facts, tables and figures of the runs filled in.

What only the author can write is left marked, in italics between square brackets.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parfocal.documented import words
from parfocal.evaluation.compare import Comparison, compared
from parfocal.files import write_text
from parfocal.model.resnet import look_up
from parfocal.recipe import Recipe, described, recipe
from parfocal.report.content import again, answer
from parfocal.report.page import comparable, draw_figures, usual_place
from parfocal.report.render import render
from parfocal.report.words import figure_of, judged_splits, words_of
from parfocal.run import Run, open_runs

_LEARNT = ("batch", "learning_rate", "epochs", "optimiser", "momentum", "weight_decay", "schedule", "loss", "init")

_NETWORK = ("network", "blocks", "in each stage", "shortcuts", "weights", "begins with")
_CHOICE = ("key", "value", "meaning")
_HIGHEST = (
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
    comparable(opened)
    page = Path(out) if out is not None else usual_place(opened).with_suffix(".md")
    comparison = replace(compared(opened), page=page)
    draw_figures(opened, comparison.split, page.parent / "figures")
    write_text(page, lab_report(opened, comparison))
    return comparison


def lab_report(runs: Sequence[Run], comparison: Comparison) -> str:
    """Return the report's text; its figures are looked for in `figures/` beside it."""
    first, data = runs[0].recipe, runs[0].environment()["data"]
    return render(
        "lab.md",
        names=", ".join(run.name for run in runs),
        runs=[run.name for run in runs],
        data=data,
        rows=", ".join(f"{split} {count:,}" for split, count in data["rows"].items()),
        answer=answer(runs, comparison),
        batch=first.training.batch,
        networks=_table(_NETWORK, map(_network, runs)),
        splits=_table(("split", "images", "patients or groups", *data["classes"]), _splits(data)),
        matrices=[(run.name, _matrix(run, comparison.split)) for run in runs],
        split=comparison.split,
        preprocessing=_table(_CHOICE, _choices(first, ("images.", "views.", "network.normalise"))),
        method=_table(_CHOICE, _choices(first, ("training.", "network.", "judgement."))),
        highest=_table(_HIGHEST, map(_highest, runs)),
        learnt=_table(("network", *_LEARNT), map(_learnt, runs)),
        folders=" ".join(os.path.relpath(run.folder) for run in runs),
        submissions=[os.path.relpath(one) for run in runs if (one := run.folder / "submission.csv").is_file()],
        remarks=_remarks(runs, comparison),
        again=[again(run) for run in runs],
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table; a bar in a cell would end it, and is escaped."""
    cells = [[str(one).replace("|", "\\|").replace("\n", " ") for one in row] for row in (headings, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{'---|' * len(headings)}", *lines[1:]])


def _network(run: Run) -> tuple[Any, ...]:
    shape, begun = look_up(run.recipe.network.model), run.began()
    start = begun["text"] if begun else "random weights"
    stages = ", ".join(map(str, shape.stages))
    return run.name, shape.block, stages, "yes" if shape.shortcut else "no", f"{run.metrics()['parameters']:,}", start


def _splits(data: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (split, count, data["groups"][split], *(data["counts"].get(split, {}).get(one, "–") for one in data["classes"]))
        for split, count in data["rows"].items()
    ]


def _matrix(run: Run, split: str) -> str:
    judged = judged_splits(run)[split]
    rows: list[tuple[str, ...]] = []
    for name, row in zip(judged["classes"], judged["confusion"], strict=True):
        total = sum(row)
        rows.append((name, *(f"{count} ({count / total:.1%})" if total else "–" for count in row)))
    return _table(("truth \\ prediction", *judged["classes"]), rows)


def _choices(one: Recipe, of: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return what a recipe decides otherwise than the defaults do, among the keys that begin so."""
    usual, rows = recipe(None), []
    for key, _, meaning in described():
        value, default = _at(one, key), _at(usual, key)
        if key.startswith(of) and (value != default or key in ("images.fit", "images.size", "views.crop")):
            rows.append((f"`{key}`", words(value), meaning))
    return rows


def _at(one: Recipe, key: str) -> Any:
    value: Any = one
    for step in key.split("."):
        value = getattr(value, step)
    return value


def _highest(run: Run) -> tuple[Any, ...]:
    metrics, judged = run.metrics(), judged_splits(run)
    highest = metrics.get("chosen_on_test")
    return (
        run.name,
        figure_of(judged["test"], "accuracy") if "test" in judged else "no test split with labels",
        metrics["best_epoch"],
        f"{highest['accuracy']:.3f} (epoch {highest['epoch']})" if highest else "not measured",
        figure_of(judged["valid"], "accuracy"),
        f"{judged['test' if 'test' in judged else 'valid']['majority_accuracy']:.3f}",
    )


def _learnt(run: Run) -> tuple[str, ...]:
    part = run.recipe.training
    values = {**part.model_dump(mode="json"), "init": run.recipe.network.init}
    return (run.name, *(words(values[key]) for key in _LEARNT))


def _remarks(runs: Sequence[Run], comparison: Comparison) -> list[str]:
    """Return what the runs show that is worth a word: differences, alarms, faults of the data, time."""
    found = [
        f"{one.one} and {one.other} differ in {words_of(one.figure)} by {one.shown}, "
        + ("more than chance would." if one.larger_than_chance else "no more than chance may.")
        for one in comparison.differences
        if one.figure in ("accuracy", "balanced_accuracy")
    ]
    for run in runs:
        metrics = run.metrics()
        found += [f"{run.name}: {alarm['text']}" for alarm in metrics["alarms"]]
        minutes, rate = metrics["seconds"] / 60, metrics["images_per_second"]
        found.append(f"{run.name} trained for {minutes:.1f} minutes at {rate:,.0f} images a second.")
    found += [one["text"] for one in runs[0].environment()["data"]["findings"] if one["severity"] != "note"]
    return found
