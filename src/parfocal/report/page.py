"""One self-contained page that compares runs, made from their folders."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from matplotlib.figure import Figure

from parfocal.errors import ParfocalError
from parfocal.evaluation.compare import Comparison, compare_runs
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referable import binarize_grades
from parfocal.files import write_text
from parfocal.report.content import build_report_context
from parfocal.report.figures import (
    assign_colors,
    draw_accuracy,
    draw_error,
    draw_learning_curves,
    draw_predicted_shares,
    is_plain,
    save_figure,
)
from parfocal.report.matrices import draw_class_distribution, draw_confusion_matrix
from parfocal.report.render import render
from parfocal.report.score_figures import draw_reliability, draw_score_curves
from parfocal.run import Run, open_runs


def compare(runs: Iterable[Path | str | Run] | Path | str | Run, out: Path | str | None = None) -> Comparison:
    """Compare finished runs, and write `report.html` and its figures; `page` of what is returned says where.

    `out` is the page to write; without it the page lies in the folder above the runs, or in the run's own if it is
    the only one.
    """
    given = [runs] if isinstance(runs, str | Path | Run) else runs
    opened = open_runs(run.folder if isinstance(run, Run) else run for run in given)
    check_comparable(opened)
    page = Path(out) if out is not None else default_report_path(opened)
    comparison = replace(compare_runs(opened), page=page)
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
    first = runs[0].recipe.judgement.referable
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
