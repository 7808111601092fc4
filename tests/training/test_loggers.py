"""Loggers receive the recipe, and the metrics of each epoch once, also when a run is resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.run import Run
from parfocal.training import loggers
from tests.cells import SMALL_RECIPE


@pytest.fixture
def train_interrupted(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:
    """A function that trains with a logger, is interrupted after two logged epochs, and resumes."""

    def train(logger: str) -> Run:
        n_epochs = 0
        write_history = Run.write_history

        def write_and_interrupt(run: Run, rows: Any) -> None:
            nonlocal n_epochs
            n_epochs += 1
            write_history(run, rows)
            if n_epochs == 3:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Run, "write_history", write_and_interrupt)
            with pytest.raises(KeyboardInterrupt):
                parfocal.train(cells, out=tmp_path / "runs", loggers=[logger], **{**SMALL_RECIPE, "epochs": 4})
        (run,) = parfocal.train(cells, out=tmp_path / "runs", resume=True, save_every=3)
        return run

    return train


def _logged_accuracies(run: Run) -> dict[int, float]:
    """Return the validation accuracy of the epochs that were logged: the third was interrupted before."""
    rows = run.read_history().to_dict("records")
    return {row["epoch"]: row["valid_accuracy"] for row in rows if row["epoch"] != 3}


def test_tensorboard_has_the_epochs_of_a_run(train_interrupted: Callable[[str], Run]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train_interrupted("tensorboard")
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    accuracies = {event.step: event.value for event in events.Scalars("valid/accuracy")}
    assert accuracies == pytest.approx(_logged_accuracies(run))


def test_mlflow_has_one_run_with_its_recipe_and_epochs(
    train_interrupted: Callable[[str], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = train_interrupted("mlflow")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("runs")
    assert experiment is not None
    (mlflow_run,) = client.search_runs([experiment.experiment_id])
    assert mlflow_run.info.status == "FINISHED"
    assert mlflow_run.data.params["network.model"] == "resnet20"
    metrics = client.get_metric_history(mlflow_run.info.run_id, "valid/accuracy")
    assert {metric.step: metric.value for metric in metrics} == pytest.approx(_logged_accuracies(run))


def test_weights_and_biases_has_the_metrics_of_a_run(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (run,) = parfocal.train(cells, out=tmp_path / "runs", loggers=["wandb"], **{**SMALL_RECIPE, "epochs": 2})
    (file,) = (run.folder / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"valid/accuracy" in content
    assert b"resnet20" in content


def test_a_logger_that_cannot_be_opened_is_an_error_before_the_first_epoch(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at/all")
    with pytest.raises(ParfocalError, match=r"loggers=mlflow cannot be opened: .*nowhere"):
        parfocal.train(cells, out=tmp_path / "runs", loggers=["mlflow"], **SMALL_RECIPE)


def test_a_logger_that_fails_later_does_not_end_training(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(logger: object, metrics: dict[str, float], step: int | None = None) -> None:
        if "valid/accuracy" in metrics:
            raise ConnectionError("no answer")

    lines: list[str] = []
    monkeypatch.setattr(loggers, "print_warning", lines.append)
    monkeypatch.setattr(loggers.TensorBoardLogger, "log_metrics", fail)
    (run,) = parfocal.train(cells, out=tmp_path / "runs", loggers=["tensorboard"], **SMALL_RECIPE)
    assert run.is_finished
    assert lines == ["resnet20 is no longer logged to tensorboard: no answer"]


def test_a_logger_that_is_not_installed_is_rejected_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    message = r"loggers=mlflow needs the package mlflow-skinny: pip install 'parfocal\[track\]'"
    with pytest.raises(UsageError, match=message):
        loggers.validate_loggers(("mlflow",))
