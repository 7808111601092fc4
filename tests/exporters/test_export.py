"""An export predicts what its run predicts, carries all metadata, and is rejected if it does not agree."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfocal
from parfocal.data.decode import prepare_image
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision
from parfocal.evaluation.predictions import Predictions
from parfocal.exporters import export as export_module
from parfocal.exporters.export import VerificationError, describe_decision_rule
from parfocal.exporters.formats import FORMATS, Safetensors
from parfocal.models.classifier import Classifier
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import ImagesConfig
from parfocal.run import Run
from tests.evaluation.trained_run import rewrite_file
from tests.evaluation.trained_run import trained as trained


@pytest.fixture(scope="module")
def run(trained: Path) -> Run:
    """A run with four views of test-time augmentation and a threshold far from the scores of all images."""
    folder = trained / "runs" / "resnet20"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(trained / "stores"))
        parfocal.evaluate(folder, operating_point="specificity=0.9", tta="flips")
    run = Run(folder)
    decision = Decision.load(run.decision_path)
    assert decision.operating_point is not None
    predictions = [Predictions.load(run.predictions_path(split)) for split in ("valid", "test")]
    scores = np.concatenate([decision.calibrate(each).probabilities[:, 1] for each in predictions])
    scores = np.sort(scores)[4:-4]
    widest = np.diff(scores).argmax()
    threshold = float(scores[widest : widest + 2].mean())
    operating_point = replace(decision.operating_point, threshold=threshold)
    decision.with_fitted(operating_point).save(run.decision_path)
    return run


def _test_probabilities(run: Run) -> np.ndarray:
    predictions = Predictions.load(run.predictions_path("test"))
    return Decision.load(run.decision_path).calibrate(predictions).probabilities


def _prepare_test_images(trained: Path, metadata: dict[str, Any]) -> np.ndarray:
    """Return the test images, prepared from the metadata of an export and nothing else."""
    config = ImagesConfig.model_validate(metadata["preprocessing"])
    names = pd.read_csv(trained / "cells" / "resnet_18_test.csv")["Path"]
    return np.stack([prepare_image(trained / "cells" / name, config)[0] for name in names])


@pytest.mark.parametrize(
    ("format_name", "precision", "tolerance"),
    [
        ("onnx", "float32", 0.01),
        ("openvino", "float32", 0.01),
        ("openvino", "bf16", 0.03),
        ("safetensors", "float32", 0.01),
        ("safetensors", "bf16", 0.03),
    ],
)
def test_every_format_predicts_what_the_evaluation_and_predict_report(
    format_name: str, precision: Any, tolerance: float, run: Run, trained: Path, tmp_path: Path
) -> None:
    exported = parfocal.export(run.folder, format_name, tmp_path, precision=precision)
    assert exported.path == tmp_path / f"resnet20{FORMATS[format_name].suffix}"
    predict, metadata = FORMATS[format_name].load(exported.path)
    probabilities = predict(_prepare_test_images(trained, metadata))
    np.testing.assert_allclose(probabilities, _test_probabilities(run), atol=tolerance)
    parfocal.predict(run.folder, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv")
    columns = [f"probability:{name}" for name in metadata["classes"]]
    np.testing.assert_allclose(probabilities, table[columns], atol=tolerance)
    assert np.ptp(probabilities, axis=0).max() > 0.05
    threshold = metadata["operating_point"]["threshold"]
    assert (probabilities[:, 1] >= threshold).tolist() == (table["predicted"] == "blast").tolist()
    assert exported.verification.n_changed == 0
    assert exported.verification.max_difference <= tolerance
    assert sorted(path.name for path in tmp_path.glob("*.refused*")) == []


def test_every_format_is_in_the_registry() -> None:
    assert list(FORMATS) == ["onnx", "openvino", "safetensors"]


def test_a_new_format_is_one_class(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Renamed(Safetensors):
        name = "renamed"
        suffix = ".weights"

    monkeypatch.setitem(FORMATS, "renamed", Renamed())
    exported = parfocal.export(run.folder, "renamed", tmp_path)
    assert exported.path == tmp_path / "resnet20.weights"
    assert exported.verification.n_changed == 0
    with pytest.raises(UsageError, match="renamed does not support int8"):
        parfocal.export(run.folder, "renamed", tmp_path, int8=True)


def test_the_metadata_says_how_to_prepare_images_and_interpret_probabilities(run: Run, tmp_path: Path) -> None:
    exported = parfocal.export(run.folder, "safetensors", tmp_path / "cells.safetensors")
    _, metadata = FORMATS["safetensors"].load(exported.path)
    assert metadata["classes"] == ["normal", "blast"]
    assert metadata["codes"] == ["0", "1"]
    assert metadata["input"]["shape"] == ["images", 40, 40, 3]
    assert (metadata["size"], metadata["crop_size"], metadata["tta"]) == (40, 32, "flips")
    decision = Decision.load(run.decision_path)
    assert metadata["temperature"] == decision.temperature
    assert decision.operating_point is not None
    assert metadata["operating_point"]["threshold"] == decision.operating_point.threshold
    assert metadata["decision_rule"].startswith("blast if its probability is at least")
    assert "Not a medical device" in metadata["use"]


def test_parfocal_loads_exported_safetensors_as_a_network(run: Run, tmp_path: Path) -> None:
    exported = parfocal.export(run.folder, "safetensors", tmp_path)
    loaded, original = Classifier.load(exported.path), Classifier.load(run.weights_path)
    assert all((weight == original.state_dict()[name]).all() for name, weight in loaded.state_dict().items())


def test_the_model_card_reports_the_verification(run: Run, tmp_path: Path) -> None:
    exported = parfocal.export(run.folder, "safetensors", tmp_path, card=tmp_path / "about" / "card.md")
    text = exported.card.read_text(encoding="utf-8")
    assert exported.card == tmp_path / "about" / "card.md"
    assert f"on {len(exported.results['run'].predicted)} images of valid" in text
    assert f"{exported.results['float32'].accuracy:.4f}" in text
    metrics = run.read_metrics()["test"]
    assert f"| majority-class baseline | 0.500 | {metrics['majority_accuracy']:.3f} |" in text
    assert "| specificity=0.9 | test | blast |" in text
    assert "medical device" in text


def test_each_exported_file_has_its_own_model_card(run: Run, tmp_path: Path) -> None:
    cards = [parfocal.export(run.folder, format_name, tmp_path).card for format_name in ("openvino", "safetensors")]
    assert [card.name for card in cards] == ["resnet20.xml.md", "resnet20.safetensors.md"]
    assert "| file | resnet20.xml, resnet20.bin |" in cards[0].read_text(encoding="utf-8")


def test_int8_is_compared_with_the_network_before_quantization(run: Run, tmp_path: Path) -> None:
    try:
        exported = parfocal.export(run.folder, "openvino", tmp_path, int8=True)
    except VerificationError as error:
        exported = error.exported
    assert list(exported.results) == ["run", "float32", "int8"]
    assert all(result.images_per_second > 0 for result in exported.results.values())
    assert all(result.accuracy is not None for result in exported.results.values())
    assert FORMATS["openvino"].load(exported.path)[1]["int8"]
    assert exported.path.name.startswith("resnet20-int8")
    assert 0 < exported.verification.max_difference < 0.5
    assert exported.path.with_suffix(".bin").stat().st_size < run.weights_path.stat().st_size / 2


def test_an_export_that_does_not_agree_is_kept_under_another_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_wrong(path: Path, format_name: str) -> Any:
        return lambda pixels: np.tile([0.9, 0.1], (len(pixels), 1))

    monkeypatch.setattr(export_module, "load_export", load_wrong)
    (tmp_path / "resnet20.safetensors").write_text("previous")
    with pytest.raises(
        VerificationError, match=r"\d+ of 24 predicted classes differ, .* kept as .*resnet20\.refused\.safetensors"
    ):
        parfocal.export(run.folder, "safetensors", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resnet20.refused.safetensors", "resnet20.safetensors"]
    assert (tmp_path / "resnet20.safetensors").read_text() == "previous"


def test_nan_probabilities_do_not_agree(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_wrong(path: Path, format_name: str) -> Any:
        return lambda pixels: np.full((len(pixels), 2), np.nan)

    monkeypatch.setattr(export_module, "load_export", load_wrong)
    with pytest.raises(VerificationError, match="differs by inf"):
        parfocal.export(run.folder, "safetensors", tmp_path)


def test_other_images_verify_an_export_if_those_of_the_run_are_gone(run: Run, trained: Path, tmp_path: Path) -> None:
    moved = Run(tmp_path / "moved")
    shutil.copytree(run.folder, moved.folder)
    rows = pd.read_csv(moved.table_path, keep_default_na=False, dtype=str)
    rows["path"] = "/nowhere/" + rows["id"]
    rewrite_file(moved.table_path, rows.to_csv(index=False))
    with pytest.raises(ParfocalError, match=r"not all images of valid can be read\. Not read: /nowhere.*images"):
        parfocal.export(moved.folder, "safetensors")
    exported = parfocal.export(moved.folder, "safetensors", images=[trained / "cells" / "new_dataset" / "test"])
    assert exported.path == moved.folder / "export" / "moved.safetensors"
    assert len(exported.results["run"].predicted) == 12
    assert exported.results["run"].accuracy is None


def test_wrong_options_are_rejected(run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="ONNX Runtime has no bf16"):
        parfocal.export(run.folder, "onnx", precision="bf16")
    with pytest.raises(UsageError, match=r"onnx does not support int8\. Choose openvino\."):
        parfocal.export(run.folder, "onnx", int8=True)
    with pytest.raises(UsageError, match=r"a file name for onnx must end in \.onnx"):
        parfocal.export(run.folder, "onnx", tmp_path / "network.pt")
    with pytest.raises(UsageError, match="Did you mean 'onnx'"):
        parfocal.export(run.folder, "onxx")
    with pytest.raises(UsageError, match="There is no precision 'float16'"):
        parfocal.export(run.folder, precision="float16")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"contains 2 runs\. Choose one"):
        parfocal.export(trained / "runs")
    (tmp_path / "ensemble.json").write_text(json.dumps({"members": []}))
    with pytest.raises(UsageError, match="is an ensemble"):
        parfocal.export(tmp_path)
    monkeypatch.setattr("parfocal.exporters.formats.find_spec", lambda package: None)
    with pytest.raises(ParfocalError, match=r"onnx is not installed. .*parfocal\[export\]"):
        parfocal.export(run.folder, "onnx")


def _make_predictions(n_classes: int) -> Predictions:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    probabilities = (rng.dirichlet(np.ones(3), 200) + np.eye(3)[truth])[:, :n_classes]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ids = tuple(map(str, range(200)))
    return Predictions(ids, ids, truth % n_classes, probabilities, ("a", "b", "c")[:n_classes])


@pytest.mark.parametrize(
    ("n_classes", "changes", "goal", "rule"),
    [
        (2, {}, None, "the most probable class"),
        (2, {"positive": "b"}, "specificity=0.8", "b if its probability is at least "),
        (2, {"positive": "a"}, "specificity=0.8", "a if its probability is at least "),
        (3, {"ordered": True, "decide": "thresholds"}, None, "the mean grade (the sum of each grade times its prob"),
        (
            3,
            {"ordered": True, "referable": 1},
            "cost=5",
            "the most probable class; positive if the probabilities of b",
        ),
    ],
)
def test_the_decision_rule_is_described(n_classes: int, changes: dict[str, Any], goal: str | None, rule: str) -> None:
    recipe = load_recipe(None, **changes)
    predictions = _make_predictions(n_classes)
    decision = fit_decision(predictions, DecisionOptions(goal), Decision(), recipe)
    assert describe_decision_rule(predictions.classes, recipe, decision).startswith(rule)
