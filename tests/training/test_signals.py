"""Training that is stopped by a signal or killed within an epoch: it resumes to bit-identical weights."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import parfocal
from parfocal.errors import ParfocalError
from parfocal.models.checkpoints import read_tensors
from parfocal.run import Run
from parfocal.training.signals import TrainingInterruptedError, catch_signals
from tests.cells import SMALL_RECIPE, draw_cells
from tests.training.resuming import assert_identical_runs, call_at_step

ADAM = {"optimizer": "adam", "learning_rate": 0.002, "dropout": 0.2}
ACCUMULATED = {"accumulate": 4, "ema": 0.9, "mixup": 0.3, "schedule": "one_cycle", "loss": "regression"}


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
