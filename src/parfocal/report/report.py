"""What a report says: the answer first, then everything it rests on, as plain data for the page."""
# MERGED: """One self-contained page that compares runs, made from their folders."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
from matplotlib.figure import Figure

from parfocal.errors import ParfocalError
from parfocal.evaluation.compare import COMPARED_METRICS, Comparison, compare_runs
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.operating_point import binarize_grades
from parfocal.evaluation.predictions import Predictions
from parfocal.io import write_text
from parfocal.recipe import Recipe, find_differences
from parfocal.report.class_figures import (
    draw_class_distribution,
    draw_confusion_matrix,
    draw_reliability,
    draw_score_curves,
)
from parfocal.report.figures import (
    assign_colors,
    draw_accuracy,
    draw_error,
    draw_learning_curves,
    draw_predicted_shares,
    is_plain,
    save_figure,
)
from parfocal.report.formatting import (
    SPLIT_NAMES,
    describe_few_groups,
    describe_tta,
    find_tta_to_show,
    format_metric,
    format_metric_name,
    read_labeled_metrics,
    select_table_metrics,
)
from parfocal.report.mistakes import load_mistakes
from parfocal.report.render import data_uri, render
from parfocal.reported import find_deviations, find_reported_accuracy
from parfocal.run import Run, open_runs

LOWER_IS_BETTER = {"loss"}

_HIDDEN_KEYS = {"network.model", "about"}
# Pictures of mistakes are shown of all runs up to so many; of more, of the best one only.
_MAX_RUNS_WITH_IMAGES = 4
_MOSAIC_WIDTH = 900


def find_best_run(runs: Sequence[Run]) -> Run:
    """Return the run that the validation split prefers, by the figure its recipe selects epochs with."""
    select = runs[0].recipe.training.select
    sign = -1 if select in LOWER_IS_BETTER else 1
    return max(runs, key=lambda run: sign * (run.read_metrics()["valid"][select] or 0))


def build_report_context(
    runs: Sequence[Run], comparison: Comparison, figures: Mapping[str, Path], curve_titles: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything that the page shows of finished runs.

    `figures` says where each figure lies that was drawn of them, and `scores` holds the titles of those of classes.
    """
    best = find_best_run(runs)
    pictured = runs if len(runs) <= _MAX_RUNS_WITH_IMAGES else [best]
    recipes = [run.recipe for run in runs]
    changed = sorted({key for one in recipes for key in find_differences(recipes[0], one)} - _HIDDEN_KEYS)
    shown = [
        _build_run_context(run, colour, figures, changed, comparison.split)
        for run, colour in zip(runs, assign_colors(runs), strict=True)
    ]
    return {
        "runs": shown,
        "best": next(one for one in shown if one["name"] == best.name),
        "answer": build_headline(runs, comparison),
        "comparison": comparison,
        "split": comparison.split,
        "told": select_table_metrics(comparison),
        "data": runs[0].read_environment()["data"],
        "allowed": sorted({one for recipe in recipes for one in recipe.data.allow}),
        "few": describe_few_groups(runs),
        "looks": find_tta_to_show(runs),
        "gathered": any(len(one.runs) > 1 for one in comparison.results),
        "questions": any(map(_has_derived_metrics, (one["judged_here"] for one in shown))),
        "drawn_figures": {name: embed_svg(figures[name]) for name in ("accuracy", "learning", "classes")},
        "degradation": embed_svg(figures.get("error")),
        "scores": {title: embed_svg(figures[name]) for name, title in curve_titles.items()},
        "saw": _encode_mosaic(best.folder / "views.png"),
        "pictures": {run.name: load_mistakes(run) for run in pictured},
        "reported": {split for one in shown for split in one["reported"]},
        "splits": [split for split in SPLIT_NAMES if any(split in one["judged"] for one in shown)],
        "changed": changed,
    }


def build_headline(runs: Sequence[Run], comparison: Comparison) -> dict[str, str]:
    """Return the report's first words: which network, how good, how sure, against what, and how far ahead."""
    best, split = find_best_run(runs), comparison.split
    select, judged = best.recipe.training.select, best.read_metrics()[split]
    where = f"{judged['count']:,} {SPLIT_NAMES[split]} images"
    name = select if select in judged else "accuracy"
    chosen = f" is chosen among {len(runs)} runs" if len(runs) > 1 else ""
    interval = judged.get("intervals", {}).get("accuracy")
    sure = f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
    return {
        "title": f"{best.name}{chosen}: {format_metric_name(name)} {format_metric(judged, name)} on {SPLIT_NAMES[split]}",
        "right": f"It is right for {judged['accuracy']:.1%} of {where}{sure}; always naming the largest class would be "
        f"right for {judged['majority_accuracy']:.1%}.",
        "chose": _describe_model_selection(best.recipe, split),
        "looks": describe_tta(runs),
        "ahead": _describe_differences(best, comparison, name if name in COMPARED_METRICS else "accuracy"),
    }


def embed_svg(path: Path | None) -> str:
    """Return an SVG file as an address that holds it; nothing where it was not drawn."""
    return data_uri("svg+xml", path.read_bytes()) if path else ""


def format_rerun_commands(run: Run) -> str:
    """Return the commands that make a run anew, and its figures where something was decided after training."""
    data, decision = run.read_environment()["data"]["folder"], Decision.load(run.decision_path)
    train = ["parfocal", "train", data, "--recipe", str(run.folder / "recipe.yaml"), "--out", "runs/again"]
    wished = {
        "--looks": decision.tta,
        "--operating": decision.operating_point.goal if decision.operating_point else "",
        "--refer": f"{decision.referral.coverage:g}" if decision.referral else "",
    }
    asked = [word for option, wish in wished.items() if wish for word in (option, wish)]
    asked += ["--together"] if decision.fellow_eye_weight is not None else []
    evaluate = ["parfocal", "evaluate", f"runs/again/{run.recipe.network.model}", *asked]
    return "\n".join(map(shlex.join, [train, evaluate] if asked else [train]))


def _describe_model_selection(recipe: Recipe, split: str) -> str:
    select = recipe.training.select
    lower = ", lower being better" if select in LOWER_IS_BETTER else ""
    told = f"Validation chose the epoch, by {format_metric_name(select)}{lower}"
    return f"{told}; test chose nothing." if split == "test" else f"{told}, so its own figures are a little too good."


def _describe_differences(best: Run, comparison: Comparison, metric: str) -> str:
    """Say how far the best is from the others, and whether chance alone would do that."""
    if comparison.not_compared_reason:
        return f"{comparison.not_compared_reason}, so their differences are not tested."
    family = next((one.name for one in comparison.results if best.name in one.runs), best.name)
    told: list[str] = []
    for one in comparison.differences:
        if one.metric == metric and family in (one.first, one.second):
            sign, other = (1, one.second) if one.first == family else (-1, one.first)
            interval = sorted(sign * end + 0.0 for end in one.interval) if one.interval else None
            sure = f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else ""
            beyond = "larger than chance" if one.significant else "no larger than chance may make it"
            told.append(f"from {other} by {sign * one.value:+.3f}{sure}, {beyond}")
    return f"In {format_metric_name(metric)} {family} differs {'; '.join(told)}." if told else ""


def _build_run_context(
    run: Run, color: str, figures: Mapping[str, Path], changed: Sequence[str], split: str
) -> dict[str, Any]:
    plain, metrics = run.recipe.model_dump(mode="json"), run.read_metrics()
    return {
        "name": run.name,
        "colour": color,
        "metrics": metrics,
        # What was over before the epoch that is kept says little of what is judged here.
        "alarmed": any(alarm["until"] >= metrics["best_epoch"] for alarm in metrics["alarms"]),
        "judged": read_labeled_metrics(run),
        "judged_here": read_labeled_metrics(run)[split],
        "environment": run.read_environment(),
        "recipe": plain,
        "calibration": embed_svg(figures.get(f"calibration-{run.name}")),
        "says": embed_svg(figures.get(f"says-{run.name}")),
        "start": run.read_load_report(),
        "differs": {key: _get_nested(plain, key) for key in changed},
        "again": format_rerun_commands(run),
        "reported": find_reported_accuracy(run.recipe),
        "departures": sorted(find_deviations(run.recipe)),
    }


def _has_derived_metrics(metrics: Mapping[str, Any]) -> bool:
    """Say whether a judgement has figures of other questions; patients may all be left out of theirs."""
    return bool({"referable", "operating"} & set(metrics) or set(metrics.get("patients", {})) - {"left_out"})


def _encode_mosaic(path: Path) -> str:
    """Return what the network saw as the address of a smaller picture."""
    picture = cv2.imread(str(path)) if path.is_file() else None
    if picture is None:
        return ""
    height, width = picture.shape[:2]
    if width > _MOSAIC_WIDTH:
        side = (_MOSAIC_WIDTH, round(height * _MOSAIC_WIDTH / width))
        picture = cv2.resize(picture, side, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return data_uri("jpeg", data.tobytes())


def _get_nested(config: dict[str, Any], key: str) -> Any:
    for step in key.split("."):
        config = config[step]
    return config


def compare(runs: Iterable[Path | str | Run] | Path | str | Run, out: Path | str | None = None) -> Comparison:
    """Compare finished runs, and write `report.html` and its figures; `page` of what is returned says where.

    `out` is the page to write; without it the page lies in the folder above the runs, or in the run's own if it is
    the only one.
    """
    given = [runs] if isinstance(runs, str | Path | Run) else runs
    opened = open_runs(run.folder if isinstance(run, Run) else run for run in given)
    check_comparable(opened)
    page = Path(out) if out is not None else default_report_path(opened)
    comparison = replace(compare_runs(opened), report_path=page)
    figures, scores = draw_figures(opened, comparison.split, page.parent / "figures")
    write_text(page, render("report.html", **build_report_context(opened, comparison, figures, scores)))
    return comparison


def draw_figures(runs: Sequence[Run], split: str, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Write every figure of a report as SVG and PNG.

    Returns where the SVG of each lies, by name, for figures of other runs may lie beside them; and the titles of those
    that show classes, by the same names.
    """
    titles: dict[str, str] = {}
    drawn: dict[str, Path] = {}
    for name, figure, title in chain(_draw_run_figures(runs, split), _draw_score_curves(runs, split)):
        save_figure(figure, folder, name)
        drawn[name] = folder / f"{name}.svg"
        if title:
            titles[name] = title
    return drawn, titles


def _draw_run_figures(runs: Sequence[Run], split: str) -> Iterator[tuple[str, Figure, str]]:
    """Draw what is shown of all runs and of each; yield names and figures, which have no titles."""
    yield "accuracy", draw_accuracy(runs), ""
    yield "learning", draw_learning_curves(runs), ""
    yield "classes", draw_class_distribution(runs[0].read_environment()["data"]["counts"]), ""
    if any(map(is_plain, runs)):
        yield "error", draw_error(runs), ""
    for run, colour in zip(runs, assign_colors(runs), strict=True):
        metrics = run.read_metrics()
        for name in ("valid", "test"):
            if metrics.get(name, {}).get("labelled"):
                figure = draw_confusion_matrix(f"{run.name}, {name}", metrics[name])
                yield f"confusion-{run.name}-{name}", figure, ""
        if "reliability" in metrics[split]:
            figure = draw_reliability(f"{run.name}, {split}", metrics[split], colour)
            yield f"calibration-{run.name}", figure, ""
        if metrics["alarms"]:
            yield f"says-{run.name}", draw_predicted_shares(run), ""


def _draw_score_curves(runs: Sequence[Run], split: str) -> Iterator[tuple[str, Figure, str]]:
    """Draw the curves of each class that has both sides, and of referable grades; yield names, figures and titles."""
    said = {run.name: Predictions.load(run.predictions_path(split)) for run in runs}
    first = runs[0].recipe.evaluation.referable
    questions = {}
    if first:
        asked = {name: binarize_grades(one, first) for name, one in said.items()}
        questions["scores-referable"] = (f"Referable: {asked[runs[0].name].classes[1]}", asked, 1)
    classes = next(iter(said.values())).classes
    # Of two classes the second is the question; the first is the same curve seen from behind.
    for label in range(1 if len(classes) == 2 else 0, len(classes)):
        questions[f"scores-{label}"] = (f"{classes[label]} against the rest", said, label)
    for name, (title, asked, label) in questions.items():
        if figure := draw_score_curves(asked, assign_colors(runs), label, title):
            yield name, figure, title


def default_report_path(runs: Sequence[Run]) -> Path:
    """Return where the page of runs lies when nothing is said."""
    return (runs[0].folder if len(runs) == 1 else runs[0].folder.parent) / "report.html"


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that are not finished, or that tell different classes apart."""
    for run in runs:
        run.read_metrics()
    classes = {tuple(run.read_environment()["data"]["classes"]) for run in runs}
    if len(classes) > 1:
        raise ParfocalError(f"The runs tell different classes apart: {'; '.join(', '.join(one) for one in classes)}.")
