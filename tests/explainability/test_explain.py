"""`explain` writes sheets, maps and a table of heatmaps, for a split or for image files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.predictions import Predictions
from parfocal.explainability.cam import SCORE, ClassMaps
from parfocal.explainability.explain import Explanation, make_safe_names
from parfocal.explainability.selection import SelectedImage
from parfocal.explainability.sheet import RunExplanation, draw_sheet
from parfocal.run import Run
from tests.cells import write_image
from tests.evaluation.trained_run import trained as trained


def _check_files(explanation: Explanation) -> None:
    """Check that the table of heatmaps agrees with the files in the folder."""
    summary = json.loads((explanation.folder / "explanation.json").read_text())
    assert summary["scale"] == pytest.approx(explanation.scale)
    assert [explanation.folder / name for name in summary["sheets"]] == list(explanation.sheets)
    table = pd.read_csv(explanation.folder / "heatmaps.csv", keep_default_na=False)
    assert table["id"].tolist() == explanation.heatmaps["id"].tolist()
    for row in explanation.heatmaps.to_dict("records"):
        values = np.load(explanation.folder / row["file"])
        evidence = values - values.mean(axis=0) if len(values) > 1 else values
        assert any(abs(class_map.max() - row["peak"]) < 1e-4 for class_map in evidence)
        assert max(abs(row["peak"]), abs(row["minimum"])) <= explanation.scale + 1e-6
        stem = str(explanation.folder / row["file"]).removesuffix(".npy") + f"-{row['map']}"
        gray_map = cv2.imread(f"{stem}-map.png", cv2.IMREAD_UNCHANGED)
        overlay = cv2.imread(f"{stem}.png")
        assert gray_map is not None
        assert overlay is not None
        assert gray_map.shape == (32, 32)
        assert overlay.shape == (224, 224, 3)


def test_the_images_of_a_split_are_selected_by_its_predictions(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    explanation = parfocal.explain(run.folder, "test", tmp_path / "where", n_per_kind=3)
    _check_files(explanation)
    assert [path.name for path in explanation.sheets] == ["sheet.png"]
    predictions = Decision.load(run.decision_path).calibrate(Predictions.load(run.predictions_path("test")))
    for row in explanation.heatmaps.to_dict("records"):
        index = predictions.ids.index(row["id"])
        assert row["predicted"] == predictions.classes[predictions.predicted[index]]
        assert row["probability"] == pytest.approx(predictions.probabilities[index].max())
        assert row["truth"] == predictions.classes[predictions.truth[index]]
        if row["kind"] != "uncertain":
            assert (row["kind"] == "correct") == (row["predicted"] == row["truth"])
    assert set(explanation.heatmaps["map"]) == {"normal", "blast"}
    assert explanation.localization["resnet20"].border_swap is None
    assert explanation.localization["resnet20"].mask_overlaps == {}


def test_several_runs_share_one_scale(trained: Path, tmp_path: Path) -> None:
    ids = ["./new_dataset/valid/3.bmp", "./new_dataset/valid/0.bmp"]
    explanation = parfocal.explain(trained / "runs", "valid", tmp_path / "both", ids=ids)
    _check_files(explanation)
    assert list(dict.fromkeys(explanation.heatmaps["run"])) == ["plain20", "resnet20"]
    assert list(dict.fromkeys(explanation.heatmaps["id"])) == ids
    alone = parfocal.explain(trained / "runs" / "plain20", "valid", tmp_path / "one", ids=ids)
    plain20_heatmaps = explanation.heatmaps[explanation.heatmaps["run"] == "plain20"].reset_index(drop=True)
    pd.testing.assert_frame_equal(plain20_heatmaps, alone.heatmaps, rtol=1e-3, atol=1e-4)
    assert explanation.scale == pytest.approx(
        max(explanation.heatmaps["peak"].max(), -explanation.heatmaps["minimum"].min())
    )
    assert explanation.scales == dict.fromkeys(("plain20", "resnet20"), explanation.scale)
    border_swap = explanation.localization["plain20"].border_swap
    assert border_swap is not None
    assert border_swap.n_images == 24
    assert border_swap == alone.localization["plain20"].border_swap


def test_each_run_can_have_a_scale_of_its_own(trained: Path, tmp_path: Path) -> None:
    ids = ["./new_dataset/valid/3.bmp", "./new_dataset/valid/0.bmp"]
    explanation = parfocal.explain(trained / "runs", "valid", tmp_path / "own", ids=ids, own_scale=True)
    _check_files(explanation)
    for name, rows in explanation.heatmaps.groupby("run"):
        assert explanation.scales[str(name)] == pytest.approx(max(rows["peak"].max(), -rows["minimum"].min()))
    assert len(set(explanation.scales.values())) == 2


@pytest.mark.parametrize(("method", "stage"), [("gradcam", "stage2"), ("occlusion", "")])
def test_grad_cam_and_occlusion_are_chosen_by_name(trained: Path, tmp_path: Path, method: str, stage: str) -> None:
    image = trained / "cells" / "new_dataset" / "test" / "0.bmp"
    explanation = parfocal.explain(trained / "runs" / "resnet20", image, tmp_path / "where", method=method, stage=stage)
    _check_files(explanation)
    summary = json.loads((explanation.folder / "explanation.json").read_text())
    assert (summary["method"], summary["stage"], summary["split"]) == (method, stage, "")
    shapes = {"gradcam": (2, 16, 16), "occlusion": (2, 8, 8)}
    assert np.load(explanation.folder / explanation.heatmaps["file"].iloc[0]).shape == shapes[method]


def test_files_get_the_same_predictions_as_from_predict(trained: Path, tmp_path: Path) -> None:
    run = trained / "runs" / "resnet20"
    images = trained / "cells" / "new_dataset" / "test"
    (tmp_path / "bad.png").write_text("no image")
    sources = [images, tmp_path / "bad.png", tmp_path / "gone.png"]
    explanation = parfocal.explain(run, sources, tmp_path / "where")
    _check_files(explanation)
    result = parfocal.predict(run, sources, tmp_path / "out.csv")
    predicted = pd.read_csv(result.path)
    rows = explanation.heatmaps.drop_duplicates("id")
    assert rows["id"].tolist() == predicted["id"].tolist()
    assert rows["predicted"].tolist() == predicted["predicted"].tolist()
    confidence = predicted[["probability:normal", "probability:blast"]].max(axis=1)
    np.testing.assert_allclose(rows["probability"], confidence, atol=1e-6)
    assert set(rows["truth"]) == set(rows["kind"]) == {""}
    assert explanation.unreadable == result.unreadable
    assert explanation.localization == {}


def test_missing_files_are_listed_and_the_others_explained(trained: Path, tmp_path: Path) -> None:
    gone = trained / "cells" / "new_dataset" / "test" / "1.bmp"
    content = gone.read_bytes()
    gone.unlink()
    ids = [f"./new_dataset/test/{number}.bmp" for number in (0, 1, 2)]
    try:
        explanation = parfocal.explain(trained / "runs", "test", tmp_path / "where", ids=ids)
        with pytest.raises(ParfocalError, match=r"None of the images can be read\. .*test/1\.bmp: the file is missing"):
            parfocal.explain(trained / "runs" / "resnet20", "test", tmp_path / "none", ids=ids[1:2])
    finally:
        gone.write_bytes(content)
    assert explanation.unreadable == {ids[1]: "the file is missing"}
    assert list(dict.fromkeys(explanation.heatmaps["id"])) == [ids[0], ids[2]]
    assert not (tmp_path / "none").exists()


def test_many_images_fill_several_sheets_and_too_many_are_an_error(trained: Path, tmp_path: Path) -> None:
    image = trained / "cells" / "new_dataset" / "test" / "0.bmp"
    for number in range(26):
        (tmp_path / "many" / f"{number}").mkdir(parents=True)
        (tmp_path / "many" / f"{number}" / "cell.bmp").write_bytes(image.read_bytes())
    explanation = parfocal.explain(trained / "runs" / "resnet20", tmp_path / "many", tmp_path / "where")
    assert [path.name for path in explanation.sheets] == ["sheet-1.png", "sheet-2.png"]
    assert explanation.heatmaps["file"].nunique() == 26
    (tmp_path / "list.csv").write_text("Path\n" + "".join(f"{number}.png\n" for number in range(501)))
    with pytest.raises(UsageError, match="501 images are too many to explain; name at most 500"):
        parfocal.explain(trained / "runs" / "resnet20", tmp_path / "list.csv", tmp_path / "where")


def test_invalid_calls_are_errors_and_write_nothing(trained: Path, tmp_path: Path) -> None:
    run = trained / "runs" / "resnet20"
    out = tmp_path / "where"
    with pytest.raises(UsageError, match=r"There is no split and no file 'tset'\. Did you mean 'test'\?"):
        parfocal.explain(run, "tset", out)
    with pytest.raises(UsageError, match=r"no predictions of the split 'train'\. Valid are: test, valid"):
        parfocal.explain(run, "train", out)
    with pytest.raises(ParfocalError, match=r"no such ids in test: 99\.bmp"):
        parfocal.explain(run, "test", out, ids=["99.bmp"])
    with pytest.raises(UsageError, match="ids select images of a split"):
        parfocal.explain(run, trained / "cells", out, ids=["99.bmp"])
    weights = Run(run).weights_path
    weights.rename(weights.with_suffix(".away"))
    try:
        with pytest.raises(ParfocalError, match=r"resnet20.model.safetensors is missing"):
            parfocal.explain(run, "test", out)
    finally:
        weights.with_suffix(".away").rename(weights)
    with pytest.raises(ParfocalError, match="resnet20 is named twice"):
        parfocal.explain([run, run], "test", out)
    assert not out.exists()


def _make_explanation(name: str, map_names: tuple[str, ...], n_images: int) -> RunExplanation:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n_images, len(map_names), 4, 4)).astype(np.float32)
    pixels = rng.integers(0, 256, (n_images, 32, 32, 3), dtype=np.uint8)
    maps = ClassMaps(map_names, values, values.mean(axis=(2, 3)), np.zeros(len(map_names)), pixels)
    return RunExplanation(name, ("a", "b", "c"), np.arange(n_images) % 3, rng.dirichlet([1, 1, 1], n_images), maps)


def _read_titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_a_sheet_names_each_image_prediction_map_and_peak() -> None:
    nominal = _make_explanation("wide", ("a", "b", "c"), 3)
    ordinal = _make_explanation("graded", (SCORE,), 3)
    images = [
        SelectedImage("x/first.png", "wrong", 1),
        SelectedImage("second.png", "uncertain", 1),
        SelectedImage("third.png", "uncertain"),
    ]
    figure = draw_sheet(images, [nominal, ordinal], {nominal.name: 3.0, ordinal.name: 3.0})
    titles = _read_titles(figure)
    assert len(titles) == 3 * (1 + 2 + 1) + 1
    assert titles[0] == "first.png\ntruth: b"
    maps = nominal.select_maps(0, 1)
    assert list(maps) == ["a", "b"]
    assert titles[1] == f"wide: a {nominal.probabilities[0, 0]:.0%}\na: peak {maps['a'].max():.2f}"
    assert titles[2] == f"\nb: peak {maps['b'].max():.2f}"
    assert titles[3].endswith(f"score: peak {ordinal.maps.values[0].max():.2f}")
    assert "third.png" in titles
    assert [text.get_text() for text in figure.texts] == ["Wrong", "Uncertain"]


def test_the_second_map_is_of_the_truth_or_of_the_second_most_probable_class() -> None:
    explanation = _make_explanation("wide", ("a", "b", "c"), 3)
    others = [("a", "b", "c")[label] for label in np.argsort(-explanation.probabilities[1]) if label != 1]
    assert list(explanation.select_maps(1, 2)) == ["b", "c"]
    assert list(explanation.select_maps(1, 1)) == ["b", others[0]]
    assert list(explanation.select_maps(1, -1)) == ["b", others[0]]


def test_image_names_with_special_characters_become_valid_file_names(trained: Path, tmp_path: Path) -> None:
    image = cv2.imread(str(trained / "cells" / "new_dataset" / "test" / "0.bmp"))
    assert image is not None
    image_path = tmp_path / "ä: b*$5_$6?.png"
    write_image(image_path, image)
    explanation = parfocal.explain(trained / "runs" / "resnet20", image_path, tmp_path / "where")
    assert (tmp_path / "where" / "maps" / "resnet20" / "001-ä-b-5_-6.npy").is_file()
    assert explanation.heatmaps["id"].tolist() == [str(image_path)] * 2


def test_file_names_that_would_collide_are_numbered() -> None:
    assert make_safe_names(["HER2+", "HER2-", "her2", "HER2-2", "*", "b"]) == {
        "HER2+": "HER2", "HER2-": "HER2-2", "her2": "her2-3", "HER2-2": "HER2-2-2", "*": "unnamed", "b": "b",
    }  # fmt: skip
