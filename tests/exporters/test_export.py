"""An export says what its run says, carries all that is needed to read it, and is refused where it does not agree."""

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
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.predictions import Predictions
from parfocal.exporters import export as exporting
from parfocal.exporters.export import Exported, VerificationError
from parfocal.exporters.formats import FORMATS, FormatName, load_export, read_metadata
from parfocal.models.classifier import Classifier
from parfocal.run import Run
from parfocal.schema import ImagesConfig
from tests.evaluation.trained_run import trained as trained


@pytest.fixture(scope="module")
def run(trained: Path) -> Run:
    """A run that looks at images in four ways and answers by a threshold that no image is near to."""
    folder = trained / "runs" / "resnet20"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(trained / "stores"))
        parfocal.evaluate(folder, operating_point="specificity=0.9", tta="flips")
    run = Run(folder)
    decision, said = (
        Decision.load(run.decision_path),
        [Predictions.load(run.predictions_path(one)) for one in ("valid", "test")],
    )
    scores = np.sort(np.concatenate([decision.calibrate(one).probabilities[:, 1] for one in said]))[4:-4]
    widest = np.diff(scores).argmax()
    assert decision.operating_point is not None
    apart = replace(decision.operating_point, thresholds=(float(scores[widest : widest + 2].mean()),))
    decision.with_fitted(apart).save(run.decision_path)
    return run


def _test_probabilities(run: Run) -> np.ndarray:
    said = Predictions.load(run.predictions_path("test"))
    return Decision.load(run.decision_path).calibrate(said).probabilities


def _prepare_test_images(trained: Path, metadata: dict[str, Any]) -> np.ndarray:
    """Return the test images, framed by what travels with an export and nothing else."""
    images = ImagesConfig.model_validate(metadata["framing"])
    names = pd.read_csv(trained / "cells" / "resnet_18_test.csv")["Path"]
    return np.stack([prepare_image(trained / "cells" / name, images)[0] for name in names])


@pytest.mark.parametrize(
    ("form", "precision", "tolerance"),
    [
        ("onnx", "float32", 0.01),
        ("openvino", "float32", 0.01),
        ("openvino", "bf16", 0.03),
        ("torchscript", "float32", 0.01),
        ("torchscript", "bf16", 0.03),
        ("safetensors", "float32", 0.01),
        ("safetensors", "bf16", 0.03),
    ],
)
def test_every_format_says_what_training_judged_and_predict_says(
    form: FormatName, precision: Any, tolerance: float, run: Run, trained: Path, tmp_path: Path
) -> None:
    done = parfocal.export(run.folder, form, tmp_path, precision=precision)
    assert done.path == tmp_path / f"resnet20{FORMATS[form].suffix}"
    about = read_metadata(done.path, form)
    said = load_export(done.path, form)(_prepare_test_images(trained, about))
    np.testing.assert_allclose(said, _test_probabilities(run), atol=tolerance)
    parfocal.predict(run.folder, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv")
    predicted = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(said, predicted[[f"probability:{name}" for name in about["classes"]]], atol=tolerance)
    assert np.ptp(said, axis=0).max() > 0.05
    threshold = about["operating"]["thresholds"][0]
    assert (said[:, 1] >= threshold).tolist() == (predicted["predicted"] == "blast").tolist()
    assert done.verification.n_changed == 0
    assert done.verification.max_difference <= tolerance
    assert sorted(path.name for path in tmp_path.glob("*.refused*")) == []


def test_what_is_needed_travels_along(run: Run, tmp_path: Path) -> None:
    done = parfocal.export(run.folder, "torchscript", tmp_path / "cells.pt")
    about = read_metadata(done.path, "torchscript")
    assert about["classes"] == ["normal", "blast"]
    assert about["codes"] == ["0", "1"]
    assert about["input"]["shape"] == ["images", 40, 40, 3]
    assert (about["size"], about["crop_size"], about["looks"]) == (40, 32, "flips")
    decision = Decision.load(run.decision_path)
    assert about["temperature"] == decision.temperature
    assert decision.operating_point is not None
    assert about["operating"]["thresholds"] == list(decision.operating_point.thresholds)
    assert about["answer"].startswith("blast where its probability is at least")
    assert "Not a medical device" in about["use"]


def test_exported_weights_are_a_network_that_parfocal_reads(run: Run, tmp_path: Path) -> None:
    done = parfocal.export(run.folder, "safetensors", tmp_path)
    again, before = Classifier.load(done.path), Classifier.load(run.weights_path)
    assert all((one == before.state_dict()[name]).all() for name, one in again.state_dict().items())


def test_the_card_holds_what_was_measured(run: Run, tmp_path: Path) -> None:
    done = parfocal.export(run.folder, "torchscript", tmp_path, card=tmp_path / "about" / "card.md")
    text = done.card.read_text(encoding="utf-8")
    assert done.card == tmp_path / "about" / "card.md"
    assert f"on {len(done.results['run'].predicted)} images of valid" in text
    assert f"{done.results['float32'].accuracy:.4f}" in text
    metrics = run.read_metrics()["test"]
    assert f"| accuracy of always saying the largest class | 0.500 | {metrics['majority_accuracy']:.3f} |" in text
    assert "| specificity=0.9 | test | blast |" in text
    assert "medical device" in text


def test_each_file_has_a_card_of_its_own(run: Run, tmp_path: Path) -> None:
    cards = [parfocal.export(run.folder, form, tmp_path).card for form in ("torchscript", "safetensors")]
    assert [card.name for card in cards] == ["resnet20.pt.md", "resnet20.safetensors.md"]
    assert "| file | resnet20.pt |" in cards[0].read_text(encoding="utf-8")


def test_int8_is_measured_beside_the_numbers_it_came_from(run: Run, tmp_path: Path) -> None:
    done: Exported
    try:
        done = parfocal.export(run.folder, "openvino", tmp_path, int8=True)
    except VerificationError as error:
        done = error.exported
    assert list(done.results) == ["run", "float32", "int8"]
    assert all(one.images_per_second > 0 and one.accuracy is not None for one in done.results.values())
    assert read_metadata(done.path, "openvino")["int8"]
    assert done.path.name.startswith("resnet20-int8")
    assert 0 < done.verification.max_difference < 0.5
    assert done.path.with_suffix(".bin").stat().st_size < run.weights_path.stat().st_size / 2


def test_an_export_that_disagrees_is_kept_aside_and_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        exporting, "load_export", lambda path, form: lambda pixels: np.tile([0.9, 0.1], (len(pixels), 1))
    )
    (tmp_path / "resnet20.pt").write_text("of yesterday")
    with pytest.raises(VerificationError, match=r"answers \d+ otherwise, .* kept as .*resnet20\.refused\.pt"):
        parfocal.export(run.folder, "torchscript", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resnet20.pt", "resnet20.refused.pt"]
    assert (tmp_path / "resnet20.pt").read_text() == "of yesterday"


def test_an_answer_that_is_no_number_disagrees(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "load_export", lambda path, form: lambda pixels: np.full((len(pixels), 2), np.nan))
    with pytest.raises(VerificationError, match="differs by inf"):
        parfocal.export(run.folder, "torchscript", tmp_path)


def test_other_images_serve_where_those_of_the_run_are_gone(run: Run, trained: Path, tmp_path: Path) -> None:
    moved = Run(tmp_path / "moved")
    shutil.copytree(run.folder, moved.folder)
    rows = pd.read_csv(moved.table_path, keep_default_na=False, dtype=str)
    rows["path"] = "/nowhere/" + rows["id"]
    rows.to_csv(moved.table_path, index=False)
    with pytest.raises(ParfocalError, match=r"of valid not all can be read\. Not read: /nowhere.*--images"):
        parfocal.export(moved.folder, "torchscript")
    done = parfocal.export(moved.folder, "torchscript", images=[trained / "cells" / "new_dataset" / "test"])
    assert done.path == moved.folder / "export" / "moved.pt"
    assert len(done.results["run"].predicted) == 12
    assert done.results["run"].accuracy is None


def test_wrong_wishes_are_told(run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="ONNX Runtime has no bf16"):
        parfocal.export(run.folder, "onnx", precision="bf16")
    with pytest.raises(UsageError, match="--int8 is for openvino"):
        parfocal.export(run.folder, "onnx", int8=True)
    with pytest.raises(UsageError, match=r"a file of onnx ends in \.onnx"):
        parfocal.export(run.folder, "onnx", tmp_path / "network.pt")
    with pytest.raises(UsageError, match="Did you mean 'onnx'"):
        parfocal.export(run.folder, "onxx")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"holds 2 runs\. Name one"):
        parfocal.export(trained / "runs")
    (tmp_path / "ensemble.json").write_text(json.dumps({"members": []}))
    with pytest.raises(UsageError, match="is an ensemble"):
        parfocal.export(tmp_path)
    monkeypatch.setattr("parfocal.exporters.formats.find_spec", lambda package: None)
    with pytest.raises(ParfocalError, match=r"onnx is not installed. .*parfocal\[export\]"):
        parfocal.export(run.folder, "onnx")
