"""The time a run has spent, for recipes that train for so many minutes; all processes go by the first one's watch."""

import time

from lightning_fabric import Fabric

# How often, in steps of the weights, several processes look at the first one's watch: they wait for each other then.
_SYNC_EVERY = 10
# Before this share of the time is gone, its pace says nothing about how many steps there will be.
_MIN_FRACTION = 1e-3


class TimeBudget:
    """Tells how much of a run's minutes is gone; without minutes it never runs out.

    `spent` is in seconds, as is the `reserve` that is kept back for judging the last epoch.
    """

    def __init__(self, fabric: Fabric, minutes: float, elapsed_seconds: float = 0) -> None:
        self._fabric, self._seconds = fabric, minutes * 60
        self._start_time = time.perf_counter() - elapsed_seconds
        self.elapsed_seconds, self.reserve = elapsed_seconds, 0.0

    def sync(self, step: int = 0) -> None:
        """Read the watch; several processes do so only every few steps of the weights, counted from 0."""
        several = self._fabric.world_size > 1
        if not self._seconds or (several and step % _SYNC_EVERY):
            return
        self.elapsed_seconds = time.perf_counter() - self._start_time
        if several:
            self.elapsed_seconds = self._fabric.broadcast(self.elapsed_seconds)

    def estimate_total_steps(self, steps_done: int) -> float | None:
        """Return how many steps the whole run will have at the pace of those taken; None where epochs decide."""
        return steps_done / max(_MIN_FRACTION, self.elapsed_seconds / self._seconds) if self._seconds else None

    def exhausted(self) -> bool:
        """Say whether the time is up but for the reserve."""
        return bool(self._seconds) and self.elapsed_seconds + self.reserve >= self._seconds
