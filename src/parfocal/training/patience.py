"""What the figures of past epochs decide: which is the best, when the learning rate falls, when a run ends early.

All of it is worked out anew from the history, so that a run that is gone on with needs no further state.
"""

from collections.abc import Sequence

from parfocal.parts import TrainingPart


def better(value: float | None, best: float | None, select: str) -> bool:
    """Say whether a value beats the best so far; the earlier epoch keeps a tie, and an unknown value never wins."""
    if value is None or best is None:
        return value is not None
    return value < best if select == "loss" else value > best


def falls(values: Sequence[float | None], part: TrainingPart) -> int:
    """Return how often the plateau schedule has lowered the learning rate, given the selected figure of each epoch."""
    best: float | None = None
    waited = times = 0
    for value in values if part.schedule == "plateau" else ():
        if better(value, best, part.select):
            best, waited = value, 0
        else:
            waited += 1
        if waited == part.fall_after:
            waited, times = 0, times + 1
    return times


def given_up(finished: int, best_epoch: int, part: TrainingPart) -> bool:
    """Say whether the recipe's patience is at an end: so many epochs were no better than the best."""
    return part.patience > 0 and finished - best_epoch >= part.patience
