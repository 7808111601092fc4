"""What trackers are told: the recipe, and each epoch's figures once, also when a run is gone on with."""

from pathlib import Path
from typing import Any

import pytest

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.run import Run
from parfocal.training import loggers as trackers
from tests.cells import SMALL_RECIPE


@pytest.fixture
def interrupted(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that trains with a tracker, is interrupted once two epochs are told, and goes on elsewhere."""

    def train(tracker: str) -> Run:
        times = 0

        def cut(run: Run, rows: Any) -> None:
            nonlocal times
            times += 1
            write(run, rows)
            if times == 3:
                raise KeyboardInterrupt

        write = Run.write_history
        with monkeypatch.context() as patched:
            patched.setattr(Run, "write_history", cut)
            with pytest.raises(KeyboardInterrupt):
                parfocal.train(cells, out=tmp_path / "runs", loggers=[tracker], **{**SMALL_RECIPE, "epochs": 4})
        (run,) = parfocal.train(cells, out=tmp_path / "runs", resume=True, save_every=3)
        return run

    return train


def _kept(run: Run) -> dict[int, float]:
    """Return the accuracies on valid of the epochs that were told: the third was cut before."""
    return {row["epoch"]: row["valid_accuracy"] for row in run.read_history().to_dict("records") if row["epoch"] != 3}


def test_tensorboard_has_the_epochs_of_a_run(interrupted: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = interrupted("tensorboard")
    seen = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert {one.step: one.value for one in seen.Scalars("valid/accuracy")} == pytest.approx(_kept(run))


def test_mlflow_has_one_run_with_its_recipe_and_epochs(
    interrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = interrupted("mlflow")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("runs")
    assert experiment is not None
    (seen,) = client.search_runs([experiment.experiment_id])
    assert seen.info.status == "FINISHED"
    assert seen.data.params["network.model"] == "resnet20"
    told = client.get_metric_history(seen.info.run_id, "valid/accuracy")
    assert {one.step: one.value for one in told} == pytest.approx(_kept(run))


def test_weights_and_biases_has_the_last_figures_of_a_run(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (run,) = parfocal.train(cells, out=tmp_path / "runs", loggers=["wandb"], **{**SMALL_RECIPE, "epochs": 2})
    (file,) = (run.folder / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"valid/accuracy" in content
    assert b"resnet20" in content


def test_a_tracker_that_cannot_be_opened_is_an_error_before_any_epoch(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at/all")
    with pytest.raises(ParfocalError, match=r"loggers=mlflow cannot be opened: .*nowhere"):
        parfocal.train(cells, out=tmp_path / "runs", loggers=["mlflow"], **SMALL_RECIPE)


def test_a_tracker_that_is_lost_on_the_way_does_not_end_training(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(logger: object, metrics: dict[str, float], step: int | None = None) -> None:
        if "valid/accuracy" in metrics:
            raise ConnectionError("nobody answers")

    said: list[str] = []
    monkeypatch.setattr(trackers, "print_line", said.append)
    monkeypatch.setattr(trackers.TensorBoardLogger, "log_metrics", lost)
    (run,) = parfocal.train(cells, out=tmp_path / "runs", loggers=["tensorboard"], **SMALL_RECIPE)
    assert run.is_finished
    assert said == ["Warning: tensorboard is told no more of resnet20: nobody answers"]


def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"loggers=mlflow needs the package mlflow-skinny: pip install 'parfocal\[track\]'"
    ):
        trackers.validate_loggers(("mlflow",))
