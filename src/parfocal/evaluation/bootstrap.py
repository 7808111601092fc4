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

from parfocal.evaluation.confusion import divide
from parfocal.evaluation.metrics import MetricArrays, ResampledMetrics

N_SAMPLES = 2000
CONFIDENCE_LEVEL = 0.95

MIN_GROUPS = 40
"""From fewer groups nothing is concluded: in simulations their intervals hold the truth too seldom."""

METRICS_WITHOUT_INTERVAL = {"ece"}
"""Figures that have no interval: every draw looks less calibrated than what it was drawn from."""

# So many parts of the groups are left out in turn, to see how skewed a figure is.
_N_JACKKNIFE_BLOCKS = 100
# So many numbers are held of one table at a time: what fits in a processor's cache is fastest.
_MAX_ELEMENTS = 500_000


@dataclass(frozen=True)
class BootstrapResult:
    """One figure as it is, with each part of the groups left out in turn, and over many draws of `groups` groups."""

    value: float
    jackknife: np.ndarray
    samples: np.ndarray
    n_groups: int

    def __sub__(self, other: "BootstrapResult") -> "BootstrapResult":
        return BootstrapResult(
            self.value - other.value, self.jackknife - other.jackknife, self.samples - other.samples, self.n_groups
        )

    def compute_interval(self, level: float = CONFIDENCE_LEVEL) -> list[float] | None:
        """Return the interval; None of too few groups, or where draws say nothing, or all the same: no certainty."""
        if not self._is_defined():
            return None
        ends = stats.t.ppf([(1 - level) / 2, (1 + level) / 2], self._degrees_of_freedom) * self._widening
        bias, skewness = self._bias_correction, self._acceleration
        # Too far out, the correction for skewness would turn back; the outermost draw is meant.
        moved = bias + (bias + ends) / np.maximum(1 - skewness * (bias + ends), 0.1)
        low, high = np.quantile(self._defined_samples, stats.norm.cdf(moved))
        return [float(low), float(high)]

    def compute_p_value(self) -> float | None:
        """Return how likely a figure at least so far from 0 would be if it were 0: where the interval would reach 0."""
        if not self._is_defined():
            return None
        return min(1.0, self._compute_tail_p_value(1), self._compute_tail_p_value(-1))

    def _compute_tail_p_value(self, sign: int) -> float:
        """Return 1 less the level at which the lower end of the interval reaches 0; with sign -1 the upper end."""
        drawn = np.sort(sign * self._defined_samples)
        # As the interval's ends do, the place lies between draws; of draws that are 0 it is the last.
        place = float(np.interp(0.0, drawn, np.linspace(0, 1, len(drawn))))
        if drawn[-1] <= 0:
            return 1.0
        bias, skewness = sign * self._bias_correction, sign * self._acceleration
        at = float(stats.norm.ppf(max(place, 0.5 / len(drawn)))) - bias
        # Skewness can hold the end so near that it never gets there.
        away = at / max(1 + skewness * at, 1e-9) - bias
        return float(2 * stats.t.cdf(away / self._widening, self._degrees_of_freedom))

    def _is_defined(self) -> bool:
        known = self._defined_samples
        return self.n_groups >= MIN_GROUPS and 2 * len(known) >= len(self.samples) and bool(np.ptp(known) > 0)

    @property
    def _defined_samples(self) -> np.ndarray:
        return self.samples[~np.isnan(self.samples)]

    @property
    def _influence(self) -> np.ndarray:
        """Return how far the figure moves with each part of the groups left out, where it can be said."""
        moved = np.nanmean(self.jackknife) - self.jackknife
        return moved[~np.isnan(moved)]

    @property
    def _degrees_of_freedom(self) -> float:
        """Return the degrees of freedom of what is known of the deviation: few, where few groups make most of it."""
        squares, most = self._influence**2, self.n_groups - 1
        doubt = (squares**2).sum() - squares.sum() ** 2 / len(squares)
        return float(np.clip(2 * squares.sum() ** 2 / doubt, 2, most)) if doubt > 0 else most

    @property
    def _widening(self) -> float:
        return float(np.sqrt(1 + 1 / self._degrees_of_freedom))

    @property
    def _bias_correction(self) -> float:
        return self._compute_z_score(self.value)

    @property
    def _acceleration(self) -> float:
        moved = self._influence
        squares = (moved**2).sum()
        return float((moved**3).sum() / (6 * squares**1.5)) if squares > 0 else 0.0

    def _compute_z_score(self, value: float) -> float:
        """Return where a value lies among the draws, as a deviate of the normal distribution."""
        drawn = self._defined_samples
        below = ((drawn < value).sum() + (drawn <= value).sum()) / 2 / len(drawn)
        return float(stats.norm.ppf(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn))))


def bootstrap(
    resampled_metrics: Sequence[ResampledMetrics], n_samples: int = N_SAMPLES, seed: int = 0
) -> list[dict[Any, BootstrapResult]]:
    """Return each one's figures with their spread, over the same draws of the groups, which they must share.

    A draw hangs on the seed and its number alone.
    """
    groups = len(resampled_metrics[0].group_names)
    at_once = max(1, _MAX_ELEMENTS // max(one.max_elements for one in resampled_metrics))
    first = [np.ones((1, groups), np.uint16), _compute_jackknife_weights(groups)]

    def figures(weights: np.ndarray) -> list[MetricArrays]:
        return [one.compute_weighted(weights) for one in resampled_metrics]

    def part(start: int) -> list[MetricArrays]:
        return figures(draw_group_weights(groups, range(start, min(start + at_once, n_samples)), seed))

    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        whole, without = pool.map(figures, first)
        parts = list(pool.map(part, range(0, n_samples, at_once)))
    return [
        {
            key: BootstrapResult(
                float(whole[number][key][0]),
                without[number][key],
                np.concatenate([one[number][key] for one in parts]),
                groups,
            )
            for key in whole[number]
        }
        for number in range(len(resampled_metrics))
    ]


def compute_intervals(
    resampled: ResampledMetrics, n_samples: int = N_SAMPLES, level: float = CONFIDENCE_LEVEL, seed: int = 0
) -> dict[str, Any]:
    """Return the interval of each figure and of those of each class as plain data, and how many groups were drawn."""
    found = bootstrap([resampled], n_samples, seed)[0]
    kept = {key: one.compute_interval(level) for key, one in found.items() if key[-1] not in METRICS_WITHOUT_INTERVAL}
    return {
        "level": level,
        "draws": n_samples,
        "groups": len(resampled.group_names),
        **{key[0]: value for key, value in kept.items() if len(key) == 1},
        "per_class": {
            label: {key[1]: value for key, value in kept.items() if len(key) == 2 and key[0] == label}
            for label in resampled.classes
        },
    }


def compute_proportion(groups: Sequence[str], condition: np.ndarray, n_samples: int = N_SAMPLES) -> dict[str, Any]:
    """Return the share of images of which something holds, and its interval over groups, as plain data."""
    names, group = np.unique(np.array(groups, dtype=str), return_inverse=True)
    sums = np.stack([np.bincount(group, condition), np.bincount(group)], axis=1)
    several = [
        np.ones((1, len(names))),
        _compute_jackknife_weights(len(names)),
        draw_group_weights(len(names), range(n_samples), 0),
    ]
    value, without, drawn = (divide(*(weights @ sums).T) for weights in several)
    return {
        "value": float(value[0]),
        "interval": BootstrapResult(float(value[0]), without, drawn, len(names)).compute_interval(),
    }


def draw_group_weights(n_groups: int, sample_numbers: range, seed: int) -> np.ndarray:
    """Return how often each group is drawn (draws, groups)."""
    rows = [
        np.bincount(np.random.default_rng([seed, number]).integers(n_groups, size=n_groups), minlength=n_groups)
        for number in sample_numbers
    ]
    return np.stack(rows).astype(np.uint16)


def _compute_jackknife_weights(n_groups: int) -> np.ndarray:
    """Return weights that leave out one part of the groups at a time (parts, groups)."""
    parts = min(n_groups, _N_JACKKNIFE_BLOCKS)
    part_of = np.random.default_rng(n_groups).permutation(n_groups) % parts
    return (part_of != np.arange(parts)[:, None]).astype(np.uint16)
