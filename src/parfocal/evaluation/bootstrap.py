"""Bootstrap confidence intervals and p-values over groups (patients), because images of a patient are not independent.

Groups are sampled with replacement, all images of a group together, and every metric is recomputed for each sample. The
interval lies between percentiles of the samples, corrected for bias and skewness (BCa, Efron 1987) and widened for few
groups (Hesterberg 2015), with the degrees of freedom of Satterthwaite (1946), so that groups that contribute little
hardly count. All metrics share the same samples.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from os import cpu_count
from typing import Any

import numpy as np
from scipy import stats

from parfocal.evaluation.confusion import divide
from parfocal.evaluation.metrics import (
    CLASS_METRICS,
    SPLIT_METRICS,
    Metric,
    MetricArrays,
    MetricKey,
    ResampledMetrics,
    compute_metrics,
)
from parfocal.evaluation.predictions import Predictions, index_groups
from parfocal.groups import GroupKind

N_SAMPLES = 2000
CONFIDENCE_LEVEL = 0.95

MIN_GROUPS = 40
"""With fewer groups there are no intervals: in simulations they contain the true value too rarely."""

# For the skewness of a metric, this many blocks of groups are left out in turn.
_N_JACKKNIFE_BLOCKS = 100
# Size of the largest array of a chunk of samples: fastest if it fits in the processor's cache.
_MAX_ELEMENTS = 500_000


@dataclass(frozen=True)
class BootstrapResult:
    """The value of a metric, its values with each block of groups left out, and its values in the bootstrap samples."""

    value: float
    jackknife: np.ndarray
    samples: np.ndarray
    n_groups: int

    def __sub__(self, other: "BootstrapResult") -> "BootstrapResult":
        return BootstrapResult(
            self.value - other.value, self.jackknife - other.jackknife, self.samples - other.samples, self.n_groups
        )

    def compute_interval(self, level: float = CONFIDENCE_LEVEL) -> list[float] | None:
        """Return the confidence interval; None if undefined.

        `explain_undefined` says why it is.
        """
        if self.explain_undefined():
            return None
        ends = stats.t.ppf([(1 - level) / 2, (1 + level) / 2], self._degrees_of_freedom) * self._widening
        shifted = self._bias_correction + ends
        # Further out, the skewness correction would reverse its sign; the outermost sample is meant there.
        corrected = self._bias_correction + shifted / np.maximum(1 - self._acceleration * shifted, 0.1)
        low, high = np.quantile(self._defined_samples, stats.norm.cdf(corrected))
        return [float(low), float(high)]

    def compute_p_value(self) -> float | None:
        """Return the two-sided p-value of the hypothesis that the value is 0; None if undefined.

        It is 1 minus the confidence level at which the interval just reaches 0.
        """
        if self.explain_undefined():
            return None
        return min(1.0, self._compute_tail_p_value(1), self._compute_tail_p_value(-1))

    def _compute_tail_p_value(self, sign: int) -> float:
        """Return 1 minus the level at which the lower end of the interval reaches 0; with sign -1, the upper end."""
        samples = np.sort(sign * self._defined_samples)
        if samples[-1] <= 0:
            return 1.0
        # Like the ends of the interval, the position lies between samples; among samples equal to 0 it is the last.
        position = float(np.interp(0.0, samples, np.linspace(0, 1, len(samples))))
        bias_correction = sign * self._bias_correction
        acceleration = sign * self._acceleration
        z_score = float(stats.norm.ppf(max(position, 0.5 / len(samples)))) - bias_correction
        # With strong skewness the end of the interval never reaches 0.
        end = z_score / max(1 + acceleration * z_score, 1e-9) - bias_correction
        return float(2 * stats.t.cdf(end / self._widening, self._degrees_of_freedom))

    def explain_undefined(self, groups_are: GroupKind = "groups") -> str:
        """Return why there is no interval and no p-value; an empty string if there are both."""
        samples = self._defined_samples
        if self.n_groups < MIN_GROUPS:
            return f"fewer than {MIN_GROUPS} {groups_are}"
        if 2 * len(samples) < len(self.samples):
            return "undefined in most bootstrap samples"
        return "" if np.ptp(samples) > 0 else "the same in every bootstrap sample"

    @property
    def _defined_samples(self) -> np.ndarray:
        return self.samples[~np.isnan(self.samples)]

    @property
    def _influence(self) -> np.ndarray:
        """How far the value moves when a block of groups is left out, where defined."""
        influence = np.nanmean(self.jackknife) - self.jackknife
        return influence[~np.isnan(influence)]

    @property
    def _degrees_of_freedom(self) -> float:
        """The degrees of freedom of the estimated variance: few if it comes mostly from few groups."""
        squares = self._influence**2
        most = self.n_groups - 1
        variance = (squares**2).sum() - squares.sum() ** 2 / len(squares)
        return float(np.clip(2 * squares.sum() ** 2 / variance, 2, most)) if variance > 0 else most

    @property
    def _widening(self) -> float:
        return float(np.sqrt(1 + 1 / self._degrees_of_freedom))

    @property
    def _bias_correction(self) -> float:
        """The position of the value among the samples, as a z-score."""
        samples = self._defined_samples
        below = ((samples < self.value).sum() + (samples <= self.value).sum()) / 2 / len(samples)
        return float(stats.norm.ppf(np.clip(below, 0.5 / len(samples), 1 - 0.5 / len(samples))))

    @property
    def _acceleration(self) -> float:
        influence = self._influence
        squares = (influence**2).sum()
        return float((influence**3).sum() / (6 * squares**1.5)) if squares > 0 else 0.0


def bootstrap(
    resampled_metrics: Sequence[ResampledMetrics], n_samples: int = N_SAMPLES, seed: int = 0
) -> list[dict[MetricKey, BootstrapResult]]:
    """Bootstrap all metrics of each item over the same samples of the groups, which the items must share.

    A sample depends only on the seed and its number.
    """
    n_groups = len(resampled_metrics[0].group_names)
    chunk_size = max(1, _MAX_ELEMENTS // max(metrics.max_elements for metrics in resampled_metrics))

    def compute(weights: np.ndarray) -> list[MetricArrays]:
        return [metrics.compute_weighted(weights) for metrics in resampled_metrics]

    def compute_chunk(sample_numbers: range) -> list[MetricArrays]:
        return compute(draw_group_weights(n_groups, sample_numbers, seed))

    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        values, jackknife = pool.map(compute, [np.ones((1, n_groups), np.uint16), _compute_jackknife_weights(n_groups)])
        chunks = list(pool.map(compute_chunk, split_range(n_samples, chunk_size)))
    return [
        {
            key: BootstrapResult(
                float(values[number][key][0]),
                jackknife[number][key],
                np.concatenate([chunk[number][key] for chunk in chunks]),
                n_groups,
            )
            for key in values[number]
        }
        for number in range(len(resampled_metrics))
    ]


def compute_metrics_with_intervals(predictions: Predictions) -> dict[str, Any]:
    """Return every metric of labeled predictions, and the confidence interval of each under `intervals`."""
    resampled = ResampledMetrics(predictions)
    return {**compute_metrics(predictions, resampled), "intervals": compute_intervals(resampled)}


def compute_intervals(
    resampled: ResampledMetrics, n_samples: int = N_SAMPLES, level: float = CONFIDENCE_LEVEL, seed: int = 0
) -> dict[str, Any]:
    """Return the confidence interval of every metric as plain data, with the number of samples and groups."""
    results = bootstrap([resampled], n_samples, seed)[0]

    def compute(metrics: Sequence[Metric], label: str | None = None) -> dict[str, list[float] | None]:
        names = [metric.name for metric in metrics if metric.has_interval]
        return {name: results[(name,) if label is None else (label, name)].compute_interval(level) for name in names}

    return {
        "level": level,
        "n_samples": n_samples,
        "groups": len(resampled.group_names),
        **compute(SPLIT_METRICS),
        "per_class": {label: compute(CLASS_METRICS, label) for label in resampled.classes},
    }


def compute_proportion(groups: Sequence[str], condition: np.ndarray) -> dict[str, Any]:
    """Return the share of images that meet a condition, and its confidence interval over groups, as plain data."""
    names, group_index = index_groups(groups)
    n_groups = len(names)
    sums = np.stack([np.bincount(group_index, condition), np.bincount(group_index)], axis=1)

    def compute(weights: np.ndarray) -> np.ndarray:
        return divide(*(weights @ sums).T)

    value = float(compute(np.ones((1, n_groups)))[0])
    jackknife = compute(_compute_jackknife_weights(n_groups))
    samples = compute(draw_group_weights(n_groups, range(N_SAMPLES), seed=0))
    return {"value": value, "interval": BootstrapResult(value, jackknife, samples, n_groups).compute_interval()}


def split_range(stop: int, chunk_size: int) -> list[range]:
    """Split the numbers from 0 to `stop` - 1 into consecutive chunks."""
    return [range(stop)[start : start + chunk_size] for start in range(0, stop, chunk_size)]


# Splits, patients and curves with the same groups use the same samples, and drawing them takes most of the time.
@lru_cache(maxsize=4)
def draw_group_weights(n_groups: int, sample_numbers: range, seed: int) -> np.ndarray:
    """Draw bootstrap samples and return how often each group is in them (samples, groups), as a read-only array."""
    rows = [
        np.bincount(np.random.default_rng([seed, number]).integers(n_groups, size=n_groups), minlength=n_groups)
        for number in sample_numbers
    ]
    weights = np.stack(rows).astype(np.uint16)
    weights.flags.writeable = False
    return weights


def _compute_jackknife_weights(n_groups: int) -> np.ndarray:
    """Return weights that each leave out a block of groups (blocks, groups)."""
    n_blocks = min(n_groups, _N_JACKKNIFE_BLOCKS)
    block_of_group = np.random.default_rng(n_groups).permutation(n_groups) % n_blocks
    return (block_of_group != np.arange(n_blocks)[:, None]).astype(np.uint16)
