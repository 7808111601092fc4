"""Early stopping, the plateau schedule and the best epoch, computed from the selection metric of past epochs.

All of it is derived from the history, so a resumed run needs no further state.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from parfocal.errors import UsageError, join_limited
from parfocal.evaluation.metrics import get_metric
from parfocal.schema import TrainingConfig


def validate_select(select: str, class_counts: Mapping[str, int]) -> None:
    """Reject a selection metric that is undefined on the validation split, given its images per class."""
    missing = [name for name, count in class_counts.items() if not count]
    if len(class_counts) - len(missing) < get_metric(select).needs_classes:
        raise UsageError(
            f"select={select} needs two classes on the validation split, which has no image of "
            f"{join_limited(missing)}. Use select=accuracy or select=loss, or change the split."
        )


def is_better(value: float | None, best: float | None, select: str) -> bool:
    """Return whether a value of the selection metric beats the best; a tie or an undefined value does not."""
    if not _is_defined(value) or not _is_defined(best):
        return _is_defined(value)
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


def _is_defined(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)
