"""Export a run: write it, load it in its runtime, verify it against the run, and only then give it its name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from parfocal.engine.compiled import OpenVinoNetwork, Precision, convert_to_openvino
from parfocal.errors import ParfocalError, UsageError, did_you_mean
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.decision_rule import DecisionRule
from parfocal.evaluation.ensemble import MEMBERS_FILE
from parfocal.evaluation.evaluate import with_tta
from parfocal.exporters.formats import FORMATS, OpenVino, load_export, quantize, staging_path
from parfocal.exporters.graph import ExportGraph
from parfocal.exporters.verify import (
    MAX_IMAGES,
    BackendResult,
    Verification,
    compare_results,
    load_sample,
    predict_timed,
    predict_with_run,
)
from parfocal.io import reject_link, write_text
from parfocal.models.classifier import Classifier
from parfocal.recipe import Recipe
from parfocal.report.model_card import build_model_card
from parfocal.run import Run, open_runs
from parfocal.version import __version__

TOLERANCES: dict[str, float] = {"float32": 0.01, "bf16": 0.03, "int8": 0.03}
"""The largest allowed difference between a probability and that of the run."""

INTENDED_USE = "For research and teaching. Not a medical device."


@dataclass(frozen=True)
class Exported:
    """A verified export: its file, its model card, and the results on the images of `source`.

    `results` holds the results of the run ("run"), of the export, and for int8 also of the network before quantization.
    """

    path: Path
    card: Path
    source: str
    verification: Verification
    results: Mapping[str, BackendResult]


class VerificationError(ParfocalError):
    """An export whose predictions differ from those of its run; `exported` holds the results."""

    def __init__(self, message: str, exported: Exported) -> None:
        super().__init__(message)
        self.exported = exported


def export(
    run: Path | str | Run,
    to: str = "onnx",
    out: Path | str | None = None,
    *,
    precision: Precision = "float32",
    int8: bool = False,
    images: Iterable[Path | str] = (),
    card: Path | str | None = None,
) -> Exported:
    """Export a run's network to a format that other programs run, verify it against the run, and write a model card.

    The exported network takes uint8 pixels of prepared images (N, size, size, 3) and returns calibrated probabilities.
    It is verified on the run's validation images, or on `images`. If a probability differs by more than the tolerance,
    or any predicted class differs, VerificationError is raised and the file is kept as `NAME.refused`. `out` is a file
    or a folder; the default is the folder `export` in the run's folder.
    """
    if to not in FORMATS:
        raise UsageError(f"There is no format {to!r}. {did_you_mean(to, FORMATS)}")
    if precision not in ("float32", "bf16"):
        raise UsageError(f"There is no precision {precision!r}. Choose float32 or bf16.")
    export_format = FORMATS[to]
    export_format.check_options(precision, int8)
    opened_run = _open_single_run(run)
    path = _output_path(run, to, out, int8)
    draft = path.with_name(f"{path.stem}.refused{path.suffix}")
    decision = Decision.load(opened_run.decision_path)
    recipe = with_tta(opened_run.recipe, decision.tta)
    classifier = Classifier.load(opened_run.weights_path).eval()
    decision.check_classes(len(classifier.classes), opened_run.decision_path)
    graph = ExportGraph(classifier, recipe.images.size, recipe.views, decision.temperature)
    metadata = build_metadata(opened_run, recipe, decision, precision, int8)
    # For int8, half of the images calibrates the quantization, the other half verifies it.
    available = load_sample(opened_run, recipe.images, list(images), MAX_IMAGES * (2 if int8 else 1))
    sample = available.take_every(2, 0) if int8 else available
    results: dict[str, BackendResult] = {"run": predict_with_run(classifier, recipe, decision, sample)}
    with staging_path(draft, export_format) as temporary:
        if int8:
            assert isinstance(export_format, OpenVino)
            model = convert_to_openvino(graph, graph.size)
            results[precision] = predict_timed(OpenVinoNetwork(model, precision), sample, decision)
            calibration = available.take_every(2, 1) if len(available) > 1 else available
            export_format.write_model(quantize(model, calibration.pixels), precision, metadata, temporary)
        else:
            export_format.write(graph, precision, metadata, temporary)
    name = "int8" if int8 else precision
    results[name] = predict_timed(load_export(draft, to), sample, decision)
    verification = compare_results(results["run"], results[name])
    card_path = Path(card) if card else path.with_name(f"{path.name}.md")
    exported = Exported(path, card_path, sample.source, verification, results)
    if not verification.passes(TOLERANCES[name]):
        raise VerificationError(
            f"The export does not agree with its run: {verification.n_changed} of {len(sample)} predicted classes "
            f"differ, and a probability differs by {verification.max_difference:.4f} (allowed: {TOLERANCES[name]:g}). "
            f"The file is kept as {draft}.",
            replace(exported, path=draft),
        )
    for file in export_format.list_files(draft):
        file.replace(path.with_suffix(file.suffix))
    files = [file.name for file in reversed(export_format.list_files(path))]
    write_text(card_path, build_model_card(opened_run, metadata, _build_card_rows(exported, files, name)))
    return exported


def build_metadata(run: Run, recipe: Recipe, decision: Decision, precision: Precision, int8: bool) -> dict[str, Any]:
    """Return what is needed to prepare the input of an export and to interpret its output, as plain data.

    `recipe` has the test-time augmentation of the decision.
    """
    data = run.read_environment()["data"]
    size = recipe.images.size
    return {
        "parfocal": __version__,
        "run": run.name,
        "model": recipe.network.model,
        "use": INTENDED_USE,
        "classes": data["classes"],
        "codes": data["codes"],
        "input": {"name": "pixels", "type": "uint8", "shape": ["images", size, size, 3], "channels": "RGB"},
        "output": {"name": "probabilities", "type": "float32", "shape": ["images", len(data["classes"])]},
        "size": size,
        "crop_size": recipe.views.crop_size,
        "tta": recipe.views.tta,
        "preprocessing": recipe.images.model_dump(mode="json", exclude={"store", "quality"}),
        "temperature": decision.temperature,
        "ordered": recipe.evaluation.ordered,
        "referable": recipe.evaluation.referable,
        "decision_rule": describe_decision_rule(data["classes"], recipe, decision),
        "decide": asdict(rule) if (rule := decision.get(DecisionRule)) else None,
        "operating_point": asdict(decision.operating_point) if decision.operating_point else None,
        "referral": asdict(decision.referral) if decision.referral else None,
        "out_of_distribution": asdict(decision.ood) if decision.ood else None,
        "precision": precision,
        "int8": int8,
    }


def describe_decision_rule(classes: Sequence[str], recipe: Recipe, decision: Decision) -> str:
    """Describe how the predicted class follows from the probabilities."""
    rule = decision.get(DecisionRule) or DecisionRule("likeliest")
    operating_point = decision.operating_point
    if operating_point is None:
        return rule.describe_class()
    threshold = f"{operating_point.threshold:.6g}"
    if len(classes) == 2:
        positive = operating_point.positive
        return f"{classes[positive]} if its probability is at least {threshold}, else {classes[1 - positive]}"
    lowest = classes[recipe.evaluation.referable]
    return f"{rule.describe_class()}; positive if the probabilities of {lowest} and above sum to at least {threshold}"


def _open_single_run(run: Path | str | Run) -> Run:
    if isinstance(run, Run):
        return run
    if (Path(run) / MEMBERS_FILE).is_file():
        raise UsageError(f"{run} is an ensemble. Export each of its runs, and average their probabilities.")
    runs = open_runs([run])
    if len(runs) > 1:
        folders = ", ".join(str(each.folder) for each in runs)
        raise UsageError(f"{run} contains {len(runs)} runs. Choose one: {folders}.")
    # An unfinished run is an error.
    runs[0].read_metrics()
    return runs[0]


def _output_path(run: Path | str | Run, to: str, out: Path | str | None, int8: bool) -> Path:
    """Return the file to write: `out` if it is a file, else a file with the name of the run in the folder."""
    folder = run.folder if isinstance(run, Run) else Path(run)
    suffix = FORMATS[to].suffix
    path = Path(out) if out is not None else reject_link(folder / "export")
    if path.suffix == "" or path.is_dir():
        return path / f"{Run(folder).name}{'-int8' if int8 else ''}{suffix}"
    if path.suffix != suffix:
        raise UsageError(f"{path}: a file name for {to} must end in {suffix}.")
    return path


def _build_card_rows(exported: Exported, files: list[str], name: str) -> list[tuple[str, str]]:
    """Return the rows of the model card about the file and its verification."""
    verification = exported.verification
    n_images = len(exported.results[name].predicted)
    rows = [
        ("file", ", ".join(files)),
        ("precision", name),
        ("compared with the run", f"on {n_images} images of {exported.source}"),
        ("largest difference of a probability", f"{verification.max_difference:.6f} (allowed: {TOLERANCES[name]:g})"),
        ("predicted classes that differ", str(verification.n_changed)),
    ]
    for backend, result in exported.results.items():
        label = "the run, PyTorch in float32" if backend == "run" else f"the export in {backend}"
        accuracy = "" if result.accuracy is None else f", accuracy {result.accuracy:.4f}"
        rows.append((label, f"{result.images_per_second:.1f} images/s{accuracy}"))
    return rows
