"""A network on other data: its classes are mapped, and what it has seen before is refused."""

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


def _folders(folder: Path, names: tuple[str, ...] = ("healthy", "blast", "smudge")) -> Path:
    """Draw cells that no run has seen in a folder for each class."""
    dice = np.random.default_rng(99)
    for number, name in enumerate(names):
        for image in range(8):
            write_image(folder / name / f"{image}.png", draw_cell(dice, number % 2, 48))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(folder / "stores"))
        parfocal.train(draw_cells(folder / "cells"), out=folder / "runs", **SMALL_RECIPE)
    return folder


def test_it_is_judged_on_the_mapped_classes_and_kept_with_the_run(trained: Path, tmp_path: Path) -> None:
    run, other = Run(trained / "runs" / "resnet20"), _folders(tmp_path / "hospital")
    before = run.decision_path.read_bytes()
    found = evaluate_external(run, other, {"healthy": "normal", "smudge": ""})
    assert (found["count"], found["majority_accuracy"]) == (16, 0.5)
    assert found["confusion"] == [[8, 0], [0, 8]]
    assert found["intervals"]["groups"] == 16
    assert found["calibration"]["temperature"] != 1
    rows = pd.read_csv(run.folder / "external" / "hospital" / "predictions.csv")
    assert set(rows["truth"]) == {"normal", "blast"}
    assert (run.folder / "external" / "hospital" / "metrics.json").is_file()
    assert run.decision_path.read_bytes() == before


def test_other_data_of_one_name_and_other_maps_are_kept_apart(trained: Path, tmp_path: Path) -> None:
    run, kept = Run(trained / "runs" / "resnet20"), trained / "runs" / "resnet20" / "external"
    first, second = (_folders(tmp_path / place / "site.v2", ("normal", "blast")) for place in ("one", "two"))
    for data, classes in ((first, {}), (first, {"normal": ""}), (second, {}), (first, {})):
        evaluate_external(run, data, classes)
    found = {path.name: json.loads((path / "metrics.json").read_text()) for path in kept.glob("site*")}
    assert {name: (one["data"], one["count"]) for name, one in found.items()} == {
        "site.v2": (str(first), 16),
        "site.v2-2": (str(first), 8),
        "site.v2-3": (str(second), 16),
    }


def test_its_table_says_why_there_are_no_intervals_and_what_was_decided(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = Run(trained / "runs" / "resnet20"), _folders(tmp_path / "clinic", ("normal", "blast"))
    parfocal.evaluate(run.folder, operating_point="specificity=0.9", refer=0.8)
    print_external_results({run.name: evaluate_external(run, other)})
    said = capsys.readouterr().out
    parfocal.evaluate(run.folder, operating_point="none", refer=0)
    assert "Too few groups (patients) for intervals: 16 on clinic" in said
    assert said.splitlines()[0].split() == ["run", "images", "accuracy", "majority", "balanced", "kappa", "AUC"]
    assert [f"{heading} " in said for heading in ("operating point", "referral")] == [True, True]


def test_what_the_run_was_trained_on_is_refused(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    with pytest.raises(ParfocalError, match=r"64 images of .* are among those that resnet20 was trained or chosen on"):
        evaluate_external(run, trained / "cells")
    other = _folders(tmp_path / "copies", ("normal", "blast"))
    copied = trained / "cells" / "new_dataset" / "train" / "0.bmp"
    (other / "normal" / "copy.bmp").write_bytes(copied.read_bytes())
    with pytest.raises(ParfocalError, match="1 images of"):
        evaluate_external(run, other)


def test_labels_follow_the_map_and_unlabelled_rows_are_left_out(tmp_path: Path) -> None:
    table = read(_folders(tmp_path / "hospital"))
    table.rows.loc[0, "label"] = UNKNOWN
    found = map_classes(table, ("normal", "blast"), {"healthy": "normal", "smudge": "blast"})
    names = [Path(path).parent.name for path in found.rows["path"]]
    expected = {"healthy": 0, "blast": 1, "smudge": 1}
    assert found.rows["label"].tolist() == [expected[name] for name in names]
    assert len(found) == 23
    assert found.splits == ("test",)


def test_maps_that_do_not_fit_are_told(tmp_path: Path) -> None:
    table = read(_folders(tmp_path / "hospital"))
    with pytest.raises(UsageError, match=r"classes healthy, smudge are none of the run's: normal, blast\. Say which"):
        map_classes(table, ("normal", "blast"), {})
    with pytest.raises(
        UsageError, match=r"--map healhty=normal: the data has no class 'healhty'\. Did you mean 'healthy'"
    ):
        map_classes(table, ("normal", "blast"), {"healhty": "normal"})
    with pytest.raises(UsageError, match=r"the run has no class 'norml'\. Did you mean 'normal'"):
        map_classes(table, ("normal", "blast"), {"healthy": "norml"})
    with pytest.raises(ParfocalError, match="has no labelled images of the run's classes"):
        map_classes(table, ("normal", "blast"), {"healthy": "", "blast": "", "smudge": ""})
    assert parse_class_map("0=no DR, 4=severe,x=") == {"0": "no DR", "4": "severe", "x": ""}
    with pytest.raises(UsageError, match="--map 0 is not of the form old=new"):
        parse_class_map("0")
