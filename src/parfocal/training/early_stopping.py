"""What the figures of past epochs decide: which is the best, when the learning rate falls, when a run ends early.

All of it is worked out anew from the history, so that a run that is gone on with needs no further state.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from parfocal.errors import UsageError, join_limited
from parfocal.schema import TrainingConfig

_NEEDS_TWO_CLASSES = ("kappa", "quadratic_kappa", "auc")
"""The figures that say nothing of images that are all of one class."""


def validate_select(select: str, class_counts: Mapping[str, int]) -> None:
    """Refuse to choose by a figure that cannot be known, given how many images of each class valid has."""
    missing = [name for name, count in class_counts.items() if not count]
    if select in _NEEDS_TWO_CLASSES and len(class_counts) - len(missing) < 2:
        raise UsageError(
            f"select={select} needs two classes on the validation split, which has no image of {join_limited(missing)}. "
            "Say select=accuracy or select=loss, or split otherwise."
        )


def is_better(value: float | None, best: float | None, select: str) -> bool:
    """Say whether a value beats the best so far; the earlier epoch keeps a tie, and an unknown value never wins."""
    if not _is_known(value) or not _is_known(best):
        return _is_known(value)
    return value < best if select == "loss" else value > best


def plateau_reductions(values: Sequence[float | None], config: TrainingConfig) -> int:
    """Return how often the plateau schedule has lowered the learning rate, given the selected figure of each epoch."""
    best: float | None = None
    waited = times = 0
    for value in values if config.schedule == "plateau" else ():
        if is_better(value, best, config.select):
            best, waited = value, 0
        else:
            waited += 1
        if waited == config.lr_step:
            waited, times = 0, times + 1
    return times


def early_stop(n_epochs: int, best_epoch: int, config: TrainingConfig) -> bool:
    """Say whether the recipe's patience is at an end: so many epochs were no better than the best."""
    return config.patience > 0 and n_epochs - best_epoch >= config.patience


def _is_known(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)
