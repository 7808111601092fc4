"""One self-contained page that compares runs, made from their folders without the networks."""

import base64
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from parfocal.documented import departures, reported
from parfocal.errors import ParfocalError
from parfocal.files import write_text
from parfocal.recipe import differences
from parfocal.report.figures import accuracy_figure, colours, confusion_figure, error_figure, is_plain, save
from parfocal.report.render import render
from parfocal.run import Run, open_runs

LOWER_IS_BETTER = {"loss"}
_NOT_A_COLUMN = {"network.model", "about"}


def compare(runs: Iterable[Path | str | Run] | Path | str, out: Path | str | None = None) -> Path:
    """Write `report.html` and its figures for one or several finished runs, and return the page's path.

    `out` is the page to write; without it the page lies in the folder above the runs, or in the run's own if it is
    the only one.
    """
    given = [runs] if isinstance(runs, str | Path) else runs
    opened = open_runs(run.folder if isinstance(run, Run) else run for run in given)
    _comparable(opened)
    page = Path(out) if out is not None else _usual_place(opened)
    folder = page.parent / "figures"
    save(accuracy_figure(opened), folder, "accuracy")
    save(error_figure(opened), folder, "error")
    for run in opened:
        for split, judged in _judged(run).items():
            save(confusion_figure(f"{run.name}, {split}", judged), folder, f"confusion-{run.name}-{split}")
    content = _content(opened, folder)
    write_text(page, render("report.html", **content))
    return page


def best_of(runs: Sequence[Run]) -> Run:
    """Return the run that the validation split prefers, by the figure its recipe selects epochs with."""
    select = runs[0].recipe.training.select
    sign = -1 if select in LOWER_IS_BETTER else 1
    return max(runs, key=lambda run: sign * (run.metrics()["valid"][select] or 0))


def _comparable(runs: Sequence[Run]) -> None:
    names = [run.name for run in runs]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ParfocalError(f"Two runs are called {doubled.pop()}. Rename one folder, or name each run once.")
    for run in runs:
        run.metrics()
    classes = {tuple(run.environment()["data"]["classes"]) for run in runs}
    if len(classes) > 1:
        raise ParfocalError(f"The runs tell different classes apart: {'; '.join(', '.join(one) for one in classes)}.")


def _usual_place(runs: Sequence[Run]) -> Path:
    return (runs[0].folder if len(runs) == 1 else runs[0].folder.parent) / "report.html"


def _judged(run: Run) -> dict[str, dict[str, Any]]:
    metrics = run.metrics()
    return {split: metrics[split] for split in ("valid", "test") if split in metrics and metrics[split]["labelled"]}


def _content(runs: Sequence[Run], figures: Path) -> dict[str, Any]:
    best = best_of(runs)
    first = runs[0].environment()
    recipes = [run.recipe for run in runs]
    changed = sorted({key for one in recipes for key in differences(recipes[0], one)} - _NOT_A_COLUMN)
    shown = [
        {
            "name": run.name,
            "colour": colour,
            "metrics": run.metrics(),
            "judged": _judged(run),
            "environment": run.environment(),
            "recipe": run.recipe.model_dump(mode="json"),
            "figures": {split: _embedded(figures / f"confusion-{run.name}-{split}.svg") for split in _judged(run)},
            "start": run.began(),
            "differs": {key: _at(run.recipe.model_dump(mode="json"), key) for key in changed},
            "again": _again(run),
            "reported": reported(run.recipe),
            "departures": sorted(departures(run.recipe)),
        }
        for run, colour in zip(runs, colours(runs), strict=True)
    ]
    return {
        "runs": shown,
        "best": next(one for one in shown if one["name"] == best.name),
        "data": first["data"],
        "select": best.recipe.training.select,
        "lower_is_better": best.recipe.training.select in LOWER_IS_BETTER,
        "curves": _embedded(figures / "accuracy.svg"),
        "degradation": _embedded(figures / "error.svg") if any(map(is_plain, runs)) else None,
        "reported": {split for one in shown for split in one["reported"]},
        "splits": [split for split in ("valid", "test") if any(split in one["judged"] for one in shown)],
        "changed": changed,
        "alarmed": any(run.metrics()["alarms"] for run in runs),
    }


def _again(run: Run) -> str:
    """Return the command that makes the run anew."""
    data = run.environment()["data"]["folder"]
    words = ["parfocal", "train", data, "--recipe", str(run.folder / "recipe.yaml"), "--out", "runs/again"]
    return shlex.join(words)


def _embedded(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _at(content: dict[str, Any], key: str) -> Any:
    for step in key.split("."):
        content = content[step]
    return content
