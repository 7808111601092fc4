"""SIGINT and SIGTERM, noted rather than obeyed at once, so that a step can be finished and saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from parfocal.errors import ParfocalError
from parfocal.run import Run


class TrainingInterruptedError(ParfocalError):
    """Training was asked to stop and has saved everything; the exit code is the one shells expect of the signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


@dataclass
class Interruption:
    """The number of the signal that came, 0 while none did."""

    signal_number: int = 0


def interrupted(run: Run, signal_number: int, position: str) -> TrainingInterruptedError:
    """Return the error that says by which signal and where training stopped, and how to go on."""
    data = run.read_environment()["data"]["folder"]
    return TrainingInterruptedError(
        f"Stopped by {signal.Signals(signal_number).name} {position}; all of it is saved. "
        f"Go on with: parfocal train {data} --out {run.folder.parent} --resume",
        signal_number,
    )


@contextmanager
def catch_signals() -> Iterator[Interruption]:
    """Note the first SIGINT or SIGTERM while the block runs; a second SIGINT stops at once."""
    asked = Interruption()
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread hears signals.
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked.signal_number and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.signal_number = asked.signal_number or number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
