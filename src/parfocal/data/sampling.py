"""Which images an epoch shows, and how often: as they come, or some classes more than others."""

import numpy as np

from parfocal.errors import UsageError
from parfocal.parts import TrainingPart


def epoch_order(labels: np.ndarray, part: TrainingPart, *, seed: int, epoch: int) -> np.ndarray:
    """Return the rows of one epoch in the order they are shown, drawn from a generator keyed by (seed, epoch)."""
    dice = np.random.default_rng([seed, epoch, 0])
    if part.sampling == "natural":
        return dice.permutation(len(labels))
    counts = np.bincount(labels)
    chosen = [_cycled(np.flatnonzero(labels == label), often, dice)
              for label, often in enumerate(shown(counts, part, epoch))]  # fmt: skip
    return dice.permutation(np.concatenate(chosen))


def shown(counts: np.ndarray, part: TrainingPart, epoch: int) -> np.ndarray:
    """Return how many images of each class an epoch shows; their sum is the same in every epoch."""
    total, present = int(counts.sum()), counts > 0
    natural, balanced = counts / total, present / present.sum()
    if part.sampling == "factors":
        return np.round(counts * _of_each_class(part.factors, counts)).astype(int)
    if part.sampling == "extra":
        others = np.where(np.arange(len(counts)) == counts.argmax(), 0, counts)
        return counts + _whole(others / max(1, others.sum()), round(part.extra * total))
    if part.sampling == "balanced":
        return _whole(balanced, total)
    if part.sampling == "square_root":
        return _whole(np.sqrt(counts) / np.sqrt(counts).sum(), total)
    if part.sampling == "decay":
        gone = epoch / max(1, part.epochs - 1)
        return _whole((1 - gone) * balanced + gone * natural, total)
    return counts


def occurrences(order: np.ndarray, count: int) -> np.ndarray:
    """Return the number of the view each place of an order takes: a row's first one its own, any further a new one."""
    _, first = np.unique(order, return_index=True)
    views = np.empty(len(order), dtype=np.int64)
    again = np.ones(len(order), dtype=bool)
    again[first] = False
    views[first] = order[first]
    views[again] = count + np.arange(int(again.sum()))
    return views


def _cycled(rows: np.ndarray, often: int, dice: np.random.Generator) -> np.ndarray:
    """Return `often` of the rows, none a second time before each had its turn."""
    if not len(rows):
        return rows
    return np.concatenate([dice.permutation(rows) for _ in range(-(-often // len(rows)))] or [rows[:0]])[:often]


def _whole(shares: np.ndarray, total: int) -> np.ndarray:
    """Split a total by shares into whole numbers that sum to it."""
    wanted = shares * total
    parts = np.floor(wanted).astype(int)
    parts[np.argsort(parts - wanted, kind="stable")[: total - parts.sum()]] += 1
    return parts


def _of_each_class(factors: tuple[float, ...], counts: np.ndarray) -> np.ndarray:
    if len(factors) != len(counts):
        raise UsageError(f"factors has {len(factors)} numbers, train has {len(counts)} classes.")
    return np.array(factors)
