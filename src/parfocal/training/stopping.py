"""When training stops: early stopping and the best epoch, a time budget, and signals.

The best epoch, early stopping and the plateau schedule follow from the history, so a resumed run needs no other state.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from parfocal.errors import ParfocalError
from parfocal.evaluation.metrics import get_metric
from parfocal.recipe_schema import TrainingConfig
from parfocal.run import Run

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Processes wait for each other when they read the clock of rank 0, so they do it only every few steps.
_SYNC_EVERY = 10
# Before this fraction of the time has passed, the pace does not yet predict the number of steps.
_MIN_FRACTION = 1e-3


def is_better(value: float | None, best: float | None, select: str) -> bool:
    """Return whether a value of the selection metric beats the best; a tie or an undefined value does not."""
    if value is None or math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    return value > best if get_metric(select).greater_is_better else value < best


def plateau_reductions(values: Sequence[float | None], config: TrainingConfig) -> int:
    """Return how often the plateau schedule has lowered the learning rate, given each epoch's selection metric."""
    if config.schedule != "plateau":
        return 0
    best: float | None = None
    n_bad_epochs = 0
    n_reductions = 0
    for value in values:
        if is_better(value, best, config.select):
            best = value
            n_bad_epochs = 0
        else:
            n_bad_epochs += 1
        if n_bad_epochs == config.lr_step:
            n_bad_epochs = 0
            n_reductions += 1
    return n_reductions


def early_stop(n_epochs: int, best_epoch: int, config: TrainingConfig) -> bool:
    """Return whether training should stop: `patience` epochs have passed without a new best."""
    return config.patience > 0 and n_epochs - best_epoch >= config.patience


class TimeBudget:
    """Track how much of a run's minutes has passed, by the clock of rank 0; with `minutes=0` it is never exhausted.

    The minutes cover everything from reading the data to the report: `preparation_seconds` passed before training, and
    `reserve` is kept back for validating the last epoch, the evaluation and the report. Each of the two leaves at least
    half of the time to the rest, so that something is always trained. `elapsed_seconds` is the time as of the last
    `sync`, with that of earlier processes if the run was resumed.
    """

    def __init__(
        self, fabric: "Fabric", minutes: float, elapsed_seconds: float = 0, preparation_seconds: float = 0
    ) -> None:
        self._fabric = fabric
        self._seconds = minutes * 60
        self.preparation_seconds = min(preparation_seconds, self._seconds / 2)
        self.elapsed_seconds = max(elapsed_seconds, self.preparation_seconds)
        self._start_time = time.perf_counter() - self.elapsed_seconds
        self.reserve = 0.0

    def add_preparation(self, seconds: float) -> None:
        """Count the seconds that this process took before training, up to half of all time."""
        seconds = max(0.0, min(seconds, self._seconds / 2 - self.preparation_seconds))
        self.preparation_seconds += seconds
        self.elapsed_seconds += seconds
        self._start_time -= seconds

    def begin_training(self) -> None:
        """Count all time so far as preparation, which says nothing about the pace of training."""
        self.preparation_seconds = self.elapsed_seconds

    def sync(self, step: int = 0) -> None:
        """Read the clock; in distributed training all processes do this together, and only at every tenth step."""
        distributed = self._fabric.world_size > 1
        if not self._seconds or (distributed and step % _SYNC_EVERY):
            return
        self.elapsed_seconds = time.perf_counter() - self._start_time
        if distributed:
            self.elapsed_seconds = self._fabric.broadcast(self.elapsed_seconds)

    def estimate_total_steps(self, steps_done: int) -> float | None:
        """Return how many steps the whole run will have at the current pace; None where `epochs` decides."""
        return steps_done / max(_MIN_FRACTION, self._fraction) if self._seconds else None

    def exhausted(self) -> bool:
        """Return whether the time for training is up."""
        return bool(self._seconds) and self._fraction >= 1

    @property
    def _fraction(self) -> float:
        """The fraction of the time for training that has passed."""
        remaining = self._seconds - self.preparation_seconds
        available = remaining - min(self.reserve, remaining / 2)
        return (self.elapsed_seconds - self.preparation_seconds) / available if available > 0 else 1.0


class TrainingInterruptedError(ParfocalError):
    """Training was stopped by a signal after saving a checkpoint; its exit code is 128 + the signal's number."""

    def __init__(self, run: Run, signal_number: int, position: str) -> None:
        data = run.read_environment()["data"]["folder"]
        super().__init__(
            f"Stopped by {signal.Signals(signal_number).name} {position}; everything is saved. "
            f"Resume with: parfocal train {data} --out {run.folder.parent} --resume"
        )
        self.exit_code = 128 + signal_number


@dataclass
class Interruption:
    """The number of the signal that was received; 0 if none was."""

    signal_number: int = 0


@contextmanager
def catch_signals() -> Iterator[Interruption]:
    """Record the first SIGINT or SIGTERM while the block runs; a second SIGINT stops at once."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        # Python delivers signals to the main thread only.
        yield interruption
        return

    def record(signal_number: int, frame: FrameType | None) -> None:
        if interruption.signal_number and signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        interruption.signal_number = interruption.signal_number or signal_number

    previous_handlers = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
