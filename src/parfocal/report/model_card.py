"""A model card: what a network is for, what it was trained and judged on, how sure that is, and where it ends."""

from collections.abc import Mapping, Sequence
from typing import Any

import parfocal
from parfocal.report.formatting import HEADINGS, format_metric, format_share
from parfocal.run import Run

_METRICS = ("accuracy", "majority_accuracy", "balanced_accuracy", "macro_f1", "kappa", "quadratic_kappa", "auc")
_METRIC_NAMES = {**HEADINGS, "majority_accuracy": "accuracy of always saying the largest class"}
_CLASS_METRICS = {"recall": "recall", "precision": "precision", "specificity": "specificity", "auc": "AUC"}

Rows = Sequence[Sequence[object]]


def build_model_card(run: Run, metadata: Mapping[str, Any], export_rows: Rows) -> str:
    """Return a card in Markdown for a finished run that was exported.

    `about` is what travels with the export, and `export` says in rows of two cells how it was written and compared.
    """
    metrics, environment = run.read_metrics(), run.read_environment()
    judged = {split: metrics[split] for split in ("valid", "test") if metrics.get(split, {}).get("labelled")}
    parts = [
        _format_purpose(run, metadata),
        _format_section("The file", _format_table(("", ""), export_rows), _format_usage(metadata)),
        _format_section("Data", *_format_data(environment["data"])),
        _format_section("Training", _format_table(("", ""), _build_training_rows(run, metrics, environment))),
        _format_section("Results", *_format_results(judged)),
        _format_section("Calibration", *_format_calibration(judged)),
        _format_section("Operating point", *_format_operating_point(metadata, judged)),
        _format_section("Limits", _format_limits(run, metrics, environment["data"], judged)),
        f"Written by Parfocal {parfocal.__version__} from the files of the run.\n",
    ]
    return "\n".join(parts)


def _format_purpose(run: Run, metadata: Mapping[str, Any]) -> str:
    classes = ", ".join(map(_escape_cell, metadata["classes"]))
    return (
        f"# {_escape_cell(run.name)}\n\nA residual network ({_escape_cell(metadata['model'])}) that tells apart: {classes}.\n\n"
        "**Intended use**: research and teaching, on images like those described below. **Not a medical device**: it "
        "must not decide about a patient, and has been judged by no authority.\n"
    )


def _format_usage(metadata: Mapping[str, Any]) -> str:
    size = metadata["size"]
    return (
        f"It takes RGB pixels as uint8 of shape (N, {size}, {size}, 3), framed as the metadata's `preprocessing` says, and "
        f"gives one calibrated probability for each class. The answer is {_escape_cell(metadata['decision_rule'])}.\n"
    )


def _format_data(data: Mapping[str, Any]) -> list[str]:
    splits = list(data["rows"])
    rows = [(name, *(data["counts"][split].get(name, 0) for split in splits)) for name in data["classes"]]
    rows += [("**images**", *(data["rows"][split] for split in splits))]
    rows += [("**groups**", *(data["groups"][split] for split in splits))]
    # File names, which follow the colon, may name patients.
    waived = [one["text"].partition(": ")[0] for one in data["findings"] if one["severity"] == "warning"]
    told = "".join(f"- {_escape_cell(text)}\n" for text in waived)
    return [
        f"Source: {_escape_cell(data['source'])}. Groups are patients where the data names them; none is in two splits unless "
        "it is said below.\n",
        _format_table(("class", *splits), rows),
        f"Found in the data, and accepted or warned of:\n\n{told}" if told else "",
    ]


def _build_training_rows(run: Run, metrics: Mapping[str, Any], environment: Mapping[str, Any]) -> Rows:
    recipe, began = run.recipe, run.read_load_report()
    return [
        ("recipe", f"{recipe.name}, digest {environment['recipe_digest']}, seed {recipe.seed}"),
        ("first weights", recipe.network.init if began else "random"),
        ("parameters", f"{metrics['parameters']:,}"),
        ("loss", recipe.training.loss),
        (
            "epochs",
            f"{metrics['epochs']}; epoch {metrics['best_epoch']} kept, by {metrics['selected_by']} on validation",
        ),
        ("images", f"stored at {recipe.images.size}, seen at {recipe.views.crop_size} pixels"),
        ("computed in", environment["precision"]),
    ]


def _format_results(metrics_by_split: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not metrics_by_split:
        return ["No split has known labels, so nothing is known of how good it is.\n"]
    rows = [
        (_METRIC_NAMES[name], *(format_metric(one, name) for one in metrics_by_split.values())) for name in _METRICS
    ]
    rows.append(("images (groups)", *(f"{one['count']} ({one['groups']})" for one in metrics_by_split.values())))
    parts = [
        "With 95 % intervals over groups. Validation chose the epoch and what is decided below, so its figures are "
        "optimistic; test chose nothing.\n",
        _format_table(("", *metrics_by_split), rows),
    ]
    for split, one in metrics_by_split.items():
        intervals = one.get("intervals", {}).get("per_class", {})
        rows = [
            (
                name,
                own["support"],
                *(format_metric({**own, "intervals": intervals.get(name, {})}, word) for word in _CLASS_METRICS),
            )
            for name, own in one["per_class"].items()
        ]
        parts.append(f"By class, on {split}:\n\n" + _format_table(("class", "images", *_CLASS_METRICS.values()), rows))
    return parts


def _format_calibration(metrics_by_split: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        (split, *(f"{one[name]:.3f} → {one['calibration'][name]:.3f}" for name in ("ece", "brier", "loss")))
        for split, one in metrics_by_split.items()
        if "calibration" in one
    ]
    if not rows:
        return ["Its probabilities were not calibrated.\n"]
    temperature = next(one["calibration"]["temperature"] for one in metrics_by_split.values() if "calibration" in one)
    return [
        f"The network's certainty is divided by a temperature of {temperature:.3f}, fitted on validation; the export "
        "does so itself. Before → after:\n",
        _format_table(("split", "expected calibration error", "Brier", "loss"), rows),
    ]


def _format_operating_point(
    metadata: Mapping[str, Any], metrics_by_split: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    parts = [f"The answer is {_escape_cell(metadata['decision_rule'])}.\n"]
    points, referrals = [], []
    for split, one in metrics_by_split.items():
        if point := one.get("operating"):
            # Of two answers the second is the positive one; between grades each is an answer of its own.
            for name in point["classes"][1:] if len(point["classes"]) == 2 else point["classes"]:
                own = {**point["per_class"][name], "intervals": point["intervals"]["per_class"][name]}
                points.append(
                    (point["wish"], split, name, *(format_metric(own, word) for word in ("recall", "specificity")))
                )
        if referral := one.get("referral"):
            names = ("coverage", "referred", "accuracy_of_the_rest")
            referrals.append((split, referral["stated"], *(format_share(referral[name]) for name in names)))
    if points:
        parts.append(_format_table(("wished for", "split", "answer", "sensitivity", "specificity"), points))
    if referrals:
        parts.append("Images that are unsure are for a human:\n")
        parts.append(_format_table(("split", "stated", "coverage", "referred", "accuracy of the rest"), referrals))
    return parts


def _format_limits(
    run: Run, metrics: Mapping[str, Any], data: Mapping[str, Any], metrics_by_split: Mapping[str, Any]
) -> str:
    limits = [
        "It has seen images of one source only; other cameras, stains, clinics and patients may be answered worse, and "
        "nothing here says by how much. Judge it on your own: `parfocal evaluate RUN --data FOLDER`.",
        "It answers every image, also one that shows something else. What is out of the ordinary is measured by the "
        "metadata's `ordinary`, which whoever runs the export has to apply.",
        "Images must be framed as in training; the metadata's `preprocessing` says how.",
    ]
    if "test" not in metrics_by_split:
        limits.append("There was no test split with known labels: every figure above is of validation, and optimistic.")
    few = [f"{name} ({count})" for name, count in data["counts"].get("train", {}).items() if count < 100]
    if few:
        limits.append(f"Few images to learn from: {', '.join(few)}.")
    if run.recipe.data.allow:
        limits.append(f"Accepted knowingly in the data: {', '.join(run.recipe.data.allow)}.")
    limits += [alarm["text"] for alarm in metrics["alarms"]]
    return "".join(f"- {_escape_cell(one)}\n" for one in limits)


def _format_section(heading: str, *paragraphs: str) -> str:
    return "\n".join([f"## {heading}\n", *(part for part in paragraphs if part)])


def _format_table(headings: Sequence[object], rows: Rows) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(map(_escape_cell, line))} |\n" for line in lines)


def _escape_cell(value: object) -> str:
    """Return text that cannot be taken for a table's edge, a new line or a tag: class names are anybody's."""
    text = " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").encode("utf-8", "replace").decode("utf-8")
