"""What the figures of past epochs decide: which is the best, when the learning rate falls, when a run ends early.

All of it is worked out anew from the history, so that a run that is gone on with needs no further state.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from parfocal.errors import UsageError, listing
from parfocal.parts import TrainingPart

_OF_SEVERAL_CLASSES = ("kappa", "quadratic_kappa", "auc")
"""The figures that say nothing of images that are all of one class."""


def require_known(select: str, counts: Mapping[str, int]) -> None:
    """Refuse to choose by a figure that cannot be known, given how many images of each class valid has."""
    missing = [name for name, count in counts.items() if not count]
    if select in _OF_SEVERAL_CLASSES and len(counts) - len(missing) < 2:
        raise UsageError(
            f"select={select} needs two classes on the validation split, which has no image of {listing(missing)}. "
            "Say select=accuracy or select=loss, or split otherwise."
        )


def better(value: float | None, best: float | None, select: str) -> bool:
    """Say whether a value beats the best so far; the earlier epoch keeps a tie, and an unknown value never wins."""
    if not _known(value) or not _known(best):
        return _known(value)
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


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)
