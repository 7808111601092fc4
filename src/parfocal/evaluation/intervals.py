"""How sure a figure is: the bootstrap over groups, for images of one patient are no independent witnesses.

Groups are drawn with replacement, all images of a group together, and every figure is taken anew of each draw. The
interval lies between percentiles of what comes out, moved for bias and skewness as Efron's BCa has it (1987) and
widened for few groups as Hesterberg says (2015), where groups that decide little hardly count (Satterthwaite, 1946).
All draws of all figures share the same groups.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Any

import numpy as np
from scipy import stats

from parfocal.evaluation.confusion import ratio
from parfocal.evaluation.weighed import Figures, Weighed

DRAWS = 2000
LEVEL = 0.95

LEAST = 40
"""From fewer groups nothing is concluded: in simulations their intervals hold the truth too seldom."""

WITHOUT = {"ece"}
"""Figures that have no interval: every draw looks less calibrated than what it was drawn from."""

# So many parts of the groups are left out in turn, to see how skewed a figure is.
_PARTS = 100
# So many numbers are held of one table at a time: what fits in a processor's cache is fastest.
_AT_ONCE = 500_000


@dataclass(frozen=True)
class Spread:
    """One figure as it is, with each part of the groups left out in turn, and over many draws of `groups` groups."""

    value: float
    without: np.ndarray
    draws: np.ndarray
    groups: int

    def __sub__(self, other: "Spread") -> "Spread":
        return Spread(self.value - other.value, self.without - other.without, self.draws - other.draws, self.groups)

    def interval(self, level: float = LEVEL) -> list[float] | None:
        """Return the interval; None of too few groups, or where draws say nothing, or all the same: no certainty."""
        if not self._known():
            return None
        ends = stats.t.ppf([(1 - level) / 2, (1 + level) / 2], self._freedom) * self._wider
        bias, skewness = self._bias, self._skewness
        # Too far out, the correction for skewness would turn back; the outermost draw is meant.
        moved = bias + (bias + ends) / np.maximum(1 - skewness * (bias + ends), 0.1)
        low, high = np.quantile(self._drawn, stats.norm.cdf(moved))
        return [float(low), float(high)]

    def chance(self) -> float | None:
        """Return how likely a figure at least so far from 0 would be if it were 0: where the interval would reach 0."""
        if not self._known():
            return None
        return min(1.0, self._reached(1), self._reached(-1))

    def _reached(self, sign: int) -> float:
        """Return 1 less the level at which the lower end of the interval reaches 0; with sign -1 the upper end."""
        drawn = np.sort(sign * self._drawn)
        # As the interval's ends do, the place lies between draws; of draws that are 0 it is the last.
        place = float(np.interp(0.0, drawn, np.linspace(0, 1, len(drawn))))
        if drawn[-1] <= 0:
            return 1.0
        bias, skewness = sign * self._bias, sign * self._skewness
        at = float(stats.norm.ppf(max(place, 0.5 / len(drawn)))) - bias
        # Skewness can hold the end so near that it never gets there.
        away = at / max(1 + skewness * at, 1e-9) - bias
        return float(2 * stats.t.cdf(away / self._wider, self._freedom))

    def _known(self) -> bool:
        known = self._drawn
        return self.groups >= LEAST and 2 * len(known) >= len(self.draws) and bool(np.ptp(known) > 0)

    @property
    def _drawn(self) -> np.ndarray:
        return self.draws[~np.isnan(self.draws)]

    @property
    def _moved(self) -> np.ndarray:
        """Return how far the figure moves with each part of the groups left out, where it can be said."""
        moved = np.nanmean(self.without) - self.without
        return moved[~np.isnan(moved)]

    @property
    def _freedom(self) -> float:
        """Return the degrees of freedom of what is known of the deviation: few, where few groups make most of it."""
        squares, most = self._moved**2, self.groups - 1
        doubt = (squares**2).sum() - squares.sum() ** 2 / len(squares)
        return float(np.clip(2 * squares.sum() ** 2 / doubt, 2, most)) if doubt > 0 else most

    @property
    def _wider(self) -> float:
        return float(np.sqrt(1 + 1 / self._freedom))

    @property
    def _bias(self) -> float:
        return self._place(self.value)

    @property
    def _skewness(self) -> float:
        moved = self._moved
        squares = (moved**2).sum()
        return float((moved**3).sum() / (6 * squares**1.5)) if squares > 0 else 0.0

    def _place(self, value: float) -> float:
        """Return where a value lies among the draws, as a deviate of the normal distribution."""
        drawn = self._drawn
        below = ((drawn < value).sum() + (drawn <= value).sum()) / 2 / len(drawn)
        return float(stats.norm.ppf(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn))))


def spreads(several: Sequence[Weighed], draws: int = DRAWS, seed: int = 0) -> list[dict[Any, Spread]]:
    """Return each one's figures with their spread, over the same draws of the groups, which they must share.

    A draw hangs on the seed and its number alone.
    """
    groups = len(several[0].names)
    at_once = max(1, _AT_ONCE // max(one.widest for one in several))
    first = [np.ones((1, groups), np.uint16), _left_out(groups)]

    def figures(weights: np.ndarray) -> list[Figures]:
        return [one.figures(weights) for one in several]

    def part(start: int) -> list[Figures]:
        return figures(drawn_weights(groups, range(start, min(start + at_once, draws)), seed))

    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        whole, without = pool.map(figures, first)
        parts = list(pool.map(part, range(0, draws, at_once)))
    return [
        {
            key: Spread(
                float(whole[number][key][0]),
                without[number][key],
                np.concatenate([one[number][key] for one in parts]),
                groups,
            )
            for key in whole[number]
        }
        for number in range(len(several))
    ]


def intervals(weighed: Weighed, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> dict[str, Any]:
    """Return the interval of each figure and of those of each class as plain data, and how many groups were drawn."""
    found = spreads([weighed], draws, seed)[0]
    kept = {key: one.interval(level) for key, one in found.items() if key[-1] not in WITHOUT}
    return {
        "level": level,
        "draws": draws,
        "groups": len(weighed.names),
        **{key[0]: value for key, value in kept.items() if len(key) == 1},
        "per_class": {
            label: {key[1]: value for key, value in kept.items() if len(key) == 2 and key[0] == label}
            for label in weighed.classes
        },
    }


def share(groups: Sequence[str], held: np.ndarray, draws: int = DRAWS) -> dict[str, Any]:
    """Return the share of images of which something holds, and its interval over groups, as plain data."""
    names, group = np.unique(np.array(groups, dtype=str), return_inverse=True)
    sums = np.stack([np.bincount(group, held), np.bincount(group)], axis=1)
    several = [np.ones((1, len(names))), _left_out(len(names)), drawn_weights(len(names), range(draws), 0)]
    value, without, drawn = (ratio(*(weights @ sums).T) for weights in several)
    return {"value": float(value[0]), "interval": Spread(float(value[0]), without, drawn, len(names)).interval()}


def drawn_weights(groups: int, numbers: range, seed: int) -> np.ndarray:
    """Return how often each group is drawn (draws, groups)."""
    rows = [
        np.bincount(np.random.default_rng([seed, number]).integers(groups, size=groups), minlength=groups)
        for number in numbers
    ]
    return np.stack(rows).astype(np.uint16)


def _left_out(groups: int) -> np.ndarray:
    """Return weights that leave out one part of the groups at a time (parts, groups)."""
    parts = min(groups, _PARTS)
    part_of = np.random.default_rng(groups).permutation(groups) % parts
    return (part_of != np.arange(parts)[:, None]).astype(np.uint16)
