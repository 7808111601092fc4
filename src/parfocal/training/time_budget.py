"""Time budget of a run, for recipes that train for a number of minutes; all processes follow the clock of the first."""

import time

from lightning_fabric import Fabric

# Several processes wait for each other when they read the first one's clock, so they do it only every few steps.
_SYNC_EVERY = 10
# Before this fraction of the time has passed, the pace does not yet predict the number of steps.
_MIN_FRACTION = 1e-3


class TimeBudget:
    """Track how much of a run's minutes has passed; with `minutes=0` it is never exhausted.

    `elapsed_seconds` is the time as of the last `sync`; `reserve` is kept back for validating the last epoch.
    """

    def __init__(self, fabric: Fabric, minutes: float, elapsed_seconds: float = 0) -> None:
        self._fabric = fabric
        self._seconds = minutes * 60
        self._start_time = time.perf_counter() - elapsed_seconds
        self.elapsed_seconds = elapsed_seconds
        self.reserve = 0.0

    def sync(self, step: int = 0) -> None:
        """Read the clock; several processes do this together, and only at every tenth step."""
        distributed = self._fabric.world_size > 1
        if not self._seconds or (distributed and step % _SYNC_EVERY):
            return
        self.elapsed_seconds = time.perf_counter() - self._start_time
        if distributed:
            self.elapsed_seconds = self._fabric.broadcast(self.elapsed_seconds)

    def estimate_total_steps(self, steps_done: int) -> float | None:
        """Return how many steps the whole run will have at the current pace; None where `epochs` decides."""
        return steps_done / max(_MIN_FRACTION, self.elapsed_seconds / self._seconds) if self._seconds else None

    def exhausted(self) -> bool:
        """Return whether the time is up, except for the reserve."""
        return bool(self._seconds) and self.elapsed_seconds + self.reserve >= self._seconds
