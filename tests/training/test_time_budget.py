"""Training for so many minutes: the schedule and the end go by the clock."""

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
from parfocal.training import step as epoch
from parfocal.training import trainer
from parfocal.training.optim import compute_learning_rate
from parfocal.training.time_budget import TimeBudget
from tests.cells import SMALL_RECIPE


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A watch whose hand the test moves."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_it_foresees_the_steps_from_their_pace_and_knows_the_end(watch: list[float]) -> None:
    clock = TimeBudget(Fabric(accelerator="cpu", devices=1), minutes=2)
    watch[0] = 30
    clock.sync()
    assert clock.estimate_total_steps(100) == pytest.approx(400)
    assert not clock.exhausted()
    clock.reserve = 91
    assert clock.exhausted()
    clock.reserve, watch[0] = 0, 120
    clock.sync()
    assert clock.exhausted()


def test_time_spent_before_an_interruption_counts(watch: list[float]) -> None:
    watch[0] = 1000
    clock = TimeBudget(Fabric(accelerator="cpu", devices=1), minutes=2, elapsed_seconds=90)
    clock.sync()
    assert clock.elapsed_seconds == 90
    watch[0] += 30
    clock.sync()
    assert clock.exhausted()


def test_without_minutes_it_never_runs_out(watch: list[float]) -> None:
    clock = TimeBudget(Fabric(accelerator="cpu", devices=1), minutes=0)
    watch[0] = 1e9
    clock.sync()
    assert clock.estimate_total_steps(100) is None
    assert not clock.exhausted()


@given(schedule=st.sampled_from(["cosine", "one_cycle"]), pace=st.floats(0.5, 20), warmup=st.sampled_from([0, 1]))
def test_the_rate_ends_near_zero_when_the_time_does_whatever_the_pace(schedule: str, pace: float, warmup: int) -> None:
    part = TrainingConfig(schedule=schedule, learning_rate=1.0, warmup=warmup)  # type: ignore[arg-type]
    steps = round(1000 / pace)
    rates = [compute_learning_rate(step, 10, part, total_steps=(step + 1) / max(1e-3, (step + 1) * pace / 1000))
             for step in range(steps)]  # fmt: skip
    assert max(rates) == pytest.approx(1, abs=0.1)
    assert rates[-1] < 0.1
    assert all(0 <= rate <= 1 for rate in rates)


def test_a_run_of_some_seconds_ends_judged_and_is_gone_on_with_for_what_is_left(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "minutes": 0.03, "epochs": 1})
    history = run.read_history()
    assert run.is_finished
    assert history["epoch"].tolist() == list(range(1, len(history) + 1))
    (run.folder / "metrics.json").unlink()
    parfocal.train(cells, out=tmp_path / "runs", resume=True)
    # Saving is not counted, so there may be time for an epoch more, but never for as many again.
    again = run.read_history()
    assert again["epoch"].tolist() == list(range(1, len(again) + 1))
    assert again[: len(history)].equals(history)
    assert len(again) <= len(history) + 1


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_several_processes_read_the_watch_within_an_epoch_however_many_batches_a_step_has(
    cells: Path, tmp_path: Path, watch: list[float], monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    class Several:
        """An engine of two processes, as far as a clock can tell."""

        world_size = 2

        def broadcast(self, spent: float) -> float:
            return spent

    taken, step = 0, epoch.train_step

    def timed(*given: Any) -> Any:
        nonlocal taken
        taken, watch[0] = taken + 1, watch[0] + 1
        return step(*given)

    monkeypatch.setattr(epoch, "train_step", timed)
    monkeypatch.setattr(trainer, "TimeBudget", lambda fabric, *times: TimeBudget(Several(), *times))  # type: ignore[arg-type]
    # An epoch has 12 steps of the weights, of a second each, and the time is up after 5.
    changes = {**SMALL_RECIPE, "model": "plain20", "size": 16, "crop_size": 16, "batch_size": 4 // accumulate}
    parfocal.train(cells, out=tmp_path / "runs", **{**changes, "accumulate": accumulate, "minutes": 5 / 60})
    assert taken <= 11


def test_sampling_that_goes_by_epochs_is_refused() -> None:
    with pytest.raises(UsageError, match="sampling=decay goes by epochs"):
        load_recipe(None, minutes=5, sampling="decay")
