"""The report: a self-contained HTML page that compares finished runs, built from their folders."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
from matplotlib.figure import Figure

from parfocal.data.encode import encode_jpeg
from parfocal.errors import ParfocalError
from parfocal.evaluation.alarms import ALARMS_OF_NO_LEARNING
from parfocal.evaluation.bootstrap import MIN_GROUPS
from parfocal.evaluation.compare import COMPARED_METRICS, Comparison, compare_runs
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.decision_rule import RULE_METRICS
from parfocal.evaluation.metrics import get_metric
from parfocal.evaluation.operating_point import binarize_grades
from parfocal.evaluation.positive_class import find_positive_class
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.summary import (
    WIDE_CLASS_TABLE_METRICS,
    WIDE_TABLE_METRICS,
    SummaryRow,
    add_baseline,
    has_intervals,
    select_distinct,
    summarize,
)
from parfocal.io import reject_link, write_text
from parfocal.recipe import find_differences, get_nested
from parfocal.report.batch_sizes import draw_batch_sizes
from parfocal.report.figure_style import assign_colors, save_figure
from parfocal.report.formatting import (
    RULE_MEANINGS,
    SPLIT_NAMES,
    describe_few_groups,
    describe_significance,
    describe_tta,
    describe_worse_calibration,
    find_tta_to_show,
    format_metric,
    read_labeled_metrics,
    read_training_accuracy,
    select_table_metrics,
)
from parfocal.report.html import data_uri, embed_image, render
from parfocal.report.learning_curves import (
    describe_missing_test_curve,
    draw_accuracy,
    draw_error,
    draw_learning_curves,
    draw_predicted_shares,
    is_plain,
)
from parfocal.report.mistakes import load_mistakes
from parfocal.report.result_figures import (
    draw_class_distribution,
    draw_confusion_matrix,
    draw_reliability,
    draw_score_curves,
)
from parfocal.reported import find_deviations, find_reported_accuracies
from parfocal.run import Run, open_runs

# The table of recipe differences does not show these keys.
_HIDDEN_KEYS = {"network.model", "about"}
# A report of more runs shows the mistakes of the best run only.
_MAX_RUNS_WITH_MISTAKES = 4
_MOSAIC_WIDTH = 900
_AGGREGATION_NAMES = {"worst": "worst image", "mean": "mean of images", "vote": "majority vote"}


def compare(runs: Iterable[Path | str | Run] | Path | str | Run, out: Path | str | None = None) -> Comparison:
    """Compare finished runs and write the report and its figures.

    `out` is the HTML file. By default it is `report.html` in the parent folder of the runs, or in the run's folder if
    there is a single run. The result holds its path as `report_path`.
    """
    opened = open_comparable([runs] if isinstance(runs, str | Path | Run) else runs)
    page = Path(out) if out is not None else default_report_path(opened)
    comparison = replace(compare_runs(opened), report_path=page)
    figures_folder = page.parent / "figures"
    if out is None:
        reject_link(figures_folder)
    figures, curve_titles = draw_figures(opened, comparison.split, figures_folder)
    write_text(page, render("report.html", **_build_report_context(opened, comparison, figures, curve_titles)))
    return comparison


def open_comparable(sources: Iterable[Path | str | Run]) -> list[Run]:
    """Open runs; raise an error if a run is not finished, or if the runs have different classes."""
    runs = open_runs(run.folder if isinstance(run, Run) else run for run in sources)
    for run in runs:
        run.read_metrics()
    classes = {tuple(run.read_environment()["data"]["classes"]) for run in runs}
    if len(classes) > 1:
        listed = "; ".join(", ".join(names) for names in classes)
        raise ParfocalError(f"The runs have different classes: {listed}. Compare runs with the same classes.")
    return runs


def default_report_path(runs: Sequence[Run]) -> Path:
    """Return where the report of runs is written by default."""
    return (runs[0].folder if len(runs) == 1 else runs[0].folder.parent) / "report.html"


def draw_figures(runs: Sequence[Run], split: str, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Write every figure of a report as SVG and PNG; return the SVG files, and the titles of ROC figures, by name."""
    paths: dict[str, Path] = {}
    curve_titles: dict[str, str] = {}

    def save(name: str, figure: Figure) -> None:
        save_figure(figure, folder, name)
        paths[name] = folder / f"{name}.svg"

    save("accuracy", draw_accuracy(runs))
    save("learning-curves", draw_learning_curves(runs))
    save("classes", draw_class_distribution(runs[0].read_environment()["data"]["counts"]))
    if any(map(is_plain, runs)):
        save("error", draw_error(runs))
    if batch_sizes := draw_batch_sizes(runs, split):
        save("batch-sizes", batch_sizes)
    colors = assign_colors(runs)
    for run, color in zip(runs, colors, strict=True):
        metrics_by_split = read_labeled_metrics(run)
        for name, metrics in metrics_by_split.items():
            save(f"confusion-{run.name}-{name}", draw_confusion_matrix(f"{run.name}, {name}", metrics))
        if "reliability" in metrics_by_split[split]:
            figure = draw_reliability(f"{run.name}, {split}", metrics_by_split[split], color)
            save(f"reliability-{run.name}", figure)
        if run.read_metrics()["alarms"]:
            save(f"predicted-shares-{run.name}", draw_predicted_shares(run))

    def save_curves(name: str, predictions: Mapping[str, Predictions], label: int, title: str) -> None:
        if figure := draw_score_curves(predictions, colors, label, title):
            save(name, figure)
            curve_titles[name] = title

    predictions = {run.name: Predictions.load(run.predictions_path(split)) for run in runs}
    if referable := runs[0].recipe.evaluation.referable:
        binary = {name: binarize_grades(grades, referable) for name, grades in predictions.items()}
        save_curves("scores-referable", binary, 1, f"Referable: {binary[runs[0].name].classes[1]}")
    classes = predictions[runs[0].name].classes
    # Of two classes, the curves of one mirror those of the other.
    for label in range(len(classes)) if len(classes) != 2 else [_find_curve_class(runs[0])]:
        save_curves(f"scores-{label}", predictions, label, f"{classes[label]} against the rest")
    return paths, curve_titles


def _find_curve_class(run: Run) -> int:
    """Return the class of two whose ROC and precision–recall curves are drawn: the positive one, if it is known."""
    positive = find_positive_class(run, Decision.load(run.decision_path).positive)
    return 1 if positive is None else positive


def find_best_run(runs: Sequence[Run]) -> Run:
    """Return the best run on validation, by the metric that its recipe selects epochs by."""
    select = runs[0].recipe.training.select
    sign = 1 if get_metric(select).greater_is_better else -1
    return max(runs, key=lambda run: sign * (run.read_metrics()["valid"][select] or 0))


def _build_report_context(
    runs: Sequence[Run], comparison: Comparison, figures: Mapping[str, Path], curve_titles: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values of the template `report.html`, from what `draw_figures` returns."""
    split = comparison.split
    best_run = find_best_run(runs)
    changed = {key for run in runs for key in find_differences(runs[0].recipe, run.recipe)}
    changed_keys = sorted(changed - _HIDDEN_KEYS)
    contexts = {
        run.name: _build_run_context(run, color, figures, changed_keys, split)
        for run, color in zip(runs, assign_colors(runs), strict=True)
    }
    runs_with_mistakes = runs if len(runs) <= _MAX_RUNS_WITH_MISTAKES else [best_run]
    return {
        "runs": list(contexts.values()),
        "best": contexts[best_run.name],
        "headline": build_headline(runs, comparison),
        "has_winner": not _explain_no_winner(runs, best_run),
        "comparison": comparison,
        "split": split,
        "splits": [name for name in SPLIT_NAMES if any(name in context["summary"] for context in contexts.values())],
        "table_metrics": select_table_metrics(comparison),
        "result_metrics": add_baseline(
            select_distinct(WIDE_TABLE_METRICS, [result.metrics for result in comparison.results])
        ),
        "class_metrics": WIDE_CLASS_TABLE_METRICS,
        "rule_metrics": RULE_METRICS,
        "rule_meanings": RULE_MEANINGS,
        "data": runs[0].read_environment()["data"],
        "waived_checks": sorted({check for run in runs for check in run.recipe.data.allow}),
        "few_groups": describe_few_groups(runs),
        "worse_calibration": describe_worse_calibration(runs),
        "has_intervals": has_intervals(summarize(runs)),
        "has_bands": any(context["split_metrics"]["groups"] >= MIN_GROUPS for context in contexts.values()),
        "derived_title": _describe_derived_rows([row for context in contexts.values() for row in context["derived"]]),
        "tta": find_tta_to_show(runs),
        "has_families": any(len(result.runs) > 1 for result in comparison.results),
        "figures": {
            name: embed_image(figures.get(name))
            for name in ("accuracy", "learning-curves", "classes", "error", "batch-sizes")
        },
        "missing_test_curve": describe_missing_test_curve(runs),
        "curves": {title: embed_image(figures[name]) for name, title in curve_titles.items()},
        "mosaic": _embed_mosaic(best_run.views_path),
        "mistakes": {run.name: load_mistakes(run) for run in runs_with_mistakes},
        "reported_splits": {name for context in contexts.values() for name in context["reported"]},
        "changed_keys": changed_keys,
    }


def _build_run_context(
    run: Run, color: str, figures: Mapping[str, Path], changed_keys: Sequence[str], split: str
) -> dict[str, Any]:
    metrics = run.read_metrics()
    metrics_by_split = read_labeled_metrics(run)
    recipe = run.recipe.model_dump(mode="json")
    return {
        "name": run.name,
        "color": color,
        "metrics": metrics,
        # An alarm that ended before the best epoch says little about the weights that are kept.
        "has_current_alarm": any(alarm["until"] >= metrics["best_epoch"] for alarm in metrics["alarms"]),
        "metrics_by_split": metrics_by_split,
        "split_metrics": metrics_by_split[split],
        "summary": {row.split: row for row in summarize([run])},
        "decisions": metrics_by_split[split].get("decisions"),
        "derived": _build_derived_rows(run, split, metrics_by_split[split]),
        "environment": run.read_environment(),
        "recipe": recipe,
        "reliability_figure": embed_image(figures.get(f"reliability-{run.name}")),
        "predicted_shares_figure": embed_image(figures.get(f"predicted-shares-{run.name}")),
        "initial_weights": run.read_load_report(),
        "changed_values": [get_nested(recipe, key.split(".")) for key in changed_keys],
        "commands": format_rerun_commands(run),
        "reported": find_reported_accuracies(run.recipe),
        "training_accuracy": read_training_accuracy(run),
        "deviations": sorted(find_deviations(run.recipe)),
    }


def _build_derived_rows(run: Run, split: str, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the results for whole groups, referable grades and the operating point; `positive` is a class row."""
    rows: list[dict[str, Any]] = []

    def add_row(subject: str, question: str, section: Mapping[str, Any], positive: str = "") -> None:
        summary = SummaryRow.from_metrics(run.name, split, section)
        row = {"subject": subject, "question": question, "summary": summary}
        rows.append({**row, "positive": summary.classes[positive] if positive else None})

    for aggregation, text in _AGGREGATION_NAMES.items():
        if aggregation in metrics.get("by_group", {}):
            add_row(
                f"whole {run.groups_are}",
                f"{run.groups_are}, {text}",
                metrics["by_group"][aggregation],
            )
    if referable := metrics.get("referable"):
        positive = referable["classes"][1]
        add_row("referable grades", f"referable: {positive}", referable, positive)
    if point := metrics.get("operating_point"):
        question = f"operating point {point['goal']} for {point['positive']}, chosen on validation"
        add_row("the operating point", question, point, point["positive"])
    return rows


def _describe_derived_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the title of the table of these rows: whole patients, referable grades and the operating point."""
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    title = " and ".join(filter(None, [", ".join(subjects[:-1]), *subjects[-1:]]))
    return title[:1].upper() + title[1:]


def _embed_mosaic(path: Path) -> str:
    """Return the augmented views of the first epoch as the data URI of a smaller image."""
    image = cv2.imread(str(path)) if path.is_file() else None
    if image is None:
        return ""
    height, width = image.shape[:2]
    if width > _MOSAIC_WIDTH:
        size = (_MOSAIC_WIDTH, round(height * _MOSAIC_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return data_uri("jpeg", encode_jpeg(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), quality=82))


def build_headline(runs: Sequence[Run], comparison: Comparison) -> dict[str, str]:
    """Return the first sentences of the report: the best run, its accuracy, the baseline, and how others differ."""
    best_run = find_best_run(runs)
    split = comparison.split
    metrics = best_run.read_metrics()[split]
    select = best_run.recipe.training.select
    metric = select if select in metrics else "accuracy"
    winner = f"{best_run.name}, selected from {len(runs)} runs" if len(runs) > 1 else best_run.name
    result = f"{get_metric(metric).label} {format_metric(metrics, metric)} on {SPLIT_NAMES[split]}"
    interval = metrics.get("intervals", {}).get("accuracy")
    ci = f" (95 % CI {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
    lower = "" if get_metric(select).greater_is_better else " (lower is better)"
    selection = f"The best epoch was selected on validation by {get_metric(select).label}{lower}"
    if split == "test":
        selection += "; the test split was not used for any choice."
    else:
        selection += ", so the validation metrics are slightly optimistic."
    return {
        "title": _explain_no_winner(runs, best_run) or f"{winner}: {result}",
        "accuracy": f"{best_run.name} classifies {metrics['accuracy']:.1%} of {metrics['count']:,} "
        f"{SPLIT_NAMES[split]} images correctly{ci}. Always predicting the largest class would score "
        f"{metrics['majority_accuracy']:.1%} accuracy.",
        "differences": _describe_differences(
            best_run, comparison, metric if metric in COMPARED_METRICS else "accuracy"
        ),
        "tta": describe_tta(runs),
        "selection": selection,
    }


def _explain_no_winner(runs: Sequence[Run], best_run: Run) -> str:
    """Return why no run is called the best: all are equal, or the best has an alarm; an empty string if one is."""
    metrics = best_run.read_metrics()
    best_epoch = metrics["best_epoch"]
    if any(
        alarm["code"] in ALARMS_OF_NO_LEARNING and alarm["since"] <= best_epoch <= alarm["until"]
        for alarm in metrics["alarms"]
    ):
        return f"{best_run.name} learned nothing: an alarm was raised at its best epoch"
    select = best_run.recipe.training.select
    if len(runs) > 1 and len({run.read_metrics()["valid"][select] for run in runs}) == 1:
        return f"None of the {len(runs)} runs is the best: all have the same {get_metric(select).label} on validation"
    return ""


def _describe_differences(best_run: Run, comparison: Comparison, metric: str) -> str:
    """Say how much the best run differs from each other run, and whether this is statistically significant."""
    if comparison.not_compared_reason:
        return f"{comparison.not_compared_reason}, so their differences are not tested."
    best_family = next((result.name for result in comparison.results if best_run.name in result.runs), best_run.name)
    sentences: list[str] = []
    for difference in comparison.differences:
        if difference.metric != metric or best_family not in (difference.first, difference.second):
            continue
        is_first = difference.first == best_family
        other = difference.second if is_first else difference.first
        sign = 1 if is_first else -1
        value = sign * difference.value
        direction = "lower" if value < 0 else "higher"
        ci = ""
        if difference.interval:
            low, high = sorted(sign * end + 0.0 for end in difference.interval)
            ci = f" (95 % CI of the difference {low:+.3f} to {high:+.3f})"
        sentences.append(
            f"The {get_metric(metric).label} of {best_family} is {abs(value):.3f} {direction} than that of "
            f"{other}{ci}: {describe_significance(difference)}."
        )
    return " ".join(sentences)


def format_rerun_commands(run: Run) -> str:
    """Return the commands that repeat a run, and its evaluation if something was chosen after training."""
    data = run.read_environment()["data"]["folder"]
    decision = Decision.load(run.decision_path)
    train = ["parfocal", "train", data, "--recipe", str(run.folder / "recipe.yaml"), "--out", "runs/rerun"]
    options = ["--tta", decision.tta] if decision.tta else []
    options += ["--positive", decision.positive] if decision.positive else []
    for fitted in decision.fitted:
        if fitted.option and fitted.option_value != fitted.default_option(run.recipe):
            value = fitted.option_value
            options.append(f"--{fitted.option.replace('_', '-')}")
            options += [] if value is True else [str(value)]
    evaluate = ["parfocal", "evaluate", f"runs/rerun/{run.recipe.network.model}", *options]
    return "\n".join(map(shlex.join, [train, evaluate] if options else [train]))
