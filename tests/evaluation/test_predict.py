"""New images are predicted as in the evaluation, in the order of the sources, and no image is lost silently."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import parfocal
from parfocal.engine.compiled import OpenVinoNetwork, Precision
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation import inference
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.ensemble import build_ensemble
from parfocal.evaluation.predict import split_runs_and_images
from parfocal.evaluation.predictions import Predictions
from parfocal.run import Run
from tests.cells import write_image
from tests.evaluation.trained_run import rewrite_file
from tests.evaluation.trained_run import trained as trained

PROBABILITIES = ["probability:normal", "probability:blast"]


def _read_evaluated(run: Run) -> pd.DataFrame:
    """Return the predictions of the evaluation for the test images, calibrated as in prediction."""
    decision = Decision.load(run.decision_path)
    calibrated = decision.calibrate(Predictions.load(run.predictions_path("test")))
    labels = np.array(calibrated.classes)[decision.predict_labels(calibrated.probabilities)]
    columns = dict(zip(PROBABILITIES, calibrated.probabilities.T, strict=True))
    return pd.DataFrame({"id": calibrated.ids, "predicted": labels, **columns})


def test_test_images_get_the_predictions_of_the_evaluation(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    result = parfocal.predict(run.folder, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv")
    rows = pd.read_csv(result.path, keep_default_na=False)
    assert result.n_rows == 12
    assert list(rows.columns) == ["id", "predicted", *PROBABILITIES, "unusual"]
    pd.testing.assert_frame_equal(rows[["id", "predicted", *PROBABILITIES]], _read_evaluated(run), atol=1e-6)


def test_the_decisions_of_the_run_add_their_flags(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    parfocal.evaluate(run.folder, operating_point="specificity=0.9", refer=0.9, tta="flips")
    white = tmp_path / "white.png"
    write_image(white, np.full((48, 48, 3), 255, np.uint8))
    sources = [trained / "cells" / "resnet_18_test.csv", white]
    try:
        result = parfocal.predict(run.folder, sources, tmp_path / "out.csv")
        rows = pd.read_csv(result.path, keep_default_na=False)
        decision = Decision.load(run.decision_path)
        assert list(rows.columns) == ["id", "predicted", *PROBABILITIES, "positive", "referred", "unusual"]
        known = rows.iloc[:-1][["id", "predicted", *PROBABILITIES]]
        pd.testing.assert_frame_equal(known, _read_evaluated(run), atol=1e-6)
        assert decision.operating_point is not None
        assert decision.referral is not None
        positive = rows["probability:blast"] >= decision.operating_point.threshold
        assert rows["positive"].tolist() == positive.tolist()
        assert (rows["predicted"] == "blast").tolist() == (rows["positive"] == 1).tolist()
        assert rows["referred"].tolist() == decision.referral.is_referred(rows[PROBABILITIES].to_numpy()).tolist()
        assert "contrast" in rows["unusual"].iloc[-1].split()
        assert result.flag_counts == {
            "positive": rows["positive"].sum(),
            "referred": rows["referred"].sum(),
            "unusual": (rows["unusual"] != "").sum(),
        }
    finally:
        parfocal.evaluate(run.folder, operating_point="none", refer=0, tta="recipe")


def test_several_runs_are_averaged_and_an_ensemble_predicts_as_evaluated(trained: Path, tmp_path: Path) -> None:
    runs = [Run(trained / "runs" / name) for name in ("resnet20", "plain20")]
    sources = [trained / "cells" / "resnet_18_test.csv"]
    result = parfocal.predict([run.folder for run in runs], sources, tmp_path / "mean.csv")
    assert result.run_names == ("resnet20", "plain20")
    expected = np.mean([_read_evaluated(run)[PROBABILITIES] for run in runs], axis=0)
    np.testing.assert_allclose(pd.read_csv(result.path)[PROBABILITIES], expected, atol=1e-6)
    build_ensemble(runs, tmp_path / "both")
    both = Run(tmp_path / "both")
    result = parfocal.predict(both.folder, sources, tmp_path / "both.csv")
    calibrated = Decision.load(both.decision_path).calibrate(Predictions.load(both.predictions_path("test")))
    np.testing.assert_allclose(pd.read_csv(result.path)[PROBABILITIES], calibrated.probabilities, atol=1e-6)


def test_pytorch_predicts_the_same_without_openvino(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained / "runs" / "resnet20"
    sources = [trained / "cells" / "resnet_18_test.csv"]
    parfocal.predict(run, sources, tmp_path / "openvino.csv")
    monkeypatch.setattr("parfocal.evaluation.inference.is_openvino_available", lambda: False)
    monkeypatch.setattr("parfocal.evaluation.inference.convert_to_openvino", None)
    parfocal.predict(run, sources, tmp_path / "pytorch.csv")
    rows = [pd.read_csv(tmp_path / name) for name in ("openvino.csv", "pytorch.csv")]
    pd.testing.assert_frame_equal(rows[0], rows[1], atol=1e-5)


def test_predictions_in_bf16_are_close_to_those_in_float32(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(trained / "runs" / "resnet20")
    precisions: list[Precision] = []

    def compile_with(network: Any, precision: Precision) -> OpenVinoNetwork:
        precisions.append(precision)
        return OpenVinoNetwork(network, precision)

    monkeypatch.setattr(inference, "OpenVinoNetwork", compile_with)
    shutil.copytree(run.folder, tmp_path / "bf16")
    recipe = tmp_path / "bf16" / "recipe.yaml"
    rewrite_file(recipe, recipe.read_text().replace("precision: float32", "precision: bf16"))
    result = parfocal.predict(recipe.parent, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv")
    rows = pd.read_csv(result.path)[PROBABILITIES]
    np.testing.assert_allclose(rows, _read_evaluated(run)[PROBABILITIES], atol=0.03)
    # A processor without bf16 instructions computes in float32 all the same, so the numbers cannot show it.
    assert precisions == ["bf16"]


def test_a_run_without_a_decision_file_can_predict(trained: Path, tmp_path: Path) -> None:
    run = Run(shutil.copytree(trained / "runs" / "resnet20", tmp_path / "resnet20"))
    run.decision_path.unlink()
    (run.folder / "manifest.json").unlink()
    result = parfocal.predict(run.folder, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv")
    evaluated = Predictions.load(run.predictions_path("test"))
    rows = pd.read_csv(result.path)
    assert list(rows.columns) == ["id", "predicted", *PROBABILITIES]
    np.testing.assert_allclose(rows[PROBABILITIES], evaluated.probabilities, atol=1e-6)


def test_paths_from_a_stream_are_predicted_in_their_order(trained: Path, tmp_path: Path) -> None:
    folder = trained / "cells" / "new_dataset" / "test"
    paths: list[str] = []

    class Lines(io.TextIOBase):
        """Yield one path at a time and record it."""

        def __iter__(self) -> "Lines":
            return self

        def __next__(self) -> str:
            if len(paths) == 200:
                raise StopIteration
            paths.append(str(folder / f"{len(paths) % 12}.bmp"))
            return paths[-1] + "\n"

    result = parfocal.predict(trained / "runs" / "resnet20", Lines(), tmp_path / "out.csv")
    assert pd.read_csv(result.path)["id"].tolist() == paths


def test_unreadable_images_are_listed_and_the_others_predicted(trained: Path, tmp_path: Path) -> None:
    good = trained / "cells" / "new_dataset" / "test" / "0.bmp"
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    sources = [good, tmp_path / "bad.png", tmp_path / "gone.png"]
    result = parfocal.predict(trained / "runs" / "resnet20", sources, tmp_path / "out.csv")
    assert pd.read_csv(result.path)["id"].tolist() == [str(good)]
    assert result.unreadable == {
        str(tmp_path / "bad.png"): "text, not an image",
        str(tmp_path / "gone.png"): "the file is missing",
    }


def test_a_folder_is_predicted_in_the_order_of_its_names(trained: Path, tmp_path: Path) -> None:
    folder = trained / "cells" / "new_dataset" / "test"
    result = parfocal.predict(trained / "runs" / "resnet20", [folder], tmp_path / "out.csv")
    assert pd.read_csv(result.path)["id"].tolist() == sorted(map(str, folder.iterdir()))


def test_a_sample_submission_sets_the_rows_and_columns(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    folder = trained / "cells" / "new_dataset" / "test"
    ids = [f"{number}" for number in (5, 0, 11)]
    pd.DataFrame({"image": ids, "level": 0}).to_csv(tmp_path / "sample.csv", index=False)
    result = parfocal.predict(run.folder, [folder], tmp_path / "out.csv", sample_submission=tmp_path / "sample.csv")
    rows = pd.read_csv(result.path, dtype=str)
    evaluated = _read_evaluated(run)
    labels = dict(zip(evaluated["id"], evaluated["predicted"], strict=True))
    codes = {"normal": "0", "blast": "1"}
    assert list(rows.columns) == ["image", "level"]
    assert rows["image"].tolist() == ids
    assert rows["level"].tolist() == [codes[labels[f"./new_dataset/test/{number}.bmp"]] for number in ids]
    assert result.n_rows == 3
    every = parfocal.predict(run.folder, [folder / f"{number}.bmp" for number in ids], tmp_path / "three.csv")
    assert result.flag_counts == every.flag_counts


def test_sample_ids_without_a_prediction_are_an_error_and_no_file_is_written(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "3.png").write_text("no image")
    sources = [trained / "cells" / "new_dataset" / "test" / "0.bmp", tmp_path / "3.png"]
    sample = tmp_path / "sample.csv"
    sample.write_text("ID,label\n0.bmp,0\n3.png,0\n99,0\n")
    with pytest.raises(ParfocalError, match=r"2 ids .* no prediction: 3\.png, 99\..*3\.png \(text, not an image\)"):
        parfocal.predict(trained / "runs" / "resnet20", sources, tmp_path / "out.csv", sample_submission=sample)
    assert not (tmp_path / "out.csv").exists()


def test_invalid_sources_and_runs_are_rejected(trained: Path, tmp_path: Path) -> None:
    run = trained / "runs" / "resnet20"
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("file\na.png\n")
    with pytest.raises(ParfocalError, match="contains no images"):
        parfocal.predict(run, [tmp_path / "empty"], tmp_path / "out.csv")
    with pytest.raises(ParfocalError, match="has no column 'Path'"):
        parfocal.predict(run, [tmp_path / "list.csv"], tmp_path / "out.csv")
    (tmp_path / "header.csv").write_text("Path\n")
    with pytest.raises(ParfocalError, match=r"header\.csv has no rows below its header"):
        parfocal.predict(run, [tmp_path / "header.csv"], tmp_path / "out.csv")
    with pytest.raises(ParfocalError, match=r"gone\.csv is missing"):
        parfocal.predict(run, [tmp_path / "gone.csv"], tmp_path / "out.csv")
    with pytest.raises(ParfocalError, match=r"resnet21 is not a run folder.*plain20"):
        parfocal.predict(trained / "runs" / "resnet21", [tmp_path], tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_single_source_needs_no_list(trained: Path, tmp_path: Path) -> None:
    run = trained / "runs" / "resnet20"
    folder = trained / "cells" / "new_dataset" / "test"
    for source in (folder, str(folder)):
        result = parfocal.predict(run, source, tmp_path / "out.csv")
        assert pd.read_csv(result.path)["id"].tolist() == sorted(map(str, folder.iterdir()))


def test_an_input_is_not_overwritten(trained: Path, tmp_path: Path) -> None:
    run = trained / "runs" / "resnet20"
    images = tmp_path / "images.csv"
    sample = tmp_path / "sample.csv"
    images.write_text("Path\na.png\n")
    sample.write_text("ID,label\na,0\n")
    with pytest.raises(UsageError, match=r"images\.csv is also an input and would be overwritten"):
        parfocal.predict(run, images, tmp_path / "x" / ".." / "images.csv")
    with pytest.raises(UsageError, match=r"sample\.csv is also an input"):
        parfocal.predict(run, tmp_path / "a.png", sample, sample_submission=sample)
    assert images.read_text() == "Path\na.png\n"


def test_an_empty_list_of_runs_is_rejected(tmp_path: Path) -> None:
    for call in (parfocal.evaluate, parfocal.compare, lambda runs: parfocal.predict(runs, "a.png", tmp_path / "o.csv")):
        with pytest.raises(UsageError, match="at least one run folder"):
            call([])


def test_arguments_are_split_into_runs_and_images(trained: Path) -> None:
    runs, images = str(trained / "runs"), str(trained / "cells")
    assert split_runs_and_images([f"{runs}/resnet20", f"{runs}/plain20", images, "a.png"]) == (
        [f"{runs}/resnet20", f"{runs}/plain20"],
        [images, "a.png"],
    )
    assert split_runs_and_images([runs, "-"]) == ([runs], ["-"])
    assert split_runs_and_images(["misspelled", images]) == (["misspelled"], [images])
    assert split_runs_and_images([runs]) == ([runs], [])
