"""A model card states results and limitations, and names in the data cannot break it."""

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
from markdown_it import MarkdownIt

from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.predictions import Predictions
from parfocal.exporters.export import build_metadata
from parfocal.recipe import load_recipe
from parfocal.report.model_card import build_model_card
from parfocal.run import Run

CLASSES = ["none", "mild | <b>odd</b> [a](javascript:b) ![c](http://d)", "severe"]


def _make_predictions(n_images: int) -> Predictions:
    rng = np.random.default_rng(n_images)
    truth = rng.integers(0, 3, n_images)
    probabilities = rng.dirichlet(np.ones(3), n_images) + 0.4 * np.eye(3)[truth]
    ids = tuple(map(str, range(n_images)))
    return Predictions(ids, ids, truth, probabilities / probabilities.sum(axis=1, keepdims=True), tuple(CLASSES))


def _make_data(splits: tuple[str, ...]) -> dict[str, Any]:
    warning = {
        "severity": "warning",
        "code": "identical",
        "message": "2 images are identical: anna.png, bert.png.",
        "ids": [],
    }
    return {
        "source": "folders of eyes",
        "classes": CLASSES,
        "codes": ["0", "1", "2"],
        "groups_are": "patients",
        "counts": {split: dict.fromkeys(CLASSES, 40) for split in splits},
        "rows": dict.fromkeys(splits, 120),
        "groups": dict.fromkeys(splits, 120),
        "findings": [warning, {**warning, "severity": "note", "message": "nothing to see"}],
    }


def _write_card(folder: Path, *splits: str) -> str:
    """Write the files of a finished run, and return its model card."""
    run = Run(folder / "eyes")
    recipe = load_recipe(None, ordered=True, referable=2, allow=["conflicting_labels"])
    recipe.save(run.folder / "recipe.yaml")
    decision = fit_decision(_make_predictions(200), DecisionOptions("sensitivity=0.9", 0.9), Decision(), recipe)
    decision.save(run.decision_path)
    run.write_environment({"recipe_hash": "abc", "precision": "bf16", "data": _make_data(("train", *splits))})
    alarm = {"code": "collapsed", "text": "It predicts none for 97 % of the images.", "since": 1, "until": 2}
    metrics = {split: evaluate_split(_make_predictions(120), recipe.evaluation, decision) for split in splits}
    training = {"parameters": 11_000_000, "epochs": 9, "best_epoch": 7, "selected_by": "kappa", "alarms": [alarm]}
    run.write_metrics({**metrics, **training})
    return build_model_card(
        run, build_metadata(run, recipe, decision, "float32", False), [("compared with the run", "on 3 images")]
    )


def test_results_have_intervals_and_the_majority_class_baseline(tmp_path: Path) -> None:
    text = _write_card(tmp_path, "valid", "test")
    metrics = Run(tmp_path / "eyes").read_metrics()["test"]
    low, high = metrics["intervals"]["accuracy"]
    assert f"{metrics['accuracy']:.3f} ({low:.3f}–{high:.3f}) |" in text
    assert f"| majority-class baseline | {metrics['majority_accuracy']:.3f} |" in text
    assert f"temperature of {metrics['calibration']['temperature']:.3f}" in text
    assert "| sensitivity=0.9 | test | severe or above |" in text
    assert "positive if the probabilities of severe and above sum to at least" in text
    assert "| test | 0.9 |" in text
    assert "| compared with the run | on 3 images |" in text
    assert "no test split" not in text


def test_limitations_are_stated(tmp_path: Path) -> None:
    text = _write_card(tmp_path, "valid")
    limitations = text[text.index("## Limitations") :]
    assert "There was no test split with known labels" in limitations
    assert "Few training images: none (40)" in limitations
    assert "Findings in the data that the recipe accepts: conflicting_labels." in limitations
    assert "It predicts none for 97 % of the images." in limitations
    assert "**Not a medical device**" in text


def test_names_cannot_break_a_table_and_file_names_of_patients_are_left_out(tmp_path: Path) -> None:
    text = _write_card(tmp_path, "valid")
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert f"<td>{html.escape(CLASSES[1])}</td>" in rendered
    assert "<strong>images</strong>" in rendered
    assert not re.search(r"<(b|a|img)\b", rendered)
    assert "2 images are identical" in text
    assert "anna.png" not in text
    assert "nothing to see" not in text
