"""When training stops: early stopping and the best epoch, a time budget, and signals or a kill within an epoch."""

import errno
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.models.checkpoints import read_tensors
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import TrainingConfig
from parfocal.run import Run
from parfocal.training import step as step_module
from parfocal.training import trainer
from parfocal.training.optim import compute_learning_rate
from parfocal.training.stopping import (
    TimeBudget,
    TrainingInterruptedError,
    catch_signals,
    early_stop,
    is_better,
    plateau_reductions,
)
from tests.cells import SMALL_RECIPE, draw_cells
from tests.training.resuming import assert_identical_runs, call_at_step

ADAM = {"optimizer": "adam", "learning_rate": 0.002, "dropout": 0.2}
ACCUMULATED = {"accumulate": 4, "ema": 0.9, "mixup": 0.3, "schedule": "one_cycle", "loss": "regression"}


def test_a_lower_loss_and_a_higher_metric_are_better_and_a_defined_value_beats_an_undefined_one() -> None:
    assert is_better(0.4, 0.5, "loss")
    assert not is_better(0.5, 0.5, "accuracy")
    assert is_better(0.6, 0.5, "accuracy")
    assert is_better(0.1, None, "auc")
    assert not is_better(None, 0.5, "auc")


@pytest.mark.parametrize("select", ["loss", "auc"])
def test_nan_is_never_the_best(select: str) -> None:
    assert not is_better(math.nan, 0.5, select)
    assert not is_better(math.nan, None, select)
    assert is_better(0.1, math.nan, select)


@pytest.mark.parametrize("select", ["accuracy", "loss"])
@given(values=st.lists(st.integers(0, 9).map(lambda tenths: tenths / 10), max_size=40), lr_step=st.integers(1, 5))
def test_the_plateau_schedule_reduces_where_pytorchs_does(select: str, values: list[float], lr_step: int) -> None:
    config = TrainingConfig(schedule="plateau", lr_gamma=0.5, lr_step=lr_step, select=select)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    mode = "min" if select == "loss" else "max"
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, 0.5, lr_step - 1, threshold=0, min_lr=0, eps=0
    )
    for epoch, value in enumerate(values):
        scheduler.step(value)
        assert 0.5 ** plateau_reductions(values[: epoch + 1], config) == optimizer.param_groups[0]["lr"]


def test_undefined_values_count_as_no_improvement_and_other_schedules_have_no_reductions() -> None:
    config = TrainingConfig(schedule="plateau", lr_step=2)
    assert plateau_reductions([None, None, 0.5, None, None], config) == 2
    assert plateau_reductions([0.5] * 30, TrainingConfig(lr_step=2)) == 0


def test_training_stops_after_patience_epochs_without_a_new_best_and_never_at_patience_0() -> None:
    config = TrainingConfig(patience=3)
    assert [early_stop(n_epochs, 4, config) for n_epochs in (4, 5, 6, 7)] == [False, False, False, True]
    assert not early_stop(500, 1, TrainingConfig())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets, in seconds."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_the_total_steps_are_estimated_from_the_pace_and_the_reserve_is_kept(clock: list[float]) -> None:
    budget = TimeBudget(Fabric(accelerator="cpu", devices=1), minutes=2)
    clock[0] = 30
    budget.sync()
    assert budget.estimate_total_steps(100) == pytest.approx(400)
    assert not budget.exhausted()
    budget.reserve = 60
    assert budget.estimate_total_steps(100) == pytest.approx(200)
    clock[0] = 61
    budget.sync()
    assert budget.exhausted()
    budget.reserve = 0
    clock[0] = 120
    budget.sync()
    assert budget.exhausted()


def test_preparation_counts_but_half_of_the_time_is_left_for_training_and_half_of_that_for_the_end(
    clock: list[float],
) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    budget = TimeBudget(fabric, minutes=2, preparation_seconds=20)
    clock[0] = 25
    budget.sync()
    assert budget.elapsed_seconds == 45
    assert budget.estimate_total_steps(1) == pytest.approx(4)
    slow = TimeBudget(fabric, minutes=2, preparation_seconds=900)
    slow.reserve = 900
    clock[0] += 29
    slow.sync()
    assert not slow.exhausted()
    clock[0] += 2
    slow.sync()
    assert slow.exhausted()


def test_only_sync_reads_the_clock(clock: list[float]) -> None:
    budget = TimeBudget(Fabric(accelerator="cpu", devices=1), minutes=2)
    clock[0] = 30
    budget.sync()
    clock[0] = 1e9
    assert budget.estimate_total_steps(100) == pytest.approx(400)
    assert not budget.exhausted()


def test_time_before_an_interruption_counts(clock: list[float]) -> None:
    clock[0] = 1000
    budget = TimeBudget(Fabric(accelerator="cpu", devices=1), minutes=2, elapsed_seconds=90)
    budget.sync()
    assert budget.elapsed_seconds == 90
    clock[0] += 30
    budget.sync()
    assert budget.exhausted()


def test_without_minutes_the_budget_is_never_exhausted(clock: list[float]) -> None:
    budget = TimeBudget(Fabric(accelerator="cpu", devices=1), minutes=0)
    clock[0] = 1e9
    budget.sync()
    assert budget.estimate_total_steps(100) is None
    assert not budget.exhausted()


@given(schedule=st.sampled_from(["cosine", "one_cycle"]), pace=st.floats(0.5, 20), warmup=st.sampled_from([0, 1]))
def test_the_learning_rate_ends_near_zero_with_the_time_whatever_the_pace(
    schedule: str, pace: float, warmup: int
) -> None:
    config = TrainingConfig(schedule=schedule, learning_rate=1.0, warmup=warmup)  # type: ignore[arg-type]
    rates: list[float] = []
    for step in range(round(1000 / pace)):
        total_steps = (step + 1) / max(1e-3, (step + 1) * pace / 1000)
        rates.append(compute_learning_rate(step, 10, config, total_steps=total_steps))
    assert max(rates) == pytest.approx(1, abs=0.1)
    assert rates[-1] < 0.1
    assert all(0 <= rate <= 1 for rate in rates)


def test_a_run_of_some_seconds_ends_evaluated_and_resuming_uses_only_the_time_left(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "minutes": 0.03, "epochs": 1})
    history = run.read_history()
    assert run.is_finished
    assert history["epoch"].tolist() == list(range(1, len(history) + 1))
    (run.folder / "metrics.json").unlink()
    parfocal.train(cells, out=tmp_path / "runs", resume=True)
    # Saving is not counted, so there may be time for one more epoch, but not for as many again.
    resumed_history = run.read_history()
    assert resumed_history["epoch"].tolist() == list(range(1, len(resumed_history) + 1))
    assert resumed_history[: len(history)].equals(history)
    assert len(resumed_history) <= len(history) + 1


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_several_processes_sync_the_clock_within_an_epoch_however_many_batches_a_step_has(
    cells: Path, tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    class TwoProcesses:
        """A fabric of two processes, as far as a time budget uses it."""

        world_size = 2

        def broadcast(self, elapsed_seconds: float) -> float:
            return elapsed_seconds

    n_steps = 0
    train_step = step_module.train_step

    def timed_train_step(*args: Any) -> Any:
        nonlocal n_steps
        n_steps += 1
        clock[0] += 1
        return train_step(*args)

    monkeypatch.setattr(step_module, "train_step", timed_train_step)
    monkeypatch.setattr(trainer, "TimeBudget", lambda fabric, *times: TimeBudget(TwoProcesses(), *times))  # type: ignore[arg-type]
    # An epoch has 12 optimizer steps of a second each, and the time is up after 5.
    changes = {**SMALL_RECIPE, "model": "plain20", "size": 16, "crop_size": 16, "batch_size": 4 // accumulate}
    parfocal.train(cells, out=tmp_path / "runs", **{**changes, "accumulate": accumulate, "minutes": 5 / 60})
    assert n_steps <= 11


def test_however_long_the_preparation_a_quarter_of_the_time_is_trained(
    cells: Path, tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_steps = 0
    train_step = step_module.train_step

    def timed_train_step(*args: Any) -> Any:
        nonlocal n_steps
        n_steps += 1
        clock[0] += 1
        return train_step(*args)

    monkeypatch.setattr(step_module, "train_step", timed_train_step)
    changes = {**SMALL_RECIPE, "model": "plain20", "size": 16, "crop_size": 16, "batch_size": 4}
    parfocal.train(cells, out=tmp_path / "runs", started_at=-1000.0, **{**changes, "minutes": 20 / 60})
    assert n_steps >= 5


def test_sampling_that_depends_on_the_epochs_is_rejected() -> None:
    with pytest.raises(UsageError, match="sampling=decay"):
        load_recipe(None, minutes=5, sampling="decay")


@pytest.fixture(scope="module")
def train_complete(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A function that trains a run without interruption, once for all tests with the same changes."""
    cells = draw_cells(tmp_path_factory.mktemp("complete") / "cells")
    runs: dict[str, Run] = {}

    def train(**changes: Any) -> Run:
        key = str(changes)
        if key not in runs:
            (runs[key],) = parfocal.train(cells, out=cells.parent / str(len(runs)), **changes)
        return runs[key]

    return train


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("changes", "step", "position"), [
    (ADAM, 4, "in epoch 1, after step 4 of 6"),
    (ADAM, 12, "in epoch 2, after step 6 of 6"),
    (ACCUMULATED, 3, "in epoch 2, after step 4 of 6"),
])  # fmt: skip
def test_stopped_by_a_signal_it_saves_within_the_epoch_and_resumes_bit_exactly(
    cells: Path,
    tmp_path: Path,
    train_complete: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    signal_number: signal.Signals,
    changes: Any,
    step: int,
    position: str,
) -> None:
    changes = {**SMALL_RECIPE, **changes, "epochs": 2}
    complete = train_complete(**changes)
    call_at_step(step, lambda: os.kill(os.getpid(), signal_number), monkeypatch)
    with pytest.raises(TrainingInterruptedError, match=rf"Stopped by {signal_number.name} {position}") as stop:
        parfocal.train(cells, out=tmp_path / "stopped", **changes)
    assert stop.value.exit_code == 128 + signal_number
    assert f"parfocal train {cells} --out {tmp_path / 'stopped'} --resume" in str(stop.value)
    assert not (tmp_path / "stopped" / "resnet20" / "metrics.json").exists()
    (resumed,) = parfocal.train(cells, out=tmp_path / "stopped", resume=True)
    assert_identical_runs(complete.folder, resumed.folder)


@pytest.mark.parametrize("step", [5, 9, 16])
def test_killed_after_a_checkpoint_within_an_epoch_it_resumes_from_there_bit_exactly(
    cells: Path, tmp_path: Path, train_complete: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    changes = {**SMALL_RECIPE, **ADAM, "save_every": 1e-9}
    complete = train_complete(**changes)
    call_at_step(step, kill, monkeypatch)
    with pytest.raises(Killed):
        parfocal.train(cells, out=tmp_path / "killed", **changes)
    content = read_tensors(tmp_path / "killed" / "resnet20" / "last.ckpt")[1]
    n_epochs = len(content["progress"]["history"])
    n_batches = content.get("epoch_state", {"n_batches": 0})["n_batches"]
    assert n_epochs * 6 + n_batches == step - 1
    (resumed,) = parfocal.train(cells, out=tmp_path / "killed", resume=True)
    assert_identical_runs(complete.folder, resumed.folder)


def test_a_second_sigint_stops_at_once() -> None:
    with catch_signals() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_signal_handlers_are_restored_after_training() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with catch_signals():
        assert signal.getsignal(signal.SIGTERM) is not handler
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_full_disk_keeps_the_previous_checkpoint_and_is_reported(
    cells: Path, tmp_path: Path, train_complete: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**SMALL_RECIPE, **ADAM}
    complete = train_complete(**changes)
    fsync = os.fsync
    n_checkpoints = 0

    def fail_at_the_second_checkpoint(file: int) -> None:
        nonlocal n_checkpoints
        if "last.ckpt" in Path(f"/proc/self/fd/{file}").readlink().name:
            n_checkpoints += 1
            if n_checkpoints == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail_at_the_second_checkpoint)
    with pytest.raises(ParfocalError, match=r"last\.ckpt: the disk is full"):
        parfocal.train(cells, out=tmp_path / "stopped", **changes)
    folder = tmp_path / "stopped" / "resnet20"
    assert len(read_tensors(folder / "last.ckpt")[1]["progress"]["history"]) == 1
    assert not list(folder.glob(".*.part"))
    (resumed,) = parfocal.train(cells, out=tmp_path / "stopped", resume=True)
    assert_identical_runs(complete.folder, resumed.folder)


def test_killed_between_checkpoint_and_history_the_history_is_repaired(
    cells: Path, tmp_path: Path, train_complete: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = train_complete(**SMALL_RECIPE)
    write_history = Run.write_history
    n_calls = 0

    def fail_at_the_third_call(run: Run, rows: Any) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            raise KeyboardInterrupt
        write_history(run, rows)

    monkeypatch.setattr(Run, "write_history", fail_at_the_third_call)
    with pytest.raises(KeyboardInterrupt):
        parfocal.train(cells, out=tmp_path / "killed", **SMALL_RECIPE)
    (resumed,) = parfocal.train(cells, out=tmp_path / "killed", resume=True)
    assert_identical_runs(complete.folder, resumed.folder)
