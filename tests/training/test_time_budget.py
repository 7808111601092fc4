"""Training for a number of minutes: the clock decides the learning-rate schedule and the end of the run."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric

import parfocal
from parfocal.errors import UsageError
from parfocal.recipe import load_recipe
from parfocal.schema import TrainingConfig
from parfocal.training import step as step_module
from parfocal.training import trainer
from parfocal.training.optim import compute_learning_rate
from parfocal.training.time_budget import TimeBudget
from tests.cells import SMALL_RECIPE


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
    budget.reserve = 91
    assert budget.exhausted()
    budget.reserve = 0
    clock[0] = 120
    budget.sync()
    assert budget.exhausted()


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


def test_sampling_that_depends_on_the_epochs_is_rejected() -> None:
    with pytest.raises(UsageError, match="sampling=decay"):
        load_recipe(None, minutes=5, sampling="decay")
