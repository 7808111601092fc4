"""Training that is asked to stop, or killed in the middle of an epoch: all is saved, and going on is bit-exact."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import parfocal
from parfocal.errors import ParfocalError
from parfocal.models.checkpoints import read_tensors
from parfocal.run import Run
from parfocal.training import signals as interruption
from parfocal.training import step as epoch
from tests.cells import SMALL_RECIPE

ADAM = {"optimizer": "adam", "learning_rate": 0.002, "dropout": 0.2}
GATHERED = {"accumulate": 4, "ema": 0.9, "mixup": 0.3, "schedule": "one_cycle", "loss": "regression"}


def same_to_the_bit(whole: Run, cut: Run) -> None:
    """Hold that two runs ended alike in weights, checkpoint and history, but for what a watch measures."""
    for one, other in ((whole.weights_path, cut.weights_path), (whole.checkpoint_path, cut.checkpoint_path)):
        first, second = read_tensors(one)[0], read_tensors(other)[0]
        assert first.keys() == second.keys()
        assert all(second[key].equal(value) for key, value in first.items())
    timed = ["images_per_second", "waiting", "seconds"]
    pd.testing.assert_frame_equal(whole.read_history().drop(columns=timed), cut.read_history().drop(columns=timed))


def at_step(number: int, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when so many steps have been taken."""
    step, taken = epoch.train_step, 0

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == number:
            do()
        return step(*given, **named)

    monkeypatch.setattr(epoch, "train_step", counted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("changes", "at", "where"), [
    (ADAM, 4, "in epoch 1, after step 4 of 6"),
    (ADAM, 12, "in epoch 2, after step 6 of 6"),
    (GATHERED, 3, "in epoch 2, after step 4 of 6"),
])  # fmt: skip
def test_asked_to_stop_it_saves_in_the_middle_and_goes_on_to_the_bit(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, changes: Any, at: int, where: str
) -> None:
    changes = {**SMALL_RECIPE, **changes, "epochs": 2}
    (whole,) = parfocal.train(cells, out=tmp_path / "whole", **changes)
    at_step(at, lambda: os.kill(os.getpid(), number), monkeypatch)
    with pytest.raises(
        interruption.TrainingInterruptedError, match=rf"Stopped by {signal.Signals(number).name} {where}"
    ) as stop:
        parfocal.train(cells, out=tmp_path / "cut", **changes)
    assert stop.value.exit_code == 128 + number
    assert f"parfocal train {cells} --out {tmp_path / 'cut'} --resume" in str(stop.value)
    assert not (tmp_path / "cut" / "resnet20" / "metrics.json").exists()
    (cut,) = parfocal.train(cells, out=tmp_path / "cut", resume=True)
    same_to_the_bit(whole, cut)


@pytest.mark.parametrize("at", [5, 9, 16])
def test_killed_after_a_save_in_the_middle_it_goes_on_from_there_to_the_bit(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    changes = {**SMALL_RECIPE, **ADAM, "save_every": 1e-9}
    (whole,) = parfocal.train(cells, out=tmp_path / "whole", **changes)
    at_step(at, kill, monkeypatch)
    with pytest.raises(Killed):
        parfocal.train(cells, out=tmp_path / "cut", **changes)
    taken = read_tensors(tmp_path / "cut" / "resnet20" / "last.ckpt")[1]
    assert len(taken["progress"]["history"]) * 6 + taken.get("epoch_state", {"n_batches": 0})["n_batches"] == at - 1
    (cut,) = parfocal.train(cells, out=tmp_path / "cut", resume=True)
    same_to_the_bit(whole, cut)


def test_a_second_interrupt_stops_at_once() -> None:
    with interruption.catch_signals() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_mean_what_they_did_once_training_is_over() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interruption.catch_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_leaves_the_checkpoint_before_and_says_so(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**SMALL_RECIPE, **ADAM}
    (whole,) = parfocal.train(cells, out=tmp_path / "whole", **changes)
    fsync, saves = os.fsync, 0

    def full(file: int) -> None:
        nonlocal saves
        if "last.ckpt" in Path(f"/proc/self/fd/{file}").readlink().name:
            saves += 1
            if saves == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ParfocalError, match=r"last\.ckpt: the disk is full"):
        parfocal.train(cells, out=tmp_path / "cut", **changes)
    folder = tmp_path / "cut" / "resnet20"
    assert len(read_tensors(folder / "last.ckpt")[1]["progress"]["history"]) == 1
    assert not list(folder.glob(".*.part"))
    (cut,) = parfocal.train(cells, out=tmp_path / "cut", resume=True)
    same_to_the_bit(whole, cut)


def test_killed_between_checkpoint_and_history_the_history_is_mended(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = parfocal.train(cells, out=tmp_path / "whole", **SMALL_RECIPE)
    write, times = Run.write_history, 0

    def killed(run: Run, rows: Any) -> None:
        nonlocal times
        times += 1
        if times == 3:
            raise KeyboardInterrupt
        write(run, rows)

    monkeypatch.setattr(Run, "write_history", killed)
    with pytest.raises(KeyboardInterrupt):
        parfocal.train(cells, out=tmp_path / "cut", **SMALL_RECIPE)
    (cut,) = parfocal.train(cells, out=tmp_path / "cut", resume=True)
    same_to_the_bit(whole, cut)
