"""Trained networks loaded again say what they said when they were trained."""

from pathlib import Path

import pandas as pd
import pytest

import parfocal
from parfocal.errors import ParfocalError
from parfocal.run import Run, open_runs
from tests.cells import SMALL, draw_cells


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    patch = pytest.MonkeyPatch()
    patch.setenv("PARFOCAL_STORES", str(folder / "stores"))
    parfocal.train(draw_cells(folder / "cells"), out=folder / "runs", **{**SMALL, "model": ["resnet20", "plain20"]})
    patch.undo()
    return folder


def test_evaluating_writes_the_same_predictions_and_metrics(trained: Path) -> None:
    runs = open_runs([trained / "runs"])
    before = {run.name: (run.predictions("test").read_bytes(), run.metrics()) for run in runs}
    for run in runs:
        run.predictions("test").unlink()
        (run.folder / "metrics.json").unlink()
    again = parfocal.evaluate(trained / "runs")
    assert {run.name: (run.predictions("test").read_bytes(), run.metrics()) for run in again} == before


def test_predicting_the_test_files_gives_the_probabilities_of_the_evaluation(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    outcome = parfocal.predict(run.folder, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv")
    predicted, judged = pd.read_csv(outcome.path), pd.read_csv(run.predictions("test"))
    assert outcome.count == 12
    columns = ["probability:normal", "probability:blast"]
    pd.testing.assert_frame_equal(predicted[["id", *columns]], judged[["id", *columns]], atol=1e-6)
    assert predicted["predicted"].tolist() == judged["predicted"].tolist()


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


def test_wrong_sources_and_runs_are_told(trained: Path, tmp_path: Path) -> None:
    run = trained / "runs" / "resnet20"
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("file\na.png\n")
    with pytest.raises(ParfocalError, match="holds no images"):
        parfocal.predict(run, [tmp_path / "empty"], tmp_path / "out.csv")
    with pytest.raises(ParfocalError, match="has no column 'Path'"):
        parfocal.predict(run, [tmp_path / "list.csv"], tmp_path / "out.csv")
    with pytest.raises(ParfocalError, match=r"holds 2 runs\. Name one"):
        parfocal.predict(trained / "runs", [tmp_path], tmp_path / "out.csv")
    with pytest.raises(ParfocalError, match=r"is not a run folder and holds none\. Runs beside it: .*plain20"):
        parfocal.evaluate(trained / "runs" / "resnet21")
    assert not (tmp_path / "out.csv").exists()


def test_data_that_has_gone_is_told(trained: Path) -> None:
    one = trained / "cells" / "new_dataset" / "test" / "1.bmp"
    content = one.read_bytes()
    one.unlink()
    try:
        with pytest.raises(ParfocalError, match=r"test/1\.bmp \(the file is missing\)"):
            parfocal.evaluate(trained / "runs" / "resnet20")
    finally:
        one.write_bytes(content)
