"""The images of a run are found from another folder than the one where training was started."""

import shutil
from pathlib import Path

import pytest

import parfocal
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.evaluation.locate import locate_table
from parfocal.explainability.images import locate_images
from tests.cells import SMALL_RECIPE


def test_a_run_can_be_evaluated_from_any_folder(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (run,) = parfocal.train("cells", out="runs", **{**SMALL_RECIPE, "epochs": 1})
    before = run.read_metrics()
    assert not Path(locate_table(run).paths[0]).is_absolute()
    monkeypatch.chdir(tmp_path / "runs")
    (evaluated,) = parfocal.evaluate("resnet20")
    assert evaluated.read_metrics() == before
    assert locate_table(evaluated).paths == [str(tmp_path / path) for path in Table.load(evaluated).paths]
    assert all(path.is_file() for path in locate_images(evaluated, "valid").values())
    # A folder of the same name further up is not the data of the run.
    shutil.move(cells, tmp_path.parent / "cells")
    with pytest.raises(ParfocalError, match="76 of 76 images are missing"):
        parfocal.evaluate("resnet20")
