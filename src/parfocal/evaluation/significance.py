"""How likely chance alone would make a difference: answers exchanged by lot, McNemar's test, and many pairs at once.

The bootstrap trusts that few groups stand for many. Where two sides differ on a handful of groups they do not, and
exchanging what the sides say of a group tells exactly how often chance alone would go as far.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import sparse, stats

from parfocal.evaluation.calibration import brier_scores, log_losses
from parfocal.evaluation.confusion import mean_of_defined
from parfocal.evaluation.metrics import CONFUSION_METRICS
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.ranked_scores import RankedScores, find_averaged_labels

# So many numbers are drawn at a time, for the memory's sake.
_MAX_ELEMENTS = 4_000_000
# Rounding makes equals differ by less.
_TOLERANCE = 1e-9
# Of more groups the draws alone are right about ranks (benchmarks/README.md), and ranks take their time.
_MAX_GROUPS_FOR_AUC = 500


def permutation_test(
    first_runs: Sequence[Predictions], second_runs: Sequence[Predictions], n_permutations: int
) -> dict[str, float]:
    """Return by figure how often a difference is as large when lots decide, group by group, whose answers are whose.

    Both sides' predictions are of the same images in the same order; of several runs the mean counts. Where there are
    no more ways to exchange than draws, every way is taken once. What hangs on ranks is told of up to 500 groups.
    """
    group = np.unique(np.array(first_runs[0].groups, dtype=str), return_inverse=True)[1]
    several, images = len(first_runs[0].classes), len(group)

    def of_answers(sums: np.ndarray) -> dict[str, np.ndarray]:
        matrices = sums.reshape(-1, several, several)
        return {name: figure(matrices) for name, figure in CONFUSION_METRICS.items()}

    def of_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
        return {"brier": sums[:, 0] / images, "loss": sums[:, 1] / images}

    found = _test_metrics_of_sums(
        _sum_confusion_counts(first_runs, group), _sum_confusion_counts(second_runs, group), of_answers, n_permutations
    )
    found |= _test_metrics_of_sums(
        _sum_scores(first_runs, group), _sum_scores(second_runs, group), of_scores, n_permutations
    )
    return found | (
        _test_auc(first_runs, second_runs, group, n_permutations) if group.max() < _MAX_GROUPS_FOR_AUC else {}
    )


def mcnemar_test(first_predictions: Predictions, second_predictions: Predictions) -> float:
    """Return the two-sided exact (binomial) test of McNemar: of the images that one alone got right, whose are they."""
    first, second = (
        first_predictions.predicted == first_predictions.truth,
        second_predictions.predicted == second_predictions.truth,
    )
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def adjust_p_values(p_values: Sequence[float | None]) -> list[float | None]:
    """Return chances adjusted for how many there are, by Holm's steps from the least to the greatest."""
    known = sorted((chance, number) for number, chance in enumerate(p_values) if chance is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for step, (chance, number) in enumerate(known):
        highest = max(highest, min(1.0, chance * (len(known) - step)))
        adjusted[number] = highest
    return adjusted


def _test_metrics_of_sums(
    first_sums: sparse.csr_array,
    second_sums: sparse.csr_array,
    compute_metrics: Callable[[np.ndarray], dict[str, np.ndarray]],
    n_permutations: int,
) -> dict[str, float]:
    """Tell it of figures that follow from sums, to which each group adds something (sums, groups)."""
    between = first_sums - second_sums
    between = between[:, np.flatnonzero(abs(between).sum(axis=0) > _TOLERANCE)]

    def apart(lots: np.ndarray) -> dict[str, np.ndarray]:
        moved = (between @ lots.T).T
        first, second = (
            compute_metrics(first_sums.sum(axis=1) - moved),
            compute_metrics(second_sums.sum(axis=1) + moved),
        )
        return {name: first[name] - second[name] for name in first}

    return _compute_p_values(apart, between.shape[1], between.shape[1], n_permutations)


def _test_auc(
    first_runs: Sequence[Predictions], second_runs: Sequence[Predictions], group: np.ndarray, n_permutations: int
) -> dict[str, float]:
    """Tell it of the area under the ROC curve.

    Ranks are exchanged instead of probabilities, for each network has a scale of its own.
    """
    truth, runs = first_runs[0].truth, [*first_runs, *second_runs]
    rankings = [
        RankedScores.from_scores(
            np.concatenate([stats.rankdata(run.probabilities[:, label]) for run in runs]),
            np.tile(truth == label, len(runs)),
        )
        for label in find_averaged_labels(len(first_runs[0].classes))
    ]

    def area(kept: np.ndarray) -> np.ndarray:
        # Whole numbers that make both sides weigh alike, however many runs they have.
        sides = [kept * len(second_runs)] * len(first_runs) + [(1 - kept) * len(first_runs)] * len(second_runs)
        weights = np.concatenate(sides, axis=1)
        return mean_of_defined(np.stack([ranking.compute_auc(weights) for ranking in rankings], axis=1))

    def apart(lots: np.ndarray) -> dict[str, np.ndarray]:
        exchanged_images = lots.astype(np.int32).take(group, axis=1)
        return {"auc": area(1 - exchanged_images) - area(exchanged_images)}

    return _compute_p_values(apart, int(group.max()) + 1, len(truth) * len(runs), n_permutations)


def _compute_p_values(
    compute_differences: Callable[[np.ndarray], dict[str, np.ndarray]],
    n_groups: int,
    elements_per_permutation: int,
    n_permutations: int,
) -> dict[str, float]:
    """Return the share of ways to exchange groups that leave the sides as far `apart` as they are.

    So many numbers as `wide` says are held of one way.
    """
    least: dict[str, float] = {}
    reached: dict[str, int] = {}
    ways = 0
    for lots in _draw_swaps(n_groups, max(1, _MAX_ELEMENTS // max(1, elements_per_permutation)), n_permutations):
        ways += len(lots)
        for name, far in compute_differences(lots).items():
            # The first way is what was seen.
            least.setdefault(name, abs(float(far[0])) - _TOLERANCE)
            reached[name] = reached.get(name, 0) + int((np.abs(far) >= least[name]).sum())
    return {name: count / ways for name, count in reached.items()}


def _sum_confusion_counts(run_predictions: Sequence[Predictions], group: np.ndarray) -> sparse.csr_array:
    """Return how many images of each group lie in each cell of the confusion matrix (cells, groups), over the runs."""
    several = len(run_predictions[0].classes)
    cells = np.concatenate([one.truth * several + one.predicted for one in run_predictions])
    share = np.full(len(cells), 1 / len(run_predictions))
    shape = (several**2, int(group.max()) + 1)
    return sparse.coo_array((share, (cells, np.tile(group, len(run_predictions)))), shape=shape).tocsr()


def _sum_scores(run_predictions: Sequence[Predictions], group: np.ndarray) -> sparse.csr_array:
    """Return the sum of each group's Brier scores and of its losses (2, groups), over the runs."""
    each = [[score(one.truth, one.probabilities) for one in run_predictions] for score in (brier_scores, log_losses)]
    return sparse.csr_array(np.stack([np.bincount(group, np.mean(runs, axis=0)) for runs in each]))


def _draw_swaps(n_groups: int, chunk_size: int, n_permutations: int) -> Iterator[np.ndarray]:
    """Give ways to exchange groups (ways, groups), some at once; the first way exchanges none."""
    if 2**n_groups <= n_permutations:
        for start in range(0, 2**n_groups, chunk_size):
            ways = np.arange(start, min(start + chunk_size, 2**n_groups))
            yield (ways[:, None] >> np.arange(n_groups) & 1).astype(float)
        return
    yield np.zeros((1, n_groups))
    dice = np.random.default_rng(n_groups)
    for start in range(0, n_permutations, chunk_size):
        yield dice.integers(0, 2, (min(chunk_size, n_permutations - start), n_groups)).astype(float)
