"""Two runs with the same seed on the same data have the same files, byte for byte, except for measured times."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

import parfocal
from parfocal.models.checkpoints import read_tensors
from tests.cells import SMALL_RECIPE
from tests.training.resuming import assert_identical_runs

TIMES = {"images_per_second", "waiting", "seconds", "elapsed_seconds", "preparation_seconds", "reserve_seconds"}
WITH_TIMES = {"environment.json", "history.csv", "metrics.json", "last.ckpt", "manifest.json"}


def _drop_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _drop_times(value) for key, value in content.items() if key not in TIMES}
    return [_drop_times(value) for value in content] if isinstance(content, list) else content


def test_equal_runs_have_equal_files_and_differ_in_times_only(cells: Path, tmp_path: Path) -> None:
    changes = {**SMALL_RECIPE, "epochs": 2, "ema": 0.9, "optimizer": "adam"}
    first, second = (parfocal.train(cells, out=tmp_path / name, **changes)[0].folder for name in ("first", "second"))
    for run in (first, second):
        parfocal.evaluate(run, operating_point="sensitivity=0.9", tta="flips")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert WITH_TIMES | {"model.safetensors", "table.csv", "decision.json", "recipe.yaml"} <= set(map(str, files))
    different = [str(file) for file in files if (first / file).read_bytes() != (second / file).read_bytes()]
    assert set(different) <= WITH_TIMES
    assert_identical_runs(first, second)
    first_metrics, second_metrics = (json.loads((run / "metrics.json").read_text()) for run in (first, second))
    assert json.dumps(_drop_times(first_metrics)) == json.dumps(_drop_times(second_metrics))
    first_history, second_history = (pd.read_csv(run / "history.csv") for run in (first, second))
    assert list(first_history) == list(second_history)
    first_state, second_state = (read_tensors(run / "last.ckpt")[1] for run in (first, second))
    assert json.dumps(_drop_times(first_state)) == json.dumps(_drop_times(second_state))
    first_sums, second_sums = (json.loads((run / "manifest.json").read_text())["sha256"] for run in (first, second))
    assert {name for name in first_sums if first_sums[name] != second_sums[name]} <= {"last.ckpt"}
