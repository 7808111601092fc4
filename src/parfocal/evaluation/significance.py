"""Significance of differences between runs: paired permutation test, McNemar's test, Holm's correction.

The bootstrap assumes that the groups represent many more. If two sides differ on a handful of groups only, they do
not; swapping the predictions of the sides group by group then gives the exact p-value.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import sparse, stats

from parfocal.evaluation.confusion import mean_of_defined
from parfocal.evaluation.metrics import SPLIT_METRICS
from parfocal.evaluation.predictions import Predictions, index_groups
from parfocal.evaluation.ranked_scores import RankedScores, find_averaged_labels

# Size of the largest array of a chunk of permutations, to limit memory.
_MAX_ELEMENTS = 4_000_000
# Equal differences can differ by rounding, but by less than this.
_TOLERANCE = 1e-9
# With more groups the bootstrap alone is right about rank metrics (benchmarks/README.md), and permuting ranks is slow.
_MAX_GROUPS_FOR_RANKS = 500

_CONFUSION_METRICS = tuple(metric for metric in SPLIT_METRICS if metric.source == "confusion")
_SCORE_METRICS = tuple(metric for metric in SPLIT_METRICS if metric.source == "scores")
_RANK_METRICS = tuple(metric for metric in SPLIT_METRICS if metric.source == "ranks" and metric.compared)


def permutation_test(
    first_runs: Sequence[Predictions], second_runs: Sequence[Predictions], n_permutations: int
) -> dict[str, float]:
    """Return the p-value of the difference in each metric between two sides, by swapping their predictions per group.

    All predictions are of the same images in the same order; the metric of a side is the mean over its runs. If there
    are no more ways to swap than permutations, each is taken once, and the p-value is exact. Rank metrics are tested
    with up to 500 groups.
    """
    group_index = index_groups(first_runs[0].groups)[1]
    n_classes = len(first_runs[0].classes)

    def compute_confusion_metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
        matrices = sums.reshape(-1, n_classes, n_classes)
        return {metric.name: metric.compute(matrices) for metric in _CONFUSION_METRICS}

    def compute_score_metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
        return {metric.name: sums[:, row] / len(group_index) for row, metric in enumerate(_SCORE_METRICS)}

    p_values: dict[str, float] = {}
    for sum_by_group, compute_metrics in (
        (_sum_confusion_counts, compute_confusion_metrics),
        (_sum_scores, compute_score_metrics),
    ):
        first_sums, second_sums = (sum_by_group(runs, group_index) for runs in (first_runs, second_runs))
        p_values |= _test_metrics_of_sums(first_sums, second_sums, compute_metrics, n_permutations)
    if group_index.max() < _MAX_GROUPS_FOR_RANKS:
        p_values |= _test_rank_metrics(first_runs, second_runs, group_index, n_permutations)
    return p_values


def mcnemar_test(first_predictions: Predictions, second_predictions: Predictions) -> float:
    """Return the two-sided p-value of McNemar's exact (binomial) test, on images that a single side got right."""
    first_correct = first_predictions.predicted == first_predictions.truth
    second_correct = second_predictions.predicted == second_predictions.truth
    n_differing = int((first_correct != second_correct).sum())
    if n_differing == 0:
        return 1.0
    return float(stats.binomtest(int((first_correct & ~second_correct).sum()), n_differing).pvalue)


def adjust_p_values(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for the number of tests with Holm's step-down method."""
    ranked = sorted((p_value, position) for position, p_value in enumerate(p_values) if p_value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for step, (p_value, position) in enumerate(ranked):
        highest = max(highest, min(1.0, p_value * (len(ranked) - step)))
        adjusted[position] = highest
    return adjusted


def _test_metrics_of_sums(
    first_sums: sparse.csr_array,
    second_sums: sparse.csr_array,
    compute_metrics: Callable[[np.ndarray], dict[str, np.ndarray]],
    n_permutations: int,
) -> dict[str, float]:
    """Test metrics that follow from sums over groups; the arrays hold what each group adds (sums, groups)."""
    difference = first_sums - second_sums
    difference = difference[:, np.flatnonzero(abs(difference).sum(axis=0) > _TOLERANCE)]
    n_groups = difference.shape[1]

    def compute_differences(swaps: np.ndarray) -> dict[str, np.ndarray]:
        swapped = (difference @ swaps.T).T
        first = compute_metrics(first_sums.sum(axis=1) - swapped)
        second = compute_metrics(second_sums.sum(axis=1) + swapped)
        return {name: first[name] - second[name] for name in first}

    return _compute_p_values(compute_differences, n_groups, n_groups, n_permutations)


def _test_rank_metrics(
    first_runs: Sequence[Predictions], second_runs: Sequence[Predictions], group_index: np.ndarray, n_permutations: int
) -> dict[str, float]:
    """Test metrics of rankings. Ranks are swapped instead of probabilities, because each network has another scale."""
    truth = first_runs[0].truth
    runs = [*first_runs, *second_runs]
    ranked_scores = [
        RankedScores(
            np.concatenate([stats.rankdata(run.probabilities[:, label]) for run in runs]),
            np.tile(truth == label, len(runs)),
        )
        for label in find_averaged_labels(len(first_runs[0].classes))
    ]

    def compute_metrics(in_first: np.ndarray) -> dict[str, np.ndarray]:
        # Whole numbers that give both sides the same total weight, however many runs they have.
        first_weights = np.tile(in_first * len(second_runs), len(first_runs))
        second_weights = np.tile((1 - in_first) * len(first_runs), len(second_runs))
        weights = np.concatenate([first_weights, second_weights], axis=1)
        counts = [scores.count(weights) for scores in ranked_scores]
        return {
            metric.name: mean_of_defined(np.stack([metric.compute(class_counts) for class_counts in counts], axis=1))
            for metric in _RANK_METRICS
        }

    def compute_differences(swaps: np.ndarray) -> dict[str, np.ndarray]:
        swapped_images = swaps.astype(np.int32).take(group_index, axis=1)
        first = compute_metrics(1 - swapped_images)
        second = compute_metrics(swapped_images)
        return {name: first[name] - second[name] for name in first}

    n_groups = int(group_index.max()) + 1
    return _compute_p_values(compute_differences, n_groups, len(truth) * len(runs), n_permutations)


def _compute_p_values(
    compute_differences: Callable[[np.ndarray], dict[str, np.ndarray]],
    n_groups: int,
    elements_per_permutation: int,
    n_permutations: int,
) -> dict[str, float]:
    """Return the share of permutations in which the difference is at least as large as observed."""
    observed: dict[str, float] = {}
    n_reached: dict[str, int] = {}
    n_done = 0
    chunk_size = max(1, _MAX_ELEMENTS // max(1, elements_per_permutation))
    for swaps in _draw_swaps(n_groups, chunk_size, n_permutations):
        n_done += len(swaps)
        for name, differences in compute_differences(swaps).items():
            # The first permutation swaps nothing: it is what was observed.
            observed.setdefault(name, abs(float(differences[0])) - _TOLERANCE)
            n_reached[name] = n_reached.get(name, 0) + int((np.abs(differences) >= observed[name]).sum())
    return {name: count / n_done for name, count in n_reached.items()}


def _draw_swaps(n_groups: int, chunk_size: int, n_permutations: int) -> Iterator[np.ndarray]:
    """Yield chunks of permutations, as which groups are swapped (permutations, groups); the first swaps none."""
    if 2**n_groups <= n_permutations:
        for start in range(0, 2**n_groups, chunk_size):
            numbers = np.arange(start, min(start + chunk_size, 2**n_groups))
            yield (numbers[:, None] >> np.arange(n_groups) & 1).astype(float)
        return
    yield np.zeros((1, n_groups))
    rng = np.random.default_rng(n_groups)
    for start in range(0, n_permutations, chunk_size):
        yield rng.integers(0, 2, (min(chunk_size, n_permutations - start), n_groups)).astype(float)


def _sum_confusion_counts(runs: Sequence[Predictions], group_index: np.ndarray) -> sparse.csr_array:
    """Return the confusion matrix of each group, flattened, as the mean over runs (cells, groups)."""
    n_classes = len(runs[0].classes)
    cells = np.concatenate([run.truth * n_classes + run.predicted for run in runs])
    weights = np.full(len(cells), 1 / len(runs))
    shape = (n_classes**2, int(group_index.max()) + 1)
    return sparse.coo_array((weights, (cells, np.tile(group_index, len(runs)))), shape=shape).tocsr()


def _sum_scores(runs: Sequence[Predictions], group_index: np.ndarray) -> sparse.csr_array:
    """Return the sum of each score over the images of each group, as the mean over runs (scores, groups)."""
    scores = [
        np.mean([metric.compute(run.truth, run.probabilities) for run in runs], axis=0) for metric in _SCORE_METRICS
    ]
    return sparse.csr_array(np.stack([np.bincount(group_index, of_metric) for of_metric in scores]))
