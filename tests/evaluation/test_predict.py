"""New images are answered as the run was judged, in the order they were given, and none is lost without a word."""

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
from tests.evaluation.trained_run import trained as trained

COLUMNS = ["probability:normal", "probability:blast"]


def _judged(run: Run) -> pd.DataFrame:
    """Return what the evaluation said of the test images, calibrated as predicting does."""
    decision, said = Decision.load(run.decision_path), Predictions.load(run.predictions_path("test"))
    calibrated = decision.calibrate(said).probabilities
    labels = np.array(said.classes)[decision.predict_labels(calibrated, run.recipe.evaluation)]
    return pd.DataFrame({"id": said.ids, "predicted": labels, **dict(zip(COLUMNS, calibrated.T, strict=True))})


def test_the_test_files_get_the_answers_of_the_evaluation(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    outcome = parfocal.predict(run.folder, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv")
    predicted = pd.read_csv(outcome.path, keep_default_na=False)
    assert outcome.n_rows == 12
    assert list(predicted.columns) == ["id", "predicted", *COLUMNS, "unusual"]
    pd.testing.assert_frame_equal(predicted[["id", "predicted", *COLUMNS]], _judged(run), atol=1e-6)


def test_what_was_decided_is_told_beside(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "plain20")
    parfocal.evaluate(run.folder, operating_point="specificity=0.9", refer=0.9, tta="flips")
    odd = tmp_path / "odd.png"
    write_image(odd, np.full((48, 48, 3), 255, np.uint8))
    sources = [trained / "cells" / "resnet_18_test.csv", odd]
    try:
        outcome = parfocal.predict(run.folder, sources, tmp_path / "out.csv")
        rows, decision = pd.read_csv(outcome.path, keep_default_na=False), Decision.load(run.decision_path)
        assert list(rows.columns) == ["id", "predicted", *COLUMNS, "positive", "referred", "unusual"]
        pd.testing.assert_frame_equal(rows.iloc[:-1][["id", "predicted", *COLUMNS]], _judged(run), atol=1e-6)
        assert decision.operating_point is not None
        assert decision.referral is not None
        assert (
            rows["positive"].tolist() == (rows["probability:blast"] >= decision.operating_point.thresholds[0]).tolist()
        )
        assert (rows["predicted"] == "blast").tolist() == (rows["positive"] == 1).tolist()
        assert rows["referred"].tolist() == decision.referral.is_referred(rows[COLUMNS].to_numpy()).tolist()
        assert "contrast" in rows["unusual"].iloc[-1].split()
        assert outcome.flag_counts == {
            "positive": rows["positive"].sum(),
            "referred": rows["referred"].sum(),
            "unusual": (rows["unusual"] != "").sum(),
        }
    finally:
        parfocal.evaluate(run.folder, operating_point="none", refer=0, tta="none")


def test_several_runs_are_averaged_and_an_ensemble_answers_as_it_was_judged(trained: Path, tmp_path: Path) -> None:
    runs = [Run(trained / "runs" / name) for name in ("resnet20", "plain20")]
    asked = [trained / "cells" / "resnet_18_test.csv"]
    outcome = parfocal.predict([run.folder for run in runs], asked, tmp_path / "mean.csv")
    assert outcome.run_names == ("resnet20", "plain20")
    expected = np.mean([_judged(run)[COLUMNS] for run in runs], axis=0)
    np.testing.assert_allclose(pd.read_csv(outcome.path)[COLUMNS], expected, atol=1e-6)
    build_ensemble(runs, tmp_path / "both")
    own = Run(tmp_path / "both")
    outcome = parfocal.predict(own.folder, asked, tmp_path / "both.csv")
    calibrated = Decision.load(own.decision_path).calibrate(Predictions.load(own.predictions_path("test")))
    np.testing.assert_allclose(pd.read_csv(outcome.path)[COLUMNS], calibrated.probabilities, atol=1e-6)


def test_without_openvino_pytorch_answers_the_same(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = trained / "runs" / "resnet20", [trained / "cells" / "resnet_18_test.csv"]
    parfocal.predict(run, asked, tmp_path / "compiled.csv")
    monkeypatch.setattr("parfocal.evaluation.inference.is_openvino_available", lambda: False)
    monkeypatch.setattr("parfocal.evaluation.inference.convert_to_openvino", None)
    parfocal.predict(run, asked, tmp_path / "plain.csv")
    said, plain = pd.read_csv(tmp_path / "compiled.csv"), pd.read_csv(tmp_path / "plain.csv")
    pd.testing.assert_frame_equal(said, plain, atol=1e-5)


def test_in_bf16_new_images_get_nearly_the_answers_of_float32(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, precisions = Run(trained / "runs" / "resnet20"), []

    def compile_with(network: Any, precision: Precision) -> OpenVinoNetwork:
        precisions.append(precision)
        return OpenVinoNetwork(network, precision)

    monkeypatch.setattr(inference, "OpenVinoNetwork", compile_with)
    shutil.copytree(run.folder, tmp_path / "halved")
    recipe = tmp_path / "halved" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("precision: float32", "precision: bf16"))
    outcome = parfocal.predict(recipe.parent, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv")
    said = pd.read_csv(outcome.path)[COLUMNS]
    np.testing.assert_allclose(said, _judged(run)[COLUMNS], atol=0.03)
    # A processor without bf16 instructions computes in float32 all the same, so the numbers cannot show it.
    assert precisions == ["bf16"]


def test_a_run_of_an_older_parfocal_still_answers(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    content = run.decision_path.read_bytes()
    run.decision_path.unlink()
    try:
        outcome = parfocal.predict(run.folder, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv")
    finally:
        run.decision_path.write_bytes(content)
    said = Predictions.load(run.predictions_path("test"))
    rows = pd.read_csv(outcome.path)
    assert list(rows.columns) == ["id", "predicted", *COLUMNS]
    np.testing.assert_allclose(rows[COLUMNS], said.probabilities, atol=1e-6)


def test_paths_are_taken_as_they_come(trained: Path, tmp_path: Path) -> None:
    folder, taken = trained / "cells" / "new_dataset" / "test", []

    class Lines(io.TextIOBase):
        """Say paths one by one, and note how many were asked for before the first answer."""

        def __iter__(self) -> "Lines":
            return self

        def __next__(self) -> str:
            if len(taken) == 200:
                raise StopIteration
            taken.append(str(folder / f"{len(taken) % 12}.bmp"))
            return taken[-1] + "\n"

    outcome = parfocal.predict(trained / "runs" / "resnet20", Lines(), tmp_path / "out.csv")
    assert pd.read_csv(outcome.path)["id"].tolist() == taken


def test_images_that_cannot_be_read_are_listed_and_the_rest_kept(trained: Path, tmp_path: Path) -> None:
    good = trained / "cells" / "new_dataset" / "test" / "0.bmp"
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    sources = [good, tmp_path / "bad.png", tmp_path / "gone.png"]
    outcome = parfocal.predict(trained / "runs" / "resnet20", sources, tmp_path / "out.csv")
    assert pd.read_csv(outcome.path)["id"].tolist() == [str(good)]
    assert outcome.unreadable == {
        str(tmp_path / "bad.png"): "text, not an image",
        str(tmp_path / "gone.png"): "the file is missing",
    }


def test_a_folder_is_predicted_in_the_order_of_its_names(trained: Path, tmp_path: Path) -> None:
    folder = trained / "cells" / "new_dataset" / "test"
    outcome = parfocal.predict(trained / "runs" / "resnet20", [folder], tmp_path / "out.csv")
    assert pd.read_csv(outcome.path)["id"].tolist() == sorted(map(str, folder.iterdir()))


def test_a_sample_submission_is_answered_row_by_row(trained: Path, tmp_path: Path) -> None:
    run, folder = Run(trained / "runs" / "resnet20"), trained / "cells" / "new_dataset" / "test"
    asked = [f"{number}" for number in (5, 0, 11)]
    pd.DataFrame({"image": asked, "level": 0}).to_csv(tmp_path / "sample.csv", index=False)
    outcome = parfocal.predict(run.folder, [folder], tmp_path / "out.csv", sample_submission=tmp_path / "sample.csv")
    rows = pd.read_csv(outcome.path, dtype=str)
    labels = dict(zip(_judged(run)["id"], _judged(run)["predicted"], strict=True))
    codes = {"normal": "0", "blast": "1"}
    assert list(rows.columns) == ["image", "level"]
    assert rows["image"].tolist() == asked
    assert rows["level"].tolist() == [codes[labels[f"./new_dataset/test/{one}.bmp"]] for one in asked]
    assert outcome.n_rows == 3


def test_a_sample_that_asks_for_more_than_there_is_is_told_and_nothing_written(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "3.png").write_text("no image")
    sources = [trained / "cells" / "new_dataset" / "test" / "0.bmp", tmp_path / "3.png"]
    (tmp_path / "sample.csv").write_text("ID,label\n0.bmp,0\n3.png,0\n99,0\n")
    with pytest.raises(ParfocalError, match=r"2 ids .* no prediction: 3\.png, 99\..*3\.png \(text, not an image\)"):
        parfocal.predict(
            trained / "runs" / "resnet20", sources, tmp_path / "out.csv", sample_submission=tmp_path / "sample.csv"
        )
    assert not (tmp_path / "out.csv").exists()


def test_wrong_sources_and_runs_are_told(trained: Path, tmp_path: Path) -> None:
    run = trained / "runs" / "resnet20"
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("file\na.png\n")
    with pytest.raises(ParfocalError, match="holds no images"):
        parfocal.predict(run, [tmp_path / "empty"], tmp_path / "out.csv")
    with pytest.raises(ParfocalError, match="has no column 'Path'"):
        parfocal.predict(run, [tmp_path / "list.csv"], tmp_path / "out.csv")
    (tmp_path / "header.csv").write_text("Path\n")
    with pytest.raises(ParfocalError, match=r"header\.csv has no rows below its header"):
        parfocal.predict(run, [tmp_path / "header.csv"], tmp_path / "out.csv")
    with pytest.raises(ParfocalError, match=r"gone\.csv is missing"):
        parfocal.predict(run, [tmp_path / "gone.csv"], tmp_path / "out.csv")
    with pytest.raises(ParfocalError, match=r"is not a run folder and holds none\. Runs beside it: .*plain20"):
        parfocal.predict(trained / "runs" / "resnet21", [tmp_path], tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_one_source_needs_no_list(trained: Path, tmp_path: Path) -> None:
    run, folder = trained / "runs" / "resnet20", trained / "cells" / "new_dataset" / "test"
    for one in (folder, str(folder)):
        outcome = parfocal.predict(run, one, tmp_path / "out.csv")
        assert pd.read_csv(outcome.path)["id"].tolist() == sorted(map(str, folder.iterdir()))


def test_what_is_read_is_not_overwritten(trained: Path, tmp_path: Path) -> None:
    run, asked, sample = trained / "runs" / "resnet20", tmp_path / "asked.csv", tmp_path / "sample.csv"
    asked.write_text("Path\na.png\n")
    sample.write_text("ID,label\na,0\n")
    with pytest.raises(UsageError, match=r"asked\.csv is read here, and would be overwritten"):
        parfocal.predict(run, asked, tmp_path / "x" / ".." / "asked.csv")
    with pytest.raises(UsageError, match=r"sample\.csv is read here"):
        parfocal.predict(run, tmp_path / "a.png", sample, sample_submission=sample)
    assert asked.read_text() == "Path\na.png\n"


def test_no_runs_are_told(tmp_path: Path) -> None:
    for call in (parfocal.evaluate, parfocal.compare, lambda runs: parfocal.predict(runs, "a.png", tmp_path / "o.csv")):
        with pytest.raises(UsageError, match="Name at least one run folder"):
            call([])


def test_runs_lead_and_images_follow(trained: Path) -> None:
    runs, images = str(trained / "runs"), str(trained / "cells")
    assert split_runs_and_images([f"{runs}/resnet20", f"{runs}/plain20", images, "a.png"]) == (
        [f"{runs}/resnet20", f"{runs}/plain20"],
        [images, "a.png"],
    )
    assert split_runs_and_images([runs, "-"]) == ([runs], ["-"])
    assert split_runs_and_images(["misspelt", images]) == (["misspelt"], [images])
    assert split_runs_and_images([runs]) == ([runs], [])
