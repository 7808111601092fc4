"""Write the results pages from finished runs: tables, figures, and how each run was made."""

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

from matplotlib.figure import Figure

from benchmarks.pages import describe_origin, save_svg
from benchmarks.quality import compute_quality
from benchmarks.results_experiments import Experiment, GapPage, Page
from benchmarks.split_gap import compute_gaps
from parfocal.data.layouts import read
from parfocal.evaluation.compare import Comparison, Difference, compare_predictions
from parfocal.evaluation.predictions import Predictions
from parfocal.explainability.explain import explain
from parfocal.markdown import Markdown, format_code_block, format_markdown_table
from parfocal.report.learning_curves import draw_learning_curves
from parfocal.report.result_figures import draw_confusion_matrix
from parfocal.run import Run

RunsByExperiment = Mapping[Experiment, Mapping[int, Run]]

_METRICS = {"accuracy": "accuracy", "quadratic_kappa": "quadratic kappa", "auc": "AUC"}


def render_page(page: Page, runs: RunsByExperiment, images: Path) -> str:
    """Render a page that compares experiments, and write its figures into `images`; empty if no run is finished."""
    if not runs:
        return ""
    lines = [f"# {page.title}", "", page.about, "", _render_comparison(page, runs)]
    plotted = [replace(of_seeds[min(of_seeds)], display_name=each.label) for each, of_seeds in runs.items()
             if each.name in page.plotted]  # fmt: skip
    if plotted:
        lines += ["", *_draw_figures(page, plotted, images)]
    if page.explained and len(plotted) == len(page.plotted):
        lines += ["", _draw_maps(page, plotted, images)]
    return "\n".join([*lines, "", *_render_provenance(runs), ""])


def render_gap_page(page: GapPage, runs: RunsByExperiment, locate_data: Callable[[str], Path]) -> str:
    """Render a page that compares splits by patient and by image; empty if no pair of experiments has runs."""
    by_name = {experiment.name: (experiment, of_seeds) for experiment, of_seeds in runs.items()}
    rows: list[list[str]] = []
    for title, names in page.pairs.items():
        if not all(name in by_name for name in names):
            continue
        experiment = by_name[names[0]][0]
        table = read(locate_data(experiment.data)).rows
        patients = dict(zip(table["id"], table["group"], strict=True))
        by_patient, by_image = (list(_load_predictions(by_name[name][1]).values()) for name in names)
        for metric, gap in compute_gaps(by_patient, by_image, patients).items():
            low, high = gap.interval
            values = (f"{gap.by_patient:.3f}", f"{gap.by_image:.3f}", f"{gap.value:+.3f} ({low:+.3f} to {high:+.3f})")
            rows.append([title, metric, *values])
    if not rows:
        return ""
    headings = ("test images", "metric", "split by patient", "split by image", "overstated by")
    table = format_markdown_table(headings, rows)
    note = "Means over the seeds, each with another split; 95 % intervals by bootstrap over the patients of the set."
    return "\n".join([f"# {page.title}", "", page.about, "", table, "", note, "", *_render_provenance(runs), ""])


def render_index(titles: Mapping[str, str], folder: Path) -> str:
    """Render the list of all pages; a page that is not written yet has no link."""
    lines = ["# Results made by `make results`", ""]
    for name, title in titles.items():
        exists = (folder / f"{name}.md").is_file()
        lines.append(f"- [{title}]({name}.md)" if exists else f"- {title}: not measured yet")
    return "\n".join([*lines, ""])


def _load_predictions(runs: Mapping[int, Run]) -> dict[str, Predictions]:
    return {f"seed {seed}": Predictions.load(run.predictions_path("test")) for seed, run in runs.items()}


def _render_comparison(page: Page, runs: RunsByExperiment) -> Markdown:
    """Render the metrics of each experiment, and their differences to the baseline, as a table."""
    # With the baseline last, a difference is that of an experiment minus the baseline.
    ordered = sorted(runs.items(), key=lambda item: item[0].name == page.baseline)
    families = {experiment.label: _load_predictions(of_seeds) for experiment, of_seeds in ordered}
    baseline = next((experiment.label for experiment in runs if experiment.name == page.baseline), "")
    comparison = compare_predictions(families, "test", baseline=baseline)
    first = comparison.results[0]
    headings = [
        f"test: {first.n_images:,} images of {first.n_groups:,} groups",
        "seeds",
        *_METRICS.values(),
        "quadratic kappa of the mean grade",
        *([f"accuracy minus {baseline}", f"kappa minus {baseline}"] if baseline else []),
    ]
    results = {result.name: result for result in comparison.results}
    rows: list[list[str]] = []
    for experiment, of_seeds in runs.items():
        result = results[experiment.label]
        of_mean = [
            compute_quality(each.probabilities, each.truth)["kappa_of_mean"]
            for each in families[experiment.label].values()
        ]
        row = [experiment.label, ", ".join(map(str, of_seeds)), *(str(result.metrics[name]) for name in _METRICS)]
        row.append(f"{statistics.mean(of_mean):.3f}")
        if baseline:
            row += [_format_difference(comparison, experiment.label, name) for name in ("accuracy", "quadratic_kappa")]
        rows.append(row)
    majority = ["majority-class baseline", "", f"{first.majority_accuracy:.3f}", "0", "0.500", "0"]
    rows.append(majority + [""] * (len(headings) - len(majority)))
    return format_markdown_table(headings, rows)


def _format_difference(comparison: Comparison, label: str, metric: str) -> str:
    """Format a difference to the baseline, with a star if it is significant."""
    for difference in comparison.differences:
        if (difference.first, difference.metric) == (label, metric):
            return _format_value(difference)
    return ""


def _format_value(difference: Difference) -> str:
    star = " *" if difference.significance == "significant" else ""
    if difference.interval is None:
        return f"{difference.value:+.3f}"
    low, high = difference.interval
    return f"{difference.value:+.3f} ({low:+.3f} to {high:+.3f}){star}"


def _draw_figures(page: Page, runs: Sequence[Run], images: Path) -> list[str]:
    """Draw the learning curves of runs and the confusion matrix of each; return the lines that show them."""
    lines: list[str] = []

    def add(name: str, description: str, figure: Figure) -> None:
        save_svg(figure, images, name)
        lines.append(f"![{description}]({images.name}/{name}.svg)")

    add(f"{page.name}-curves", "Loss and validation metric per epoch", draw_learning_curves(runs))
    for number, run in enumerate(runs):
        figure = draw_confusion_matrix(f"{run.name}, test", run.read_metrics()["test"])
        add(f"{page.name}-confusion-{number}", f"Confusion matrix on test: {run.name}", figure)
    return lines


def _draw_maps(page: Page, runs: Sequence[Run], images: Path) -> str:
    """Draw the class activation maps of runs for the same test images; return the line that shows them."""
    with tempfile.TemporaryDirectory() as folder:
        sheet = explain([run.folder for run in runs], "test", folder, n_per_kind=2).sheets[0]
        name = f"{page.name}-maps{sheet.suffix}"
        copyfile(sheet, images / name)
    names = " and ".join(run.name for run in runs)
    return f"![Class activation maps of test images: {names}]({images.name}/{name})"


def _render_provenance(runs: RunsByExperiment) -> list[str]:
    """Return the lines that say on what machine, from what commit and by what commands the runs were made."""
    made: list[dict[str, Any]] = []
    commands: list[str] = []
    for experiment, of_seeds in runs.items():
        records = [read_provenance(run) for run in of_seeds.values()]
        made += records
        seeds = ",".join(map(str, of_seeds))
        commands += [f"# {experiment.label}: seed={seeds}", records[0]["command"]]
    minutes = sum(run.read_metrics()["seconds"] for of_seeds in runs.values() for run in of_seeds.values()) / 60
    return [
        "± is the standard deviation over seeds, in brackets are 95 % intervals; * marks a significant difference.",
        "",
        f"{describe_origin(made)}; {minutes:,.0f} minutes of training in total.",
        "",
        format_code_block("\n".join(commands), "sh"),
    ]


def read_provenance(run: Run) -> dict[str, Any]:
    """Return how a run was made: command, commit and machine."""
    return json.loads((run.folder.parent / "provenance.json").read_text(encoding="utf-8"))
