"""What a report says: the answer first, then everything it rests on, as plain data for the page."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from parfocal.documented import departures, reported
from parfocal.evaluation.compare import FIGURES, Comparison
from parfocal.evaluation.decision import Decision
from parfocal.recipe import Recipe, differences
from parfocal.report.addresses import data_address
from parfocal.report.figures import colours
from parfocal.report.pictures import kept_pictures
from parfocal.report.words import (
    SPLIT_NAMES,
    figure_of,
    figures_told,
    judged_splits,
    looks_told,
    looks_words,
    too_few,
    words_of,
)
from parfocal.run import Run

LOWER_IS_BETTER = {"loss"}

_NOT_A_COLUMN = {"network.model", "about"}
# Pictures of mistakes are shown of all runs up to so many; of more, of the best one only.
_MOST_WITH_PICTURES = 4
_MOSAIC_WIDTH = 900


def best_of(runs: Sequence[Run]) -> Run:
    """Return the run that the validation split prefers, by the figure its recipe selects epochs with."""
    select = runs[0].recipe.training.select
    sign = -1 if select in LOWER_IS_BETTER else 1
    return max(runs, key=lambda run: sign * (run.metrics()["valid"][select] or 0))


def content(
    runs: Sequence[Run], comparison: Comparison, figures: Mapping[str, Path], scores: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything that the page shows of finished runs.

    `figures` says where each figure lies that was drawn of them, and `scores` holds the titles of those of classes.
    """
    best = best_of(runs)
    pictured = runs if len(runs) <= _MOST_WITH_PICTURES else [best]
    recipes = [run.recipe for run in runs]
    changed = sorted({key for one in recipes for key in differences(recipes[0], one)} - _NOT_A_COLUMN)
    shown = [
        _of_run(run, colour, figures, changed, comparison.split)
        for run, colour in zip(runs, colours(runs), strict=True)
    ]
    return {
        "runs": shown,
        "best": next(one for one in shown if one["name"] == best.name),
        "answer": answer(runs, comparison),
        "comparison": comparison,
        "split": comparison.split,
        "told": figures_told(comparison),
        "data": runs[0].environment()["data"],
        "allowed": sorted({one for recipe in recipes for one in recipe.data.allow}),
        "few": too_few(runs),
        "looks": looks_told(runs),
        "gathered": any(len(one.runs) > 1 for one in comparison.results),
        "questions": any(map(_has_questions, (one["judged_here"] for one in shown))),
        "drawn_figures": {name: embedded(figures[name]) for name in ("accuracy", "learning", "classes")},
        "degradation": embedded(figures.get("error")),
        "scores": {title: embedded(figures[name]) for name, title in scores.items()},
        "saw": _mosaic(best.folder / "views.png"),
        "pictures": {run.name: kept_pictures(run) for run in pictured},
        "reported": {split for one in shown for split in one["reported"]},
        "splits": [split for split in SPLIT_NAMES if any(split in one["judged"] for one in shown)],
        "changed": changed,
    }


def answer(runs: Sequence[Run], comparison: Comparison) -> dict[str, str]:
    """Return the report's first words: which network, how good, how sure, against what, and how far ahead."""
    best, split = best_of(runs), comparison.split
    select, judged = best.recipe.training.select, best.metrics()[split]
    where = f"{judged['count']:,} {SPLIT_NAMES[split]} images"
    name = select if select in judged else "accuracy"
    chosen = f" is chosen among {len(runs)} runs" if len(runs) > 1 else ""
    interval = judged.get("intervals", {}).get("accuracy")
    sure = f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
    return {
        "title": f"{best.name}{chosen}: {words_of(name)} {figure_of(judged, name)} on {SPLIT_NAMES[split]}",
        "right": f"It is right for {judged['accuracy']:.1%} of {where}{sure}; always naming the largest class would be "
        f"right for {judged['majority_accuracy']:.1%}.",
        "chose": _what_chose(best.recipe, split),
        "looks": looks_words(runs),
        "ahead": _ahead(best, comparison, name if name in FIGURES else "accuracy"),
    }


def embedded(path: Path | None) -> str:
    """Return an SVG file as an address that holds it; nothing where it was not drawn."""
    return data_address("svg+xml", path.read_bytes()) if path else ""


def again(run: Run) -> str:
    """Return the commands that make a run anew, and its figures where something was decided after training."""
    data, decision = run.environment()["data"]["folder"], Decision.load(run.decision)
    train = ["parfocal", "train", data, "--recipe", str(run.folder / "recipe.yaml"), "--out", "runs/again"]
    wished = {
        "--looks": decision.looks,
        "--operating": decision.operating.wish if decision.operating else "",
        "--refer": f"{decision.referral.coverage:g}" if decision.referral else "",
    }
    asked = [word for option, wish in wished.items() if wish for word in (option, wish)]
    asked += ["--together"] if decision.together is not None else []
    evaluate = ["parfocal", "evaluate", f"runs/again/{run.recipe.network.model}", *asked]
    return "\n".join(map(shlex.join, [train, evaluate] if asked else [train]))


def _what_chose(recipe: Recipe, split: str) -> str:
    select = recipe.training.select
    lower = ", lower being better" if select in LOWER_IS_BETTER else ""
    told = f"Validation chose the epoch, by {words_of(select)}{lower}"
    return f"{told}; test chose nothing." if split == "test" else f"{told}, so its own figures are a little too good."


def _ahead(best: Run, comparison: Comparison, figure: str) -> str:
    """Say how far the best is from the others, and whether chance alone would do that."""
    if comparison.without_differences:
        return f"{comparison.without_differences}, so their differences are not tested."
    family = next((one.name for one in comparison.results if best.name in one.runs), best.name)
    told: list[str] = []
    for one in comparison.differences:
        if one.figure == figure and family in (one.one, one.other):
            sign, other = (1, one.other) if one.one == family else (-1, one.one)
            interval = sorted(sign * end + 0.0 for end in one.interval) if one.interval else None
            sure = f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else ""
            beyond = "larger than chance" if one.larger_than_chance else "no larger than chance may make it"
            told.append(f"from {other} by {sign * one.value:+.3f}{sure}, {beyond}")
    return f"In {words_of(figure)} {family} differs {'; '.join(told)}." if told else ""


def _of_run(run: Run, colour: str, figures: Mapping[str, Path], changed: Sequence[str], split: str) -> dict[str, Any]:
    plain, metrics = run.recipe.model_dump(mode="json"), run.metrics()
    return {
        "name": run.name,
        "colour": colour,
        "metrics": metrics,
        # What was over before the epoch that is kept says little of what is judged here.
        "alarmed": any(alarm["until"] >= metrics["best_epoch"] for alarm in metrics["alarms"]),
        "judged": judged_splits(run),
        "judged_here": judged_splits(run)[split],
        "environment": run.environment(),
        "recipe": plain,
        "calibration": embedded(figures.get(f"calibration-{run.name}")),
        "says": embedded(figures.get(f"says-{run.name}")),
        "start": run.began(),
        "differs": {key: _at(plain, key) for key in changed},
        "again": again(run),
        "reported": reported(run.recipe),
        "departures": sorted(departures(run.recipe)),
    }


def _has_questions(judged: Mapping[str, Any]) -> bool:
    """Say whether a judgement has figures of other questions; patients may all be left out of theirs."""
    return bool({"referable", "operating"} & set(judged) or set(judged.get("patients", {})) - {"left_out"})


def _mosaic(path: Path) -> str:
    """Return what the network saw as the address of a smaller picture."""
    picture = cv2.imread(str(path)) if path.is_file() else None
    if picture is None:
        return ""
    height, width = picture.shape[:2]
    if width > _MOSAIC_WIDTH:
        side = (_MOSAIC_WIDTH, round(height * _MOSAIC_WIDTH / width))
        picture = cv2.resize(picture, side, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return data_address("jpeg", data.tobytes())


def _at(plain: dict[str, Any], key: str) -> Any:
    for step in key.split("."):
        plain = plain[step]
    return plain
