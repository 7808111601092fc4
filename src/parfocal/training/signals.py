"""Catch SIGINT and SIGTERM, so that training finishes its step, saves a checkpoint and then stops."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from parfocal.errors import ParfocalError
from parfocal.run import Run


class TrainingInterruptedError(ParfocalError):
    """Training was stopped by a signal after saving a checkpoint; its exit code is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


@dataclass
class Interruption:
    """The number of the signal that was received; 0 if none was."""

    signal_number: int = 0


def interrupted(run: Run, signal_number: int, position: str) -> TrainingInterruptedError:
    """Return the error that says which signal stopped training, where, and how to resume."""
    data = run.read_environment()["data"]["folder"]
    return TrainingInterruptedError(
        f"Stopped by {signal.Signals(signal_number).name} {position}; everything is saved. "
        f"Resume with: parfocal train {data} --out {run.folder.parent} --resume",
        signal_number,
    )


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
