"""A model card: what a network is for, what it was trained and judged on, how sure that is, and where it ends."""

from collections.abc import Mapping, Sequence
from typing import Any

import parfocal
from parfocal.report.words import HEADINGS, figure_of, share_of
from parfocal.run import Run

_FIGURES = ("accuracy", "majority_accuracy", "balanced_accuracy", "macro_f1", "kappa", "quadratic_kappa", "auc")
_NAMES = {**HEADINGS, "majority_accuracy": "accuracy of always saying the largest class"}
_OF_CLASS = {"recall": "recall", "precision": "precision", "specificity": "specificity", "auc": "AUC"}

Rows = Sequence[Sequence[object]]


def card(run: Run, about: Mapping[str, Any], export: Rows) -> str:
    """Return a card in Markdown for a finished run that was exported.

    `about` is what travels with the export, and `export` says in rows of two cells how it was written and compared.
    """
    metrics, environment = run.metrics(), run.environment()
    judged = {split: metrics[split] for split in ("valid", "test") if metrics.get(split, {}).get("labelled")}
    parts = [
        _purpose(run, about),
        _section("The file", _table(("", ""), export), _usage(about)),
        _section("Data", *_data(environment["data"])),
        _section("Training", _table(("", ""), _training(run, metrics, environment))),
        _section("Results", *_results(judged)),
        _section("Calibration", *_calibration(judged)),
        _section("Operating point", *_operating(about, judged)),
        _section("Limits", _limits(run, metrics, environment["data"], judged)),
        f"Written by Parfocal {parfocal.__version__} from the files of the run.\n",
    ]
    return "\n".join(parts)


def _purpose(run: Run, about: Mapping[str, Any]) -> str:
    classes = ", ".join(map(_cell, about["classes"]))
    return (
        f"# {_cell(run.name)}\n\nA residual network ({_cell(about['model'])}) that tells apart: {classes}.\n\n"
        "**Intended use**: research and teaching, on images like those described below. **Not a medical device**: it "
        "must not decide about a patient, and has been judged by no authority.\n"
    )


def _usage(about: Mapping[str, Any]) -> str:
    size = about["size"]
    return (
        f"It takes RGB pixels as uint8 of shape (N, {size}, {size}, 3), framed as the metadata's `framing` says, and "
        f"gives one calibrated probability for each class. The answer is {_cell(about['answer'])}.\n"
    )


def _data(data: Mapping[str, Any]) -> list[str]:
    splits = list(data["rows"])
    rows = [(name, *(data["counts"][split].get(name, 0) for split in splits)) for name in data["classes"]]
    rows += [("**images**", *(data["rows"][split] for split in splits))]
    rows += [("**groups**", *(data["groups"][split] for split in splits))]
    # File names, which follow the colon, may name patients.
    waived = [one["text"].partition(": ")[0] for one in data["findings"] if one["severity"] == "warning"]
    told = "".join(f"- {_cell(text)}\n" for text in waived)
    return [
        f"Source: {_cell(data['source'])}. Groups are patients where the data names them; none is in two splits unless "
        "it is said below.\n",
        _table(("class", *splits), rows),
        f"Found in the data, and accepted or warned of:\n\n{told}" if told else "",
    ]


def _training(run: Run, metrics: Mapping[str, Any], environment: Mapping[str, Any]) -> Rows:
    recipe, began = run.recipe, run.began()
    return [
        ("recipe", f"{recipe.name}, digest {environment['recipe_digest']}, seed {recipe.seed}"),
        ("first weights", recipe.network.init if began else "random"),
        ("parameters", f"{metrics['parameters']:,}"),
        ("loss", recipe.training.loss),
        (
            "epochs",
            f"{metrics['epochs']}; epoch {metrics['best_epoch']} kept, by {metrics['selected_by']} on validation",
        ),
        ("images", f"stored at {recipe.images.size}, seen at {recipe.views.crop} pixels"),
        ("computed in", environment["precision"]),
    ]


def _results(judged: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not judged:
        return ["No split has known labels, so nothing is known of how good it is.\n"]
    rows = [(_NAMES[name], *(figure_of(one, name) for one in judged.values())) for name in _FIGURES]
    rows.append(("images (groups)", *(f"{one['count']} ({one['groups']})" for one in judged.values())))
    parts = [
        "With 95 % intervals over groups. Validation chose the epoch and what is decided below, so its figures are "
        "optimistic; test chose nothing.\n",
        _table(("", *judged), rows),
    ]
    for split, one in judged.items():
        intervals = one.get("intervals", {}).get("per_class", {})
        rows = [
            (
                name,
                own["support"],
                *(figure_of({**own, "intervals": intervals.get(name, {})}, word) for word in _OF_CLASS),
            )
            for name, own in one["per_class"].items()
        ]
        parts.append(f"By class, on {split}:\n\n" + _table(("class", "images", *_OF_CLASS.values()), rows))
    return parts


def _calibration(judged: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        (split, *(f"{one[name]:.3f} → {one['calibration'][name]:.3f}" for name in ("ece", "brier", "loss")))
        for split, one in judged.items()
        if "calibration" in one
    ]
    if not rows:
        return ["Its probabilities were not calibrated.\n"]
    temperature = next(one["calibration"]["temperature"] for one in judged.values() if "calibration" in one)
    return [
        f"The network's certainty is divided by a temperature of {temperature:.3f}, fitted on validation; the export "
        "does so itself. Before → after:\n",
        _table(("split", "expected calibration error", "Brier", "loss"), rows),
    ]


def _operating(about: Mapping[str, Any], judged: Mapping[str, Mapping[str, Any]]) -> list[str]:
    parts = [f"The answer is {_cell(about['answer'])}.\n"]
    points, referrals = [], []
    for split, one in judged.items():
        if point := one.get("operating"):
            # Of two answers the second is the positive one; between grades each is an answer of its own.
            for name in point["classes"][1:] if len(point["classes"]) == 2 else point["classes"]:
                own = {**point["per_class"][name], "intervals": point["intervals"]["per_class"][name]}
                points.append(
                    (point["wish"], split, name, *(figure_of(own, word) for word in ("recall", "specificity")))
                )
        if referral := one.get("referral"):
            names = ("coverage", "referred", "accuracy_of_the_rest")
            referrals.append((split, referral["stated"], *(share_of(referral[name]) for name in names)))
    if points:
        parts.append(_table(("wished for", "split", "answer", "sensitivity", "specificity"), points))
    if referrals:
        parts.append("Images that are unsure are for a human:\n")
        parts.append(_table(("split", "stated", "coverage", "referred", "accuracy of the rest"), referrals))
    return parts


def _limits(run: Run, metrics: Mapping[str, Any], data: Mapping[str, Any], judged: Mapping[str, Any]) -> str:
    limits = [
        "It has seen images of one source only; other cameras, stains, clinics and patients may be answered worse, and "
        "nothing here says by how much. Judge it on your own: `parfocal evaluate RUN --data FOLDER`.",
        "It answers every image, also one that shows something else. What is out of the ordinary is measured by the "
        "metadata's `ordinary`, which whoever runs the export has to apply.",
        "Images must be framed as in training; the metadata's `framing` says how.",
    ]
    if "test" not in judged:
        limits.append("There was no test split with known labels: every figure above is of validation, and optimistic.")
    few = [f"{name} ({count})" for name, count in data["counts"].get("train", {}).items() if count < 100]
    if few:
        limits.append(f"Few images to learn from: {', '.join(few)}.")
    if run.recipe.data.allow:
        limits.append(f"Accepted knowingly in the data: {', '.join(run.recipe.data.allow)}.")
    limits += [alarm["text"] for alarm in metrics["alarms"]]
    return "".join(f"- {_cell(one)}\n" for one in limits)


def _section(heading: str, *parts: str) -> str:
    return "\n".join([f"## {heading}\n", *(part for part in parts if part)])


def _table(headings: Sequence[object], rows: Rows) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(content: object) -> str:
    """Return text that cannot be taken for a table's edge, a new line or a tag: class names are anybody's."""
    text = " ".join(str(content).split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").encode("utf-8", "replace").decode("utf-8")
