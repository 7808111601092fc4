"""Exporting a run: written, loaded again in its own runtime, compared with the run, and only then given its name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parfocal.errors import ParfocalError, UsageError, nearest
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.ensemble import MEMBERS
from parfocal.evaluation.evaluate import looked_at
from parfocal.exporting.about import about as told_about
from parfocal.exporting.agreement import MOST, Agreement, Said, Sample, agreement, said_by, said_by_run, sample
from parfocal.exporting.formats import FORMATS, Form, can_be_written, files_of, opened, write, write_openvino
from parfocal.exporting.graph import Graph
from parfocal.exporting.integers import in_integers
from parfocal.files import write_text
from parfocal.model.classifier import Classifier
from parfocal.model.compiled import Compiled, Numbers, converted
from parfocal.recipe import Recipe
from parfocal.report.card import card as model_card
from parfocal.run import Run, open_runs

TOLERANCES: dict[str, float] = {"float32": 0.01, "bf16": 0.03, "int8": 0.03}
"""By how much a probability may differ from the run's."""


@dataclass(frozen=True)
class Exported:
    """An export that agrees with its run: its file, its card, and what was measured on the images named by `where`.

    `said` holds what the run's network, the export and, of an int8 one, the same graph before, said of the images.
    """

    path: Path
    card: Path
    where: str
    agreement: Agreement
    said: Mapping[str, Said]


class Disagreement(ParfocalError):  # noqa: N818
    """An export that does not say what its run says; `exported` holds what was measured."""

    def __init__(self, text: str, exported: Exported) -> None:
        super().__init__(text)
        self.exported = exported


def export(
    run: Path | str | Run,
    to: Form = "onnx",
    out: Path | str | None = None,
    *,
    precision: Numbers = "float32",
    int8: bool = False,
    images: Iterable[Path | str] = (),
    card: Path | str | None = None,
) -> Exported:
    """Write a run's network in a format that others run, compare it with the run, and write a model card.

    The exported network takes uint8 pixels of prepared images (N, size, size, 3) and gives calibrated probabilities.
    It is compared on the run's validation images, or on `images`; one that differs by more than the tolerance or
    answers any of them otherwise is a Disagreement, and kept beside as `NAME.refused`. `out` is a file, or a folder;
    without it the export lies in the run's folder `export`.
    """
    if to not in FORMATS:
        raise UsageError(f"There is no format {to!r}. {nearest(to, FORMATS)}")
    if precision not in TOLERANCES or precision == "int8":
        raise UsageError(f"There is no precision {precision!r}. Valid are: float32, bf16.")
    can_be_written(to, precision, int8)
    opened_run, path = _run(run), _place(run, to, out, int8)
    decision = Decision.load(opened_run.decision)
    recipe = looked_at(opened_run.recipe, decision.looks)
    classifier = Classifier.load(opened_run.weights).eval()
    graph = Graph(classifier, recipe.images.size, recipe.views, decision.temperature)
    told = told_about(opened_run, recipe, decision, precision, int8)
    shown = sample(opened_run, recipe.images, list(images), MOST * (2 if int8 else 1))
    asked = shown.every(2, 0) if int8 else shown
    draft = path.with_name(f"{path.stem}.refused{path.suffix}")
    before: dict[str, Said] = {"run": said_by_run(classifier, recipe, decision, asked)}
    if int8:
        before |= _write_integers(graph, precision, told, draft, shown, decision, recipe)
    else:
        write(graph, to, precision, told, draft)
    said = said_by(opened(draft, to), asked, decision, recipe)
    name = "int8" if int8 else precision
    found = agreement(before["run"], said)
    exported = Exported(
        path, Path(card) if card else path.with_name(f"{path.name}.md"), shown.where, found, {**before, name: said}
    )
    if not found.holds(TOLERANCES[name]):
        raise Disagreement(
            f"The export does not say what its run says: of {len(asked)} images it answers {found.changed} otherwise, "
            f"and a probability differs by {found.largest:.4f}, where {TOLERANCES[name]:g} is allowed. It is kept as "
            f"{draft}.",
            replace(exported, path=draft),
        )
    for file in files_of(draft):
        file.replace(path.with_suffix(file.suffix))
    write_text(exported.card, model_card(opened_run, told, _lines(exported, name)))
    return exported


def _run(run: Path | str | Run) -> Run:
    if isinstance(run, Run):
        return run
    if (Path(run) / MEMBERS).is_file():
        raise UsageError(f"{run} is an ensemble. Export each of its runs, and average what they say.")
    runs = open_runs([run])
    if len(runs) > 1:
        raise UsageError(f"{run} holds {len(runs)} runs. Name one: {', '.join(str(one.folder) for one in runs)}.")
    runs[0].metrics()
    return runs[0]


def _place(run: Path | str | Run, to: Form, out: Path | str | None, int8: bool) -> Path:
    """Return the file to write: the one that is named, or one called after the run in the folder that is named."""
    folder, suffix = run.folder if isinstance(run, Run) else Path(run), FORMATS[to].suffix
    place = Path(out) if out is not None else folder / "export"
    if place.suffix == "" or place.is_dir():
        return place / f"{Run(folder).name}{'-int8' if int8 else ''}{suffix}"
    if place.suffix != suffix:
        raise UsageError(f"{place}: a file of {to} ends in {suffix}.")
    return place


def _write_integers(
    graph: Graph,
    numbers: Numbers,
    told: Mapping[str, Any],
    draft: Path,
    shown: Sample,
    decision: Decision,
    recipe: Recipe,
) -> dict[str, Said]:
    """Write a graph in int8, measured on every other image; return what it says of the rest as it was before."""
    plain = converted(graph, graph.size)
    before = said_by(Compiled(plain, numbers), shown.every(2, 0), decision, recipe)
    others = shown.every(2, 1)
    write_openvino(in_integers(plain, (others if len(others) else shown).pixels), numbers, told, draft)
    return {numbers: before}


def _lines(exported: Exported, name: str) -> list[tuple[str, str]]:
    """Return what the card says of the file and its comparison."""
    found, said = exported.agreement, exported.said[name]
    lines = [
        ("file", ", ".join(file.name for file in reversed(files_of(exported.path)))),
        ("computes in", name),
        ("compared with the run", f"on {len(said.labels)} images of {exported.where}"),
        ("largest difference of a probability", f"{found.largest:.6f} ({TOLERANCES[name]:g} is allowed)"),
        ("answers that differ", str(found.changed)),
    ]
    for one, what in exported.said.items():
        right = "" if what.accuracy is None else f", accuracy {what.accuracy:.4f}"
        lines.append((_called(one), f"{what.speed:.1f} images a second{right}"))
    return lines


def _called(one: str) -> str:
    return "the run, PyTorch in float32" if one == "run" else f"the export in {one}"
