"""External validation maps the classes of another data set, and rejects images that the run has seen."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import parfocal
from parfocal.commands.tables import print_external_results
from parfocal.data.layouts import read
from parfocal.data.table import UNKNOWN
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.external import evaluate_external, map_classes, parse_class_map
from parfocal.run import Run
from tests.cells import SMALL_RECIPE, draw_cell, draw_cells, write_image


def _draw_folders(folder: Path, names: tuple[str, ...] = ("healthy", "blast", "smudge")) -> Path:
    """Draw cells that no run has seen, in one folder per class."""
    rng = np.random.default_rng(99)
    for number, name in enumerate(names):
        for image in range(8):
            write_image(folder / name / f"{image}.png", draw_cell(rng, number % 2, 48))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(folder / "stores"))
        parfocal.train(draw_cells(folder / "cells"), out=folder / "runs", **SMALL_RECIPE)
    return folder


def test_a_run_is_evaluated_on_the_mapped_classes_and_keeps_the_results(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    data = _draw_folders(tmp_path / "hospital")
    before = run.decision_path.read_bytes()
    metrics = evaluate_external(run, data, {"healthy": "normal", "smudge": ""})
    assert (metrics["count"], metrics["majority_accuracy"]) == (16, 0.5)
    assert metrics["confusion"] == [[8, 0], [0, 8]]
    assert metrics["intervals"]["groups"] == 16
    assert metrics["calibration"]["temperature"] != 1
    rows = pd.read_csv(run.folder / "external" / "hospital" / "predictions.csv")
    assert set(rows["truth"]) == {"normal", "blast"}
    assert (run.folder / "external" / "hospital" / "metrics.json").is_file()
    assert run.decision_path.read_bytes() == before


def test_data_of_the_same_name_and_other_class_maps_get_folders_of_their_own(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    first, second = (_draw_folders(tmp_path / parent / "site.v2", ("normal", "blast")) for parent in ("a", "b"))
    for data, class_map in ((first, {}), (first, {"normal": ""}), (second, {}), (first, {})):
        evaluate_external(run, data, class_map)
    metrics = {
        path.name: json.loads((path / "metrics.json").read_text()) for path in (run.folder / "external").glob("site*")
    }
    assert {name: (values["data"], values["count"]) for name, values in metrics.items()} == {
        "site.v2": (str(first), 16),
        "site.v2-2": (str(first), 8),
        "site.v2-3": (str(second), 16),
    }


def test_its_table_explains_missing_intervals_and_shows_the_decisions(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(trained / "runs" / "resnet20")
    data = _draw_folders(tmp_path / "clinic", ("normal", "blast"))
    parfocal.evaluate(run.folder, operating_point="specificity=0.9", refer=0.8)
    print_external_results({run.name: evaluate_external(run, data)})
    output = capsys.readouterr().out
    parfocal.evaluate(run.folder, operating_point="none", refer=0)
    assert "Too few groups (patients) for confidence intervals: 16 in clinic" in output
    assert output.splitlines()[0].split() == ["run", "images", "accuracy", "majority", "balanced", "kappa", "AUC"]
    assert [f"{heading} " in output for heading in ("operating point", "referral")] == [True, True]


def test_training_images_are_rejected(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    with pytest.raises(ParfocalError, match=r"64 images of .* are training or validation images of resnet20"):
        evaluate_external(run, trained / "cells")
    data = _draw_folders(tmp_path / "copies", ("normal", "blast"))
    copied = trained / "cells" / "new_dataset" / "train" / "0.bmp"
    (data / "normal" / "copy.bmp").write_bytes(copied.read_bytes())
    with pytest.raises(ParfocalError, match="1 images of"):
        evaluate_external(run, data)


def test_labels_follow_the_class_map_and_unlabeled_rows_are_dropped(tmp_path: Path) -> None:
    table = read(_draw_folders(tmp_path / "hospital"))
    table.rows.loc[0, "label"] = UNKNOWN
    mapped = map_classes(table, ("normal", "blast"), {"healthy": "normal", "smudge": "blast"})
    names = [Path(path).parent.name for path in mapped.rows["path"]]
    expected = {"healthy": 0, "blast": 1, "smudge": 1}
    assert mapped.rows["label"].tolist() == [expected[name] for name in names]
    assert len(mapped) == 23
    assert mapped.splits == ("test",)


def test_an_invalid_class_map_is_rejected(tmp_path: Path) -> None:
    table = read(_draw_folders(tmp_path / "hospital"))
    classes = ("normal", "blast")
    message = r"classes healthy, smudge of the data are not classes of the run \(normal, blast\)\. Rename them"
    with pytest.raises(UsageError, match=message):
        map_classes(table, classes, {})
    message = r"class_map healhty=normal: the data has no class 'healhty'\. Did you mean 'healthy'"
    with pytest.raises(UsageError, match=message):
        map_classes(table, classes, {"healhty": "normal"})
    with pytest.raises(UsageError, match=r"the run has no class 'norml'\. Did you mean 'normal'"):
        map_classes(table, classes, {"healthy": "norml"})
    with pytest.raises(ParfocalError, match="has no labeled images of the run's classes"):
        map_classes(table, classes, {"healthy": "", "blast": "", "smudge": ""})
    assert parse_class_map("0=no DR, 4=severe,x=") == {"0": "no DR", "4": "severe", "x": ""}
    with pytest.raises(UsageError, match=r"class_map 0 is not valid\. Write it as old=new"):
        parse_class_map("0")
