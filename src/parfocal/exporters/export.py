"""Exporting a run: written, loaded again in its own runtime, compared with the run, and only then given its name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parfocal.engine.compiled import OpenVinoNetwork, Precision, convert_to_openvino
from parfocal.errors import ParfocalError, UsageError, did_you_mean
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.ensemble import MEMBERS_FILE
from parfocal.evaluation.evaluate import with_tta
from parfocal.exporters.formats import (
    FORMATS,
    FormatName,
    check_format,
    list_files,
    load_export,
    write_export,
    write_openvino,
)
from parfocal.exporters.graph import ExportGraph
from parfocal.exporters.metadata import build_metadata as told_about
from parfocal.exporters.quantize import quantize
from parfocal.exporters.verify import (
    MAX_IMAGES,
    BackendResult,
    ImageSample,
    Verification,
    compare_results,
    load_sample,
    predict_timed,
    predict_with_run,
)
from parfocal.io import write_text
from parfocal.models.classifier import Classifier
from parfocal.recipe import Recipe
from parfocal.report.model_card import build_model_card as model_card
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
    source: str
    verification: Verification
    results: Mapping[str, BackendResult]


class VerificationError(ParfocalError):
    """An export that does not say what its run says; `exported` holds what was measured."""

    def __init__(self, message: str, exported: Exported) -> None:
        super().__init__(message)
        self.exported = exported


def export(
    run: Path | str | Run,
    to: FormatName = "onnx",
    out: Path | str | None = None,
    *,
    precision: Precision = "float32",
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
        raise UsageError(f"There is no format {to!r}. {did_you_mean(to, FORMATS)}")
    if precision not in TOLERANCES or precision == "int8":
        raise UsageError(f"There is no precision {precision!r}. Valid are: float32, bf16.")
    check_format(to, precision, int8)
    opened_run, path = _open_single_run(run), _output_path(run, to, out, int8)
    decision = Decision.load(opened_run.decision_path)
    recipe = with_tta(opened_run.recipe, decision.tta)
    classifier = Classifier.load(opened_run.weights_path).eval()
    graph = ExportGraph(classifier, recipe.images.size, recipe.views, decision.temperature)
    told = told_about(opened_run, recipe, decision, precision, int8)
    shown = load_sample(opened_run, recipe.images, list(images), MAX_IMAGES * (2 if int8 else 1))
    asked = shown.take_every(2, 0) if int8 else shown
    draft = path.with_name(f"{path.stem}.refused{path.suffix}")
    before: dict[str, BackendResult] = {"run": predict_with_run(classifier, recipe, decision, asked)}
    if int8:
        before |= _write_int8(graph, precision, told, draft, shown, decision, recipe)
    else:
        write_export(graph, to, precision, told, draft)
    said = predict_timed(load_export(draft, to), asked, decision, recipe)
    name = "int8" if int8 else precision
    found = compare_results(before["run"], said)
    exported = Exported(
        path, Path(card) if card else path.with_name(f"{path.name}.md"), shown.source, found, {**before, name: said}
    )
    if not found.passes(TOLERANCES[name]):
        raise VerificationError(
            f"The export does not say what its run says: of {len(asked)} images it answers {found.n_changed} otherwise, "
            f"and a probability differs by {found.max_difference:.4f}, where {TOLERANCES[name]:g} is allowed. It is kept as "
            f"{draft}.",
            replace(exported, path=draft),
        )
    for file in list_files(draft):
        file.replace(path.with_suffix(file.suffix))
    write_text(exported.card, model_card(opened_run, told, _card_rows(exported, name)))
    return exported


def _open_single_run(run: Path | str | Run) -> Run:
    if isinstance(run, Run):
        return run
    if (Path(run) / MEMBERS_FILE).is_file():
        raise UsageError(f"{run} is an ensemble. Export each of its runs, and average what they say.")
    runs = open_runs([run])
    if len(runs) > 1:
        raise UsageError(f"{run} holds {len(runs)} runs. Name one: {', '.join(str(one.folder) for one in runs)}.")
    runs[0].read_metrics()
    return runs[0]


def _output_path(run: Path | str | Run, to: FormatName, out: Path | str | None, int8: bool) -> Path:
    """Return the file to write: the one that is named, or one called after the run in the folder that is named."""
    folder, suffix = run.folder if isinstance(run, Run) else Path(run), FORMATS[to].suffix
    place = Path(out) if out is not None else folder / "export"
    if place.suffix == "" or place.is_dir():
        return place / f"{Run(folder).name}{'-int8' if int8 else ''}{suffix}"
    if place.suffix != suffix:
        raise UsageError(f"{place}: a file of {to} ends in {suffix}.")
    return place


def _write_int8(
    graph: ExportGraph,
    precision: Precision,
    metadata: Mapping[str, Any],
    draft: Path,
    images: ImageSample,
    decision: Decision,
    recipe: Recipe,
) -> dict[str, BackendResult]:
    """Write a graph in int8, measured on every other image; return what it says of the rest as it was before."""
    plain = convert_to_openvino(graph, graph.size)
    before = predict_timed(OpenVinoNetwork(plain, precision), images.take_every(2, 0), decision, recipe)
    others = images.take_every(2, 1)
    write_openvino(quantize(plain, (others if len(others) else images).pixels), precision, metadata, draft)
    return {precision: before}


def _card_rows(exported: Exported, name: str) -> list[tuple[str, str]]:
    """Return what the card says of the file and its comparison."""
    found, said = exported.verification, exported.results[name]
    lines = [
        ("file", ", ".join(file.name for file in reversed(list_files(exported.path)))),
        ("computes in", name),
        ("compared with the run", f"on {len(said.predicted)} images of {exported.source}"),
        ("largest difference of a probability", f"{found.max_difference:.6f} ({TOLERANCES[name]:g} is allowed)"),
        ("answers that differ", str(found.n_changed)),
    ]
    for one, what in exported.results.items():
        right = "" if what.accuracy is None else f", accuracy {what.accuracy:.4f}"
        lines.append((_describe_backend(one), f"{what.images_per_second:.1f} images a second{right}"))
    return lines


def _describe_backend(name: str) -> str:
    return "the run, PyTorch in float32" if name == "run" else f"the export in {name}"
