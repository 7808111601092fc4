"""The time a run has spent, for recipes that train for so many minutes; all processes go by the first one's watch."""

import time

from lightning_fabric import Fabric

# How often, in steps of the weights, several processes look at the first one's watch: they wait for each other then.
_LOOKED_AT_EVERY = 10
# Before this share of the time is gone, its pace says nothing about how many steps there will be.
_TOO_SOON = 1e-3


class Clock:
    """Tells how much of a run's minutes is gone; without minutes it never runs out.

    `spent` is in seconds, as is the `reserve` that is kept back for judging the last epoch.
    """

    def __init__(self, fabric: Fabric, minutes: float, spent: float = 0) -> None:
        self._fabric, self._seconds = fabric, minutes * 60
        self._since = time.perf_counter() - spent
        self.spent, self.reserve = spent, 0.0

    def look(self, step: int = 0) -> None:
        """Read the watch; several processes do so only every few steps of the weights, counted from 0."""
        several = self._fabric.world_size > 1
        if not self._seconds or (several and step % _LOOKED_AT_EVERY):
            return
        self.spent = time.perf_counter() - self._since
        if several:
            self.spent = self._fabric.broadcast(self.spent)

    def steps(self, taken: int) -> float | None:
        """Return how many steps the whole run will have at the pace of those taken; None where epochs decide."""
        return taken / max(_TOO_SOON, self.spent / self._seconds) if self._seconds else None

    def over(self) -> bool:
        """Say whether the time is up but for the reserve."""
        return bool(self._seconds) and self.spent + self.reserve >= self._seconds
