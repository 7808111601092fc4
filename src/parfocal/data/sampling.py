"""Which images an epoch shows, and how often: as they come, or some classes more than others."""

import numpy as np

from parfocal.errors import UsageError
from parfocal.parts import TrainingConfig


def draw_epoch_order(labels: np.ndarray, config: TrainingConfig, *, seed: int, epoch: int) -> np.ndarray:
    """Return the rows of one epoch in the order they are shown, drawn from a generator keyed by (seed, epoch)."""
    dice = np.random.default_rng([seed, epoch, 0])
    if config.sampling == "natural":
        return dice.permutation(len(labels))
    counts = np.bincount(labels)
    chosen = [_repeat_rows(np.flatnonzero(labels == label), often, dice)
              for label, often in enumerate(compute_samples_per_class(counts, config, epoch))]  # fmt: skip
    return dice.permutation(np.concatenate(chosen))


def compute_samples_per_class(counts: np.ndarray, config: TrainingConfig, epoch: int) -> np.ndarray:
    """Return how many images of each class an epoch shows; their sum is the same in every epoch."""
    total, present = int(counts.sum()), counts > 0
    natural, balanced = counts / total, present / present.sum()
    if config.sampling == "factors":
        return np.round(counts * _check_factors(config.factors, counts)).astype(int)
    if config.sampling == "extra":
        others = np.where(np.arange(len(counts)) == counts.argmax(), 0, counts)
        return counts + _apportion(others / max(1, others.sum()), round(config.extra * total))
    if config.sampling == "balanced":
        return _apportion(balanced, total)
    if config.sampling == "square_root":
        return _apportion(np.sqrt(counts) / np.sqrt(counts).sum(), total)
    if config.sampling == "decay":
        gone = epoch / max(1, config.epochs - 1)
        return _apportion((1 - gone) * balanced + gone * natural, total)
    return counts


def assign_view_indices(order: np.ndarray, n_images: int) -> np.ndarray:
    """Return the number of the view each place of an order takes: a row's first one its own, any further a new one."""
    _, first = np.unique(order, return_index=True)
    views = np.empty(len(order), dtype=np.int64)
    again = np.ones(len(order), dtype=bool)
    again[first] = False
    views[first] = order[first]
    views[again] = n_images + np.arange(int(again.sum()))
    return views


def _repeat_rows(rows: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return `often` of the rows, none a second time before each had its turn."""
    if not len(rows):
        return rows
    return np.concatenate([rng.permutation(rows) for _ in range(-(-n_samples // len(rows)))] or [rows[:0]])[:n_samples]


def _apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Split a total by shares into whole numbers that sum to it."""
    wanted = shares * total
    parts = np.floor(wanted).astype(int)
    parts[np.argsort(parts - wanted, kind="stable")[: total - parts.sum()]] += 1
    return parts


def _check_factors(factors: tuple[float, ...], counts: np.ndarray) -> np.ndarray:
    if len(factors) != len(counts):
        raise UsageError(f"factors has {len(factors)} numbers, train has {len(counts)} classes.")
    return np.array(factors)
