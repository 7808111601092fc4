"""A run's images are found from another folder than the one where training was started."""

import shutil
from pathlib import Path

import pytest

import parfocal
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.evaluation.locate import locate_table
from parfocal.explainability.images import locate_images
from tests.cells import SMALL_RECIPE


def test_a_run_is_judged_from_anywhere(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (run,) = parfocal.train("cells", out="runs", **{**SMALL_RECIPE, "epochs": 1})
    before = run.read_metrics()
    assert not Path(locate_table(run).paths[0]).is_absolute()
    monkeypatch.chdir(tmp_path / "runs")
    (judged,) = parfocal.evaluate("resnet20")
    assert judged.read_metrics() == before
    assert locate_table(judged).paths == [str(tmp_path / path) for path in Table.load(judged).paths]
    assert all(path.is_file() for path in locate_images(judged, "valid").values())
    # Another folder of that name, further up, is not taken for the run's.
    shutil.move(cells, tmp_path.parent / "cells")
    with pytest.raises(ParfocalError, match="76 of 76 images are missing"):
        parfocal.evaluate("resnet20")
