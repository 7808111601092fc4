"""A folder of sheets, maps and figures that say where networks look, from a split or from files."""

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
    """What the figures say is what lies in the folder."""
    about = json.loads((explanation.folder / "explained.json").read_text())
    assert about["scale"] == pytest.approx(explanation.scale)
    assert [explanation.folder / name for name in about["sheets"]] == list(explanation.sheets)
    written = pd.read_csv(explanation.folder / "figures.csv", keep_default_na=False)
    assert written["id"].tolist() == explanation.heatmaps["id"].tolist()
    for row in explanation.heatmaps.to_dict("records"):
        values = np.load(explanation.folder / row["file"])
        evidence = values - values.mean(axis=0) if len(values) > 1 else values
        assert any(abs(one.max() - row["peak"]) < 1e-4 for one in evidence)
        assert max(abs(row["peak"]), abs(row["lowest"])) <= explanation.scale + 1e-6
        stem = str(explanation.folder / row["file"]).removesuffix(".npy") + f"-{row['map']}"
        raw, laid_over = cv2.imread(f"{stem}-map.png", cv2.IMREAD_UNCHANGED), cv2.imread(f"{stem}.png")
        assert raw is not None
        assert laid_over is not None
        assert raw.shape == (32, 32)
        assert laid_over.shape == (224, 224, 3)


def test_a_split_is_explained_by_images_chosen_from_its_predictions(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    found = parfocal.explain(run.folder, "test", tmp_path / "where", n_per_kind=3)
    _check_files(found)
    assert [path.name for path in found.sheets] == ["sheet.png"]
    said = Decision.load(run.decision_path).calibrate(Predictions.load(run.predictions_path("test")))
    for row in found.heatmaps.to_dict("records"):
        place = said.ids.index(row["id"])
        assert row["answer"] == said.classes[said.predicted[place]]
        assert row["probability"] == pytest.approx(said.probabilities[place].max())
        assert row["truth"] == said.classes[said.truth[place]]
        if row["kind"] != "uncertain":
            assert (row["kind"] == "correct") == (row["answer"] == row["truth"])
    assert set(found.heatmaps["map"]) == {"normal", "blast"}
    assert found.localization["resnet20"].border_swap is None
    assert found.localization["resnet20"].mask_overlaps == {}


def test_several_runs_stand_side_by_side_on_one_scale(trained: Path, tmp_path: Path) -> None:
    ids = ["./new_dataset/valid/3.bmp", "./new_dataset/valid/0.bmp"]
    found = parfocal.explain(trained / "runs", "valid", tmp_path / "both", ids=ids)
    _check_files(found)
    assert list(dict.fromkeys(found.heatmaps["run"])) == ["plain20", "resnet20"]
    assert list(dict.fromkeys(found.heatmaps["id"])) == ids
    alone = parfocal.explain(trained / "runs" / "plain20", "valid", tmp_path / "one", ids=ids)
    own = found.heatmaps[found.heatmaps["run"] == "plain20"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, alone.heatmaps, rtol=1e-3, atol=1e-4)
    assert found.scale == pytest.approx(max(found.heatmaps["peak"].max(), -found.heatmaps["lowest"].min()))
    margin = found.localization["plain20"].border_swap
    assert margin is not None
    assert margin.n_images == 24
    assert margin == alone.localization["plain20"].border_swap


@pytest.mark.parametrize(("method", "stage"), [("gradcam", "stage2"), ("occlusion", "")])
def test_a_second_opinion_is_asked_for_by_name(trained: Path, tmp_path: Path, method: str, stage: str) -> None:
    image = trained / "cells" / "new_dataset" / "test" / "0.bmp"
    found = parfocal.explain(trained / "runs" / "resnet20", image, tmp_path / "where", method=method, stage=stage)
    _check_files(found)
    about = json.loads((found.folder / "explained.json").read_text())
    assert (about["method"], about["stage"], about["split"]) == (method, stage, "")
    shapes = {"gradcam": (2, 16, 16), "occlusion": (2, 8, 8)}
    assert np.load(found.folder / found.heatmaps["file"].iloc[0]).shape == shapes[method]


def test_files_are_answered_as_predict_answers_them(trained: Path, tmp_path: Path) -> None:
    run, images = trained / "runs" / "resnet20", trained / "cells" / "new_dataset" / "test"
    (tmp_path / "bad.png").write_text("no image")
    sources = [images, tmp_path / "bad.png", tmp_path / "gone.png"]
    found = parfocal.explain(run, sources, tmp_path / "where")
    _check_files(found)
    outcome = parfocal.predict(run, sources, tmp_path / "out.csv")
    predicted = pd.read_csv(outcome.path)
    answers = found.heatmaps.drop_duplicates("id")
    assert answers["id"].tolist() == predicted["id"].tolist()
    assert answers["answer"].tolist() == predicted["predicted"].tolist()
    likeliest = predicted[["probability:normal", "probability:blast"]].max(axis=1)
    np.testing.assert_allclose(answers["probability"], likeliest, atol=1e-6)
    assert set(answers["truth"]) == set(answers["kind"]) == {""}
    assert found.unreadable == outcome.unreadable
    assert found.localization == {}


def test_files_that_are_gone_are_listed_and_the_rest_kept(trained: Path, tmp_path: Path) -> None:
    gone = trained / "cells" / "new_dataset" / "test" / "1.bmp"
    content = gone.read_bytes()
    gone.unlink()
    ids = [f"./new_dataset/test/{number}.bmp" for number in (0, 1, 2)]
    try:
        found = parfocal.explain(trained / "runs", "test", tmp_path / "where", ids=ids)
        with pytest.raises(ParfocalError, match=r"None of the images can be read\. .*test/1\.bmp: the file is missing"):
            parfocal.explain(trained / "runs" / "resnet20", "test", tmp_path / "none", ids=ids[1:2])
    finally:
        gone.write_bytes(content)
    assert found.unreadable == {ids[1]: "the file is missing"}
    assert list(dict.fromkeys(found.heatmaps["id"])) == [ids[0], ids[2]]
    assert not (tmp_path / "none").exists()


def test_many_images_take_several_sheets_and_too_many_are_refused(trained: Path, tmp_path: Path) -> None:
    image = trained / "cells" / "new_dataset" / "test" / "0.bmp"
    for number in range(26):
        (tmp_path / "many" / f"{number}").mkdir(parents=True)
        (tmp_path / "many" / f"{number}" / "cell.bmp").write_bytes(image.read_bytes())
    found = parfocal.explain(trained / "runs" / "resnet20", tmp_path / "many", tmp_path / "where")
    assert [path.name for path in found.sheets] == ["sheet-1.png", "sheet-2.png"]
    assert found.heatmaps["file"].nunique() == 26
    (tmp_path / "list.csv").write_text("Path\n" + "".join(f"{number}.png\n" for number in range(501)))
    with pytest.raises(UsageError, match="501 images are too many to look at; name at most 500"):
        parfocal.explain(trained / "runs" / "resnet20", tmp_path / "list.csv", tmp_path / "where")


def test_mistakes_are_told(trained: Path, tmp_path: Path) -> None:
    run, out = trained / "runs" / "resnet20", tmp_path / "where"
    with pytest.raises(UsageError, match=r"There is no split and no file 'tset'\. Did you mean 'test'\?"):
        parfocal.explain(run, "tset", out)
    with pytest.raises(UsageError, match=r"no predictions of the split 'train'\. Valid are: test, valid"):
        parfocal.explain(run, "train", out)
    with pytest.raises(ParfocalError, match=r"no such ids in test: 99\.bmp"):
        parfocal.explain(run, "test", out, ids=["99.bmp"])
    with pytest.raises(UsageError, match="Ids are of a split"):
        parfocal.explain(run, trained / "cells", out, ids=["99.bmp"])
    weights = Run(run).weights_path
    weights.rename(weights.with_suffix(".away"))
    try:
        with pytest.raises(ParfocalError, match=r"There are no weights at .*resnet20"):
            parfocal.explain(run, "test", out)
    finally:
        weights.with_suffix(".away").rename(weights)
    with pytest.raises(ParfocalError, match="resnet20 is named twice"):
        parfocal.explain([run, run], "test", out)
    assert not out.exists()


def _make_explanation(name: str, map_names: tuple[str, ...], n_images: int) -> RunExplanation:
    dice = np.random.default_rng(0)
    values = dice.normal(size=(n_images, len(map_names), 4, 4)).astype(np.float32)
    pixels = dice.integers(0, 256, (n_images, 32, 32, 3), dtype=np.uint8)
    maps = ClassMaps(map_names, values, values.mean(axis=(2, 3)), np.zeros(len(map_names)), pixels)
    return RunExplanation(name, ("a", "b", "c"), np.arange(n_images) % 3, dice.dirichlet([1, 1, 1], n_images), maps)


def _read_titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_a_sheet_names_each_image_answer_map_and_peak() -> None:
    one, two = _make_explanation("wide", ("a", "b", "c"), 3), _make_explanation("graded", (SCORE,), 3)
    shown = [
        SelectedImage("x/first.png", "wrong", 1),
        SelectedImage("second.png", "uncertain", 1),
        SelectedImage("third.png", "uncertain"),
    ]
    figure = draw_sheet(shown, [one, two], 3.0)
    titles = _read_titles(figure)
    assert len(titles) == 3 * (1 + 2 + 1) + 1
    assert titles[0] == "first.png\ntruth: b"
    first = one.select_maps(0, 1)
    assert list(first) == ["a", "b"]
    assert titles[1] == f"wide: a {one.probabilities[0, 0]:.0%}\na: peak {first['a'].max():.2f}"
    assert titles[2] == f"\nb: peak {first['b'].max():.2f}"
    assert titles[3].endswith(f"score: peak {two.maps.values[0].max():.2f}")
    assert "third.png" in titles
    assert [text.get_text() for text in figure.texts] == ["Wrong", "Uncertain"]


def test_the_second_map_is_of_the_truth_or_else_of_the_runner_up() -> None:
    opinion = _make_explanation("wide", ("a", "b", "c"), 3)
    order = [("a", "b", "c")[one] for one in np.argsort(-opinion.probabilities[1]) if one != 1]
    assert list(opinion.select_maps(1, 2)) == ["b", "c"]
    assert list(opinion.select_maps(1, 1)) == ["b", order[0]]
    assert list(opinion.select_maps(1, -1)) == ["b", order[0]]


def test_names_that_files_cannot_have_are_written_all_the_same(trained: Path, tmp_path: Path) -> None:
    image = cv2.imread(str(trained / "cells" / "new_dataset" / "test" / "0.bmp"))
    assert image is not None
    odd = tmp_path / "ä: b*$5_$6?.png"
    write_image(odd, image)
    found = parfocal.explain(trained / "runs" / "resnet20", odd, tmp_path / "where")
    assert (tmp_path / "where" / "maps" / "resnet20" / "001-ä-b-5_-6.npy").is_file()
    assert found.heatmaps["id"].tolist() == [str(odd)] * 2


def test_names_that_would_be_alike_as_files_are_numbered() -> None:
    assert make_safe_names(["HER2+", "HER2-", "her2", "HER2-2", "*", "b"]) == {
        "HER2+": "HER2", "HER2-": "HER2-2", "her2": "her2-3", "HER2-2": "HER2-2-2", "*": "unnamed", "b": "b",
    }  # fmt: skip
